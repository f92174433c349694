package state

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
)

var now = time.UnixMilli(1_700_000_000_000)

func TestSettingsAreChecked(t *testing.T) {
	good := Settings{Title: "Lobby", Mode: ModeArchived, Visibility: Private, SlowModeS: MaxSlowModeS}
	if err := good.Validate(); err != nil {
		t.Errorf("%+v: %v", good, err)
	}
	for field, change := range map[string]func(*Settings){
		"mode":        func(s *Settings) { s.Mode = "closed" },
		"visibility":  func(s *Settings) { s.Visibility = "" },
		"slow_mode_s": func(s *Settings) { s.SlowModeS = -1 },
		"title":       func(s *Settings) { s.Title = strings.Repeat("x", MaxTitleBytes+1) },
	} {
		s := good
		change(&s)
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("bad %s: got %v, want an error that names it", field, err)
		}
	}
	for _, m := range Modes {
		if err := (Settings{Mode: m, Visibility: Public}).Validate(); err != nil {
			t.Errorf("mode %s: %v", m, err)
		}
	}
}

func TestBansAndMutesEnd(t *testing.T) {
	until := now.Add(time.Minute).UnixMilli()
	r, err := Empty().Apply([]journal.Change{SetBan("ann", &Ban{Until: until, Reason: "spam"}), SetMute("bob", &Ban{})})
	if err != nil {
		t.Fatal(err)
	}
	if b, ok := r.Ban("ann", now); !ok || b.Reason != "spam" {
		t.Errorf("got %+v %v, want ann banned for spam", b, ok)
	}
	if _, ok := r.Ban("ann", now.Add(time.Minute)); ok {
		t.Error("ann is banned at the end of the ban")
	}
	if _, ok := r.Mute("bob", now.Add(1e6*time.Hour)); !ok {
		t.Error("a mute for good ended")
	}
	if _, ok := r.Mute("ann", now); ok {
		t.Error("ann is muted, though only banned")
	}
	if next, err := r.Apply([]journal.Change{SetBan("ann", nil)}); err != nil || len(next.Bans()) != 0 || len(r.Bans()) != 1 {
		t.Errorf("lifting: got %v, %d bans after and %d before, want 0 and 1", err, len(next.Bans()), len(r.Bans()))
	}
}

// TestFoldingEqualsLoading is the package's promise: the changes of the log,
// one by one, give what the journal's keys give at once.
func TestFoldingEqualsLoading(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 3))
		kv := make(map[string][]byte)
		folded := Empty()
		for range rng.IntN(60) {
			var cs []journal.Change
			for range 1 + rng.IntN(3) {
				cs = append(cs, randomChange(rng))
			}
			next, err := folded.Apply(cs)
			if err != nil {
				t.Fatal(err)
			}
			folded = next
			for _, c := range cs {
				if c.Value == nil {
					delete(kv, c.Key)
				} else {
					kv[c.Key] = c.Value
				}
			}
		}
		loaded, err := Load(kv)
		if err != nil {
			t.Fatal(err)
		}
		if f, l := view(folded), view(loaded); !reflect.DeepEqual(f, l) {
			t.Fatalf("seed %d: folding gives %v, loading %v", seed, f, l)
		}
	}
}

func randomChange(rng *rand.Rand) journal.Change {
	u := chat.UserID(fmt.Sprint("u", rng.IntN(4)))
	var ban *Ban
	if rng.IntN(3) > 0 {
		ban = &Ban{Until: rng.Int64N(100), By: "mod"}
	}
	switch rng.IntN(5) {
	case 0:
		return SetSettings(Settings{Mode: Modes[rng.IntN(len(Modes))], Visibility: Public, SlowModeS: rng.IntN(9)})
	case 1:
		return SetRole(u, []Role{"", RoleMember, RoleModerator, RoleOwner}[rng.IntN(4)])
	case 2:
		return SetMute(u, ban)
	case 3:
		return journal.Change{Key: "topic/of a later version", Value: []byte("1")}
	}
	return SetBan(u, ban)
}

// view is a room without the difference between no map and an empty one.
func view(r *Room) string {
	b, _ := json.Marshal(map[string]any{"settings": r.Settings, "roles": r.Roles(), "bans": r.Bans(), "mutes": r.Mutes()})
	return strings.ReplaceAll(string(b), "{}", "null")
}

func TestUnreadableStateIsAnError(t *testing.T) {
	for _, key := range []string{"settings", "role/ann", "ban/ann", "mute/ann"} {
		if _, err := Load(map[string][]byte{key: []byte("{")}); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: got %v, want an error that names the key", key, err)
		}
		before, _ := Empty().Apply([]journal.Change{SetRole("bob", RoleOwner)})
		after, err := before.Apply([]journal.Change{SetRole("cat", RoleMember), {Key: key, Value: []byte("{")}})
		if err == nil || after != before || after.Role("cat") != "" {
			t.Errorf("%s: got %v and role %q for cat, want an error and nothing changed", key, err, after.Role("cat"))
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("settings", []byte(`{"mode":"open","visibility":"public","slow_mode_s":3}`))
	f.Add("ban/ann", []byte(`{"until":5}`))
	f.Add("role/", []byte(`"owner"`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		r, err := Load(map[string][]byte{key: value})
		if (r == nil) == (err == nil) {
			t.Fatalf("got %v and %v", r, err)
		}
	})
}
