package session

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/journal"
	"parley/core/wire"
	"parley/policy"
	"parley/policy/rego"
	"parley/sdk/abi"
)

// ask sends a why and returns the answer.
func (c *caller) ask(room, rest string) event {
	c.w.t.Helper()
	e := c.do(`{"type":"why","room":%q%s}`, room, rest)
	if e.Type != "why" || e.Room != room || e.Blocks == nil {
		c.w.t.Fatalf("why in %s: got %+v", room, e)
	}
	return e
}

// codes is what blocks, as "policy:muted slow_mode:slow_mode".
func codes(e event) string {
	var s []string
	for _, b := range e.Blocks {
		s = append(s, b.By+":"+b.Code)
	}
	return strings.Join(s, " ")
}

// agrees holds the answer to why against a real send: where the one says that
// nothing is in the way the other is taken, and is refused with the first block's
// code or by its reason where not.
func (c *caller) agrees(room, text string) event {
	c.w.t.Helper()
	e := c.ask(room, fmt.Sprintf(`,"text":%q`, text))
	sent := c.do(`{"type":"send","room":%q,"text":%q}`, room, text)
	if e.May != (sent.Type == "ack") {
		c.w.t.Fatalf("why says may=%v, the send was answered %+v", e.May, sent)
	}
	if e.May {
		if e.Outcome != sent.Outcome {
			c.w.t.Errorf("why says %q, the message was %q", e.Outcome, sent.Outcome)
		}
		return e
	}
	named := fmt.Sprint(sent.Code)
	for _, r := range sent.Reasons {
		named += " " + r.Code
	}
	if e.Outcome != "" || !strings.Contains(named, e.Blocks[0].Code) {
		c.w.t.Errorf("why says %s, outcome %q; the send was refused with %s", codes(e), e.Outcome, named)
	}
	return e
}

// TestWhyByTheDefaultPolicy: each answer is that of a send, in its order, says
// what would change it, and tells people nothing of files and versions.
func TestWhyByTheDefaultPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.law()
		mia, ann, gus := w.user("mia", "moderator"), w.user("ann"), w.guest("gus")
		defer mia.end()
		defer ann.end()
		defer gus.end()
		mia.join("lobby")
		check := func(c *caller, room, want, change string) event {
			t.Helper()
			e := c.agrees(room, "hello")
			if got := codes(e); got != want || e.May != (want == "") || e.Revision != "" {
				t.Fatalf("got may=%v %q by %q, want %q", e.May, got, e.Revision, want)
			}
			for _, b := range e.Blocks {
				if b.Text == "" || b.Change == "" || b.Rule != nil || b.Plugin != nil {
					t.Errorf("got %+v, want a sentence, a change and no rule", b)
				}
			}
			if len(e.Blocks) > 0 && !strings.Contains(e.Blocks[0].Change, change) {
				t.Errorf("what would change %s: got %q, want %q", want, e.Blocks[0].Change, change)
			}
			return e
		}
		check(ann, "lobby", "", "")
		mia.do(`{"type":"mute","room":"lobby","user":"ann","seconds":600}`)
		e := check(ann, "lobby", "policy:muted", "It ends with the mute, which a moderator may lift before.")
		if got, want := e.Blocks[0].UntilTS, time.Now().Add(10*time.Minute).UnixMilli(); got != want {
			t.Errorf("the mute ends at %d, want %d", got, want)
		}
		mia.do(`{"type":"ban","room":"lobby","user":"ann"}`)
		e = check(ann, "lobby", "policy:banned policy:muted", "A moderator would have to lift the ban.")
		if e.Blocks[0].UntilTS != 0 {
			t.Errorf("a ban for good ends at %d", e.Blocks[0].UntilTS)
		}
		mia.do(`{"type":"unban","room":"lobby","user":"ann"}`)
		mia.do(`{"type":"unmute","room":"lobby","user":"ann"}`)

		mia.do(`{"type":"slow_mode","room":"lobby","seconds":60}`)
		check(gus, "lobby", "", "")
		time.Sleep(20 * time.Second)
		e = check(gus, "lobby", "slow_mode:slow_mode", "Wait until then")
		if got, want := e.Blocks[0].UntilTS, time.Now().Add(40*time.Second).UnixMilli(); got != want {
			t.Errorf("slow mode ends at %d, want %d", got, want)
		}
		time.Sleep(40 * time.Second)
		check(gus, "lobby", "", "")
		mia.do(`{"type":"slow_mode","room":"lobby"}`)

		mia.do(`{"type":"configure","room":"lobby","mode":"announce"}`)
		check(gus, "lobby", "policy:moderators_write", "its mode is announce. Moderators of this room may.")
		if e := mia.agrees("lobby", "hello"); !e.May {
			t.Errorf("a moderator: got %+v", e)
		}
		mia.do(`{"type":"configure","room":"lobby","mode":"archived"}`)
		check(gus, "lobby", "policy:archived", "its mode is archived.")
		check(ann, "new", "", "") // it would be made, and be ann's
		files := rego.Files()
		files["parley/data.yaml"] = []byte("guests: {open_rooms: false}")
		w.write(files, "house")
		if e := gus.ask("newer", ""); codes(e) != "room:no_room" || e.Blocks[0].Change == "" {
			t.Errorf("a room that may not be made: got %+v", e)
		}
	})
}

