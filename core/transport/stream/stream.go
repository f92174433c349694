// Package stream is the socket below a connection's room.Peer: writes that
// never wait for the pumps, writes that wait for the one drainer of a full
// connection, and an end that lets the last bytes arrive.
//
// It writes to the file descriptor through syscall.RawConn, so a full socket
// is told apart from a slow one without a goroutine or a deadline a
// connection.
package stream

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// LingerTime is how long the reading side goes on after Shutdown, so that
// the peer's answer to a close is read and no reset destroys our last bytes
// (a close with bytes unread resets the connection, RFC 1122 §4.2.2.13).
const LingerTime = 2 * time.Second

// Stream implements room.Socket on a net.Conn. See room.Socket for who may
// call what when.
type Stream struct {
	conn net.Conn
	raw  syscall.RawConn // nil where the connection has no file descriptor

	// Used by the attempt function below, under the peer's lock.
	buf []byte
	n   int
	err error
	try func(fd uintptr) bool // made once: a closure each write would be an allocation each delivery
}

// New returns the socket of conn.
func New(conn net.Conn) *Stream {
	s := &Stream{conn: conn}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
			s.try = s.attempt
		}
	}
	return s
}

// TryWrite implements room.Socket. A connection without a file descriptor is
// always full, which leaves it to the drainer.
func (s *Stream) TryWrite(p []byte) (int, error) {
	if s.raw == nil || len(p) == 0 {
		return 0, nil
	}
	s.buf, s.n, s.err = p, 0, nil
	err := s.raw.Write(s.try)
	s.buf = nil
	if err == nil {
		err = s.err
	}
	return s.n, err
}

// attempt writes until the socket is full. It always answers true: waiting is
// the drainer's business.
func (s *Stream) attempt(fd uintptr) bool {
	for s.n < len(s.buf) {
		n, err := syscall.Write(int(fd), s.buf[s.n:])
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return true
		case err != nil:
			s.err = os.NewSyscallError("write", err)
			return true
		case n == 0:
			s.err = io.ErrUnexpectedEOF
			return true
		default:
			s.n += n
		}
	}
	return true
}

// Write implements room.Socket.
func (s *Stream) Write(p []byte, timeout time.Duration) (int, error) {
	var deadline time.Time
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	if err := s.conn.SetWriteDeadline(deadline); err != nil {
		return 0, err
	}
	n, err := s.conn.Write(p)
	_ = s.conn.SetWriteDeadline(time.Time{}) // a deadline left behind would fail the next TryWrite
	if n > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return n, err
}

// Shutdown implements room.Socket.
func (s *Stream) Shutdown() {
	now := time.Now()
	_ = s.conn.SetReadDeadline(now.Add(LingerTime))
	_ = s.conn.SetWriteDeadline(now)
	if half, ok := s.conn.(interface{ CloseWrite() error }); ok {
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

// Abort implements room.Socket.
func (s *Stream) Abort() { _ = s.conn.Close() }
