package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/journal"
	"parley/core/state"
	"parley/sdk/abi"
)

func ptr[T any](v T) *T { return &v }

// messages returns what the room's log holds, without its first entry.
func (w *world) messages(id chat.RoomID) (texts []string) {
	w.t.Helper()
	_, es, err := w.store.Journal.Read(w.t.Context(), id, 0, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range es {
		if e.Kind == journal.KindMessage {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

// configure makes the room with these settings.
func (w *world) configure(id chat.RoomID, set state.Settings) {
	w.t.Helper()
	r, err := w.hub.Room(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.srv.CreateRoom(w.t.Context(), r, set, "parley", ""); err != nil {
		w.t.Fatal(err)
	}
}

func TestSendWalk(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(*world)
		text    string
		code    chat.Code // "" = acked
		outcome string
		stored  string
		reason  string // code@source of the first reason
		retry   bool
	}{
		{name: "accepted", text: "hello", outcome: "accepted", stored: "hello"},
		{name: "cleaned", text: "  hello\\r\\nthere ", outcome: "accepted", stored: "hello\nthere"},
		{name: "nothing left", text: " \\u200b ", code: chat.CodeBadRequest},
		{name: "too long", text: strings.Repeat("x", 4097), code: chat.CodeTextTooLong},
		{name: "redacted", prepare: func(w *world) { w.judge(says("wordlist", "darn", abi.Redact)) },
			text: "oh darn it", outcome: "redacted", stored: "oh **** it", reason: "rule_1@plugin:wordlist"},
		{name: "flagged", prepare: func(w *world) { w.judge(says("watcher", "darn", abi.Flag)) },
			text: "oh darn it", outcome: "accepted", stored: "oh darn it"},
		{name: "denied by a plugin", prepare: func(w *world) { w.judge(says("bouncer", "darn", abi.Deny)) },
			text: "oh darn it", code: chat.CodeDenied, reason: "rule_1@plugin:bouncer"},
		{name: "held", prepare: func(w *world) { w.judge(says("careful", "darn", abi.Hold)) },
			text: "oh darn it", outcome: "held", reason: "rule_1@plugin:careful"},
		{name: "plugin fails", prepare: func(w *world) { w.judge(says("broken", "darn", abi.Error)) },
			text: "oh darn it", code: chat.CodePluginError, reason: "plugin_error@plugin:broken", retry: true},
		{name: "denied by policy", prepare: func(w *world) { w.rule(gate.MessageSend, no("announce_only", "only moderators write here")) },
			text: "hi", code: chat.CodeDenied, reason: "announce_only@policy"},
		{name: "denied without a reason", prepare: func(w *world) { w.rule(gate.MessageSend, gate.Decision{}) }, text: "hi", code: chat.CodeDenied},
		{name: "policy fails", prepare: func(w *world) {
			w.rule(gate.MessageSend, gate.Decision{Failed: true, Reasons: []chat.Reason{{Code: "policy_error", Source: "policy"}}})
		}, text: "hi", code: chat.CodePolicyError, reason: "policy_error@policy", retry: true},
		{name: "the room may not be made", prepare: func(w *world) { w.rule(gate.RoomCreate, no("closed", "no new rooms")) },
			text: "hi", code: chat.CodeNoRoom, reason: "closed@policy"},
		{name: "obligation text_bytes kept", prepare: func(w *world) { w.oblige(gate.Obligations{TextBytes: ptr(2)}) }, text: "hi", outcome: "accepted", stored: "hi"},
		{name: "obligation text_bytes", prepare: func(w *world) { w.oblige(gate.Obligations{TextBytes: ptr(2)}) }, text: "hey", code: chat.CodeTextTooLong},
		{name: "obligation rate_limit none", prepare: func(w *world) { w.oblige(gate.Obligations{RateLimit: &gate.RateLimit{PerS: 5}}) },
			text: "hi", code: chat.CodeRateLimited, retry: true},
		{name: "obligation plugins none", prepare: func(w *world) {
			w.judge(says("bouncer", "darn", abi.Deny))
			w.oblige(gate.Obligations{Plugins: []string{}})
		}, text: "darn", outcome: "accepted", stored: "darn"},
		{name: "obligation plugins one", prepare: func(w *world) {
			w.judge(says("bouncer", "darn", abi.Deny), says("wordlist", "darn", abi.Redact))
			w.oblige(gate.Obligations{Plugins: []string{"wordlist"}})
		}, text: "darn", outcome: "redacted", stored: "****", reason: "rule_1@plugin:wordlist"},
		{name: "obligation plugins absent", prepare: func(w *world) { w.oblige(gate.Obligations{Plugins: []string{"gone"}}) },
			text: "hi", code: chat.CodePluginError, reason: "plugin_error@plugin:gone", retry: true},
		{name: "store away", prepare: func(w *world) { w.configure("lobby", state.DefaultSettings()); w.store.failing(journal.ErrUnavailable) },
			text: "hi", code: chat.CodeUnavailable, retry: true},
		{name: "store away for a new room", prepare: func(w *world) { w.store.failing(journal.ErrUnavailable) },
			text: "hi", code: chat.CodeUnavailable, retry: true},
		{name: "store overloaded", prepare: func(w *world) { w.configure("lobby", state.DefaultSettings()); w.store.failing(journal.ErrOverloaded) },
			text: "hi", code: chat.CodeOverloaded, retry: true},
		{name: "store says too large", prepare: func(w *world) { w.configure("lobby", state.DefaultSettings()); w.store.failing(journal.ErrTooLarge) },
			text: "hi", code: chat.CodeTextTooLong},
		{name: "nonces cannot be looked up", prepare: func(w *world) {
			w.rule(gate.MessageSend, no("x", "y"))
			f := func() error { return journal.ErrUnavailable }
			w.store.onLookup.Store(&f)
		}, text: "hi", code: chat.CodeUnavailable, retry: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			if tt.prepare != nil {
				tt.prepare(w)
			}
			c := w.user("ann", "member")
			defer c.end()
			e := c.do(`{"type":"send","room":"lobby","nonce":"n1","text":"%s"}`, tt.text)
			if tt.code != "" {
				checkError(t, e, tt.code)
				if e.Retryable != tt.retry || e.Room != "lobby" {
					t.Errorf("got retryable %v in room %q, want %v in lobby", e.Retryable, e.Room, tt.retry)
				}
			} else if e.Type != "ack" || e.Outcome != tt.outcome || (e.Seq != 2) != (tt.outcome == "held") || e.Epoch == "" || e.MessageID == "" || e.Repeat {
				t.Errorf("got %+v, want an ack %s", e, tt.outcome)
			}
			reason := ""
			if len(e.Reasons) > 0 {
				reason = e.Reasons[0].Code + "@" + e.Reasons[0].Source
			}
			if reason != tt.reason {
				t.Errorf("got reason %q, want %q: %+v", reason, tt.reason, e.Reasons)
			}
			w.store.failing(nil)
			if got := w.messages("lobby"); tt.stored == "" && len(got) != 0 || tt.stored != "" && (len(got) != 1 || got[0] != tt.stored) {
				t.Errorf("got %q in the log, want %q", got, tt.stored)
			}
		})
	}
}

// TestAResendGetsItsFirstAnswer posts a message and then brings about every
// refusal there is: a resend is told that it was posted, anything new is
// refused.
func TestAResendGetsItsFirstAnswer(t *testing.T) {
	tests := []struct {
		name   string
		setup  func(*setup)
		change func(*world, *caller)
		code   chat.Code
		looked bool // refused before the walk would reach the journal
	}{
		{"nothing changed", nil, func(*world, *caller) {}, "", false},
		{"denied by policy", nil, func(w *world, _ *caller) { w.rule(gate.MessageSend, no("banned", "you are banned")) }, chat.CodeDenied, true},
		{"policy fails", nil, func(w *world, _ *caller) { w.rule(gate.MessageSend, gate.Decision{Failed: true}) }, chat.CodePolicyError, true},
		{"slow mode of the policy", nil, func(w *world, _ *caller) { w.rule(gate.MessageSend, no("slow_mode", "wait")) }, chat.CodeSlowMode, true},
		{"slow mode by obligation", nil, func(w *world, _ *caller) { w.oblige(gate.Obligations{SlowModeS: ptr(60)}) }, chat.CodeSlowMode, true},
		{"rate limit by obligation", nil, func(w *world, _ *caller) { w.oblige(gate.Obligations{RateLimit: &gate.RateLimit{Count: 0, PerS: 60}}) }, chat.CodeRateLimited, true},
		{"text limit by obligation", nil, func(w *world, _ *caller) { w.oblige(gate.Obligations{TextBytes: ptr(1)}) }, chat.CodeTextTooLong, true},
		{"text limit lowered", nil, func(w *world, _ *caller) { w.srv.cfg.TextBytes = 1 }, chat.CodeTextTooLong, true},
		{"denied by a plugin", nil, func(w *world, _ *caller) { w.judge(says("bouncer", "hello", abi.Deny)) }, chat.CodeDenied, true},
		{"plugin fails", nil, func(w *world, _ *caller) { w.judge(says("broken", "hello", abi.Error)) }, chat.CodePluginError, true},
		{"too many commands", func(s *setup) { s.cfg.CommandsPerSecond, s.cfg.CommandsBurst = 1, 8 }, func(_ *world, c *caller) {
			for range 40 {
				c.raw(`{"type":"ping"}`)
			}
		}, chat.CodeRateLimited, true},
		{"store overloaded", nil, func(w *world, _ *caller) { w.store.failing(journal.ErrOverloaded) }, chat.CodeOverloaded, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tt.setup)
				c := w.guest("ann")
				defer c.end()
				w.judge(says("wordlist", "darn", abi.Redact))
				first := c.do(`{"type":"send","room":"lobby","nonce":"n1","text":"hello darn"}`)
				if first.Type != "ack" || first.Outcome != "redacted" {
					t.Fatalf("got %+v, want an ack", first)
				}
				tt.change(w, c)
				lookups := w.store.lookups.Load()
				again := c.do(`{"type":"send","room":"lobby","nonce":"n1","text":"hello darn"}`)
				if again.Type != "ack" || !again.Repeat || again.Seq != first.Seq || again.MessageID != first.MessageID || again.Epoch != first.Epoch ||
					again.Outcome != first.Outcome || len(again.Reasons) != 1 || again.Reasons[0] != first.Reasons[0] {
					t.Errorf("resend: got %+v, want the first answer %+v with repeat", again, first)
				}
				if looked := w.store.lookups.Load() > lookups; looked != tt.looked {
					t.Errorf("nonce looked up outside the append: got %v, want %v", looked, tt.looked)
				}
				if tt.code != "" {
					checkError(t, c.do(`{"type":"send","room":"lobby","nonce":"n2","text":"hello darn"}`), tt.code)
					checkError(t, c.do(`{"type":"send","room":"lobby","text":"hello darn"}`), tt.code)
				}
				w.store.failing(nil)
				if got := w.messages("lobby"); len(got) != 1 {
					t.Errorf("got %q in the log, want one message", got)
				}
				if got := w.srv.Stats().Repeats.Load(); got != 1 {
					t.Errorf("got %d repeats counted, want 1", got)
				}
			})
		})
	}
}

