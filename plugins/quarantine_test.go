package plugins_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/plugins"
	"parley/sdk/abi"
)

// quarantined is a world with a plugin that traps at "x", and how to say
// something there.
func quarantined(t *testing.T, manifest string) (w *world, say func(user chat.UserID, text string) moderation.Result) {
	w = newWorld(t)
	w.drop(trapOn("x"), manifest)
	return w, func(user chat.UserID, text string) moderation.Result {
		t.Helper()
		r, err := w.stage.Judge(t.Context(), &moderation.Message{Room: "lobby", User: user, Kind: "message", Text: text}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

// people are enough to bring a plugin into quarantine.
var people = []chat.UserID{"p1", "p2", "p3", "p4", "p5"}

// After faults at several people's messages the plugin is not asked, its
// on_error decides, and it comes back by probes: the neutral message, then
// what somebody else writes. Time is that of a bubble.
func TestQuarantine(t *testing.T) {
	for _, c := range []struct {
		onError string
		want    abi.Verdict
	}{{"closed", abi.Deny}, {"open", abi.Allow}, {"hold", abi.Hold}} {
		t.Run(c.onError, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, say := quarantined(t, `{"on_error":"`+c.onError+`"}`)
				for _, user := range people {
					say(user, "x")
				}
				s := w.status()
				if q := s.Quarantine; s.State != plugins.StateQuarantined || q == nil || !strings.Contains(q.Why, "unreachable") || q.NextProbe.Sub(q.Since) != time.Second {
					t.Fatalf("got %+v with %+v, want it in quarantine", s, q)
				}
				decisions := func() uint64 { return w.status().Decisions }
				before := decisions()
				for range 10 {
					r := say("ann", "hello")
					if r.Verdict != c.want || r.Failed != (c.want != abi.Allow) || !errors.Is(r.Records[0].Err, moderation.ErrQuarantined) {
						t.Fatalf("got %s failed=%v %v, want %s", r.Verdict, r.Failed, r.Records[0].Err, c.want)
					}
					if c.want == abi.Deny && !strings.Contains(r.Refusal().Reasons[0].Text, "quarantine") {
						t.Errorf("got %+v, want the quarantine named", r.Refusal())
					}
				}
				if decisions() != before {
					t.Error("it was asked in quarantine")
				}
				// A bad probe doubles the interval, good ones end it; the messages that
				// probe are treated like the others. What those who brought it on write
				// decides nothing.
				for i, probe := range []struct {
					after time.Duration
					user  chat.UserID
					text  string
					asked uint64 // the neutral message and this one
				}{
					{time.Second, "p1", "x", 1},
					{0, "p2", "hello", 0},
					{0, "ann", "x", 1},
					{2 * time.Second, "ann", "hello", 1},
					{0, "bob", "hello", 1},
					{time.Second, "p3", "x", 0},
					{0, "bob", "hello", 1},
					{time.Second, "bob", "hello", 1},
				} {
					if probe.after > 0 {
						<-time.After(probe.after - time.Nanosecond)
						say(probe.user, probe.text)
						if decisions() != before {
							t.Fatalf("probe %d came too early", i)
						}
						<-time.After(time.Nanosecond)
					}
					if r := say(probe.user, probe.text); r.Verdict != c.want {
						t.Fatalf("probe %d: got %s, want %s", i, r.Verdict, c.want)
					}
					if before += probe.asked; decisions() != before {
						t.Fatalf("got %d decisions after probe %d, want %d", decisions(), i, before)
					}
				}
				if s := w.status(); s.State != plugins.StateActive || s.Quarantine != nil {
					t.Errorf("got %+v after three good probes", s)
				}
				if r := say("ann", "hello"); r.Verdict != abi.Allow || r.Records[0].Err != nil {
					t.Errorf("got %s, %v from the plugin that is back", r.Verdict, r.Records[0].Err)
				}
				if k := counters(w); k.Quarantines != 1 || k.Unasked != 22 || k.Usage[0].Verdicts["error"] != 5 || !w.log.has("plugin quarantined") || !w.log.has("back from quarantine") {
					t.Errorf("got %+v", k)
				}
				for _, user := range people {
					say(user, "x")
				}
				if s := w.status(); s.State != plugins.StateQuarantined {
					t.Errorf("got %+v, want a second quarantine", s)
				}
				w.mustOrder(plugins.Order{Action: "retry"})
				if s := w.status(); s.State != plugins.StateActive {
					t.Errorf("got %+v once an operator said so", s)
				}
			})
		})
	}
}

