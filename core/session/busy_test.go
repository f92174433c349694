package session

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/liveness"
)

// A pong that was read together with a command waits for it. Nobody is taken
// for frozen meanwhile, however long the store takes.
func TestNobodyIsFrozenBehindASlowCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(s *setup) {
			s.wheel = liveness.Config{Ping: 5 * time.Second, Pong: time.Second}
			s.cfg.StoreTimeout = 10 * time.Second
		})
		s := &wired{sink: newSink(), e: liveness.Evidence{Known: true, RTO: 200 * time.Millisecond}}
		x := greet(t, w, s, 1)
		defer x.End()
		x.Receive(x.Context(), []byte(`{"type":"join","rooms":[{"room":"lobby"}]}`))
		wait := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		w.store.onAppend.Store(&wait)
		for pings := w.wheel.Stats().Pings; w.wheel.Stats().Pings == pings; { // until one is out
			time.Sleep(10 * time.Millisecond)
		}
		if !x.Receive(x.Context(), []byte(`{"type":"send","room":"lobby","text":"hi","nonce":"n1"}`)) {
			code, reason, _ := x.Peer().Closed()
			t.Errorf("closed as %d %s while the server was at work", code, reason)
		}
		time.Sleep(10 * time.Second) // now it is silent indeed
		if got := w.wheel.Stats().Dead[liveness.CauseFrozen]; got != 1 || !x.Closed() {
			t.Errorf("got %d frozen, closed %v, want one that is closed", got, x.Closed())
		}
	})
}