func TestANonceIsItsUsersOwn(t *testing.T) {
	w := newWorld(t, nil)
	ann, bob := w.guest("ann"), w.guest("bob")
	defer ann.end()
	defer bob.end()
	a := ann.do(`{"type":"send","room":"lobby","nonce":"n1","text":"one"}`)
	b := bob.do(`{"type":"send","room":"lobby","nonce":"n1","text":"two"}`)
	c := ann.do(`{"type":"send","room":"other","nonce":"n1","text":"three"}`)
	d, e := ann.do(`{"type":"send","room":"lobby","text":"four"}`), ann.do(`{"type":"send","room":"lobby","text":"four"}`)
	for _, got := range []event{a, b, c, d, e} {
		if got.Type != "ack" || got.Repeat {
			t.Errorf("got %+v, want an ack of its own", got)
		}
	}
	if got := w.messages("lobby"); len(got) != 4 {
		t.Errorf("got %q in the lobby, want 4 messages", got)
	}
}

func TestASenderWhoJoinedHearsItself(t *testing.T) {
	w := newWorld(t, nil)
	ann, bob := w.guest("ann"), w.guest("bob")
	defer ann.end()
	defer bob.end()
	bob.do(`{"type":"join","room":"lobby"}`)
	ack := ann.do(`{"type":"send","room":"lobby","nonce":"n1","text":"from outside"}`)
	e := bob.await("the message", func(e event) bool { return e.Type == "message" })
	if e.Seq != ack.Seq || e.From != "ann" || e.Nonce != "n1" || e.Text != "from outside" || e.ID != ack.MessageID {
		t.Errorf("got %+v for the ack %+v", e, ack)
	}
	for _, e := range ann.events() {
		if e.Type == "message" {
			t.Errorf("ann has not joined and got %+v", e)
		}
	}
}