// One person's texts, however many, do not take a plugin from the others:
// on_error answers for those texts and the plugin for everything else.
func TestOnePersonBringsAboutNoQuarantine(t *testing.T) {
	w, say := quarantined(t, `{"on_error":"closed"}`)
	for range 100 {
		if r := say("mallory", "x"); r.Verdict != abi.Deny || !r.Failed || errors.Is(r.Records[0].Err, moderation.ErrQuarantined) {
			t.Fatalf("got %s, %v, want the message refused for its own failure", r.Verdict, r.Records[0].Err)
		}
		if r := say("ann", "hello"); r.Verdict != abi.Allow || r.Failed {
			t.Fatalf("got %s for somebody else", r.Verdict)
		}
	}
	if s := w.status(); s.State != plugins.StateActive || s.Faults != 100 {
		t.Errorf("got %s after %d faults, want it active after 100", s.State, s.Faults)
	}
}

// Nor can those who brought one about hold a plugin there while others write,
// and where nobody else does it still comes back.
func TestWhoBroughtItAboutDoesNotHoldIt(t *testing.T) {
	for name, others := range map[string]bool{"others write": true, "nobody else writes": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, say := quarantined(t, `{}`)
				for _, user := range people {
					say(user, "x")
				}
				for i := range 2_000 { // ten minutes
					<-time.After(300 * time.Millisecond)
					text := "x"
					if !others && i%3 == 0 {
						text = "hello"
					}
					say(people[i%len(people)], text)
					if others && i%2 == 0 {
						say("ann", "hello")
					}
					if w.status().State == plugins.StateActive {
						if others && i > 20 {
							t.Errorf("it took %d messages, want it back within seconds", i)
						}
						return
					}
				}
				t.Errorf("got %+v after ten minutes, want it back", w.status().Quarantine)
			})
		})
	}
}

// What is judged again, to be explained, reaches a plugin in quarantine and
// changes nothing about it.
func TestRehearsalsHaveNoConsequences(t *testing.T) {
	cfg := moderation.Defaults()
	cfg.Keep = func(abi.Verdict) bool { return true }
	w, say := quarantined(t, `{"on_error":"closed"}`)
	var err error
	if w.stage, err = moderation.New(cfg, w.Catalog); err != nil {
		t.Fatal(err)
	}
	m := moderation.Message{Room: "lobby", User: "ann", Kind: "message", Text: "x"}
	bad := say(m.User, m.Text)
	d := moderation.NewDecision("id", &m, &bad, "policy")
	replay := func() moderation.Replay {
		t.Helper()
		r, err := w.stage.Replay(t.Context(), d, bad.Input)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	before := w.status()
	for range 100 {
		if r := replay(); !r.Equal || r.Verdict != "deny" {
			t.Fatalf("got %+v, want the same failure again", r)
		}
	}
	if now := w.status(); now.Decisions != before.Decisions || now.Faults != before.Faults || now.Fuel != before.Fuel || now.State != plugins.StateActive {
		t.Errorf("got %+v after replays, want %+v", now, before)
	}
	for _, user := range people {
		say(user, "x")
	}
	before = w.status()
	if before.State != plugins.StateQuarantined {
		t.Fatalf("got %s, want it in quarantine", before.State)
	}
	if r := replay(); !r.Equal || !strings.Contains(r.Plugins[0].Error, "trapped") {
		t.Errorf("got %+v, want the failure itself and not the quarantine", r)
	}
	if now := w.status(); now.Decisions != before.Decisions || now.Quarantine.Probes != before.Quarantine.Probes {
		t.Errorf("got %+v after a replay in quarantine, want %+v", now, before)
	}
}

// A decision that breaks the host's own code is a failure of that decision,
// and gives its place in the pool back.
func TestPanicGivesThePlaceBack(t *testing.T) {
	p := mustLoad(t, newHost(t, func(c *plugins.Config) { c.PoolSize = 1 }), allower(), "{}")
	p.Break()
	if _, _, _, err := ask(p, "hello"); !errors.Is(err, plugins.ErrTrap) || !strings.Contains(err.Error(), "the host failed") {
		t.Errorf("got %v, want the panic as an error", err)
	}
	if v, _, _, err := ask(p, "hello"); v != abi.Allow || err != nil { // it would wait for ever
		t.Errorf("got %s, %v afterwards", v, err)
	}
}
