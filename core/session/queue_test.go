package session

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/journal"
	"parley/core/state"
	"parley/sdk/abi"
)

// A moderator who is quicker than the ack does not get ahead of it: the author
// reads that the message is held before they read what became of it.
func TestHeldIsToldBeforeItsDecision(t *testing.T) {
	w := reviewWorld(t)
	ann, mod := w.user("ann"), w.user("mod", "moderator")
	defer ann.end()
	defer mod.end()
	mod.join("lobby")
	mod.do(`{"type":"reviews","room":"lobby"}`)
	refused := ann.send("denied", "damn town")
	quick := func(r journal.Request, rc journal.Receipt) {
		if rc.Outcome != chat.Held || rc.Repeat {
			return
		}
		if e := mod.decide(string(rc.ID), "reject", "quickly"); e.Outcome != "rejected" {
			t.Errorf("reject: got %+v", e)
		}
		// The author's connections are told first, so ann has been by now.
		mod.await("the decision", func(e event) bool { return e.ID == "" && e.Outcome == "rejected" && e.ReviewID == string(rc.ID) })
	}
	w.store.appended.Store(&quick)
	for name, say := range map[string]func() event{
		"send":   func() event { return ann.send("n1", "oh darn it") },
		"appeal": func() event { return ann.do(`{"type":"appeal","room":"lobby","appeal":%q}`, refused.Appeal) },
	} {
		t.Run(name, func(t *testing.T) {
			held := say()
			if held.Type != "ack" || held.Outcome != "held" {
				t.Fatalf("got %+v, want it held", held)
			}
			ann.await("the decision", func(e event) bool { return e.Type == "review" && e.ReviewID == held.ReviewID })
			es := ann.events()
			ack := slices.IndexFunc(es, func(e event) bool { return e.ReviewID == held.ReviewID && e.Type == "ack" })
			told := slices.IndexFunc(es, func(e event) bool { return e.ReviewID == held.ReviewID && e.Type == "review" })
			if ack > told {
				t.Errorf("the author was told the decision as event %d and held as event %d, want held first", told, ack)
			}
		})
	}
}

// Who held messages in a room with slow mode has spoken, and so has who appealed.
func TestHeldCountsForSlowMode(t *testing.T) {
	w := reviewWorld(t)
	ann, bob := w.user("ann"), w.user("bob")
	defer ann.end()
	defer bob.end()
	w.configure("lobby", state.Settings{Mode: state.ModeOpen, Visibility: state.Public, SlowModeS: 60})
	w.allow(func(in *gate.Input) gate.Decision {
		if in.Context.SlowWaitS > 0 && in.Action.Name == gate.MessageSend {
			return no("slow_mode", "slowly")
		}
		return gate.Decision{Allow: true}
	})
	if e := ann.send("n1", "oh darn it"); e.Outcome != "held" {
		t.Fatalf("got %+v, want it held", e)
	}
	checkError(t, ann.send("n2", "hello"), chat.CodeSlowMode)
	refused := bob.send("n1", "damn town") // nobody heard it
	if e := bob.appeals(refused); e.Outcome != "held" {
		t.Fatalf("appeal: got %+v, want it held", e)
	}
	checkError(t, bob.send("n2", "hello"), chat.CodeSlowMode)
}

// An appeal is refused by what would refuse the message, and may be tried again.
func TestAppealIsASend(t *testing.T) {
	slow, two := 60, gate.RateLimit{Count: 2, PerS: 60}
	for _, tt := range []struct {
		name string
		o    gate.Obligations
		code chat.Code
	}{
		{"slow mode", gate.Obligations{SlowModeS: &slow}, chat.CodeSlowMode},
		{"rate limit", gate.Obligations{RateLimit: &two}, chat.CodeRateLimited},
		{"length", gate.Obligations{TextBytes: new(int)}, chat.CodeTextTooLong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := reviewWorld(t)
			ann := w.user("ann")
			defer ann.end()
			refused := ann.send("n1", "damn town")
			w.oblige(gate.Obligations{RateLimit: tt.o.RateLimit})
			ann.send("n2", "hello")
			ann.send("n3", "hello")
			w.oblige(tt.o)
			e := ann.appeals(refused)
			checkError(t, e, tt.code)
			if tt.o.TextBytes == nil && e.RetryAfterMS <= 0 {
				t.Errorf("got %+v, want it to say when", e)
			}
			w.oblige(gate.Obligations{})
			if e := ann.appeals(refused); e.Outcome != "held" {
				t.Errorf("again: got %+v, want it held", e)
			}
		})
	}
}

