package tcp

import (
	"testing"

	"parley/core/transport/intake"
	"parley/core/transport/transporttest"
)

// parking starts a server that parks connections, with one parked already.
func parking(t *testing.T) (*node, *intake.Intake, *client) {
	t.Helper()
	in := transporttest.Intake(t, true)
	n := serveFrom(t, in, transporttest.Node(t, nil), nil)
	c := n.dial()
	c.types(`{"type":"hello","guest":"ann"}` + "\n")
	c.sees("welcome")
	c.rests(in)
	return n, in, c
}

// rests makes sure that the connection is parked: the first one may have been
// here before the intake ran.
func (c *client) rests(in *intake.Intake) {
	c.t.Helper()
	transporttest.Parked(c.t, in, 1, func() {
		c.types(`{"type":"ping","ts":1}` + "\n")
		c.sees("pong")
	})
}

func TestAParkedConnectionIsServed(t *testing.T) {
	_, in, c := parking(t)
	for range 20 {
		c.types(`{"type":"ping",`) // its worker waits for the rest
		c.types(`"ts":3}` + "\n" + `{"type":"ping","ts":4}` + "\n\n")
		c.sees("pong")
		c.sees("pong")
		c.rests(in)
	}
}

// Before hello there is a deadline, which a parked connection would not see.
func TestWhoHasNotSaidHelloIsNotParked(t *testing.T) {
	n, in, _ := parking(t)
	c := n.dial()
	for range 3 {
		c.types(`{"type":"ping","ts":3}` + "\n")
		c.sees("pong")
	}
	if got := in.Parked(); got > 1 {
		t.Errorf("got %d parked, want the other at most", got)
	}
}

func TestAParkedConnectionIsToldOfTheEnd(t *testing.T) {
	n, _, c := parking(t)
	n.sessions.Drain(t.Context())
	c.closed(1012, true)
	c.Close()
	n.tcp.awaitIdle(t, n.sessions)
}

func TestAParkedConnectionIsAborted(t *testing.T) {
	n, _, c := parking(t)
	n.sessions.Abort()
	n.tcp.awaitIdle(t, n.sessions)
	if _, err := c.r.ReadString('\n'); err == nil {
		t.Error("got a line, want the end")
	}
}
