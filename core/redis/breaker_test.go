package redis_test

import (
	"errors"
	"testing"
	"time"

	"parley/core/redis"
	"parley/core/redis/redistest"
)

// Calls one after the other to a frozen server cost the time of one, not of
// all, and when it goes on so do they.
func TestFrozenServerCostsOneTimeout(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	c := open(t, server.URL(), func(c *redis.Config) { c.CallTimeout = 500 * time.Millisecond })
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Pause()
	began := time.Now()
	for i := range 32 {
		if _, err := c.Do(t.Context(), "incr", "n"); !errors.Is(err, redis.ErrUnavailable) {
			t.Fatalf("call %d: got %v, want ErrUnavailable", i, err)
		}
	}
	took := time.Since(began)
	t.Logf("32 calls to a frozen server, one after the other: %v, the timeout of one being 500 ms", took.Round(time.Millisecond))
	if took > 8*time.Second { // without a breaker 16 s
		t.Errorf("32 calls took %v", took)
	}
	if st := c.Pipes(); st.Spared == 0 {
		t.Errorf("got %+v, want calls that were spared", st)
	}
	server.Resume()
	began = time.Now()
	until(t, "the server to answer", func() bool { return c.Ping(t.Context()) == nil })
	t.Logf("answered again %v after its return", time.Since(began).Round(time.Millisecond))
	spared := c.Pipes().Spared
	for range 100 {
		if err := c.Ping(t.Context()); err != nil {
			t.Fatalf("after an answer: %v", err)
		}
	}
	if st := c.Pipes(); st.Spared != spared {
		t.Errorf("%d calls were spared after the first answer, want none", st.Spared-spared)
	}
}

// However a call learns that its time is over, by its own clock or from the
// connection that gives up at the same moment, the one after it does not wait
// for the frozen server again.
func TestTheCallAfterATimeoutIsSpared(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	c := open(t, server.URL(), func(c *redis.Config) { c.CallTimeout = 100 * time.Millisecond })
	for round := range 16 {
		until(t, "the server to answer", func() bool { return c.Ping(t.Context()) == nil })
		server.Pause()
		before := c.Pipes().Spared
		for range 2 {
			if _, err := c.Do(t.Context(), "incr", "n"); !errors.Is(err, redis.ErrUnavailable) {
				t.Fatalf("round %d: got %v, want ErrUnavailable", round, err)
			}
		}
		if n := c.Pipes().Spared - before; n != 1 {
			t.Fatalf("round %d: %d calls were spared, want the second", round, n)
		}
		server.Resume()
	}
}