func TestSlowMode(t *testing.T) {
	slow := func(in *gate.Input) gate.Decision {
		if in.Action.Name == gate.MessageSend && in.Context.SlowWaitS > 0 {
			return no("slow_mode", fmt.Sprintf("wait %d seconds", in.Context.SlowWaitS))
		}
		return gate.Decision{Allow: true}
	}
	for _, tt := range []struct {
		name    string
		prepare func(*world)
	}{
		{"of the room, by policy", func(w *world) {
			w.configure("lobby", state.Settings{Mode: state.ModeOpen, Visibility: state.Public, SlowModeS: 30})
			w.allow(slow)
		}},
		{"by obligation", func(w *world) { w.oblige(gate.Obligations{SlowModeS: ptr(30)}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				tt.prepare(w)
				c := w.guest("ann")
				defer c.end()
				send := func() event { return c.do(`{"type":"send","room":"lobby","text":"hi"}`) }
				if e := send(); e.Type != "ack" {
					t.Fatalf("the first message: got %+v, want an ack", e)
				}
				time.Sleep(10*time.Second + 500*time.Millisecond)
				e := send()
				checkError(t, e, chat.CodeSlowMode)
				if !e.Retryable || e.RetryAfterMS < 19_000 || e.RetryAfterMS > 20_000 || !strings.Contains(e.Text, "20") {
					t.Errorf("got %q, retry after %d ms, want 20 seconds", e.Text, e.RetryAfterMS)
				}
				bob := w.guest("bob")
				defer bob.end()
				if e := bob.do(`{"type":"send","room":"lobby","text":"hi"}`); e.Type != "ack" {
					t.Errorf("another user: got %+v, want an ack", e)
				}
				time.Sleep(20 * time.Second)
				if e := send(); e.Type != "ack" {
					t.Errorf("after the wait: got %+v, want an ack", e)
				}
			})
		})
	}
}