// TestWhyNamesTheRuleToModerators, of another person too, and only to them.
func TestWhyNamesTheRuleToModerators(t *testing.T) {
	w := newWorld(t, nil)
	w.law()
	mia, ann := w.user("mia", "moderator"), w.user("ann")
	defer mia.end()
	defer ann.end()
	mia.join("lobby")
	mia.do(`{"type":"mute","room":"lobby","user":"ann"}`)
	e := mia.ask("lobby", `,"user":"ann"`)
	if codes(e) != "policy:muted" || e.User != "ann" || e.Revision != rego.Revision || e.Note != "" {
		t.Fatalf("got %+v", e)
	}
	if r := e.Blocks[0].Rule; r == nil || r.File != "parley.rego" || r.Line == 0 || r.Name != "parley.refusal" {
		t.Errorf("got the rule %+v", r)
	}
	if e := mia.ask("lobby", `,"user":"zoe"`); !e.May || !strings.Contains(e.Note, "zoe is not connected to this node; taken for a guest") {
		t.Errorf("somebody nobody knows: got %+v", e)
	}
	if e := mia.ask("lobby", `,"user":"mia"`); !e.May || e.Revision != rego.Revision {
		t.Errorf("herself: got %+v", e)
	}
	checkError(t, ann.do(`{"type":"why","room":"lobby","user":"mia"}`), chat.CodeDenied)
	checkError(t, mia.do(`{"type":"why","room":"nowhere","user":"ann"}`), chat.CodeNoRoom)
	if e := ann.ask("lobby", `,"user":"ann"`); codes(e) != "policy:muted" || e.Blocks[0].Rule != nil || e.Revision != "" {
		t.Errorf("ann of herself: got %+v", e)
	}
	ev, err := w.srv.Why(t.Context(), "lobby", "ann", "hello")
	if err != nil || len(ev.Blocks) != 1 || ev.Blocks[0].Rule == nil || ev.May {
		t.Errorf("an operator: got %+v, %v", ev, err)
	}
	if _, err := w.srv.Why(t.Context(), "nowhere", "ann", ""); err == nil {
		t.Error("an operator is told of a room that is not there")
	}
}

