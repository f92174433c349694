package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// link is a Subscriber's connection to one server, made again whenever it
// fails. It reads with a loop of its own: go-redis's Channel() drops messages
// when its buffer of 100 is full. And it publishes a probe to itself: a
// connection that was cut without a word stayed silent for 90 s with the
// library's health checks on, so a link is alive only if the probe comes back
// through it.
type link struct {
	// Set at construction.
	sub    *Subscriber
	server *server
	wake   chan struct{} // holds a token when dirty is not empty

	// Guarded by sub.mu. Run sets ctx and end before it starts the link.
	ctx    context.Context // the link's lifetime; nil: not started
	end    context.CancelFunc
	wanted map[string]struct{}
	dirty  map[string]struct{} // wanted or unwanted since the connection was last told
	// leaving counts, by sharded channel, what the connection was told to end
	// and has not echoed yet.
	leaving map[string]int

	heard atomic.Int64 // Unix ns of the last probe heard; 0: none on this connection
}

func newLink(s *Subscriber, to *server) *link {
	return &link{
		sub: s, server: to, wake: make(chan struct{}, 1), end: func() {},
		wanted: make(map[string]struct{}), dirty: make(map[string]struct{}), leaving: make(map[string]int),
	}
}

// change has the connection told of a channel. The caller holds sub.mu.
func (l *link) change(channel string) {
	l.dirty[channel] = struct{}{}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// drop gives a channel up. The caller holds sub.mu.
func (l *link) drop(channel string) {
	delete(l.wanted, channel)
	l.change(channel)
}

// Waits between two connections, doubled from the first to the last while
// they fail, each shortened by up to half at random so that nodes spread.
const (
	firstWait = 50 * time.Millisecond
	lastWait  = 2 * time.Second
)

// run keeps the connection until the link's context ends.
func (l *link) run() {
	defer l.end()
	ctx, client := l.ctx, l.sub.client
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		l.heard.Store(0)
		err := l.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		if l.heard.Load() != 0 { // the connection worked
			wait = firstWait
		}
		client.log.Warn("redis subscription lost, connecting again", "server", l.server.addr, "error", err, "wait", wait)
		client.route.fault(l.server.addr)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait - rand.N(wait/2)):
		}
	}
}

// connect makes one connection and uses it until it fails or ctx ends.
func (l *link) connect(ctx context.Context) error {
	l.sub.mu.Lock()
	l.sub.made++
	l.sub.mu.Unlock()
	probe, err := l.probe()
	if err != nil {
		return err
	}
	pubsub := l.server.rdb.Subscribe(ctx) // without channels: no I/O yet
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn := conn{PubSub: pubsub, sharded: l.sub.client.to.mode == Cluster}
	var told sync.WaitGroup
	told.Go(func() {
		cancel(l.tell(ctx, conn, probe))
		_ = conn.Close() // ends the read below
	})
	err = l.read(ctx, conn, probe)
	// The library has by now made and subscribed a connection of its own
	// accord in place of a broken one. It is dropped: its wait and its single
	// command for all channels have no bound.
	cancel(err)
	told.Wait()
	return context.Cause(ctx)
}

// probe names a channel that only this connection uses, of a slot that the
// server has.
func (l *link) probe() (string, error) {
	c := l.sub.client
	tag := c.route.now.Load().tagAt(l.server)
	if tag == "" {
		return "", errors.New("the server is no primary that has slots")
	}
	return fmt.Sprintf("%s:{%s}:probe:%016x", c.ChannelPrefix(), tag, rand.Uint64()), nil
}

// conn speaks of channels as the mode wants it.
type conn struct {
	*goredis.PubSub
	sharded bool
}

// batch bounds the channels of one command.
const batch = 256

// send tells the connection of channels. Sharded ones go one by one, since
// those of one command must share a slot.
func (c conn) send(ctx context.Context, want bool, channels []string) error {
	n, tell, what := batch, c.Subscribe, "subscribe"
	switch {
	case c.sharded && want:
		n, tell = 1, c.SSubscribe
	case c.sharded:
		n, tell, what = 1, c.SUnsubscribe, "unsubscribe"
	case !want:
		tell, what = c.Unsubscribe, "unsubscribe"
	}
	for len(channels) > 0 {
		n := min(n, len(channels))
		if err := tell(ctx, channels[:n]...); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		channels = channels[n:]
	}
	return nil
}

// receive reads what comes next. The library takes a list for what it should
// hold, and panics where it holds something else.
func (c conn) receive(ctx context.Context, wait time.Duration) (got any, err error) {
	defer func() {
		if bad := recover(); bad != nil {
			err = fmt.Errorf("%w: not what is said to a subscriber: %v", ErrReply, bad)
		}
	}()
	return c.ReceiveTimeout(ctx, wait)
}

