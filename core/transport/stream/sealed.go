package stream

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/liveness"
)

// pieceBytes is how much is encrypted at a time, only once all that was
// encrypted before has left: the most one TLS record holds (RFC 8446 §5.1), so
// a piece is one record.
const pieceBytes = 16 << 10

// spillBytes bounds the ciphertext that waits for the socket: one piece, and
// what TLS says by itself meanwhile (RFC 8446 §4.6.3 and §6: an answer to each
// key update, alerts). A client that asks for more of that than fits while it
// reads nothing is cut.
const spillBytes = pieceBytes + 4<<10

// errSpill ends a connection whose buffer of ciphertext is full.
var errSpill = errors.New("stream: the peer asks for TLS key updates and reads nothing")

// sealed implements Socket on TLS. What was encrypted cannot be taken
// back: its record number is used. So bytes are encrypted only when the
// ciphertext before them has left, and then a piece at a time; the socket
// takes its ciphertext when it likes. The last byte of a piece counts as
// written when all its ciphertext has left, and the ones before it no faster
// than that leaves. So a peer whose ciphertext waits has a rest to offer,
// stays parked, and is drained like any other; and what it offers again begins
// with bytes that are already encrypted, which are passed over. (A piece of a
// single byte would look unbegun; no frame is that short.)
type sealed struct {
	tls   *tls.Conn
	below *spill

	// Owned by who may write now, see room.Socket.
	staged int // bytes at the beginning of what is offered next that are encrypted already
}

// errChanged says that the rest of a write was not offered again, which would
// corrupt the stream.
var errChanged = errors.New("stream: the rest of an encrypted write was not offered again")

// TryWrite implements Socket.
func (s *sealed) TryWrite(p []byte) (int, error) {
	gone, err := s.below.flush()
	if err != nil {
		return 0, err
	}
	return s.push(p, gone)
}

// Write implements Socket.
func (s *sealed) Write(p []byte, timeout time.Duration) (int, error) {
	n, err := s.push(p, 0) // for where nothing waits
	if n > 0 || err != nil {
		return n, err
	}
	gone, err := s.below.wait(timeout)
	if err != nil {
		return 0, err
	}
	return s.push(p, gone)
}

// push settles what left, gone bytes of ciphertext, and encrypts more of p
// for as long as the socket takes all of it.
func (s *sealed) push(p []byte, gone int) (n int, err error) {
	for {
		if s.staged > len(p)-n {
			return n, errChanged
		}
		left := s.below.pending()
		n += s.settle(gone, left)
		if left > 0 || n == len(p) {
			return n, nil
		}
		piece := p[n:min(len(p), n+pieceBytes)]
		if _, err := s.tls.Write(piece); err != nil {
			return n, err
		}
		s.staged = len(piece)
		gone = 1 // the piece is begun, and the peer must know that it is
	}
}

// settle says how many staged bytes count as written now.
func (s *sealed) settle(gone, left int) int {
	n := s.staged
	if left > 0 {
		n = max(0, min(gone, s.staged-1))
	}
	s.staged -= n
	return n
}

// Shutdown implements Socket. TLS says goodbye too (close_notify, RFC
// 8446 §6.1), which like the last frame is lost where the socket is full.
func (s *sealed) Shutdown() {
	_ = s.tls.CloseWrite()
	shutdown(s.below.Conn)
}

// Abort implements Socket.
func (s *sealed) Abort() { _ = s.below.Conn.Close() }

// Evidence implements Socket: it is of the ciphertext.
func (s *sealed) Evidence() (liveness.Evidence, error) { return s.below.fd.look() }

// spill is the connection below a tls.Conn. Until hold it is that connection:
// the handshake and HTTP write to it and wait. From then on Write always takes
// all it is given, at once: what the socket does not take is kept, in order,
// within spillBytes.
//
// TLS writes from two goroutines: the connection's writer, and its reader,
// which answers key updates and sends alerts. crypto/tls keeps their records
// in order by a lock of its own; mu orders what they leave here.
type spill struct {
	net.Conn
	holding atomic.Bool

	mu  sync.Mutex
	fd  descriptor
	out []byte // what the socket did not take yet
}

// hold makes Write never wait any more.
func (s *spill) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fd = newDescriptor(s.Conn)
	s.holding.Store(true)
}

// Write implements net.Conn for crypto/tls.
func (s *spill) Write(p []byte) (n int, err error) {
	if !s.holding.Load() {
		return s.Conn.Write(p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.out) == 0 {
		if n, err = s.fd.write(p); err != nil {
			return n, err
		}
	}
	if len(s.out)+len(p)-n > spillBytes {
		return n, errSpill
	}
	if n < len(p) {
		s.out = append(s.out, p[n:]...)
	}
	return len(p), nil
}

// SetWriteDeadline implements net.Conn for crypto/tls, which sets one around
// close_notify; once Write never waits it would only hit the drainer's.
func (s *spill) SetWriteDeadline(t time.Time) error {
	if s.holding.Load() {
		return nil
	}
	return s.Conn.SetWriteDeadline(t)
}

// SetDeadline implements net.Conn.
func (s *spill) SetDeadline(t time.Time) error {
	if s.holding.Load() {
		return s.Conn.SetReadDeadline(t)
	}
	return s.Conn.SetDeadline(t)
}

// pending returns how many bytes wait for the socket.
func (s *spill) pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.out)
}

// flush writes what waits without waiting itself, and returns how much left.
func (s *spill) flush() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.out) == 0 {
		return 0, nil
	}
	n, err := s.fd.write(s.out)
	s.leftLocked(n)
	return n, err
}

// wait writes what waits, for timeout at most, and returns how much left.
// Meanwhile Write may add to it: with something there it only appends.
func (s *spill) wait(timeout time.Duration) (int, error) {
	s.mu.Lock()
	b := s.out
	s.mu.Unlock()
	if len(b) == 0 {
		return 0, nil
	}
	n, err := writeWithin(s.Conn, b, timeout)
	s.mu.Lock()
	s.leftLocked(n)
	s.mu.Unlock()
	return n, err
}

// leftLocked takes n bytes off the front. An empty buffer is given back: it
// is needed only by who reads slowly.
func (s *spill) leftLocked(n int) {
	if s.out = s.out[n:]; len(s.out) == 0 {
		s.out = nil
	}
}
