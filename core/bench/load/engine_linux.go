package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// engine is one process's connections. Everything belongs to the goroutine
// that calls run.
type engine struct {
	spec Spec
	to   netip.AddrPort // of members
	pub  netip.AddrPort // of publishers
	from netip.Addr

	poll  *poller
	timer timer
	wake  int // read end of the pipe that orders come through
	buf   []byte

	conns   []conn
	rooms   []roomLog // of this process's members
	started int       // connections begun
	again   []comeback
	opening int   // begun and neither open nor gone
	begun   int64 // when connecting began
	news    int64 // when something last happened
	plan    plan
	stats   *Stats
	seconds seconds
	got     uint64
	clock   clock
}

// clock reads the monotonic clock without a system call each time: Go's own
// reading is the same clock since another moment.
type clock struct {
	mono int64
	at   time.Time
}

func newClock() clock { return clock{mono: Monotonic(), at: time.Now()} }

func (c clock) now() int64 { return c.mono + int64(time.Since(c.at)) }

// Keys of what is not a connection in the epoll set.
const (
	keyWake  = -1
	keyTimer = -2
)

// recent bounds the events remembered over all rooms of a process.
const recent = 16_384

func newEngine(spec Spec, wake int) (*engine, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	e := &engine{
		spec: spec, to: netip.MustParseAddrPort(spec.Server), pub: netip.MustParseAddrPort(spec.publishTo()), wake: wake, buf: make([]byte, 256<<10), // one read takes most of what a pass wrote
		conns: make([]conn, spec.Members+spec.Publishers), stats: NewStats(), seconds: seconds{current: NewLatency()}, clock: newClock(),
	}
	if spec.Bind != "" {
		e.from = netip.MustParseAddr(spec.Bind)
	}
	for i := range e.conns {
		e.conns[i] = conn{fd: -1, room: -1, pub: i - spec.Members}
		if i < spec.Members {
			e.conns[i].room = (spec.First+i)/spec.RoomSize - e.firstRoom()
		}
	}
	if spec.Members > 0 {
		n := e.conns[spec.Members-1].room + 1
		e.rooms = make([]roomLog, n)
		for i := range e.rooms {
			e.rooms[i] = roomLog{name: spec.roomName(e.firstRoom() + i), ring: make([]entry, min(max(recent/n, 8), 1024))}
		}
	}
	e.plan = newPlan(spec)
	var err error
	if e.poll, err = newPoller(); err != nil {
		return nil, err
	}
	if e.timer, err = newTimer(); err != nil {
		e.poll.close()
		return nil, err
	}
	return e, errors.Join(e.poll.watch(e.timer.fd, keyTimer, false), e.poll.watch(wake, keyWake, false))
}

// server is where connection i goes.
func (e *engine) server(i int) netip.AddrPort {
	if i < e.spec.Members {
		return e.to
	}
	return e.pub
}

func (e *engine) firstRoom() int { return e.spec.First / max(e.spec.RoomSize, 1) }

// close ends every connection at once.
func (e *engine) close() {
	for i := range e.conns {
		if c := &e.conns[i]; c.fd >= 0 {
			c.close()
		}
	}
	e.timer.close()
	e.poll.close()
}

// turn waits for at most ms milliseconds and handles what is ready. orders
// reports that the pipe of orders is.
func (e *engine) turn(ms int) (orders bool, err error) {
	events, err := e.poll.wait(ms)
	if err != nil {
		return false, err
	}
	for _, ev := range events {
		switch ev.Fd {
		case keyWake:
			orders = true
		case keyTimer:
			e.timer.drain()
		default:
			e.ready(int(ev.Fd), ev.Events)
		}
	}
	if err := e.dialMore(); err != nil {
		return orders, err
	}
	return orders, e.publish()
}

// ready handles one connection's events.
func (e *engine) ready(i int, events uint32) {
	c := &e.conns[i]
	if c.fd < 0 {
		return // ended by an earlier event of this turn
	}
	if c.state == dialing {
		if err := dialled(c.fd); err != nil {
			e.end(c, "connect: "+err.Error())
			return
		}
		if events&unix.EPOLLOUT == 0 {
			return
		}
		if !e.spec.TLS {
			e.speak(i)
			return
		}
		c.state, c.tls = shaking, newSecured(c.fd, e.server(i).Addr().String())
	}
	if c.state == shaking {
		e.shake(i)
		return
	}
	if events&unix.EPOLLOUT != 0 {
		e.flush(i)
	}
	if events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e.read(i)
	}
}

// shake goes on with a TLS handshake.
func (e *engine) shake(i int) {
	c := &e.conns[i]
	over, err := c.tls.shake()
	if err != nil {
		e.end(c, "TLS: "+err.Error())
		return
	}
	if !over {
		e.flush(i)
		return
	}
	e.speak(i)
	e.read(i) // crypto/tls may hold what came with the end of the handshake
}

// speak begins the protocol on a connection that is ready for it.
func (e *engine) speak(i int) {
	c := &e.conns[i]
	if e.spec.TCP {
		c.state = greeting
		c.out = e.greet(i, c.out)
	} else {
		c.state = upgrading
		c.out = e.upgradeRequest(c.out, e.server(i))
	}
	e.flush(i)
}

