package ws

import (
	"net"
	"net/http"
	"testing"

	"github.com/gorilla/websocket"

	"parley/core/session"
	"parley/core/transport/proxy"
	"parley/core/transport/stream"
	"parley/core/transport/transporttest"
)

// behind starts a node behind a proxy on loopback.
func behind(t *testing.T, trusted string, change func(*session.Config)) *node {
	t.Helper()
	proxies, err := proxy.Parse([]string{trusted})
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, transporttest.Node(t, change), nil, Config{Proxies: proxies}, func(o *stream.Options) { o.Admit = nil })
}

// Two clients behind one proxy are two, and one that lies about itself is
// still one.
func TestClientsBehindAProxyAreCountedEach(t *testing.T) {
	n := behind(t, "127.0.0.0/8", func(c *session.Config) { c.ConnectionsPerIP = 1 })
	dial := func(forwarded string) (int, error) {
		g, resp, err := websocket.DefaultDialer.Dial(n.url(), http.Header{"X-Forwarded-For": {forwarded}})
		if err == nil {
			t.Cleanup(func() { _ = g.Close() })
		}
		if resp == nil {
			t.Fatal(err)
		}
		return resp.StatusCode, err
	}
	for _, tt := range []struct {
		forwarded string
		status    int
	}{
		{"203.0.113.1", 101}, {"203.0.113.2", 101}, {"203.0.113.1", 503}, {"198.51.100.7, 203.0.113.2", 503}, {"203.0.113.3, 127.0.0.9", 101},
	} {
		if got, err := dial(tt.forwarded); got != tt.status {
			t.Errorf("forwarded for %s: got %d, %v, want %d", tt.forwarded, got, err, tt.status)
		}
	}
}

func TestNobodyElsesHeaderIsBelieved(t *testing.T) {
	n := behind(t, "10.0.0.0/8", func(c *session.Config) { c.ConnectionsPerIP = 1 })
	n.guest("ann")
	_, resp, err := websocket.DefaultDialer.Dial(n.url(), http.Header{"X-Forwarded-For": {"203.0.113.1"}})
	if err == nil || resp == nil || resp.StatusCode != 503 {
		t.Errorf("got %v, %v, want 503", resp, err)
	}
}

// Connections that only load pages count by address like the others.
func TestPlainConnectionsAreCounted(t *testing.T) {
	n := start(t, func(c *session.Config) { c.ConnectionsPerIP = 1 })
	cut := make(chan error, 20)
	for range 20 { // 1 and 16 more are let in
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() { // ends with c
			_, err := c.Read(make([]byte, 1))
			cut <- err
		}()
	}
	for range 3 { // the others wait for what they are asked
		if err := <-cut; err == nil {
			t.Error("got bytes, want the end")
		}
	}
}