// TestWhyOfObligations looks at rates without taking of them.
func TestWhyOfObligations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		ann := w.user("ann")
		defer ann.end()
		ann.join("lobby")
		w.oblige(gate.Obligations{RateLimit: &gate.RateLimit{Count: 2, PerS: 60}})
		for range 5 {
			if e := ann.ask("lobby", ""); !e.May {
				t.Fatalf("asking counts: got %+v", e)
			}
		}
		ann.agrees("lobby", "one")
		ann.agrees("lobby", "two")
		e := ann.agrees("lobby", "three")
		if codes(e) != "rate_limit:rate_limited" || e.Blocks[0].UntilTS <= time.Now().UnixMilli() {
			t.Errorf("got %+v", e)
		}
		w.oblige(gate.Obligations{RateLimit: &gate.RateLimit{Count: 0, PerS: 60}})
		if e := ann.agrees("lobby", "four"); codes(e) != "rate_limit:rate_limited" || e.Blocks[0].UntilTS != 0 || e.Blocks[0].Change != changeRules {
			t.Errorf("no messages at all: got %+v", e)
		}
		three, sixty := 3, 60
		w.oblige(gate.Obligations{TextBytes: &three, SlowModeS: &sixty})
		if e := ann.agrees("lobby", "four"); codes(e) != "text:text_too_long slow_mode:slow_mode" || !strings.Contains(e.Blocks[0].Change, "3 bytes") {
			t.Errorf("got %+v", e)
		}
		if e := ann.ask("lobby", ""); codes(e) != "slow_mode:slow_mode" {
			t.Errorf("without a text: got %+v", e)
		}
	})
}

// TestWhyOfTheText: what is wrong with a text, and what plugins say to it.
func TestWhyOfTheText(t *testing.T) {
	w := newWorld(t, nil)
	w.judge(says("bouncer", "damn", abi.Deny), says("broken", "bang", abi.Error), says("careful", "darn", abi.Hold), says("eager", "psst", abi.Flag), says("mask", "heck", abi.Redact))
	w.onlyMods()
	mod, ann := w.user("mod", "moderator"), w.user("ann")
	defer mod.end()
	defer ann.end()
	ann.join("lobby")
	for _, tc := range []struct{ text, want, outcome string }{
		{"hello", "", "accepted"},
		{"psst", "", "accepted"},
		{"damn", "plugin:rule_1", ""},
		{"darn", "plugin:rule_1", "held"},
		{"heck", "plugin:rule_1", "redacted"},
		{"bang", "plugin:plugin_error", ""},
		{"\u200b", "text:bad_request", ""},
		{strings.Repeat("x", 5000), "text:text_too_long", ""},
	} {
		e := ann.agrees("lobby", tc.text)
		if codes(e) != tc.want || e.Outcome != tc.outcome {
			t.Errorf("%.10s: got %s, outcome %q, want %s, %q", tc.text, codes(e), e.Outcome, tc.want, tc.outcome)
		}
		for _, b := range e.Blocks {
			if b.Text == "" || b.Change == "" || b.Plugin != nil {
				t.Errorf("%.10s: got %+v", tc.text, b)
			}
		}
	}
	e := mod.ask("lobby", `,"user":"ann","text":"damn"`)
	if p := e.Blocks[0].Plugin; e.May || p == nil || *p != (wire.WhyPlugin{Name: "bouncer", Version: "1", Digest: "d1ge57", Part: "enforce", Verdict: "deny", Code: 1}) {
		t.Errorf("a moderator: got %+v", e)
	}
	e = mod.ask("lobby", `,"user":"ann","text":"bang"`)
	if p := e.Blocks[0].Plugin; p == nil || p.Name != "broken" || p.Verdict != "error" || !strings.Contains(p.Error, "out of fuel") {
		t.Errorf("a moderator, of a failure: got %+v", e)
	}
	w.rule(gate.MessageSend, no("not_here", ""))
	if e := ann.ask("lobby", `,"text":"damn"`); codes(e) != "policy:not_here" || e.Blocks[0].Change != changeRules || e.Blocks[0].Text == "" {
		t.Errorf("where the policy says no plugins are not asked: got %+v", e)
	}
}

