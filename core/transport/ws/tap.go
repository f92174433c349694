package ws

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"parley/core/transport/stream"
)

// connKey is where Context keeps the connection of a request.
type connKey struct{}

// Context is for http.Server.ConnContext: it lets the handler know the
// connection of a request.
func Context(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// State is for http.Server.ConnState: the header of a first request ends the
// time in which a connection must have sent one. Behind others, as reverse
// proxies send them, an upgrade has its time from its own header on.
func State(c net.Conn, s http.ConnState) {
	switch s {
	case http.StateActive:
		stream.Settle(c, 0)
	case http.StateIdle:
		stream.Rest(c)
	}
}

// tap hands gorilla a connection that it can write the handshake to, and
// nothing else.
type tap struct {
	http.ResponseWriter
	conn *tapConn
	in   *bufio.Reader // what gorilla will read from
}

// Hijack implements http.Hijacker.
func (t *tap) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	t.conn = &tapConn{Conn: c}
	if rw.Reader.Size() != readBuffer && rw.Reader.Buffered() == 0 { // else gorilla refuses: nothing may come before the handshake's answer
		rw.Reader = bufio.NewReaderSize(t.conn, readBuffer)
	}
	t.in = rw.Reader
	return t.conn, rw, nil
}

// tapConn is the connection as gorilla sees it. Once it is sealed, what
// gorilla writes by itself (the close frame after a protocol error, which the
// session says as well) and the deadline it sets for that go nowhere: the
// bytes could land in the middle of a frame, the deadline would fail a later
// TryWrite.
type tapConn struct {
	net.Conn
	deflate bool // gorilla has agreed to permessage-deflate
	sealed  atomic.Bool
}

// Write implements net.Conn.
func (c *tapConn) Write(p []byte) (int, error) {
	if c.sealed.Load() {
		return len(p), nil
	}
	c.deflate = c.deflate || bytes.Contains(p, []byte(deflateName)) // it does not say so otherwise
	return c.Conn.Write(p)
}

// SetWriteDeadline implements net.Conn.
func (c *tapConn) SetWriteDeadline(t time.Time) error {
	if c.sealed.Load() {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}
