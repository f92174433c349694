package stream

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/transport/proxy"
)

// accepted is a connection of a Listener.
type accepted struct {
	*net.TCPConn

	// Set at construction.
	ln      *Listener
	guard   *time.Timer // nil without a deadline
	waiting bool        // a PROXY header comes first

	born time.Time // when its time to begin began; zero after Rest. Its user's own.

	header  sync.Once
	remote  net.Addr // the client's; after header where waiting
	err     error    // of the header
	release atomic.Pointer[func()]

	unread []byte // read once and put back; the reader's own
}

// late cuts a connection that took too long. It runs on the guard's goroutine.
func (c *accepted) late() {
	c.ln.stats.Late.Add(1)
	c.giveBack()
	_ = c.TCPConn.Close()
}

// admit counts the connection for its client's address.
func (c *accepted) admit() bool {
	if c.ln.opt.Admit == nil {
		return true
	}
	release, ok := c.ln.opt.Admit(addrOf(c.remote))
	if !ok {
		c.ln.stats.Refused.Add(1)
		return false
	}
	c.release.Store(&release)
	return true
}

// giveBack undoes admit, once.
func (c *accepted) giveBack() {
	if release := c.release.Swap(nil); release != nil {
		(*release)()
	}
}

// headerTime is how long a proxy may take for its header where the listener
// has no deadline: it sends it at once.
const headerTime = 5 * time.Second

// errRefused ends a connection of an address that has too many.
var errRefused = errors.New("stream: this address has as many connections as are allowed")

// identify reads the PROXY header where one is due, on the first goroutine
// that wants to know; the others wait. Failing closes the connection.
func (c *accepted) identify() error {
	if !c.waiting {
		return nil
	}
	c.header.Do(func() {
		if c.guard == nil { // then nobody else sees to it, and nobody has set a deadline yet
			_ = c.SetReadDeadline(time.Now().Add(headerTime))
			defer func() { _ = c.SetReadDeadline(time.Time{}) }()
		}
		client, err := proxy.ReadHeader(c.TCPConn)
		switch {
		case err != nil:
			c.ln.stats.Headers.Add(1)
			c.err = fmt.Errorf("connection from the proxy at %v: %w", c.remote, err)
		case client.IsValid():
			c.remote = net.TCPAddrFromAddrPort(client)
		}
		// A proxy that speaks for itself is counted like its clients.
		if c.err == nil && !c.admit() {
			c.err = errRefused
		}
		if c.err != nil {
			_ = c.Close()
		}
	})
	return c.err
}

// Read implements net.Conn.
func (c *accepted) Read(p []byte) (int, error) {
	if err := c.identify(); err != nil {
		return 0, err
	}
	if len(c.unread) > 0 {
		n := copy(p, c.unread)
		if c.unread = c.unread[n:]; len(c.unread) == 0 {
			c.unread = nil
		}
		return n, nil
	}
	return c.TCPConn.Read(p)
}

// RemoteAddr implements net.Conn: the client's address.
func (c *accepted) RemoteAddr() net.Addr {
	_ = c.identify() // the next read says it
	return c.remote
}

// Close implements net.Conn.
func (c *accepted) Close() error {
	if c.guard != nil {
		c.guard.Stop()
	}
	c.giveBack()
	return c.TCPConn.Close()
}
