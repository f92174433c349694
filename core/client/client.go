// Package client speaks protocol v1 as a client does, over WebSocket and over
// TCP: for the end-to-end tests and for the load generator.
//
// A Conn is one connection. Its promises: events reach Options.OnEvent one at
// a time and in the order the server sent them; every command gets exactly
// one outcome, a reply or an error; pings are answered; the position in each
// joined room is tracked, so that a later join can resume there. A Resilient
// keeps a Conn alive over disconnects.
//
// Goroutines: Dial starts one reader for each Conn, which Close ends and
// waits for. OnEvent, OnFrame and the callbacks of asynchronous commands run
// on that reader: while one blocks, nothing is read, which is how a test
// plays a stalled client. All methods may be called from any goroutine, but
// Close and the methods that wait for a reply not from a callback.
package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/wire"
)

// Defaults of Options.
const (
	DefaultTimeout  = 10 * time.Second
	DefaultMaxFrame = 8 << 20 // bytes; a history answer of 1,000 long entries fits
)

// maxPending bounds the commands of one Conn that wait for a reply.
const maxPending = 64 << 10

// Options say where and as whom to connect.
type Options struct {
	URL    string // "ws://host:port/v1/ws", "wss://…", "tcp://host:port" or "tls://…"
	Token  string // a JWT; empty: connect as a guest
	Guest  string // the wished guest name; empty lets the server choose
	Secret string // the resume secret of an earlier guest welcome
	Device string // client name and version

	Timeout  time.Duration // for connecting and for each write; 0 = DefaultTimeout
	MaxFrame int           // bytes of one frame from the server; 0 = DefaultMaxFrame
	Origin   string        // the Origin header of a WebSocket handshake
	Compress bool          // offer permessage-deflate (RFC 7692)
	TLS      *tls.Config   // for wss and tls; nil: the system's roots, TLS 1.2 or later
	// SkipHello leaves the hello to the caller, so that Welcome is nil.
	SkipHello bool
	// NetDial replaces the dialing of the TCP connection below both transports.
	NetDial func(ctx context.Context, network, address string) (net.Conn, error)

	// OnFrame sees each frame before it is decoded and must not keep it; when
	// it returns true the frame is done with and decoding is saved.
	OnFrame func(frame []byte) bool
	// OnEvent sees every event but ping and pong, replies included, as a
	// pointer to its type of package wire, or as *UnknownEvent.
	OnEvent func(event any)
}

// ErrClosed is the end of a connection that this side closed.
var ErrClosed = errors.New("client: connection closed by this side")

// ErrBusy says that too many commands already wait for a reply.
var ErrBusy = fmt.Errorf("client: %d commands already wait for a reply", maxPending)

// CloseError says how the other side ended the connection. Commands under way
// have an unknown outcome: resend with the same nonce.
type CloseError struct {
	Code       wire.CloseCode // 1006 where the connection just broke (RFC 6455 §7.1.5)
	Reason     string         // what the server said
	RetryAfter time.Duration  // 0 = unsaid
	Cause      error          // the error of the socket
}

// Error names code, reason and cause.
func (e *CloseError) Error() string {
	s := fmt.Sprintf("connection closed with code %d", e.Code)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *CloseError) Unwrap() error { return e.Cause }

// Unknown reports whether an error of a command leaves open if the server
// carried it out: no reply came, or the server could not tell.
func Unknown(err error) bool {
	var said *chat.Error
	if errors.As(err, &said) {
		return said.Code == chat.CodeUnavailable
	}
	return err != nil
}

// NewNonce returns a fresh random nonce of 26 characters.
func NewNonce() string { return rand.Text() }

// Conn is one connection that has said hello.
type Conn struct {
	// set at construction
	opt     Options
	stream  stream
	places  *places
	done    chan struct{} // closed when the reader has ended
	welcome *wire.WelcomeEvent

	writing chan struct{} // one slot: who holds it writes to the socket

	mu      sync.Mutex
	lastID  uint64
	pending map[string]*call
	closing bool  // this side wants the end
	ended   bool  // no reply can come any more
	err     error // how it ended
}

// Dial connects, says hello and returns once the server has answered it. A
// refused hello is a *chat.Error, a refused connection a *CloseError or an
// *HandshakeError. The context bounds Dial alone.
func Dial(ctx context.Context, opt Options) (*Conn, error) {
	return dial(ctx, opt, newPlaces())
}