// read takes what has arrived: without TLS at most one buffer full, since the
// rest is reported again; with TLS everything, since crypto/tls takes more
// from the socket than it gives.
func (e *engine) read(i int) {
	for e.readOnce(i) && e.conns[i].tls != nil {
	}
}

// readOnce reports whether there may be more.
func (e *engine) readOnce(i int) (more bool) {
	c := &e.conns[i]
	if c.fd < 0 {
		return false
	}
	kept := copy(e.buf, c.in)
	var n int
	var err error
	if c.tls != nil {
		n, err = c.tls.conn.Read(e.buf[kept:])
	} else {
		n, err = unix.Read(c.fd, e.buf[kept:])
	}
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) || errors.Is(err, errLater{}):
		return false
	case err != nil:
		e.end(c, err.Error())
		return false
	case n == 0:
		e.end(c, io.EOF.Error())
		return false
	}
	now := e.clock.now()
	e.news = now
	e.stats.Bytes += uint64(n)
	e.stats.Reads++
	rest, err := e.consume(i, e.buf[:kept+n], now)
	if err != nil {
		e.end(c, err.Error())
		return false
	}
	if len(rest) > maxFrame {
		e.end(c, "frame too long")
		return false
	}
	if c.fd >= 0 {
		c.in = append(c.in[:0], rest...)
	}
	return true
}

// consume handles the complete frames of b and returns what is left.
func (e *engine) consume(i int, b []byte, now int64) (rest []byte, err error) {
	c := &e.conns[i]
	if c.state == upgrading {
		head, after, ok := bytes.Cut(b, []byte("\r\n\r\n"))
		if !ok {
			return b, nil
		}
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
			if after, ok := retryAfter(head); ok && e.comesBack(i, after, now) {
				return nil, nil
			}
			status, _, _ := bytes.Cut(head, []byte("\r\n"))
			return nil, fmt.Errorf("upgrade refused: %.100s", status)
		}
		c.state = greeting
		c.out = e.greet(i, c.out)
		e.flush(i)
		b = after
	}
	next := nextFrame
	if e.spec.TCP {
		next = nextLine
	}
	for c.fd >= 0 {
		op, payload, after, err := next(b)
		if errors.Is(err, errPartial) {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		b = after
		e.frame(i, op, payload, now)
	}
	return nil, nil
}

// flush writes what the connection owes, and asks to be told when the socket
// takes more.
func (e *engine) flush(i int) {
	c := &e.conns[i]
	owed := &c.out
	if c.tls != nil {
		if len(c.out) > 0 && c.fd >= 0 {
			if err := c.tls.seal(c.out); err != nil {
				e.end(c, err.Error())
				return
			}
			c.out = c.out[:0]
		}
		owed = &c.tls.out
	}
	for c.fd >= 0 && len(*owed) > 0 {
		n, err := unix.Write(c.fd, *owed)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			e.end(c, err.Error())
			return
		}
		*owed = (*owed)[:copy(*owed, (*owed)[n:])]
	}
	waits := len(*owed) > 0
	if !waits && e.spec.Members > 0 && c.room >= 0 {
		c.out, *owed = nil, nil // a member writes next to nothing
	}
	if c.fd >= 0 && waits != c.waits {
		c.waits = waits
		if err := e.poll.change(c.fd, int32(i), waits); err != nil {
			e.end(c, err.Error())
		}
	}
}

// end counts a connection that the server or the network ended.
func (e *engine) end(c *conn, why string) {
	if c.state == open {
		e.stats.Closed[why]++
		e.stats.Open--
	} else {
		e.stats.Refused[why]++
		e.opening--
	}
	c.close()
}

// close lets go of a connection.
func (c *conn) close() {
	if c.tls != nil {
		c.tls.stop() // a handshake under way
	}
	_ = unix.Close(c.fd)
	c.fd, c.state, c.in, c.out, c.tls = -1, gone, nil, nil, nil
}

// dialMore begins connections as long as the spec allows.
func (e *engine) dialMore() error {
	if e.begun == 0 {
		return nil
	}
	if err := e.dialAgain(); err != nil {
		return err
	}
	for e.started < len(e.conns) && e.opening < e.spec.Parallel {
		if now := e.clock.now(); e.spec.ConnectPerSec > 0 && float64(e.started) > float64(now-e.begun)/1e9*float64(e.spec.ConnectPerSec) {
			return e.timer.set(now + int64(time.Second)/int64(e.spec.ConnectPerSec))
		}
		if err := e.dial(e.started); err != nil {
			return err
		}
		e.started++
	}
	return nil
}

// dial begins connection i.
func (e *engine) dial(i int) error {
	fd, err := dial(e.server(i), e.from, e.spec.ReceiveBuffer)
	if err != nil {
		return fmt.Errorf("open connection %d: %w", i, err)
	}
	c := &e.conns[i]
	c.fd, c.state, c.waits, c.began = fd, dialing, true, e.clock.now()
	e.opening++
	return e.poll.watch(fd, int32(i), true)
}
