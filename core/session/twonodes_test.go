package session

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/ids"
	"parley/core/journal"
	"parley/core/state"
)

// twoCourts is the lobby of mia's on two nodes, of which the second does not
// hear what the first does; mia, bob and cat are on both.
func twoCourts(t *testing.T) (a, b *world, at map[string][2]*caller) {
	a, mia := court(t)
	bob := a.user("bob")
	mia.ok(`{"type":"role","room":"lobby","user":"bob","role":"moderator"}`)
	b = newWorld(t, func(s *setup) { s.shared = elsewhere{a.store.Journal} })
	b.law()
	at = map[string][2]*caller{"mia": {mia, b.user("mia")}, "bob": {bob, b.user("bob")}, "cat": {a.user("cat"), b.user("cat")}}
	for name, c := range at {
		for _, c := range c {
			if e := c.do(`{"type":"join","room":"lobby"}`); e.Type != "joined" {
				t.Fatalf("join of %s: got %+v", name, e)
			}
		}
	}
	return a, b, at
}

func TestTwoNodesChangeOneRoom(t *testing.T) {
	a, b, at := twoCourts(t)
	mia := at["mia"]
	mia[0].ok(`{"type":"configure","room":"lobby","title":"Hall"}`)
	mia[1].ok(`{"type":"slow_mode","room":"lobby","seconds":30}`)
	mia[0].ok(`{"type":"configure","room":"lobby","mode":"announce"}`)
	mia[1].ok(`{"type":"configure","room":"lobby","visibility":"private"}`)
	want := state.Settings{Title: "Hall", SlowModeS: 30, Mode: state.ModeAnnounce, Visibility: state.Private}
	for name, w := range map[string]*world{"first": a, "second": b} {
		if got := w.lobby().Settings; got != want {
			t.Errorf("on the %s node: got %+v, want %+v", name, got, want)
		}
	}
	if n := b.hub.Stats().Conflicts.Load(); n < 2 {
		t.Errorf("%d conflicts were counted, want 2 at least", n)
	}
	for i := range 20 { // and at the same moment
		var wg sync.WaitGroup
		wg.Go(func() { mia[0].ok(`{"type":"configure","room":"lobby","title":"Hall %d"}`, i) })
		wg.Go(func() { mia[1].ok(`{"type":"slow_mode","room":"lobby","seconds":%d}`, i+1) })
		wg.Wait()
		if got := a.lobby().Settings; got.Title != fmt.Sprintf("Hall %d", i) || got.SlowModeS != i+1 {
			t.Fatalf("round %d: got %+v, want both changes", i, got)
		}
	}
}

// Who has lost a role elsewhere does not use it where that is not known yet.
func TestRoleTakenOnAnotherNode(t *testing.T) {
	a, b, at := twoCourts(t)
	at["bob"][1].ok(`{"type":"mute","room":"lobby","user":"cat","seconds":60}`)
	at["mia"][0].ok(`{"type":"role","room":"lobby","user":"bob","role":"none"}`)
	before := a.lobby()
	if e := at["bob"][1].do(`{"type":"ban","room":"lobby","user":"cat"}`); e.Type != "error" || e.Code != "denied" {
		t.Errorf("got %+v, want it denied", e)
	}
	if a.lobby() != before || b.lobby().Role("bob") != "" {
		t.Error("the room was changed, or the second node still thinks that bob has a role")
	}
}

// Where others are quicker each time, the client is told to try again.
func TestChangedEachTime(t *testing.T) {
	a, b, at := twoCourts(t)
	n := 0
	quicker := func(ctx context.Context) error {
		n++
		r := must(a.hub.Room(ctx, "lobby"))
		set := r.State().Settings
		set.SlowModeS = n
		_, err := a.hub.Record(ctx, r, journal.Entry{ID: chat.MessageID(ids.New()), Kind: journal.KindSettings, From: "mia", Changes: []journal.Change{state.SetSettings(set)}}, false)
		return err
	}
	b.store.onAppend.Store(&quicker)
	const command = `{"type":"configure","room":"lobby","title":"Hall","nonce":"n1"}`
	e := at["mia"][1].do(command)
	if e.Type != "error" || e.Code != "overloaded" || !e.Retryable || e.RetryAfterMS <= 0 || !strings.Contains(e.Text, "same nonce") {
		t.Errorf("got %+v, want a refusal that may be retried", e)
	}
	if n < 2 || n > 20 {
		t.Errorf("it was tried %d times, want a few", n)
	}
	b.store.onAppend.Store(nil)
	done := at["mia"][1].ok(command)
	if got := a.lobby().Settings; got.Title != "Hall" || got.SlowModeS != n {
		t.Errorf("got %+v, want both changes", got)
	}
	b.store.onAppend.Store(&quicker)
	if again := at["mia"][1].ok(command); again.Seq != done.Seq || !again.Repeat {
		t.Errorf("resend while others are quicker: got %+v, want the first answer, seq %d", again, done.Seq)
	}
}
