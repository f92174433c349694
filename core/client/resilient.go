package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/wire"
)

// ResilientOptions say how to stay connected.
type ResilientOptions struct {
	Options
	// URLs are tried in turn, for a cluster; empty: Options.URL alone.
	URLs []string
	// Rooms are joined on every connection, at most wire.MaxRooms.
	Rooms []chat.RoomID
	// The wait before a reconnect is random between 0 and a bound that doubles
	// from MinBackoff to MaxBackoff; 0 = 500 ms and 30 s (docs/protocol.md,
	// Reconnecting).
	MinBackoff, MaxBackoff time.Duration
	// OnConnect and OnDisconnect tell of each connection, between the events
	// of the one before and the one after, on the goroutine of Run. OnConnect
	// comes before the rooms are joined.
	OnConnect    func(*wire.WelcomeEvent)
	OnDisconnect func(error)
	// OnAttempt sees each write of a Send, the first and every resend, and the
	// error of the one before it.
	OnAttempt func(room chat.RoomID, nonce string, before error)
}

// Resilient keeps one client connected: it reconnects with jittered backoff
// after retryable ends, joins its rooms again in one frame from where it was,
// and resends with the same nonce whatever has no final answer. A guest keeps
// its name by the secret of its first welcome.
//
// Run does the work; Send and the other methods wait for it. Send's caller
// goroutines do the resending, so unacknowledged messages are as many as
// callers, and no queue exists.
type Resilient struct {
	opt    ResilientOptions
	places *places

	mu       sync.Mutex
	conn     *Conn         // nil while disconnected or rooms are not joined yet
	turned   chan struct{} // closed and replaced when conn or err changes
	err      error         // why Run has given up
	identity chat.UserID
	secret   string
}

// settled is how long a connection must have lasted before the backoff begins
// anew: a server that crashes on each connect must not be hammered.
const settled = 10 * time.Second

// NewResilient prepares a client; it starts nothing.
func NewResilient(opt ResilientOptions) (*Resilient, error) {
	if len(opt.URLs) == 0 {
		opt.URLs = []string{opt.URL}
	}
	if len(opt.Rooms) > wire.MaxRooms {
		return nil, fmt.Errorf("%d rooms, at most %d fit into one join", len(opt.Rooms), wire.MaxRooms)
	}
	if opt.MinBackoff == 0 {
		opt.MinBackoff = 500 * time.Millisecond
	}
	if opt.MaxBackoff == 0 {
		opt.MaxBackoff = 30 * time.Second
	}
	return &Resilient{opt: opt, places: newPlaces(), turned: make(chan struct{}), secret: opt.Secret}, nil
}

// Run connects and stays connected until ctx ends (nil) or the server says
// something final (the error). It waits for what it started.
func (r *Resilient) Run(ctx context.Context) error {
	err := r.run(ctx)
	r.publish(nil, cmp.Or(err, ErrClosed))
	return err
}

func (r *Resilient) run(ctx context.Context) error {
	for try, next := 0, 0; ; next++ {
		began := time.Now()
		welcome, err := r.live(ctx, r.opt.URLs[next%len(r.opt.URLs)])
		if ctx.Err() != nil {
			return nil
		}
		if final(err) {
			return err
		}
		if welcome != nil && time.Since(began) >= settled {
			try = 0
		}
		if !pause(ctx, r.delay(try, welcome, err)) {
			return nil
		}
		try++
	}
}

// live is one connection from dial to end. The welcome is nil when hello was
// not answered.
func (r *Resilient) live(ctx context.Context, url string) (*wire.WelcomeEvent, error) {
	opt := r.opt.Options
	opt.URL = url
	r.mu.Lock()
	if r.secret != "" {
		opt.Secret = r.secret
		if r.identity != "" {
			opt.Guest = string(r.identity)
		}
	}
	r.mu.Unlock()

	conn, err := dial(ctx, opt, r.places)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	w := conn.Welcome()
	r.mu.Lock()
	r.identity = w.User
	if w.Secret != "" {
		r.secret = w.Secret
	}
	r.mu.Unlock()
	if r.opt.OnConnect != nil {
		r.opt.OnConnect(w)
	}
	err = r.serve(ctx, conn)
	_ = conn.Close()
	if r.opt.OnDisconnect != nil {
		r.opt.OnDisconnect(err)
	}
	return w, err
}

