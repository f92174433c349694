package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"parley/core/transport/proxy"
)

// Options say how a Listener treats what it accepts. The zero value accepts
// everything as it comes.
type Options struct {
	// Bequeath sets the options of the listening socket, which on Linux every
	// accepted connection inherits; errors.ErrUnsupported where it does not.
	// May be nil.
	Bequeath func(syscall.RawConn) error
	// Tune sets the options of each accepted connection, KeepAlive included
	// (Go's own default is switched off), where Bequeath did not. May be nil.
	Tune func(*net.TCPConn)
	// TLS is the server's side of TLS; nil = none. Accept never waits for a
	// handshake: it begins with the connection's first read or write, or with
	// Handshake.
	TLS *tls.Config
	// Proxies are the networks whose connections begin with a PROXY header
	// (package proxy), before TLS. It too is read by whoever uses the
	// connection first. Others have no header and speak for themselves.
	Proxies proxy.Networks
	// Deadline is the time from Accept to Settle, for all that happens in
	// between; a connection that takes longer is cut. 0 = no limit.
	Deadline time.Duration
	// Admit counts a connection once its client's address is known, and
	// refuses it, which cuts it. release is called when it closes. May be nil.
	Admit func(client netip.Addr) (release func(), ok bool)
}

// Listener accepts connections. Its methods may be called from any goroutine.
type Listener struct {
	net.Listener
	opt   Options
	stats Stats
}

// Stats counts connections that were cut; every number only grows.
type Stats struct {
	Late    atomic.Uint64 // Options.Deadline was over
	Headers atomic.Uint64 // a bad PROXY header, or none where one was due
	Refused atomic.Uint64 // by Options.Admit
}

// Listen listens for TCP connections.
func Listen(ctx context.Context, addr string, opt Options) (*Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, rc syscall.RawConn) error {
		if opt.Bequeath == nil {
			return nil
		}
		err := opt.Bequeath(rc)
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		opt.Tune = nil
		return err
	}}
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return &Listener{Listener: ln, opt: opt}, nil
}

// Stats returns the listener's counters, live.
func (l *Listener) Stats() *Stats { return &l.stats }

// Accept implements net.Listener. It waits for nothing that the other end of
// a connection must do first.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c, ok := l.take(raw.(*net.TCPConn)); ok {
			return c, nil
		}
	}
}

// take makes a connection of what was accepted.
func (l *Listener) take(tc *net.TCPConn) (net.Conn, bool) {
	if l.opt.Tune != nil {
		l.opt.Tune(tc)
	}
	c := &accepted{TCPConn: tc, ln: l, born: time.Now(), remote: tc.RemoteAddr()}
	if d := l.opt.Deadline; d > 0 {
		c.guard = time.AfterFunc(d, c.late)
	}
	c.waiting = l.opt.Proxies.Contain(addrOf(c.remote))
	if !c.waiting && !c.admit() {
		_ = c.Close()
		return nil, false
	}
	if l.opt.TLS != nil {
		return tls.Server(&spill{Conn: c}, l.opt.TLS), true
	}
	return c, true
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

// Settle ends the time that Options.Deadline gives c, whose user bounds the
// wait from now on. It returns when limit is over, counted from Accept, or from
// the first Settle after Rest; the zero time where limit is 0. It may be called
// again.
func Settle(c net.Conn, limit time.Duration) (deadline time.Time) {
	born := time.Now()
	if a := acceptedOf(c); a != nil {
		if a.born.IsZero() {
			a.born = born
		}
		born = a.born
		if a.guard != nil {
			a.guard.Stop()
		}
	}
	if limit <= 0 {
		return time.Time{}
	}
	return born.Add(limit)
}

// Rest says that c has served its user and may serve another: what comes next
// has a time of its own. It and Settle belong to c's user, one call at a time.
func Rest(c net.Conn) {
	if a := acceptedOf(c); a != nil {
		a.born = time.Time{}
	}
}

// Release gives back what Options.Admit counted for c, for a user that counts
// it by itself.
func Release(c net.Conn) {
	if a := acceptedOf(c); a != nil {
		a.giveBack()
	}
}

// Plain reports whether c came from a Listener without TLS.
func Plain(c net.Conn) bool {
	_, ok := c.(*accepted)
	return ok
}

// Bare returns c without what only its beginning needs: it is for the user of a
// connection that was settled and released. A connection with bytes put back,
// or with TLS, is returned as it is.
func Bare(c net.Conn) net.Conn {
	if a, ok := c.(*accepted); ok && len(a.unread) == 0 && a.release.Load() == nil {
		return a.TCPConn
	}
	return c
}

// Descriptor returns the file descriptor of c where all its unread bytes lie in
// the socket below it: of plain TCP, as Bare returns it. Else nil.
func Descriptor(c net.Conn) syscall.RawConn {
	if tc, ok := c.(*net.TCPConn); ok {
		if raw, err := tc.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// Unread puts bytes back that its reader has read from c, a Plain connection:
// they will be read again, before the rest. It keeps b.
func Unread(c net.Conn, b []byte) {
	if a, ok := c.(*accepted); ok {
		a.unread = append(b, a.unread...)
	}
}

// acceptedOf returns the connection of a Listener that c is, or nil.
func acceptedOf(c net.Conn) *accepted {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if s, ok := c.(*spill); ok {
		c = s.Conn
	}
	a, _ := c.(*accepted)
	return a
}

// RemoteIP returns the address of the connection's other end, the client's
// where a trusted proxy has said it; the zero Addr where it has none. It
// waits for the PROXY header where one is due.
func RemoteIP(c net.Conn) netip.Addr { return addrOf(c.RemoteAddr()) }

func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
