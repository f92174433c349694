// Package stream is the socket below a connection's room.Peer: writes that
// never wait for the pumps, writes that wait for the one drainer of a full
// connection, and an end that lets the last bytes arrive. It does so for plain
// TCP and for TLS.
//
// It writes to the file descriptor through syscall.RawConn, so a full socket
// is told apart from a slow one without a goroutine or a deadline a
// connection. A write of crypto/tls that times out is fatal to its
// connection, so below TLS lies a bounded buffer of ciphertext that is always
// ready to take what TLS writes (see sealed and spill).
package stream

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"parley/core/liveness"
)

// LingerTime is how long the reading side goes on after Shutdown, so that
// the peer's answer to a close is read and no reset destroys our last bytes
// (a close with bytes unread resets the connection, RFC 1122 §4.2.2.13).
const LingerTime = 2 * time.Second

// Socket is a room.Socket: see there for who may call what when.
type Socket interface {
	TryWrite(p []byte) (int, error)
	Write(p []byte, timeout time.Duration) (int, error)
	Shutdown()
	Abort()
	// Evidence asks the kernel about the connection. Any goroutine may ask.
	Evidence() (liveness.Evidence, error)
}

// New returns the socket of conn. Where conn is TLS, its handshake has ended
// and it came from a Listener of this package, and nothing else writes to it
// from now on.
func New(conn net.Conn) Socket {
	if t, ok := conn.(*tls.Conn); ok {
		if below, ok := t.NetConn().(*spill); ok {
			below.hold()
			return &sealed{tls: t, below: below}
		}
	}
	return newPlain(conn)
}

// Waking returns s with a hook: wake is called after Shutdown and Abort, under
// whatever lock their caller holds.
func Waking(s Socket, wake func()) Socket { return &waking{s, wake} }

type waking struct {
	Socket
	wake func()
}

// Shutdown implements Socket.
func (s *waking) Shutdown() {
	s.Socket.Shutdown()
	s.wake()
}

// Abort implements Socket.
func (s *waking) Abort() {
	s.Socket.Abort()
	s.wake()
}

// plain implements Socket on a net.Conn without TLS.
type plain struct {
	conn net.Conn
	fd   descriptor
}

func newPlain(conn net.Conn) *plain { return &plain{conn: conn, fd: newDescriptor(conn)} }

// TryWrite implements Socket. A connection without a file descriptor is
// always full, which leaves it to the drainer.
func (s *plain) TryWrite(p []byte) (int, error) { return s.fd.write(p) }

// Write implements Socket.
func (s *plain) Write(p []byte, timeout time.Duration) (int, error) {
	return writeWithin(s.conn, p, timeout)
}

// Shutdown implements Socket.
func (s *plain) Shutdown() { shutdown(s.conn) }

// Abort implements Socket.
func (s *plain) Abort() { _ = s.conn.Close() }

// Evidence implements Socket.
func (s *plain) Evidence() (liveness.Evidence, error) { return s.fd.look() }

// writeWithin writes p to c, for timeout at most; 0 = for ever. Some bytes
// written are no error.
func writeWithin(c net.Conn, p []byte, timeout time.Duration) (int, error) {
	var deadline time.Time
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	if err := c.SetWriteDeadline(deadline); err != nil {
		return 0, err
	}
	n, err := c.Write(p)
	_ = c.SetWriteDeadline(time.Time{}) // a deadline left behind would fail the next write to the descriptor
	if n > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return n, err
}

// shutdown ends the sending side of c, wakes who waits in a write, and lets
// the reading side end soon.
func shutdown(c net.Conn) {
	now := time.Now()
	_ = c.SetReadDeadline(now.Add(LingerTime))
	_ = c.SetWriteDeadline(now)
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// Linger reads what the other end of a connection still sends, and drops it,
// until that end has closed too or timeout is over. It is for the connection's
// reader, after the sending side was shut down.
func Linger(c net.Conn, timeout time.Duration) {
	_ = c.SetReadDeadline(time.Now().Add(timeout))
	_, _ = io.Copy(io.Discard, c)
}

// descriptor writes to a connection's file descriptor without waiting.
type descriptor struct {
	raw syscall.RawConn // nil where the connection has none
}

func newDescriptor(c net.Conn) (d descriptor) {
	if sc, ok := c.(syscall.Conn); ok && canTry {
		if raw, err := sc.SyscallConn(); err == nil {
			d.raw = raw
		}
	}
	return d
}

// write writes what the connection takes without waiting; 0 and nil mean
// that it is full.
func (d descriptor) write(p []byte) (int, error) {
	if d.raw == nil || len(p) == 0 {
		return 0, nil
	}
	a := attempts.Get().(*attempt)
	a.buf, a.n, a.err = p, 0, nil
	err := d.raw.Write(a.try)
	if err == nil {
		err = a.err
	}
	n := a.n
	a.buf, a.err = nil, nil
	attempts.Put(a)
	return n, err
}

// attempt is one write. It is pooled, with its closure: one for each write
// would be an allocation for each delivery, one for each connection memory
// that rests most of the time.
type attempt struct {
	buf []byte
	n   int
	err error
	try func(fd uintptr) bool
}

var attempts = sync.Pool{New: func() any {
	a := new(attempt)
	a.try = a.write
	return a
}}

// write writes until the socket is full. It always answers true: waiting is
// the drainer's business.
func (a *attempt) write(fd uintptr) bool {
	for a.n < len(a.buf) {
		n, err := writeFD(fd, a.buf[a.n:])
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return true
		case err != nil:
			a.err = os.NewSyscallError("write", err)
			return true
		case n == 0:
			a.err = io.ErrUnexpectedEOF
			return true
		default:
			a.n += n
		}
	}
	return true
}

// look asks the kernel about the connection.
func (d descriptor) look() (liveness.Evidence, error) {
	if d.raw == nil {
		return liveness.Evidence{}, errors.ErrUnsupported
	}
	return liveness.Look(d.raw)
}
