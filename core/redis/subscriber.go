package redis

import (
	"context"
	"sync"
	"time"
)

// Handler receives what a Subscriber hears. Its methods are called one at a
// time, from the Subscriber's readers, and must not block: while one runs,
// nothing else is read.
type Handler interface {
	// Message delivers one published payload.
	Message(channel, payload string)
	// Doubt says that the channel is subscribed from now on, and that what
	// was published before, since it was last known to be, may have been
	// missed.
	Doubt(channel string)
}

// Subscriber hears any number of channels over one link: a connection to the
// primary. In a cluster a channel's messages stay with the primary of its
// slot, so there it has a link to each primary that has one of its channels,
// and moves channels between links as slots move between primaries.
type Subscriber struct {
	// Set at construction.
	client  *Client
	handler Handler
	wake    chan struct{} // holds a token when links or channels wait for Run

	deliver sync.Mutex // held while the handler is called; never while holding mu

	mu     sync.Mutex
	wanted map[string]*link // by channel; nil: its primary is not known
	links  map[string]*link // by address
	made   uint64           // connections
	placed *layout          // by which every channel was placed; nil: some were not
}

// SubscriberStats describe a Subscriber, for metrics.
type SubscriberStats struct {
	Channels int
	Open     int       // links kept at present: 1, or in a cluster one for each primary that has channels
	Links    uint64    // connections made so far; what is more than Open was a reconnect
	Heard    time.Time // when the last probe came back, over the link where that is longest ago; zero if one is silent
}

// Subscriber returns a subscriber without channels that does nothing until Run.
func (c *Client) Subscriber(h Handler) *Subscriber {
	return &Subscriber{
		client:  c,
		handler: h,
		wake:    make(chan struct{}, 1),
		wanted:  make(map[string]*link),
		links:   make(map[string]*link),
	}
}

// Subscribe asks for a channel. It does not wait: Doubt says when messages
// begin to arrive. Any goroutine may call it, at any time.
func (s *Subscriber) Subscribe(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, known := s.wanted[channel]
	switch {
	case l != nil:
		l.change(channel)
	case !known:
		s.wanted[channel] = nil
		if s.placeLocked(s.client.route.now.Load(), channel); s.wanted[channel] == nil {
			s.client.route.doubt()
		}
	}
}

// Unsubscribe ends a channel. Messages under way may still arrive.
func (s *Subscriber) Unsubscribe(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.wanted[channel]
	delete(s.wanted, channel)
	if l != nil {
		l.drop(channel)
		if len(l.wanted) == 0 {
			s.poke() // Run may end the link
		}
	}
}

// poke wakes Run.
func (s *Subscriber) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Stats returns the present state.
func (s *Subscriber) Stats() SubscriberStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SubscriberStats{Channels: len(s.wanted), Open: len(s.links), Links: s.made}
	for _, l := range s.links {
		ns := l.heard.Load()
		if ns == 0 {
			st.Heard = time.Time{}
			break
		}
		if at := time.Unix(0, ns); st.Heard.IsZero() || at.Before(st.Heard) {
			st.Heard = at
		}
	}
	return st
}

// Run keeps the links until ctx ends, then returns nil. Call it once.
func (s *Subscriber) Run(ctx context.Context) error {
	route := s.client.route
	route.follow(s)
	defer route.unfollow(s)
	var links sync.WaitGroup
	defer links.Wait()
	// A primary that was cut off from the others answers as before: go on
	// asking who is one.
	check := time.NewTicker(s.client.cfg.ProbeEvery)
	defer check.Stop()
	for warned := false; ; {
		l, err := route.settle(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !warned {
			s.client.log.Warn("redis: the primaries cannot be found, trying on", "error", err)
		}
		warned = err != nil
		for _, one := range s.arrange(ctx, l) {
			links.Go(one.run)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-check.C:
			route.doubt()
		}
	}
}

// arrange moves every channel to the link of its primary, ends the links that
// nothing needs, and returns those to start.
func (s *Subscriber) arrange(ctx context.Context, l *layout) (start []*link) {
	if l == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.placed != l {
		s.placed = l
		for channel := range s.wanted {
			s.placeLocked(l, channel)
		}
	}
	if l.owner == nil { // there is something to listen for soon
		s.linkLocked(l.primaries[0])
	}
	for addr, one := range s.links {
		if len(one.wanted) == 0 && (l.owner != nil || one.server != l.primaries[0]) {
			delete(s.links, addr)
			one.end()
			continue
		}
		if one.ctx == nil {
			one.ctx, one.end = context.WithCancel(ctx)
			start = append(start, one)
		}
	}
	return start
}

// placeLocked gives a channel to the link of its primary.
func (s *Subscriber) placeLocked(l *layout, channel string) {
	was := s.wanted[channel]
	var to *link
	if l != nil {
		if primary, err := l.at(Slot(channel)); err == nil {
			to = s.linkLocked(primary)
		}
	}
	if to == nil {
		s.placed = nil
	}
	if to == was {
		return
	}
	if was != nil {
		was.drop(channel)
	}
	s.wanted[channel] = to
	if to != nil {
		to.wanted[channel] = struct{}{}
		to.change(channel)
	}
}

// linkLocked returns the link to a primary, which Run starts.
func (s *Subscriber) linkLocked(primary *server) *link {
	one := s.links[primary.addr]
	if one == nil || one.server != primary {
		if one != nil { // to a client that was closed
			s.abandonLocked(one)
		}
		one = newLink(s, primary)
		s.links[primary.addr] = one
		s.poke()
	}
	return one
}

// abandonLocked ends a link and leaves its channels without one.
func (s *Subscriber) abandonLocked(one *link) {
	for channel := range one.wanted {
		s.wanted[channel] = nil
	}
	clear(one.wanted)
	s.placed = nil
	delete(s.links, one.server.addr)
	one.end()
}

// displaced notes that a primary no longer has a slot, or one channel of it.
func (s *Subscriber) displaced(one *link, is func(channel string) bool) {
	s.mu.Lock()
	found := false
	for channel := range one.wanted {
		if is(channel) {
			one.drop(channel)
			s.wanted[channel], s.placed = nil, nil
			found = true
		}
	}
	s.mu.Unlock()
	if found {
		s.client.route.doubt()
		s.poke()
	}
}
