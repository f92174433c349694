package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

// stored is a room's state as a store holds it.
func stored(cs ...journal.Change) map[string][]byte {
	kv := make(map[string][]byte)
	for _, c := range cs {
		if c.Value != nil {
			kv[c.Key] = c.Value
		}
	}
	return kv
}

func TestRestore(t *testing.T) {
	secret := Settings{Title: "Staff", Mode: ModeOpen, Visibility: Private}
	ours := stored(SetSettings(secret), SetFirst("0197-1"), SetRole("ann", RoleOwner), SetBan("eve", &Ban{Reason: "spam"}), SetMute("bob", &Ban{Until: 9}))
	was, err := Load(ours)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"settings", "ban/eve", "mute/bob", "role/ann", "first"}
	tests := []struct {
		name   string
		stored map[string][]byte
		want   []string
	}{
		{"nothing is lost", ours, nil},
		{"nothing is left", nil, all},
		{"roles are left", stored(SetRole("ann", RoleOwner)), []string{"settings", "ban/eve", "mute/bob", "first"}},
		{"another was made", stored(SetSettings(DefaultSettings()), SetFirst("0197-2"), SetRole("eve", RoleOwner)), []string{"settings", "ban/eve", "mute/bob", "role/ann", "role/eve", "first"}},
		{"another with the same settings", stored(SetSettings(secret), SetFirst("0197-2"), SetRole("ann", RoleMember)), []string{"ban/eve", "mute/bob", "role/ann", "first"}},
		{"an older one was restored", stored(SetSettings(DefaultSettings()), SetFirst("0197-0")), nil},
		{"somebody was freed", stored(SetSettings(secret), SetFirst("0197-1")), nil},
		{"one that does not say when it began", stored(SetSettings(DefaultSettings())), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changes, expect, err := was.Restore(tt.stored, "0199-i")
			if err != nil {
				t.Fatal(err)
			}
			var keys []string
			after := make(map[string][]byte)
			for k, v := range tt.stored {
				after[k] = v
			}
			for i, c := range changes {
				keys = append(keys, c.Key)
				if e := expect[i]; e.Key != c.Key || string(e.Value) != string(tt.stored[c.Key]) || (e.Value == nil) != (tt.stored[c.Key] == nil) {
					t.Errorf("%s rests on %s %q, want %q", c.Key, e.Key, e.Value, tt.stored[c.Key])
				}
				if after[c.Key] = c.Value; c.Value == nil {
					delete(after, c.Key)
				}
			}
			if !slices.Equal(keys, tt.want) {
				t.Errorf("got the keys %q, want %q", keys, tt.want)
			}
			if tt.want != nil && fmt.Sprint(after) != fmt.Sprint(ours) {
				t.Errorf("afterwards the store holds %q, want %q", after, ours)
			}
		})
	}
	if _, _, err := was.Restore(map[string][]byte{"first": []byte("7")}, ""); err == nil || !strings.Contains(err.Error(), "first") {
		t.Errorf("got %v, want an error that names the key", err)
	}
	early, err := Load(stored(SetSettings(DefaultSettings()))) // as an earlier version left it
	if err != nil {
		t.Fatal(err)
	}
	if changes, _, err := early.Restore(stored(SetSettings(DefaultSettings()), SetFirst("0197-2")), ""); err != nil || len(changes) != 1 || changes[0].Key != "first" || changes[0].Value != nil {
		t.Errorf("got %v, %v, want the first entry of the other taken away", changes, err)
	}
}

// What takes several entries is lost to the next node as long as the last one is
// missing.
func TestRestoreByParts(t *testing.T) {
	cs := []journal.Change{SetSettings(DefaultSettings()), SetFirst("0197-1")}
	for i := range 2 * journal.MaxChanges {
		cs = append(cs, SetBan(chat.UserID(fmt.Sprint("bad", i)), &Ban{}))
	}
	ours := stored(cs...)
	was, err := Load(ours)
	if err != nil {
		t.Fatal(err)
	}
	kv := map[string][]byte{}
	for try := range 3 { // two die after their first entry
		changes, expect, err := was.Restore(kv, chat.MessageID(fmt.Sprint("0198-", try)))
		if err != nil || len(changes) == 0 || len(expect) != len(changes) {
			t.Fatalf("got %d changes upon %d, %v", len(changes), len(expect), err)
		}
		for i, c := range changes {
			if try < 2 && i == journal.MaxChanges*(2-try)/2 {
				break
			}
			if e := expect[i]; e.Key != c.Key || string(e.Value) != string(kv[c.Key]) {
				t.Fatalf("%s rests on %s %q, want %q", c.Key, e.Key, e.Value, kv[c.Key])
			}
			if kv[c.Key] = c.Value; c.Value == nil {
				delete(kv, c.Key)
			}
		}
	}
	if fmt.Sprint(kv) != fmt.Sprint(ours) {
		t.Errorf("got %d keys, want %d", len(kv), len(ours))
	}
	if changes, _, err := was.Restore(kv, "0199"); err != nil || changes != nil {
		t.Errorf("once more: got %v, %v", changes, err)
	}
}

func TestFirst(t *testing.T) {
	r, err := Empty().Apply([]journal.Change{SetFirst("0197-1")})
	if err != nil || r.First != "0197-1" {
		t.Fatalf("got %q, %v", r.First, err)
	}
	if r, err = r.Apply([]journal.Change{SetRole("ann", RoleOwner)}); err != nil || r.First != chat.MessageID("0197-1") {
		t.Errorf("after another change: got %q, %v", r.First, err)
	}
	if r, err = r.Apply([]journal.Change{{Key: "first"}}); err != nil || r.First != "" {
		t.Errorf("after it was taken away: got %q, %v", r.First, err)
	}
}
