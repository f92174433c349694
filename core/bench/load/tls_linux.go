package load

import (
	"crypto/tls"
	"errors"
	"io"
	"iter"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// secured is the TLS of one connection: crypto/tls over a descriptor that
// never waits. The handshake, which wants to wait, is a coroutine that goes on
// when the socket has something; everything else happens on the engine's
// goroutine.
type secured struct {
	fd   int
	conn *tls.Conn
	out  []byte // ciphertext that the socket has not taken yet

	next  func() (struct{}, bool) // goes on with the handshake; false when it has ended
	stop  func()                  // ends it
	pause func(struct{}) bool     // inside the handshake: waits for next; nil afterwards
	err   error                   // how the handshake ended
}

// newSecured begins TLS on a connection that is established.
func newSecured(fd int, server string) *secured {
	s := &secured{fd: fd}
	// Who the server is does not matter here: the benchmark tells it no secret,
	// and its own server has a certificate that nobody knows.
	s.conn = tls.Client(s, &tls.Config{InsecureSkipVerify: true, ServerName: server, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	s.next, s.stop = iter.Pull(func(yield func(struct{}) bool) {
		s.pause = yield
		s.err = s.conn.Handshake()
		s.pause = nil
	})
	return s
}

// shake goes on with the handshake and reports whether it is over.
func (s *secured) shake() (over bool, err error) {
	_, more := s.next()
	return !more, s.err
}

// seal encrypts into out.
func (s *secured) seal(b []byte) error {
	_, err := s.conn.Write(b)
	return err
}

// errLater says that the socket has nothing now. crypto/tls takes a temporary
// error of a read as one that the next read may follow.
type errLater struct{}

func (errLater) Error() string   { return "nothing has arrived" }
func (errLater) Timeout() bool   { return true }
func (errLater) Temporary() bool { return true }

// Read gives crypto/tls what has arrived.
func (s *secured) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(s.fd, b)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EAGAIN):
			return 0, err
		case s.pause == nil:
			return 0, errLater{}
		case !s.pause(struct{}{}):
			return 0, net.ErrClosed
		}
	}
}

// Write takes ciphertext of crypto/tls.
func (s *secured) Write(b []byte) (int, error) {
	s.out = append(s.out, b...)
	return len(b), nil
}

// The rest of net.Conn is not asked for: the engine closes the descriptor and
// keeps the time.

func (s *secured) Close() error                     { return nil }
func (s *secured) LocalAddr() net.Addr              { return nil }
func (s *secured) RemoteAddr() net.Addr             { return nil }
func (s *secured) SetDeadline(time.Time) error      { return nil }
func (s *secured) SetReadDeadline(time.Time) error  { return nil }
func (s *secured) SetWriteDeadline(time.Time) error { return nil }
