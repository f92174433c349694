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
	until(t, "the server to answer", func() bool { return c.Ping(t.Context()) == nil })
	before := c.Pipes().Spared
	server.Pause()
	began := time.Now()
	for i := range 32 {
		if _, err := c.Do(t.Context(), "incr", "n"); !errors.Is(err, redis.ErrUnavailable) {
			t.Fatalf("call %d: got %v, want ErrUnavailable", i, err)
		}
	}
	t.Logf("32 calls to a frozen server, one after the other: %v, the timeout of one being 500 ms", time.Since(began).Round(time.Millisecond))
	if n := c.Pipes().Spared - before; n < 16 { // usually all but one or two, which try
		t.Errorf("%d of 32 calls were spared, want most", n)
	}
	server.Resume()
	began = time.Now()
	until(t, "the server to answer", func() bool { return c.Ping(t.Context()) == nil })
	t.Logf("answered again %v after its return", time.Since(began).Round(time.Millisecond))
	spared := c.Pipes().Spared
	for range 100 {
		if err := c.Ping(t.Context()); err == nil {
			continue
		} else if n := c.Pipes().Spared - spared; n > 0 {
			t.Fatalf("a call was spared after the first answer: %v", err)
		}
		// Its own time ran out, as it may on a busy machine: from the next answer on.
		until(t, "the server to answer", func() bool { return c.Ping(t.Context()) == nil })
		spared = c.Pipes().Spared
	}
}
