package redis

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// go-redis takes whatever length a reply names for the size of what to
// allocate, and what is nested in it as deep as it goes. So each connection
// follows the replies before the library sees them, and ends where one breaks
// its bounds. It looks at the lines between strings alone, so that its cost
// does not depend on how long the strings are.

// maxDepth bounds lists in lists. The deepest reply that anybody asks for, of
// XREADGROUP, has five.
const maxDepth = 16

// elementBytes is what an element of a list takes beside its text: an
// interface in the list and a string's header.
const elementBytes = 32

// ErrReply says that a server sent what no reply may be, and what that was.
// It comes with ErrUnavailable: the command may have run.
var ErrReply = errors.New("not a reply that is taken")

// meter counts what the replies of one exchange take in memory. An exchange is
// what the library reads under one deadline: the replies of a pipeline, or one
// published message. What it reads ahead counts with what came before, so that
// one message has half the bound for certain.
type meter struct {
	limit int64
	spent int64 // in this exchange
	reply int64 // the part of spent that is due to the reply under way

	kind   byte     // of the line under way; 0: at its beginning
	text   [24]byte // of a length so far
	digits int
	skip   int64 // bytes of a string that are still to come, its line end included

	left  [maxDepth]int64 // elements that lists under way still have to come
	depth int
}

// next begins another exchange. What of the next reply has been read counts.
func (m *meter) next() { m.spent = m.reply }

func (m *meter) spend(n int64) error {
	if n > m.limit-m.spent {
		return fmt.Errorf("redis: %w: what was asked for takes more than redis.max_reply_bytes, %d, and the connection was ended", ErrReply, m.limit)
	}
	m.spent += n
	m.reply += n
	return nil
}

// follow looks at what was read next.
func (m *meter) follow(b []byte) error {
	for len(b) > 0 {
		if m.skip > 0 {
			n := min(m.skip, int64(len(b)))
			m.skip -= n
			if b = b[n:]; m.skip == 0 {
				m.ended()
			}
			continue
		}
		if m.kind == 0 {
			m.kind, m.digits = b[0], 0
			b = b[1:]
			switch m.kind {
			case '+', '-', ':', '$', '*':
			default:
				return fmt.Errorf("redis: %w: it begins with %q, and the server is perhaps none of Redis", ErrReply, m.kind)
			}
			continue
		}
		line, whole := b, false
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, whole = b[:i+1], true
		}
		b = b[len(line):]
		if err := m.line(line, whole); err != nil {
			return err
		}
	}
	return nil
}

// line takes a part of a line behind its kind, and whether that ends it.
func (m *meter) line(part []byte, whole bool) error {
	if err := m.spend(int64(len(part))); err != nil {
		return err
	}
	sized := m.kind == '$' || m.kind == '*'
	if sized {
		if len(part) > len(m.text)-m.digits {
			return fmt.Errorf("redis: %w: it names a length of many digits", ErrReply)
		}
		m.digits += copy(m.text[m.digits:], part)
	}
	if !whole {
		return nil
	}
	kind := m.kind
	m.kind = 0
	if !sized {
		m.ended()
		return nil
	}
	n, ok := length(m.text[:m.digits])
	switch {
	case !ok:
		return fmt.Errorf("redis: %w: it names the length %q", ErrReply, m.text[:m.digits])
	case n < 0 || kind == '*' && n == 0: // none, or an empty list
		m.ended()
	case kind == '$':
		if err := m.spend(n); err != nil {
			return err
		}
		m.skip = n + 2
	case m.depth == maxDepth:
		return fmt.Errorf("redis: %w: it has lists in lists %d deep", ErrReply, maxDepth)
	case n > m.limit/elementBytes:
		return m.spend(m.limit + 1)
	default:
		m.left[m.depth] = n
		m.depth++
		return m.spend(n * elementBytes)
	}
	return nil
}

// length reads digits and a line end; -1 stands for nothing.
func length(text []byte) (n int64, ok bool) {
	text, ok = bytes.CutSuffix(text, []byte("\r\n"))
	if !ok || len(text) == 0 || len(text) > 18 {
		return 0, false
	}
	if string(text) == "-1" {
		return -1, true
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// ended notes that a value has come whole, and with it the lists that it was
// the last of.
func (m *meter) ended() {
	for m.depth > 0 {
		m.left[m.depth-1]--
		if m.left[m.depth-1] > 0 {
			return
		}
		m.depth--
	}
	m.reply = 0
}

// metered is a connection whose replies are bounded. One goroutine reads it.
type metered struct {
	net.Conn
	meter meter
	bad   error
}

// Read implements net.Conn.
func (c *metered) Read(b []byte) (int, error) {
	if c.bad != nil {
		return 0, c.bad
	}
	n, err := c.Conn.Read(b)
	if c.bad = c.meter.follow(b[:n]); c.bad != nil {
		return 0, c.bad
	}
	return n, err
}

// SetReadDeadline implements net.Conn. The library calls it before each
// exchange.
func (c *metered) SetReadDeadline(t time.Time) error {
	c.meter.next()
	return c.Conn.SetReadDeadline(t)
}

// plain is a metered connection without TLS. The library looks through it for
// whether the server has closed it before it is used again.
type plain struct {
	metered
	raw syscall.Conn
}

// SyscallConn implements syscall.Conn.
func (c *plain) SyscallConn() (syscall.RawConn, error) { return c.raw.SyscallConn() }

// keepAlive finds a peer that is gone without a word while nothing is sent.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 5 * time.Second, Count: 3}

// dial makes one connection, TLS included.
func (d dialling) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.DialTimeout)
	defer cancel()
	dialer := &net.Dialer{KeepAliveConfig: keepAlive}
	m := metered{meter: meter{limit: int64(d.cfg.MaxReplyBytes)}}
	var err error
	if d.tls != nil {
		if m.Conn, err = (&tls.Dialer{NetDialer: dialer, Config: d.tls}).DialContext(ctx, network, addr); err != nil {
			return nil, err
		}
		return &m, nil
	}
	if m.Conn, err = dialer.DialContext(ctx, network, addr); err != nil {
		return nil, err
	}
	if raw, ok := m.Conn.(syscall.Conn); ok {
		return &plain{m, raw}, nil
	}
	return &m, nil
}
