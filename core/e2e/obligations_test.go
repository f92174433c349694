package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/journal"
)

// obliging gives each room named after an obligation that obligation.
const obliging = `package parley

default decision := {"allow": true}

decision := {"allow": true, "obligations": obligations[input.resource.id]}

obligations := {
	"rate": {"rate_limit": {"count": 2, "per_s": 3600}},
	"slow": {"slow_mode_s": 3600},
	"bare": {"plugins": []},
	"judged": {"plugins": ["wordlist"]},
	"past": {"history": 2},
	"new": {"history": 0},
	"short": {"text_bytes": 5},
	"both": {"text_bytes": 5, "slow_mode_s": 3600},
}
`

// TestEachObligationIsObeyed by a real session under a real policy, where the
// policy speaks of it and nowhere else.
func TestEachObligationIsObeyed(t *testing.T) {
	t.Parallel()
	rules, mods := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(rules, "parley.rego"), []byte(obliging), 0o644); err != nil {
		t.Fatal(err)
	}
	installWordlist(t, mods)
	n := startNode(t, unlimited(settings{"policy.dir": rules, "plugins.dir": mods}))
	await(t, "the plugin is active", func() bool { return pluginOf(n, "wordlist").State == "active" })
	ann, bob := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"}), visit(t, client.Options{URL: n.TCPURL(), Guest: "bob"})

	for _, tc := range []struct {
		room  chat.RoomID
		texts []string
		want  []string // outcome or code of each
	}{
		{"free", []string{"one two three", "darn", "three", "four"}, []string{"accepted", "redacted", "accepted", "accepted"}},
		{"rate", []string{"one", "two", "three", "four"}, []string{"accepted", "accepted", "rate_limited", "rate_limited"}},
		{"slow", []string{"one", "two"}, []string{"accepted", "slow_mode"}},
		{"bare", []string{"darn"}, []string{"accepted"}},
		{"judged", []string{"darn"}, []string{"redacted"}},
		{"short", []string{"12345", "123456", "ääää"}, []string{"accepted", "text_too_long", "text_too_long"}},
		{"both", []string{"123456", "12345", "1"}, []string{"text_too_long", "accepted", "slow_mode"}},
	} {
		for i, text := range tc.texts {
			ack, err := ann.Send(within(t), tc.room, client.NewNonce(), text)
			got := ""
			if err == nil {
				got = string(ack.Outcome)
			} else {
				said := refusal(t, err)
				got = string(said.Code)
				if waits := said.Code != chat.CodeTextTooLong; waits != (said.Retry > time.Minute) {
					t.Errorf("%s, message %d: got %+v, want to be told for how long to wait, if at all", tc.room, i, said)
				}
			}
			if got != tc.want[i] {
				t.Errorf("%s, message %d: got %s, want %s", tc.room, i, got, tc.want[i])
			}
		}
		if _, err := bob.Send(within(t), tc.room, client.NewNonce(), "hi"); err != nil {
			t.Errorf("%s: bob, who has not spoken, is refused: %v", tc.room, err)
		}
	}

	for room, want := range map[chat.RoomID]int{"free": 6, "past": 2, "new": 0} {
		var first journal.Position
		for i := range 5 {
			if room != "free" {
				ack, _ := ann.says(room, fmt.Sprint("message ", i))
				if i == 0 {
					first = journal.Position{Epoch: ack.Epoch, Seq: ack.Seq, ID: ack.MessageID}
				}
			}
		}
		for name, ask := range map[string][2]uint64{"the newest": {0, 0}, "after the first": {0, 1}, "before the end": {100, 0}} {
			h, err := bob.History(within(t), room, ask[0], ask[1], 0)
			wants := want
			if room == "free" && name == "after the first" {
				wants--
			}
			if err != nil || len(h.Entries) != wants || h.More {
				t.Errorf("%s, %s: got %+v, %v, want %d entries and no more", room, name, h, err, wants)
			}
		}
		if room == "free" {
			continue
		}
		j, err := bob.Join(within(t), room, &first)
		if err != nil || j.Recovered {
			t.Errorf("%s: joining after the first message: got %+v, %v, want no replay", room, j, err)
		}
		j, err = bob.Join(within(t), room, &journal.Position{Epoch: j.Epoch, Seq: j.Seq, ID: j.LastID})
		if err != nil || !j.Recovered {
			t.Errorf("%s: joining at the top: got %+v, %v, want it recovered", room, j, err)
		}
	}
	n.Stop()
}

// installWordlist puts the plugin that masks "darn" into a folder.
func installWordlist(t *testing.T, dir string) {
	t.Helper()
	module, err := os.ReadFile(built.wordlist)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal(map[string]any{"name": "wordlist", "config": map[string]any{"words": []string{"darn"}}})
	if err != nil {
		t.Fatal(err)
	}
	install(t, filepath.Join(dir, "wordlist.json"), manifest)
	install(t, filepath.Join(dir, "wordlist.wasm"), module)
}
