package ws

import (
	"testing"

	"github.com/gorilla/websocket"

	"parley/core/session"
	"parley/core/wire"
)

// A client that does nothing but ping is told so and closed. What it sent on
// the way does not keep it from reading that.
func TestAPingFloodIsClosed(t *testing.T) {
	for name, kind := range map[string]int{"pings": websocket.PingMessage, "pongs": websocket.PongMessage} {
		t.Run(name, func(t *testing.T) {
			n := start(t, func(c *session.Config) { c.PingsPerSecond = 1 })
			c := n.guest("ann")
			c.t = t
			flooded := make(chan struct{})
			go func() {
				defer close(flooded)
				for range 2000 {
					if c.WriteMessage(kind, []byte("hello?")) != nil {
						return
					}
				}
			}()
			c.closed(int(wire.CloseAbuse))
			<-flooded
			_ = c.Close()
			n.checkClose(wire.CloseAbuse)
		})
	}
}
