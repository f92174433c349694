package ws

import (
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"parley/core/transport/intake"
	"parley/core/transport/transporttest"
)

// parking starts a server that parks connections, with one parked already.
func parking(t *testing.T, cfg Config) (*node, *client) {
	t.Helper()
	cfg.Intake = transporttest.Intake(t, true)
	n := serve(t, transporttest.Node(t, nil), nil, cfg)
	c := n.guest("ann")
	c.rests(cfg.Intake)
	return n, c
}

// rests makes sure that the connection is parked: the first one may have been
// here before the intake ran.
func (c *client) rests(in *intake.Intake) {
	c.t.Helper()
	transporttest.Parked(c.t, in, 1, func() {
		c.send(`{"type":"ping","ts":1}`)
		c.sees("pong")
	})
}

func TestAParkedConnectionIsServed(t *testing.T) {
	n, c := parking(t, Config{})
	for range 20 {
		w, err := c.NextWriter(websocket.TextMessage) // a frame each
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{`{"type":`, `"ping","ts":3}`} {
			if _, err := w.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		c.sees("pong")
		c.rests(n.ws.intake)
	}
}

// A ping between two messages is answered, and the connection parked again.
func TestAParkedConnectionAnswersPings(t *testing.T) {
	n, c := parking(t, Config{})
	answers := make(chan string, 1)
	c.SetPongHandler(func(data string) error { answers <- data; return nil })
	for _, text := range []string{"", "are you there?"} {
		if err := c.WriteControl(websocket.PingMessage, []byte(text), time.Now().Add(transporttest.Patience)); err != nil {
			t.Fatal(err)
		}
		c.send(`{"type":"ping","ts":3}`) // gorilla reads pongs on the way to a message
		c.sees("pong")
		if got := <-answers; got != text {
			t.Errorf("got pong %q, want %q", got, text)
		}
		c.rests(n.ws.intake)
	}
}

func TestAParkedConnectionIsToldOfTheEnd(t *testing.T) {
	for name, end := range map[string]func(*node){
		"drain": func(n *node) { n.sessions.Drain(t.Context()) },
		"abort": func(n *node) { n.sessions.Abort() },
	} {
		t.Run(name, func(t *testing.T) {
			n, c := parking(t, Config{})
			end(n)
			for {
				if _, _, err := c.ReadMessage(); err != nil {
					if name == "drain" && !websocket.IsCloseError(err, 1012) {
						t.Errorf("got %v, want a close with 1012", err)
					}
					break
				}
			}
			_ = c.Close()
			n.awaitIdle()
		})
	}
}
