package redis

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/redis/redistest"
)

func TestBreaker(t *testing.T) {
	const timeout = time.Second
	synctest.Test(t, func(t *testing.T) {
		var b breaker
		want := func(open bool, when string) {
			t.Helper()
			if got := b.admit(timeout); got != open {
				t.Errorf("%s: admitted %v, want %v", when, got, open)
			}
		}
		want(true, "at first")

		// A slow call while others are answered.
		began := time.Now()
		time.Sleep(timeout / 2)
		b.answered()
		time.Sleep(timeout / 2)
		b.silent(began)
		want(true, "one call was slow, others were answered")

		began = time.Now()
		time.Sleep(timeout)
		b.silent(began)
		want(false, "nobody was answered")
		time.Sleep(2 * shutFor)
		want(true, "it is time to try")
		want(false, "another tries")
		time.Sleep(timeout + 2*shutFor)
		want(true, "who tried was never heard of again")
		time.Sleep(timeout)
		b.silent(time.Now().Add(-timeout))
		want(false, "tried in vain")
		b.answered()
		want(true, "after an answer")
		want(true, "for everybody")
	})
}

// However a call learns that its time is over, by its own clock or from the
// connection that gives up at the same moment, the one after it does not wait
// for the frozen server again.
func TestATimeoutShutsTheBreaker(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	cfg := Defaults()
	cfg.URL, cfg.CallTimeout = server.URL(), 100*time.Millisecond
	c, err := Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.route.find(t.Context(), anySlot)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 16 {
		redistest.Await(t, "an answer, and nothing under way", func() bool { return c.Ping(t.Context()) == nil && c.Pipes().Waiting == 0 })
		server.Pause()
		if _, err := c.Do(t.Context(), "incr", "n"); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("round %d: got %v, want ErrUnavailable", round, err)
		}
		if !s.breaker.shut.Load() {
			t.Fatalf("round %d: the next call would wait for the server too", round)
		}
		server.Resume()
	}
}