// TestSlowModeHoldsOverParallelConnections sends over many connections of one
// user at once, on a journal that answers slowly.
func TestSlowModeHoldsOverParallelConnections(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(*world)
	}{
		{"of the room, by policy", func(w *world) {
			w.configure("lobby", state.Settings{Mode: state.ModeOpen, Visibility: state.Public, SlowModeS: 30})
			w.allow(func(in *gate.Input) gate.Decision {
				if in.Context.SlowWaitS > 0 {
					return no("slow_mode", "wait")
				}
				return gate.Decision{Allow: true}
			})
		}},
		{"by obligation", func(w *world) {
			w.configure("lobby", state.DefaultSettings())
			w.oblige(gate.Obligations{SlowModeS: ptr(30)})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				tt.prepare(w)
				late := func(context.Context) error { time.Sleep(100 * time.Millisecond); return nil }
				w.store.onAppend.Store(&late)
				var wg sync.WaitGroup
				for range 8 {
					c := w.user("ann")
					wg.Go(func() {
						defer c.end()
						c.raw(`{"type":"send","room":"lobby","text":"hi"}`)
					})
				}
				wg.Wait()
				if got := w.messages("lobby"); len(got) != 1 {
					t.Errorf("got %d messages at once, want 1", len(got))
				}
				if len(w.srv.turns.m) != 0 {
					t.Errorf("got %d turns left", len(w.srv.turns.m))
				}
			})
		})
	}
}

func TestACommandEndsWithItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.configure("lobby", state.Settings{Mode: state.ModeOpen, Visibility: state.Public, SlowModeS: 5})
		a, b := w.user("ann"), w.user("ann")
		defer a.end()
		defer b.end()
		hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		w.store.onAppend.Store(&hang)
		done := make(chan event)
		start := time.Now()
		go func() { done <- a.do(`{"type":"send","room":"lobby","nonce":"n1","text":"hi"}`) }()
		synctest.Wait()
		time.Sleep(time.Second)
		go func() { done <- b.do(`{"type":"send","room":"lobby","nonce":"n2","text":"hi"}`) }()
		checkError(t, <-done, chat.CodeUnavailable) // the outcome is unknown
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("took %v, want the store timeout of 5s", took)
		}
		// b had its turn for the last second of its time only
		checkError(t, <-done, chat.CodeUnavailable)
		if took := time.Since(start); took != 6*time.Second {
			t.Errorf("took %v, want 6s", took)
		}
	})
}

