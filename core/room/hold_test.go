package room

import (
	"testing"
	"time"

	"parley/core/wire"
)

// What must not wait for a command under way does not, and takes the answers
// held back along, ahead of itself.
func TestControlIsNotHeldBack(t *testing.T) {
	w := newWorld(t, nil, nil)
	s := newSink(-1)
	p := w.hub.NewPeer(s, true)
	p.Hold()
	answer, ping, later := wire.Encode(wire.PingEvent{Type: wire.Pong, TS: 1}), wire.Encode(wire.PingEvent{Type: wire.Ping, TS: 2}), wire.Encode(wire.PingEvent{Type: wire.Pong, TS: 3})
	check := func(when, want string) {
		t.Helper()
		s.mu.Lock()
		defer s.mu.Unlock()
		if string(s.got) != want {
			t.Errorf("%s: got %q, want %q", when, s.got, want)
		}
	}
	if err := p.Reply(answer); err != nil {
		t.Fatal(err)
	}
	check("a reply while held", "")
	if err := p.Control(ping.Line()); err != nil {
		t.Fatal(err)
	}
	both := string(answer.Line()) + string(ping.Line())
	check("a ping", both)
	if err := p.Reply(later); err != nil {
		t.Fatal(err)
	}
	check("the next reply", both)
	p.Release()
	check("release", both+string(later.Line()))
	p.Close(wire.CloseNormal, "over", time.Second)
}
