package redis_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"parley/core/redis"
	"parley/core/redis/redistest"
)

// ear is a Handler that remembers and can be waited on.
type ear struct {
	mu     sync.Mutex
	heard  map[string][]string // payloads by channel
	doubts map[string]int
	news   chan struct{} // one slot
}

func newEar() *ear {
	return &ear{heard: map[string][]string{}, doubts: map[string]int{}, news: make(chan struct{}, 1)}
}

func (e *ear) Message(channel, payload string) {
	e.note(func() { e.heard[channel] = append(e.heard[channel], payload) })
}

func (e *ear) Doubt(channel string) { e.note(func() { e.doubts[channel]++ }) }

func (e *ear) note(f func()) {
	e.mu.Lock()
	f()
	e.mu.Unlock()
	select {
	case e.news <- struct{}{}:
	default:
	}
}

// await waits until ok, which is asked under the ear's lock, is true.
func (e *ear) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		e.mu.Lock()
		done := ok()
		e.mu.Unlock()
		if done {
			return
		}
		select {
		case <-e.news:
		case <-deadline:
			t.Fatalf("waiting for %s: nothing after %v", what, patience)
		}
	}
}

// listen runs a subscriber until the test ends.
func listen(t *testing.T, c *redis.Client, h redis.Handler) *redis.Subscriber {
	t.Helper()
	s := c.Subscriber(h)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return s
}

// quickProbes have a link look about often; it is given up when it is closed, or
// no longer needed.
func quickProbes(c *redis.Config) { c.ProbeEvery = 50 * time.Millisecond }

// impatient has a link that is silent given up soon, and whatever waits on a
// silent connection. So it may be where the machine stands still for a moment.
func impatient(c *redis.Config) {
	quickProbes(c)
	c.ProbeTimeout, c.CallTimeout = 500*time.Millisecond, time.Second
}

func TestSubscriberFollowsChanges(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	c := open(t, server.URL(), quickProbes)
	e := newEar()
	s := listen(t, c, e)
	const channels = 600 // more than one command's worth
	for i := range channels {
		s.Subscribe(fmt.Sprintf("c%d", i))
	}
	e.await(t, "every subscription", func() bool { return len(e.doubts) == channels })
	for i := range channels {
		s.Unsubscribe(fmt.Sprintf("c%d", i+1)) // all but the first, and one it never had
	}
	s.Unsubscribe("c0")
	s.Subscribe("c0") // changed its mind
	s.Subscribe("last")
	e.await(t, "the last subscription", func() bool { return e.doubts["last"] == 1 })
	for _, channel := range []string{"c5", "c0", "last"} {
		if err := c.Publish(t.Context(), channel, "to "+channel); err != nil {
			t.Fatal(err)
		}
	}
	e.await(t, "the messages", func() bool { return len(e.heard["last"]) == 1 })
	e.mu.Lock()
	if len(e.heard["c0"]) != 1 || e.heard["c0"][0] != "to c0" || len(e.heard["c5"]) != 0 {
		t.Errorf("got %q, want one message on c0 and none on c5", e.heard)
	}
	e.mu.Unlock()
	if st := s.Stats(); st.Channels != 2 || st.Links != 1 {
		t.Errorf("stats: got %+v, want 2 channels over 1 link", st)
	}
}

func TestSubscriberComesBack(t *testing.T) {
	tests := []struct {
		name  string
		fault func(*redistest.Server, *redistest.Proxy)
	}{
		{"link closed by the server", func(s *redistest.Server, _ *redistest.Proxy) { s.Do("CLIENT", "KILL", "TYPE", "pubsub") }},
		{"link cut", func(_ *redistest.Server, p *redistest.Proxy) { p.Cut() }},
		{"link silent", func(_ *redistest.Server, p *redistest.Proxy) { p.Silence() }},
		{"server restarted", func(s *redistest.Server, _ *redistest.Proxy) { s.Kill(); s.Restart() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := redistest.Start(t, redistest.Options{})
			proxy := redistest.StartProxy(t, server.Addr())
			e := newEar()
			s := listen(t, open(t, proxy.URL(), impatient), e)
			s.Subscribe("a")
			s.Subscribe("b")
			e.await(t, "the subscriptions", func() bool { return e.doubts["a"] > 0 && e.doubts["b"] > 0 })
			e.mu.Lock()
			clear(e.doubts)
			e.mu.Unlock()
			tt.fault(server, proxy)
			e.await(t, "doubt on both", func() bool { return e.doubts["a"] > 0 && e.doubts["b"] > 0 })
			until(t, "a message after the fault to be heard", func() bool { // the link may be given up once more
				server.Do("PUBLISH", "a", "after")
				e.mu.Lock()
				defer e.mu.Unlock()
				return len(e.heard["a"]) > 0
			})
			if st := s.Stats(); st.Links < 2 {
				t.Errorf("stats: got %+v, want a second link", st)
			}
		})
	}
}

func TestSubscriberWaitsForTheServer(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	server.Stop()
	e := newEar()
	s := listen(t, open(t, server.URL(), quickProbes), e)
	s.Subscribe("a")
	server.Restart()
	e.await(t, "the subscription", func() bool { return e.doubts["a"] == 1 })
}

func TestSubscriberKeepsALongQueue(t *testing.T) {
	const n = 2000 // go-redis's Channel drops after 100
	server := redistest.Start(t, redistest.Options{})
	c := open(t, server.URL(), nil)
	e := newEar()
	s := listen(t, c, e)
	s.Subscribe("a")
	e.await(t, "the subscription", func() bool { return e.doubts["a"] == 1 })
	e.mu.Lock() // the handler stands still
	for i := range n {
		if err := c.Publish(t.Context(), "a", fmt.Sprint(i)); err != nil {
			t.Error(err)
		}
	}
	e.mu.Unlock()
	e.await(t, "every message", func() bool { return len(e.heard["a"]) == n })
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, got := range e.heard["a"] {
		if got != fmt.Sprint(i) {
			t.Fatalf("message %d: got %s", i, got)
		}
	}
}