func TestWaitingForATurnEndsToo(t *testing.T) {
	for _, prepare := range []func(*world){
		func(w *world) {
			w.configure("lobby", state.Settings{Mode: state.ModeOpen, Visibility: state.Public, SlowModeS: 5})
		},
		func(w *world) {
			w.configure("lobby", state.DefaultSettings())
			w.oblige(gate.Obligations{SlowModeS: ptr(5)})
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			prepare(w)
			c := w.guest("ann")
			defer c.end()
			k := turn{"ann", "lobby"}
			if err := w.srv.turns.take(t.Context(), k); err != nil {
				t.Fatal(err)
			}
			e := c.do(`{"type":"send","room":"lobby","text":"hi"}`)
			checkError(t, e, chat.CodeOverloaded)
			if !e.Retryable {
				t.Error("not retryable")
			}
			w.srv.turns.end(k)
		})
	}
}

func TestJudgingEndsWithItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.configure("lobby", state.DefaultSettings())
		slow := func(string) (abi.Verdict, abi.Result, error) {
			time.Sleep(4 * time.Second)
			return abi.Allow, abi.Result{}, nil
		}
		w.judge(judge{"a", slow}, judge{"b", slow}, judge{"c", slow})
		c := w.guest("ann")
		defer c.end()
		checkError(t, c.do(`{"type":"send","room":"lobby","text":"hi"}`), chat.CodeOverloaded)
		if got := w.messages("lobby"); len(got) != 0 {
			t.Errorf("got %q in the log, want nothing", got)
		}
	})
}

func TestPluginsAreToldOfRolesAndRepeats(t *testing.T) {
	w := newWorld(t, nil)
	c := w.user("ann", "moderator")
	defer c.end()
	var inputs [][]byte
	w.judge(spy{func(input []byte) { inputs = append(inputs, append([]byte(nil), input...)) }})
	for range 3 {
		c.do(`{"type":"send","room":"lobby","text":"again"}`)
	}
	roles, _ := abi.FieldBytes(inputs[0], abi.FieldRoles)
	if string(roles) != "moderator\nowner" {
		t.Errorf("got roles %q, want moderator and owner", roles)
	}
	if len(inputs) != 3 || inputs[2] == nil {
		t.Errorf("got %d inputs, want 3", len(inputs))
	}
}

// spy is a judge that looks at its whole input.
type spy struct{ see func([]byte) }

func (s spy) Name() string                   { return "spy" }
func (s spy) Digest() string                 { return "" }
func (s spy) OnError() abi.Verdict           { return abi.Deny }
func (s spy) Version() string                { return "" }
func (s spy) ConfigDigest() string           { return "" }
func (s spy) Wants(chat.RoomID, string) bool { return true }
func (s spy) Decide(input, _, _ []byte) (abi.Verdict, abi.Result, uint64, error) {
	s.see(input)
	return abi.Allow, abi.Result{}, 0, nil
}

func TestAnUnknownStoreErrorIsUnavailable(t *testing.T) {
	e := storeError(errors.New("read-only file system"))
	if e.Code != chat.CodeUnavailable || e.Retry == 0 {
		t.Errorf("got %+v, want unavailable, retryable", e)
	}
}

// TestAStoreThatDoesNotAnswerIsAskedOnce checks that a send which the store
// left open is not looked up as well: with a store that takes its whole
// deadline the sender would wait for two.
func TestAStoreThatDoesNotAnswerIsAskedOnce(t *testing.T) {
	w := newWorld(t, nil)
	w.configure("lobby", state.DefaultSettings())
	w.store.failing(journal.ErrUnavailable)
	c := w.user("ann", "member")
	defer c.end()
	before := w.store.lookups.Load()
	e := c.do(`{"type":"send","room":"lobby","nonce":"n1","text":"hi"}`)
	checkError(t, e, chat.CodeUnavailable)
	if n := w.store.lookups.Load() - before; n != 0 {
		t.Errorf("the nonce was looked up %d times, want 0", n)
	}
}