// TestWhyOfAFullQueue: what would be held finds no place.
func TestWhyOfAFullQueue(t *testing.T) {
	w := reviewWorld(t)
	ann := w.user("ann")
	defer ann.end()
	ann.join("lobby")
	for i := range journal.MaxOwnReviews {
		ann.send(fmt.Sprint("n", i), "darn")
	}
	if e := ann.agrees("lobby", "darn"); codes(e) != "plugin:rule_1 room:queue_full" || e.May || e.Outcome != "" {
		t.Errorf("got %+v", e)
	}
}

// TestWhyLeavesNoTrace: neither the policy's counters nor what plugins are told
// of a person's pace know of the questions.
func TestWhyLeavesNoTrace(t *testing.T) {
	w := newWorld(t, nil)
	live := w.write(policy.Files{"p.rego": []byte(`package parley
decision := {"allow": input.action.name != "message.send", "reasons": [{"code": "never", "text": "Never here."}]}`)}, "r1")
	ann := w.user("ann")
	defer ann.end()
	ann.join("lobby")
	before, blocked := live.Stats(), len(live.Blocked())
	for range 3 {
		if e := ann.ask("lobby", `,"text":"hello"`); codes(e) != "policy:never" {
			t.Fatalf("got %+v", e)
		}
	}
	if after := live.Stats(); after != before || len(live.Blocked()) != blocked {
		t.Errorf("the policy counted %+v, before it was %+v", after, before)
	}
	w.allow(nil)
	ann.ask("lobby", `,"text":"hello"`)
	if got := w.srv.d.Signals.Peek("lobby", "ann", "hello", time.Now()); got.RecentPerMinute != 0 || got.Repeats != 0 {
		t.Errorf("the questions count as messages: %+v", got)
	}
	ann.send("n1", "hello")
	if got := w.srv.d.Signals.Peek("lobby", "ann", "hello", time.Now()); got.RecentPerMinute != 1 || got.Repeats != 1 {
		t.Errorf("a message: got %+v, want one", got)
	}
	if n := len(w.messages("lobby")); n != 1 {
		t.Errorf("got %d messages, want the one that was sent", n)
	}
}

// TestWhyCosts: questions are commands, dearer than a send, and the plugins are
// asked by few at a time.
func TestWhyCosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(s *setup) { s.cfg.CommandsPerSecond, s.cfg.CommandsBurst = 1, 11 })
		ann, mod := w.user("ann"), w.user("mod")
		defer ann.end()
		defer mod.end()
		ann.join("lobby") // almost nine left
		ann.ask("lobby", `,"text":"hello"`)
		if e := ann.ask("lobby", ""); !e.May {
			t.Errorf("got %+v", e)
		}
		checkError(t, ann.do(`{"type":"why","room":"lobby"}`), chat.CodeRateLimited)
		ann.send("n1", "hello") // takes all but a bit
		if e := mod.ask("lobby", `,"user":"ann"`); codes(e) != "rate_limit:rate_limited" || e.Blocks[0].UntilTS == 0 {
			t.Errorf("of a connection that was too fast: got %+v", e)
		}
		for range maxRehearsals {
			w.srv.rehearsals <- struct{}{}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.srv.Why(ctx, "lobby", "mod", "hello"); err == nil || !strings.Contains(err.Error(), string(chat.CodeOverloaded)) {
			t.Errorf("with every place taken: got %v", err)
		}
		for range maxRehearsals {
			<-w.srv.rehearsals
		}
	})
}

// TestWhyWhenThePolicyFails: the refusal is the policy's failure, and not a rule.
func TestWhyWhenThePolicyFails(t *testing.T) {
	w := newWorld(t, nil)
	w.write(policy.Files{"p.rego": []byte(`package parley
decision := {"allow": true} if input.subject.id != "cat"
decision := {"allow": true} if input.action.name != "message.send"`)}, "r1")
	cat := w.user("cat")
	defer cat.end()
	cat.join("lobby")
	if e := cat.agrees("lobby", "hello"); codes(e) != "policy:policy_error" || !strings.Contains(e.Blocks[0].Change, "operator") {
		t.Errorf("got %+v", e)
	}
}
