package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Handler receives what a Subscriber hears. Its methods are called from the
// Subscriber's reader, one at a time, and must not block: while one runs,
// nothing else is read.
type Handler interface {
	// Message delivers one published payload.
	Message(channel, payload string)
	// Doubt says that the channel is subscribed from now on, and that what
	// was published before, since it was last known to be, may have been
	// missed.
	Doubt(channel string)
}

// Subscriber owns one pub/sub connection for any number of channels. It reads
// with a loop of its own: go-redis's Channel() drops messages when its buffer
// of 100 is full. And it publishes a probe to itself: a link that was cut
// without a word stayed silent for 90 s with the library's health checks on,
// so a link is alive only if the probe comes back through it.
type Subscriber struct {
	// Set at construction.
	client  *Client
	handler Handler
	probe   string        // channel only this subscriber uses
	wake    chan struct{} // holds a token when dirty is not empty

	mu     sync.Mutex
	wanted map[string]struct{}
	dirty  map[string]struct{} // wanted or unwanted since the connection was last told

	links atomic.Uint64
	heard atomic.Int64 // Unix ns of the last probe heard
}

// SubscriberStats describe a Subscriber, for metrics.
type SubscriberStats struct {
	Channels int
	Links    uint64    // connections made so far; each one after the first was a reconnect
	Heard    time.Time // when the last probe came back; zero if none has
}

// Subscriber returns a subscriber without channels that does nothing until Run.
func (c *Client) Subscriber(h Handler) *Subscriber {
	return &Subscriber{
		client:  c,
		handler: h,
		probe:   fmt.Sprintf("%s:probe:%016x", c.ChannelPrefix(), rand.Uint64()),
		wake:    make(chan struct{}, 1),
		wanted:  make(map[string]struct{}),
		dirty:   make(map[string]struct{}),
	}
}

// Subscribe asks for a channel. It does not wait: Doubt says when messages
// begin to arrive. Any goroutine may call it, at any time.
func (s *Subscriber) Subscribe(channel string) { s.change(channel, true) }

// Unsubscribe ends a channel. Messages under way may still arrive.
func (s *Subscriber) Unsubscribe(channel string) { s.change(channel, false) }

func (s *Subscriber) change(channel string, want bool) {
	s.mu.Lock()
	if want {
		s.wanted[channel] = struct{}{}
	} else {
		delete(s.wanted, channel)
	}
	s.dirty[channel] = struct{}{}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Stats returns the present state.
func (s *Subscriber) Stats() SubscriberStats {
	s.mu.Lock()
	st := SubscriberStats{Channels: len(s.wanted), Links: s.links.Load()}
	s.mu.Unlock()
	if ns := s.heard.Load(); ns != 0 {
		st.Heard = time.Unix(0, ns)
	}
	return st
}

// Waits between two connections, doubled from the first to the last while
// they fail, each shortened by up to half at random so that nodes spread.
const (
	firstWait = 50 * time.Millisecond
	lastWait  = 2 * time.Second
)

// Run keeps the connection until ctx ends, then returns nil. Call it once.
func (s *Subscriber) Run(ctx context.Context) error {
	wait := firstWait
	for {
		s.heard.Store(0)
		err := s.link(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if s.heard.Load() != 0 { // the link worked
			wait = firstWait
		}
		s.client.log.Warn("redis subscription lost, connecting again", "error", err, "wait", wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait - rand.N(wait/2)):
		}
		wait = min(2*wait, lastWait)
	}
}

// link makes one connection and uses it until it fails or ctx ends.
func (s *Subscriber) link(ctx context.Context) error {
	s.links.Add(1)
	conn := s.client.rdb.Subscribe(ctx) // without channels: no I/O yet
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var told sync.WaitGroup
	told.Go(func() {
		cancel(s.tell(ctx, conn))
		_ = conn.Close() // ends the read below
	})
	err := s.read(ctx, conn)
	// The library has by now made and subscribed a connection of its own
	// accord in place of a broken one. It is dropped: its wait and its single
	// command for all channels have no bound.
	cancel(err)
	told.Wait()
	return context.Cause(ctx)
}

// tell sends subscriptions and probes until something fails or ctx ends.
func (s *Subscriber) tell(ctx context.Context, conn *goredis.PubSub) error {
	if err := conn.Subscribe(ctx, s.probe); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	s.mu.Lock()
	clear(s.dirty)
	for channel := range s.wanted {
		s.dirty[channel] = struct{}{}
	}
	s.mu.Unlock()
	if err := s.flush(ctx, conn); err != nil {
		return err
	}
	tick := time.NewTicker(s.client.cfg.ProbeEvery)
	defer tick.Stop()
	for n := uint64(0); ; n++ {
		// An error shows in the reader, which does not hear the probe.
		// Alone: calls that wait must not make a link look dead.
		_, _ = s.client.alone(ctx, "publish", s.probe, strconv.FormatUint(n, 10))
		for probing := false; !probing; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-s.wake:
				if err := s.flush(ctx, conn); err != nil {
					return err
				}
			case <-tick.C:
				probing = true
			}
		}
	}
}

// batch bounds the channels of one command.
const batch = 256

// flush tells the connection of every channel that was wanted or unwanted
// since the last time.
func (s *Subscriber) flush(ctx context.Context, conn *goredis.PubSub) error {
	s.mu.Lock()
	var more, less []string
	for channel := range s.dirty {
		if _, ok := s.wanted[channel]; ok {
			more = append(more, channel)
		} else {
			less = append(less, channel)
		}
	}
	clear(s.dirty)
	s.mu.Unlock()
	for len(less) > 0 {
		n := min(batch, len(less))
		if err := conn.Unsubscribe(ctx, less[:n]...); err != nil {
			return fmt.Errorf("unsubscribe: %w", err)
		}
		less = less[n:]
	}
	for len(more) > 0 {
		n := min(batch, len(more))
		if err := conn.Subscribe(ctx, more[:n]...); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		more = more[n:]
	}
	return nil
}

var errSilent = errors.New("the probe has not come back")

// read hands what arrives to the handler until the connection fails, is
// closed, or the probe stays away.
func (s *Subscriber) read(ctx context.Context, conn *goredis.PubSub) error {
	alive := time.Now()
	for {
		left := s.client.cfg.ProbeTimeout - time.Since(alive)
		if left <= 0 {
			return errSilent
		}
		got, err := conn.ReceiveTimeout(ctx, left)
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			return errSilent
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		switch m := got.(type) {
		case *goredis.Subscription:
			if m.Kind == "subscribe" && m.Channel != s.probe {
				s.handler.Doubt(m.Channel)
			}
		case *goredis.Message:
			if m.Channel != s.probe {
				s.handler.Message(m.Channel, m.Payload)
				continue
			}
			alive = time.Now()
			s.heard.Store(alive.UnixNano())
		}
	}
}