// appeals appeals a denial.
func (c *caller) appeals(refused event) event {
	c.w.t.Helper()
	return c.do(`{"type":"appeal","room":"lobby","appeal":%q}`, refused.Appeal)
}

func TestHeldExpires(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.cfg.ReviewAge = 7 * 24 * time.Hour })
	w.judge(says("careful", "darn", abi.Hold))
	w.onlyMods()
	ann, mod := w.user("ann"), w.user("mod", "moderator")
	defer ann.end()
	defer mod.end()
	mod.join("lobby")
	mod.do(`{"type":"reviews","room":"lobby"}`)
	var held []event
	for i := range journal.MaxOwnReviews {
		held = append(held, ann.send("n"+string(rune('a'+i)), "oh darn it"))
	}
	checkError(t, ann.send("more", "darn"), chat.CodeQueueFull)
	if err := w.srv.expire(t.Context(), time.Now().Add(-time.Hour)); err != nil || w.srv.stats.Expired.Load() != 0 {
		t.Fatalf("expired %d that are young, %v", w.srv.stats.Expired.Load(), err)
	}
	if err := w.srv.expire(t.Context(), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if n := w.srv.stats.Expired.Load(); n != journal.MaxOwnReviews || w.srv.stats.Rejected.Load() != 0 {
		t.Errorf("counted %d expired, %d rejected, want %d and 0", n, w.srv.stats.Rejected.Load(), journal.MaxOwnReviews)
	}
	first := held[0].ReviewID
	for name, c := range map[string]*caller{"the author": ann, "the moderator": mod} {
		told := c.await("that it expired", func(e event) bool { return e.Type == "review" && e.Outcome == "expired" && e.ReviewID == first })
		if len(told.Reasons) != 1 || told.Reasons[0] != (chat.Reason{Code: "expired", Text: "no moderator decided about it within 7 days", Source: "limits"}) || told.By != nil || told.Text != "" {
			t.Errorf("%s was told %+v, want why and no text", name, told)
		}
	}
	own := ann.do(`{"type":"reviews","room":"lobby"}`)
	if len(own.Open) != 0 || len(own.Decided) != journal.MaxOwnReviews || own.Decided[0].Outcome != "expired" || own.Decided[0].Text != "" {
		t.Errorf("the author's list: got %+v, want all expired, without texts", own)
	}
	if again := ann.send("na", "oh darn it"); again.Outcome != "expired" || !again.Repeat || again.ReviewID != first || again.Seq != 0 {
		t.Errorf("resent: got %+v, want expired", again)
	}
	if e := mod.decide(first, "approve", ""); e.Code != string(chat.CodeNoReview) || !strings.Contains(e.Text, "expired") {
		t.Errorf("approving what has expired: got %+v, want no_review and why", e)
	}
	if e := ann.send("more", "darn"); e.Outcome != "held" {
		t.Errorf("the queue has room again: got %+v, want it held", e)
	}
	if n := len(w.messages("lobby")); n != 0 {
		t.Errorf("got %d messages, want none", n)
	}
}

