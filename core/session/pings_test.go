package session

import (
	"testing"

	"parley/core/wire"
)

// A client may ping now and then, and a burst may pile up on its way; one that
// floods pings or pongs is closed, whatever form they have.
func TestPingFloodsAreClosed(t *testing.T) {
	for name, ping := range map[string]func(*caller){
		"WebSocket pings": func(c *caller) { c.x.Ping([]byte("x")) },
		"WebSocket pongs": func(c *caller) { c.x.Pong([]byte{0, 0, 0, 1}) },
		"empty pongs":     func(c *caller) { c.x.Pong(nil) },
		"JSON pings":      func(c *caller) { c.raw(`{"type":"ping"}`) },
		"JSON pongs":      func(c *caller) { c.raw(`{"type":"pong","ts":1}`) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(s *setup) { s.cfg.PingsPerSecond = 5 })
			for _, c := range []*caller{w.connect(), w.guest("ann")} { // before hello too
				for range pingSeconds * 5 {
					ping(c)
				}
				if c.x.Closed() {
					t.Fatal("closed within the limit")
				}
				for i := 0; !c.x.Closed(); i++ {
					if ping(c); i > 1000 { // far more than time could allow
						t.Fatal("a flood of pings goes on")
					}
				}
				ping(c) // costs nothing more
				code, reason, _ := c.x.Peer().Closed()
				if code != wire.CloseAbuse || reason != "too many pings" {
					t.Errorf("got close %d %q, want %d", code, reason, wire.CloseAbuse)
				}
				c.end()
			}
			checkCloses(t, w, wire.CloseAbuse, 2)
		})
	}
}
