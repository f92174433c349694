package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/gate"
)

func TestBucket(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newBucket(2, 4)
	for i := range 4 {
		if wait := b.take(now, 1); wait != 0 {
			t.Fatalf("token %d of the burst: got a wait of %v", i+1, wait)
		}
	}
	if wait := b.take(now, 1); wait != 500*time.Millisecond {
		t.Errorf("got a wait of %v, want 500ms", wait)
	}
	if wait := b.take(now.Add(500*time.Millisecond), 1); wait != 0 {
		t.Errorf("after the wait: got %v, want none", wait)
	}
	if wait := b.take(now.Add(time.Hour), 1000); wait != 0 {
		t.Errorf("more than the burst after an hour: got %v, want none", wait)
	}
	if wait := b.take(now.Add(time.Hour), 1000); wait != 2*time.Second {
		t.Errorf("once more: got %v, want 2s, the time of a burst", wait)
	}
	free := newBucket(0, 0)
	if wait := free.take(now, 1e9); wait != 0 {
		t.Errorf("no limit: got a wait of %v", wait)
	}
	least := newBucket(3, 0)
	if wait := least.take(now, 3); wait != 0 {
		t.Errorf("a burst below the rate: got a wait of %v for a second's worth", wait)
	}
	if wait := least.take(now, 1); wait == 0 {
		t.Error("a burst of 0 lets everything through")
	}
}

// No window of PerS seconds may hold more than Count messages, wherever it
// begins, and whoever waits as told gets through.
func TestRateLimitHoldsInEveryWindow(t *testing.T) {
	for _, rate := range []gate.RateLimit{{Count: 1, PerS: 1}, {Count: 5, PerS: 10}, {Count: 100, PerS: 60}, {Count: 3, PerS: 86400}} {
		t.Run(fmt.Sprintf("%d in %d s", rate.Count, rate.PerS), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(rate.Count), uint64(rate.PerS)))
			l := newLimiter()
			length := time.Duration(rate.PerS) * time.Second
			now := l.base
			var passed []time.Time
			for range 5000 {
				switch wait := l.take("ann", "lobby", rate, now); {
				case wait == 0:
					passed = append(passed, now)
				case wait < 0 || wait > length+length/windowSlots:
					t.Fatalf("got a wait of %v, at most %v makes sense", wait, length+length/windowSlots)
				case rng.IntN(4) == 0:
					now = now.Add(wait)
					if again := l.take("ann", "lobby", rate, now); again != 0 {
						t.Fatalf("having waited %v: got another %v", wait, again)
					}
					passed = append(passed, now)
				}
				now = now.Add(time.Duration(rng.Int64N(int64(length) / int64(rate.Count))))
			}
			for i := rate.Count; i < len(passed); i++ {
				if in := passed[i].Sub(passed[i-rate.Count]); in < length {
					t.Fatalf("%d messages passed within %v, %d in %v are allowed", rate.Count+1, in, rate.Count, length)
				}
			}
			if len(passed) < 10*rate.Count {
				t.Errorf("only %d of 5000 passed", len(passed))
			}
		})
	}
}

func TestRateLimitsAreSeparate(t *testing.T) {
	l, now := newLimiter(), time.Now()
	one := gate.RateLimit{Count: 1, PerS: 60}
	l.take("ann", "lobby", one, now)
	if l.take("ann", "lobby", one, now) == 0 {
		t.Error("a second message passed")
	}
	if wait := l.take("ann", "lobby", one, now.Add(-time.Hour)); wait == 0 {
		t.Error("a clock that steps back lets a message pass")
	}
	for _, k := range []limitKey{{"bob", "lobby", one}, {"ann", "other", one}, {"ann", "lobby", gate.RateLimit{Count: 2, PerS: 60}}} {
		if wait := l.take(k.user, k.room, k.rate, now); wait != 0 {
			t.Errorf("%v: got a wait of %v for the first message", k, wait)
		}
	}
	if wait := l.take("ann", "lobby", gate.RateLimit{Count: 5}, now); wait != 0 {
		t.Errorf("no period: got a wait of %v", wait)
	}
	if wait := l.take("ann", "lobby", gate.RateLimit{PerS: 5}, now); wait != 5*time.Second {
		t.Errorf("no message allowed: got a wait of %v, want the period", wait)
	}
}

func TestRateLimitsAreBounded(t *testing.T) {
	l := newLimiter()
	short, long := gate.RateLimit{Count: 1, PerS: 1}, gate.RateLimit{Count: 1, PerS: 3600}
	now := l.base
	for i := range limiterSize {
		rate := long
		if i%2 == 0 {
			rate = short
		}
		l.take(chat.UserID(fmt.Sprint("u", i)), "lobby", rate, now)
	}
	now = now.Add(10 * time.Second)
	l.take("new", "lobby", long, now)
	if got, want := len(l.m), limiterSize/2+1; got != want {
		t.Errorf("got %d pairs, want %d: the emptied ones forgotten and the new one", got, want)
	}
	for i := range limiterSize {
		l.take(chat.UserID(fmt.Sprint("v", i)), "lobby", long, now)
	}
	if got := len(l.m); got > limiterSize {
		t.Errorf("got %d pairs, at most %d may be", got, limiterSize)
	}
}

func TestTurns(t *testing.T) {
	turns := newTurns()
	k := turn{"ann", "lobby"}
	if err := turns.take(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if err := turns.take(t.Context(), turn{"bob", "lobby"}); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := turns.take(ended, k); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	got := make(chan error)
	go func() { got <- turns.take(t.Context(), k) }()
	turns.end(k)
	if err := <-got; err != nil {
		t.Error(err)
	}
	turns.end(k)
	turns.end(turn{"bob", "lobby"})
	if len(turns.m) != 0 {
		t.Errorf("got %d turns left", len(turns.m))
	}
}