// A room whose reviews cannot be decided does not keep those of others waiting,
// not even when its queue is full of older ones.
func TestOneRoomDoesNotHoldUpExpiry(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.cfg.ReviewAge = time.Hour })
	w.judge(says("careful", "darn", abi.Hold))
	for i := range journal.MaxReviews / journal.MaxOwnReviews {
		c := w.user(chat.UserID(fmt.Sprint("user-", i)))
		for range journal.MaxOwnReviews {
			if e := c.do(`{"type":"send","room":"attic","text":"darn"}`); e.Outcome != "held" {
				t.Fatalf("got %+v, want it held", e)
			}
		}
		c.end()
	}
	ann := w.user("ann")
	defer ann.end()
	ann.send("n1", "darn")
	attic := chat.RoomID("attic")
	w.store.broken.Store(&attic)
	err := w.srv.expire(t.Context(), time.Now().Add(time.Second))
	if n := w.srv.stats.Expired.Load(); n != 1 || err == nil || !strings.Contains(err.Error(), "expire a review of room attic: ") {
		t.Errorf("expired %d, %v, want the one of the other room, and the error", n, err)
	}
	w.store.broken.Store(nil)
	if err := w.srv.expire(t.Context(), time.Now().Add(time.Second)); err != nil || w.srv.stats.Expired.Load() != 1+journal.MaxReviews {
		t.Errorf("expired %d, %v, want all", w.srv.stats.Expired.Load(), err)
	}
}

// Run expires by the clock, and lives with a store that is away for a while.
func TestRunExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const age = time.Hour
		w := newWorld(t, func(s *setup) { s.cfg.ReviewAge = age })
		w.judge(says("careful", "darn", abi.Hold))
		ann := w.user("ann")
		defer ann.end()
		ended := make(chan error)
		go func() { ended <- w.srv.Run(w.srv.ctx) }()
		ann.send("n1", "darn")
		expired := func(want uint64) {
			t.Helper()
			synctest.Wait()
			if n := w.srv.stats.Expired.Load(); n != want {
				t.Errorf("%d expired, want %d", n, want)
			}
		}
		time.Sleep(age - time.Second)
		expired(0)
		w.store.failing(journal.ErrUnavailable)
		time.Sleep(2 * time.Minute)
		expired(0)
		if !strings.Contains(w.log.text(), "cannot be expired yet") {
			t.Error("the log does not say that the store is away")
		}
		w.store.failing(nil)
		time.Sleep(time.Minute)
		expired(1)
		w.srv.stop()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

// Zero keeps what is held for ever.
func TestRunWithoutAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.judge(says("careful", "darn", abi.Hold))
		ann := w.user("ann")
		defer ann.end()
		ended := make(chan error)
		go func() { ended <- w.srv.Run(w.srv.ctx) }()
		ann.send("n1", "darn")
		time.Sleep(1000 * time.Hour)
		synctest.Wait()
		if n := w.srv.stats.Expired.Load(); n != 0 {
			t.Errorf("%d expired, want none", n)
		}
		w.srv.stop()
		<-ended
	})
}

func TestSpell(t *testing.T) {
	for d, want := range map[time.Duration]string{
		168 * time.Hour: "7 days", 24 * time.Hour: "1 day", 36 * time.Hour: "36 hours", time.Hour: "1 hour",
		90 * time.Minute: "90 minutes", 90 * time.Second: "90 seconds", 1500 * time.Millisecond: "1.5s",
	} {
		if got := spell(d); got != want {
			t.Errorf("%d: got %q, want %q", d, got, want)
		}
	}
}

// What is told is bounded while an answer is under way.
func TestNewsAreBounded(t *testing.T) {
	w := newWorld(t, nil)
	ann := w.user("ann")
	defer ann.end()
	before := len(ann.events())
	ann.x.news.hold()
	v := journal.Review{Entry: journal.Entry{From: "ann", Outcome: chat.Rejected}, Decided: 1}
	for range maxNews + 5 {
		w.srv.reviewed("lobby", &v)
	}
	if n := len(ann.events()) - before; n != 0 {
		t.Errorf("%d events came while they were held back", n)
	}
	ann.x.news.release(ann.x.peer)
	w.srv.reviewed("lobby", &v)
	if n := len(ann.events()) - before; n != maxNews+1 {
		t.Errorf("got %d events, want %d", n, maxNews+1)
	}
}