func dial(ctx context.Context, opt Options, pl *places) (*Conn, error) {
	if opt.Timeout == 0 {
		opt.Timeout = DefaultTimeout
	}
	if opt.MaxFrame == 0 {
		opt.MaxFrame = DefaultMaxFrame
	}
	if opt.TLS == nil {
		opt.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if opt.NetDial == nil {
		opt.NetDial = new(net.Dialer).DialContext
	}
	ctx, cancel := context.WithTimeout(ctx, opt.Timeout)
	defer cancel()
	s, err := open(ctx, &opt)
	if err != nil {
		return nil, err
	}
	c := &Conn{
		opt: opt, stream: s, places: pl,
		done:    make(chan struct{}),
		writing: make(chan struct{}, 1),
		pending: make(map[string]*call),
	}
	go c.readLoop()
	if opt.SkipHello {
		return c, nil
	}
	if err := c.hello(ctx); err != nil {
		var broken *CloseError
		if errors.As(err, &broken) && broken.Code == closedAbnormally {
			select { // a server that is full says so and closes; the reader knows
			case <-c.done:
				err = c.Err()
			case <-ctx.Done():
			}
		}
		_ = c.Close()
		return nil, fmt.Errorf("say hello to %s: %w", opt.URL, err)
	}
	return c, nil
}

func (c *Conn) hello(ctx context.Context) error {
	cmd := wire.Command{Type: wire.Hello, Token: c.opt.Token, Secret: c.opt.Secret, Device: c.opt.Device}
	if c.opt.Token == "" {
		cmd.Guest = &c.opt.Guest
	}
	w, err := ask[wire.WelcomeEvent](ctx, c, cmd)
	if err != nil {
		return err
	}
	c.welcome = w
	// The server pings at every heartbeat, so more than two of silence mean
	// that the path is dead.
	c.stream.silence(time.Duration(w.HeartbeatMS) * time.Millisecond * 5 / 2)
	return nil
}

// Welcome is the server's answer to hello.
func (c *Conn) Welcome() *wire.WelcomeEvent { return c.welcome }

// Done is closed when the connection has ended and every callback has returned.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err says how the connection ended: ErrClosed, a *CloseError, or nil while
// it lasts.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Position returns the place up to which this client has seen a room, and
// whether the room is joined.
func (c *Conn) Position(room chat.RoomID) (journal.Position, bool) { return c.places.get(room) }

// Close says goodbye, ends the connection and waits for the reader. It may be
// called twice.
func (c *Conn) Close() error {
	if c.stop() {
		select {
		case c.writing <- struct{}{}:
			c.stream.goodbye(time.Now().Add(time.Second))
			<-c.writing
		default: // a writer is under way, perhaps stuck; it must not hold us
		}
	}
	c.stream.close()
	<-c.done
	return nil
}

// Cut ends the connection without a goodbye, as a lost network would, and
// waits for the reader.
func (c *Conn) Cut() {
	c.stop()
	c.stream.close()
	<-c.done
}

// stop notes that this side wants the end and reports whether it is the first
// to say so on a living connection.
func (c *Conn) stop() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.closing && !c.ended
	c.closing = true
	return first
}

// WriteText writes a frame as it is: what a test needs to send nonsense.
func (c *Conn) WriteText(frame []byte) error { return c.write(textMessage, frame) }

// WriteBinary writes a binary WebSocket message, which protocol v1 forbids.
// On TCP it is the same as WriteText.
func (c *Conn) WriteBinary(frame []byte) error { return c.write(binaryMessage, frame) }

func (c *Conn) write(kind int, frame []byte) error {
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
	case <-c.done:
		return c.Err()
	}
	if err := c.stream.write(kind, frame, time.Now().Add(c.opt.Timeout)); err != nil {
		// The reader tells why: the server's close frame may still be unread.
		return &CloseError{Code: closedAbnormally, Cause: err}
	}
	return nil
}

// readLoop owns the read side until the connection ends.
func (c *Conn) readLoop() {
	defer close(c.done)
	var last *CloseError // TCP: the server's farewell line
	for {
		frame, err := c.stream.read()
		if err != nil {
			c.end(closeErrorOf(err, last))
			return
		}
		if c.opt.OnFrame != nil && c.opt.OnFrame(frame) {
			continue
		}
		ev, err := decode(frame)
		if err != nil {
			c.end(&CloseError{Code: wire.CloseProtocol, Reason: "the server sent what is no event", Cause: err})
			return
		}
		if bye, ok := ev.(*wire.CloseEvent); ok {
			last = &CloseError{Code: wire.CloseCode(bye.Code), Reason: bye.Reason,
				RetryAfter: time.Duration(bye.RetryAfterMS) * time.Millisecond}
		}
		c.handle(ev)
	}
}

func (c *Conn) handle(ev any) {
	if p, ok := ev.(*wire.PingEvent); ok {
		if p.Type == wire.Ping {
			// Unanswered is what a broken connection looks like anyway.
			_ = c.command(&wire.Command{Type: wire.Pong, ID: p.ID, TS: p.TS})
			return
		}
		c.resolve(p.ID, "", p, nil)
		return
	}
	c.places.note(ev)
	if c.opt.OnEvent != nil {
		c.opt.OnEvent(ev)
	}
	if id, room, fail := replyTo(ev); id != "" {
		c.resolve(id, room, ev, fail)
	}
}

// end fails what still waits for a reply.
func (c *Conn) end(err error) {
	c.stream.close()
	c.mu.Lock()
	if c.closing {
		err = ErrClosed
	}
	c.err = err
	c.ended = true
	waiting := c.pending
	c.pending = nil
	c.mu.Unlock()
	for _, w := range waiting {
		w.done(nil, err)
	}
}
