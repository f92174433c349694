package stream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
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

// RemoteIP returns the address of the connection's other end; the zero Addr
// where it has none.
func RemoteIP(c net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