// tell sends subscriptions and probes until something fails or ctx ends.
func (l *link) tell(ctx context.Context, conn conn, probe string) error {
	if err := conn.send(ctx, true, []string{probe}); err != nil {
		return err
	}
	l.sub.mu.Lock()
	clear(l.dirty)
	clear(l.leaving)
	for channel := range l.wanted {
		l.dirty[channel] = struct{}{}
	}
	l.sub.mu.Unlock()
	if err := l.flush(ctx, conn); err != nil {
		return err
	}
	client := l.sub.client
	tick := time.NewTicker(client.cfg.ProbeEvery)
	defer tick.Stop()
	for n := uint64(0); ; n++ {
		// An error shows in the reader, which does not hear the probe.
		_, _ = client.alone(ctx, client.PublishCommand(), probe, strconv.FormatUint(n, 10))
		for probing := false; !probing; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-l.wake:
				if err := l.flush(ctx, conn); err != nil {
					return err
				}
			case <-tick.C:
				probing = true
			}
		}
	}
}

// flush tells the connection of every channel that was wanted or unwanted
// since the last time.
func (l *link) flush(ctx context.Context, conn conn) error {
	l.sub.mu.Lock()
	var more, less []string
	for channel := range l.dirty {
		if _, ok := l.wanted[channel]; ok {
			more = append(more, channel)
		} else {
			less = append(less, channel)
			if conn.sharded {
				l.leaving[channel]++
			}
		}
	}
	clear(l.dirty)
	l.sub.mu.Unlock()
	if err := conn.send(ctx, false, less); err != nil {
		return err
	}
	return conn.send(ctx, true, more)
}

var (
	errSilent = errors.New("the probe has not come back")
	errMoved  = errors.New("the probe's slot has moved to another server")
)

// read hands what arrives to the handler until the connection fails, is
// closed, or the probe stays away.
func (l *link) read(ctx context.Context, conn conn, probe string) error {
	alive := time.Now()
	for {
		left := l.sub.client.cfg.ProbeTimeout - time.Since(alive)
		if left <= 0 {
			return errSilent
		}
		got, err := conn.receive(ctx, left)
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			return errSilent
		}
		if slot, ok := movedSlot(err); ok { // the answer to a subscription
			if slot == Slot(probe) {
				return errMoved
			}
			l.forgo(slot)
			l.sub.displaced(l, func(channel string) bool { return Slot(channel) == slot })
			continue
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		switch m := got.(type) {
		case *goredis.Subscription:
			if err := l.subscribed(m, probe); err != nil {
				return err
			}
		case *goredis.Message:
			if m.Channel != probe {
				l.sub.deliver.Lock()
				l.sub.handler.Message(m.Channel, m.Payload)
				l.sub.deliver.Unlock()
				continue
			}
			alive = time.Now()
			l.heard.Store(alive.UnixNano())
		}
	}
}

// subscribed takes note of a channel that begins or ends.
func (l *link) subscribed(m *goredis.Subscription, probe string) error {
	switch {
	case m.Kind == "subscribe" || m.Kind == "ssubscribe":
		if m.Channel != probe {
			l.sub.deliver.Lock()
			l.sub.handler.Doubt(m.Channel)
			l.sub.deliver.Unlock()
		}
	case m.Kind != "sunsubscribe": // an echo
	case m.Channel == probe:
		return errMoved
	case l.echoed(m.Channel):
	default: // the server says that the channel's slot has left it
		l.sub.displaced(l, func(channel string) bool { return channel == m.Channel })
	}
	return nil
}

// echoed reports whether the end of a channel is what the connection was told.
// It may be wanted again by now: that is on its way.
func (l *link) echoed(channel string) bool {
	l.sub.mu.Lock()
	defer l.sub.mu.Unlock()
	n := l.leaving[channel]
	if n > 1 {
		l.leaving[channel] = n - 1
	} else {
		delete(l.leaving, channel)
	}
	return n > 0
}

// forgo waits for no echo of a slot that the server no longer has.
func (l *link) forgo(slot int) {
	l.sub.mu.Lock()
	defer l.sub.mu.Unlock()
	for channel := range l.leaving {
		if Slot(channel) == slot {
			delete(l.leaving, channel)
		}
	}
}

// movedSlot returns the slot that a MOVED reply speaks of.
func movedSlot(err error) (int, bool) {
	rest, ok := strings.CutPrefix(replied(err), "MOVED ")
	if !ok {
		return 0, false
	}
	number, _, _ := strings.Cut(rest, " ")
	slot, bad := strconv.Atoi(number)
	return slot, bad == nil
}
