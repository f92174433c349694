package objects_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"parley/core/cluster/objects"
	"parley/core/redis/redistest"
)

func TestHeads(t *testing.T) { redistest.Each(t, redistest.Options{}, heads) }

func heads(t *testing.T, server redistest.Store) {
	a, b := open(t, server.URL(), nil), open(t, server.URL(), nil)
	if h, err := a.Head(t.Context(), "policy"); err != nil || h.Version != 0 {
		t.Fatalf("no head: got %+v, %v", h, err)
	}
	d, err := a.Put(t.Context(), "policy", []byte("object"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := a.SetHead(t.Context(), "policy", 0, map[string]int{"n": 1}, d)
	if err != nil || first.Version == 0 {
		t.Fatalf("set: got %+v, %v", first, err)
	}
	got, err := b.Head(t.Context(), "policy")
	var v map[string]int
	if err != nil || got.Version != first.Version || len(got.Names) != 1 || got.Names[0] != d || got.Decode(&v) != nil || v["n"] != 1 {
		t.Fatalf("read: got %+v, %v", got, err)
	}
	for _, old := range []objects.Version{0, first.Version + 1} {
		if _, err := b.SetHead(t.Context(), "policy", old, 2, d); !errors.Is(err, objects.ErrConflict) {
			t.Errorf("from version %d: got %v, want a conflict", old, err)
		}
	}
	if _, err := b.SetHead(t.Context(), "policy", first.Version, 2, objects.Sum([]byte("nowhere"))); !errors.Is(err, objects.ErrMissing) {
		t.Errorf("names what is not there: got %v", err)
	}
	second, err := b.SetHead(t.Context(), "policy", first.Version, 2, d)
	if err != nil || second.Version <= first.Version {
		t.Fatalf("set again: got %+v, %v", second, err)
	}
	server.Do("FLUSHALL")
	third, err := b.SetHead(t.Context(), "policy", 0, 3)
	if err != nil || third.Version <= second.Version {
		t.Errorf("after a loss: got version %d, %v, want above %d", third.Version, err, second.Version)
	}
}

func TestSetHeadRefuses(t *testing.T) { redistest.Each(t, redistest.Options{}, setHeadRefuses) }

func setHeadRefuses(t *testing.T, server redistest.Store) {
	s := open(t, server.URL(), nil)
	many := make([]objects.Digest, 257)
	for i := range many {
		many[i] = objects.Sum([]byte(fmt.Sprint(i)))
	}
	tests := []struct {
		name, head string
		value      any
		names      []objects.Digest
	}{
		{"no name", "", 1, nil}, {"a long name", strings.Repeat("n", 65), 1, nil}, {"no JSON", "h", func() {}, nil},
		{"a large value", "h", strings.Repeat("v", 64<<10), nil}, {"no digest", "h", 1, []objects.Digest{"x"}}, {"many objects", "h", 1, many},
	}
	for _, tt := range tests {
		if _, err := s.SetHead(t.Context(), tt.head, 0, tt.value, tt.names...); err == nil {
			t.Errorf("%s: got no error", tt.name)
		}
	}
}

// TestOneWins has many writers change one head: each change is seen by the next.
func TestOneWins(t *testing.T) { redistest.Each(t, redistest.Options{}, oneWins) }

func oneWins(t *testing.T, server redistest.Store) {
	const writers, each = 8, 20
	var work sync.WaitGroup
	for range writers {
		s := open(t, server.URL(), nil)
		work.Go(func() {
			for n := 0; n < each; {
				h, err := s.Head(t.Context(), "count")
				if err != nil {
					t.Error(err)
					return
				}
				var v int
				if h.Version != 0 {
					if err := h.Decode(&v); err != nil {
						t.Error(err)
						return
					}
				}
				_, err = s.SetHead(t.Context(), "count", h.Version, v+1)
				switch {
				case err == nil:
					n++
				case !errors.Is(err, objects.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	h, err := open(t, server.URL(), nil).Head(t.Context(), "count")
	if err != nil || string(h.Value) != fmt.Sprint(writers*each) {
		t.Errorf("got %s, %v, want %d", h.Value, err, writers*each)
	}
}

func TestBadHeads(t *testing.T) { redistest.Each(t, redistest.Options{}, badHeads) }

func badHeads(t *testing.T, server redistest.Store) {
	s := open(t, server.URL(), nil)
	for i, bad := range []string{
		"x", "1", "0\n\n1", "007\n\n1", "-1\n\n1", "9007199254740992\n\n1", "99999999999999999999999\n\n1",
		"5", "5\n", "5\n\n", "5\n\n{", "5\nabc\n1", "5\n" + strings.Repeat(string(objects.Sum(nil))+" ", 257) + "\n1", "5\n\n\"" + strings.Repeat("v", 70<<10) + "\"",
	} {
		name := fmt.Sprint("h", i)
		server.Do("HSET", prefix+"heads", name, bad)
		h, err := s.Head(t.Context(), name)
		if !errors.Is(err, objects.ErrBadHead) || h.Value != nil {
			t.Errorf("%.30q: got %+v, %v", bad, h, err)
		}
		if _, err := s.SetHead(t.Context(), name, h.Version, "good"); err != nil {
			t.Errorf("%.30q: replace: %v", bad, err)
		}
		if h, err := s.Head(t.Context(), name); err != nil || string(h.Value) != `"good"` {
			t.Errorf("%.30q: after that: got %+v, %v", bad, h, err)
		}
	}
}

func watch(s *objects.Store, name string) <-chan objects.Head {
	c := make(chan objects.Head, 100)
	s.OnHead(name, func(h objects.Head) { c <- h })
	return c
}

func next(t *testing.T, c <-chan objects.Head) objects.Head {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case h := <-c:
		return h
	case <-ctx.Done():
		t.Fatal("no head was told")
		return objects.Head{}
	}
}

func TestWatch(t *testing.T) { redistest.Each(t, redistest.Options{}, watchHeads) }

func watchHeads(t *testing.T, server redistest.Store) {
	a := open(t, server.URL(), nil)
	b := open(t, server.URL(), quick)
	policy, policy2, plugins := watch(b, "policy"), watch(b, "policy"), watch(b, "plugins")
	run(t, b)
	for _, c := range []<-chan objects.Head{policy, policy2, plugins} {
		if h := next(t, c); h.Version != 0 {
			t.Fatalf("at first: got %+v, want none", h)
		}
	}
	set, err := a.SetHead(t.Context(), "policy", 0, "one")
	if err != nil {
		t.Fatal(err)
	}
	if h := next(t, policy); h.Version != set.Version || string(h.Value) != `"one"` {
		t.Errorf("after a hint: got %+v", h)
	}
	next(t, policy2)
	// Nobody publishes: the slow look finds it.
	server.Do("HSET", prefix+"heads", "policy", "7\n\n\"by hand\"")
	if h := next(t, policy); h.Version != 7 || string(h.Value) != `"by hand"` {
		t.Errorf("without a hint: got %+v", h)
	}
	server.Do("HSET", prefix+"heads", "policy", "rubbish")
	if h := next(t, policy); h.Version != 0 || h.Value != nil {
		t.Errorf("rubbish: got %+v", h)
	}
	if _, err := a.SetHead(t.Context(), "policy", 0, "two"); err != nil {
		t.Fatal(err)
	}
	if h := next(t, policy); string(h.Value) != `"two"` {
		t.Errorf("after rubbish: got %+v", h)
	}
	server.Do("FLUSHALL")
	if h := next(t, policy); h.Version != 0 {
		t.Errorf("after a loss: got %+v", h)
	}
	server.Kill()
	server.Restart()
	if _, err := a.SetHead(t.Context(), "policy", 0, "three"); err != nil {
		t.Fatal(err)
	}
	if h := next(t, policy); string(h.Value) != `"three"` {
		t.Errorf("after a restart: got %+v", h)
	}
}

// TestWatchHint sees a change long before the next poll.
func TestWatchHint(t *testing.T) { redistest.Each(t, redistest.Options{}, watchHint) }

func watchHint(t *testing.T, server redistest.Store) {
	a := open(t, server.URL(), nil)
	b := open(t, server.URL(), func(c *objects.Config) { c.Poll = 10 * patience })
	heads := watch(b, "policy")
	run(t, b)
	next(t, heads)
	// The hint is heard only once the channel is subscribed.
	await(t, "the subscription", func() bool {
		return server.Do("PUBSUB", "NUMSUB", "parley:{objects}:heads") == "parley:{objects}:heads\n1"
	})
	if _, err := a.SetHead(t.Context(), "policy", 0, "one"); err != nil {
		t.Fatal(err)
	}
	if h := next(t, heads); string(h.Value) != `"one"` {
		t.Errorf("got %+v", h)
	}
}
