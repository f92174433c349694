package redis

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A server that is frozen or behind a black hole costs every call its whole
// time, and whoever makes one call after the other the sum of them. So once a
// call has run into its deadline while the server answered nobody, further
// calls to that server fail at once, but for one every now and then, which
// tries. The first answer, to whichever call, opens the way for all.

// breaker is the state of one server.
type breaker struct {
	shut  atomic.Bool
	heard atomic.Int64 // when the server last answered, Unix ns

	changed func(shut bool) // set at construction; called without the lock; nil: nobody wants to know

	mu    sync.Mutex // leaf; orders changes of shut
	retry time.Time  // while shut: when a call may try
}

// shutFor is how long no call tries after one was in vain, lengthened by up to
// as much again at random so that nodes spread.
const shutFor = 250 * time.Millisecond

func pauseAfter(now time.Time) time.Time { return now.Add(shutFor + rand.N(shutFor)) }

// admit reports whether a call may be sent. The one that tries has timeout; if
// it is given up before that, without a word to the breaker, the next one may
// try when the time is over.
func (b *breaker) admit(timeout time.Duration) bool {
	if !b.shut.Load() {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if !b.shut.Load() {
		return true
	}
	if now.Before(b.retry) {
		return false
	}
	b.retry = pauseAfter(now.Add(timeout))
	return true
}

// answered notes an answer of the server.
func (b *breaker) answered() {
	b.heard.Store(time.Now().UnixNano())
	if b.shut.Load() {
		b.mu.Lock()
		was := b.shut.Swap(false)
		b.mu.Unlock()
		b.tell(was, false)
	}
}

// silent notes that a call, begun at that moment, has run into its deadline.
// That says nothing of the server if others were answered meanwhile.
func (b *breaker) silent(began time.Time) {
	b.mu.Lock()
	if b.heard.Load() >= began.UnixNano() {
		b.mu.Unlock()
		return
	}
	was := b.shut.Swap(true)
	b.retry = pauseAfter(time.Now())
	b.mu.Unlock()
	b.tell(was, true)
}

func (b *breaker) tell(was, is bool) {
	if was != is && b.changed != nil {
		b.changed(is)
	}
}

// since is how long the server has not answered.
func (b *breaker) since() string {
	heard := b.heard.Load()
	if heard == 0 {
		return "yet"
	}
	return fmt.Sprintf("for %v", time.Since(time.Unix(0, heard)).Round(100*time.Millisecond))
}
