package stream

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Listen listens for TCP connections. tune sets the options of each accepted
// connection, KeepAlive included: Go's own default is switched off.
func Listen(ctx context.Context, addr string, tune func(*net.TCPConn)) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1}
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return &listener{Listener: ln, tune: tune}, nil
}

type listener struct {
	net.Listener
	tune func(*net.TCPConn)
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tc, ok := c.(*net.TCPConn); ok && err == nil {
		l.tune(tc)
	}
	return c, err
}

// Secure returns a listener whose connections speak TLS as cfg says: each is a
// *tls.Conn whose handshake has not begun, so accepting never waits for one.
// Closing it closes ln.
func Secure(ln net.Listener, cfg *tls.Config) net.Listener { return &secure{ln, cfg} }

type secure struct {
	net.Listener
	cfg *tls.Config
}

// Accept implements net.Listener.
func (l *secure) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tls.Server(&spill{Conn: c}, l.cfg), nil
}

// Handshake does the TLS handshake of c, where c is TLS and has not done it,
// until deadline or until ctx ends, which closes c; the zero time is no
// deadline.
func Handshake(ctx context.Context, c net.Conn, deadline time.Time) error {
	t, ok := c.(*tls.Conn)
	if !ok {
		return nil
	}
	if err := t.SetDeadline(deadline); err != nil {
		return err
	}
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	return t.SetDeadline(time.Time{})
}

// RemoteIP returns the address of the connection's other end; the zero Addr
// where it has none.
func RemoteIP(c net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
