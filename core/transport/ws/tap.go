package ws

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync/atomic"

	"parley/core/session"
)

// connKey is where Context keeps the connection of a request.
type connKey struct{}

// Context is for http.Server.ConnContext: it lets the handler know the
// connection of a request.
func Context(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// tap hands gorilla a connection whose writes can be led through the session.
type tap struct {
	http.ResponseWriter
	conn *tapConn
}

// Hijack implements http.Hijacker.
func (t *tap) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	t.conn = &tapConn{Conn: c}
	return t.conn, rw, nil
}

// tapConn writes to the socket during the handshake and to the session's peer
// afterwards.
type tapConn struct {
	net.Conn
	through atomic.Pointer[session.Session]
}

// Write implements net.Conn for gorilla's own control frames.
func (c *tapConn) Write(p []byte) (int, error) {
	x := c.through.Load()
	if x == nil {
		return c.Conn.Write(p)
	}
	if err := x.Peer().Control(p); err != nil {
		return 0, err
	}
	return len(p), nil
}