func (r *Resilient) serve(ctx context.Context, conn *Conn) error {
	joinCtx, cancel := context.WithTimeout(ctx, conn.opt.Timeout)
	_, refused, err := conn.JoinAll(joinCtx, r.wanted())
	cancel()
	if err != nil {
		return err
	}
	for room, err := range refused {
		return fmt.Errorf("join %s: %w", room, err)
	}
	r.publish(conn, nil)
	defer r.publish(nil, nil)
	select {
	case <-conn.Done():
		return conn.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Resilient) wanted() []wire.JoinRoom {
	rooms := make([]wire.JoinRoom, len(r.opt.Rooms))
	for i, room := range r.opt.Rooms {
		rooms[i].Room = room
		if at, ok := r.places.get(room); ok {
			rooms[i].Since = &at
		}
	}
	return rooms
}

func (r *Resilient) publish(conn *Conn, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conn = conn
	if r.err == nil {
		r.err = err
	}
	close(r.turned)
	r.turned = make(chan struct{})
}

// Conn waits for a connection that has joined its rooms. It may end at any
// time; ask again then.
func (r *Resilient) Conn(ctx context.Context) (*Conn, error) {
	return r.other(ctx, nil)
}

// other waits for a connection that is not old.
func (r *Resilient) other(ctx context.Context, old *Conn) (*Conn, error) {
	for {
		r.mu.Lock()
		conn, err, turned := r.conn, r.err, r.turned
		r.mu.Unlock()
		switch {
		case err != nil:
			return nil, err
		case conn != nil && conn != old:
			return conn, nil
		}
		select {
		case <-turned:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// User is the name the server gave, "" before the first welcome.
func (r *Resilient) User() chat.UserID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.identity
}

// Position is where this client stands in a room.
func (r *Resilient) Position(room chat.RoomID) (journal.Position, bool) { return r.places.get(room) }

// Send posts a message and resends it, with the same nonce, until the server
// gives a final answer: an ack, or a *chat.Error that retrying cannot help.
// When ctx ends or Run gives up, the outcome is unknown.
func (r *Resilient) Send(ctx context.Context, room chat.RoomID, nonce, text string) (*wire.AckEvent, error) {
	var old *Conn
	var last error
	for try := 0; ; try++ {
		conn, err := r.other(ctx, old)
		if err != nil {
			return nil, err
		}
		if r.opt.OnAttempt != nil {
			r.opt.OnAttempt(room, nonce, last)
		}
		ack, err := conn.Send(ctx, room, nonce, text)
		var said *chat.Error
		switch {
		case err == nil:
			return ack, nil
		case errors.As(err, &said) && said.Retry == 0:
			return nil, err
		case errors.As(err, &said):
			old = nil
			wait := max(said.Retry, r.backoff(try))
			if !pause(ctx, wait) {
				return nil, ctx.Err()
			}
		case ctx.Err() != nil:
			return nil, ctx.Err()
		default:
			old = conn // it is broken; its reader will say so
		}
		last = err
	}
}

// final reports whether reconnecting in the same way cannot help.
func final(err error) bool {
	var ce *CloseError
	var said *chat.Error
	var shake *HandshakeError
	switch {
	case errors.As(err, &ce):
		return !ce.Code.Reconnect()
	case errors.As(err, &said):
		return said.Retry == 0
	case errors.As(err, &shake):
		return shake.Status < 500 && shake.Status != http.StatusTooManyRequests
	}
	return false // a dial error, a timeout
}

// delay is the wait before the next connection. A draining server asks for a
// random part of its announced jitter, so that not everyone comes at once.
func (r *Resilient) delay(try int, w *wire.WelcomeEvent, err error) time.Duration {
	var ce *CloseError
	if errors.As(err, &ce) {
		if ce.Code == wire.CloseRestart && w != nil && w.ReconnectJitterMS > 0 {
			return rand.N(min(time.Duration(w.ReconnectJitterMS)*time.Millisecond, r.opt.MaxBackoff))
		}
		if ce.RetryAfter > 0 {
			return ce.RetryAfter + rand.N(r.opt.MinBackoff)
		}
	}
	var shake *HandshakeError
	if errors.As(err, &shake) && shake.RetryAfter > 0 {
		return shake.RetryAfter + rand.N(r.opt.MinBackoff)
	}
	return r.backoff(try)
}

func (r *Resilient) backoff(try int) time.Duration {
	d := r.opt.MinBackoff
	for range try {
		if d *= 2; d >= r.opt.MaxBackoff {
			d = r.opt.MaxBackoff
			break
		}
	}
	return rand.N(d + 1)
}

// pause waits and reports false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
