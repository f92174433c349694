package session

import (
	"context"
	"sync"
	"time"

	"parley/core/chat"
	"parley/core/gate"
)

// limiterSize bounds the (user, room) pairs whose obligation rate_limit is
// remembered, at about 400 bytes each.
const limiterSize = 1 << 16

// limiter keeps the rate_limit obligations of policies: no window of PerS
// seconds holds more than Count messages of a user in a room. Any goroutine
// may use it.
type limiter struct {
	base time.Time

	mu sync.Mutex
	m  map[limitKey]*window
}

type limitKey struct {
	user chat.UserID
	room chat.RoomID
	rate gate.RateLimit
}

// windowSlots divide a window. A message counts from its time on for the
// window's length and at most one slot more, so that the bound is never
// exceeded, wherever the window begins.
const windowSlots = 32

// window counts the messages of the last windowSlots full slots and the
// present one.
type window struct {
	newest int64 // the number of the newest slot
	counts [windowSlots + 1]uint32
	sum    uint32
}

func newLimiter() *limiter { return &limiter{base: time.Now(), m: make(map[limitKey]*window)} }

// take counts one message under the obligation and returns 0, or how long to
// wait if it is one too many.
func (l *limiter) take(u chat.UserID, r chat.RoomID, rate gate.RateLimit, now time.Time) time.Duration {
	return l.ask(u, r, rate, now, true)
}

// wait returns what take would, and counts nothing.
func (l *limiter) wait(u chat.UserID, r chat.RoomID, rate gate.RateLimit, now time.Time) time.Duration {
	return l.ask(u, r, rate, now, false)
}

func (l *limiter) ask(u chat.UserID, r chat.RoomID, rate gate.RateLimit, now time.Time, count bool) time.Duration {
	if rate.PerS <= 0 {
		return 0
	}
	length := time.Duration(rate.PerS) * time.Second
	if rate.Count <= 0 { // the policy allows no message
		return length
	}
	width := length / windowSlots
	at := now.Sub(l.base)
	slot := int64(at / width)

	l.mu.Lock()
	defer l.mu.Unlock()
	k := limitKey{u, r, rate}
	w := l.m[k]
	if w == nil && !count {
		return 0
	}
	if w == nil {
		if len(l.m) >= limiterSize {
			l.forgetLocked(at)
		}
		w = &window{newest: slot}
		l.m[k] = w
	}
	w.advance(slot)
	if int64(w.sum) < int64(rate.Count) {
		if !count {
			return 0
		}
		w.counts[w.newest%int64(len(w.counts))]++
		w.sum++
		return 0
	}
	return time.Duration(w.oldest()+int64(len(w.counts)))*width - at
}

// advance forgets the slots that have left the window. A clock that steps
// back counts into the newest slot.
func (w *window) advance(slot int64) {
	n := int64(len(w.counts))
	for s := max(w.newest+1, slot-n+1); s <= slot; s++ {
		w.sum -= w.counts[s%n]
		w.counts[s%n] = 0
	}
	w.newest = max(w.newest, slot)
}

// oldest returns the number of the oldest slot that counts a message.
func (w *window) oldest() int64 {
	n := int64(len(w.counts))
	s := max(0, w.newest-n+1)
	for s < w.newest && w.counts[s%n] == 0 {
		s++
	}
	return s
}

// forgetLocked drops windows that have emptied, which changes nothing for
// their users, and others at random down to three quarters if that was not
// enough.
func (l *limiter) forgetLocked(at time.Duration) {
	for k, w := range l.m {
		width := time.Duration(k.rate.PerS) * time.Second / windowSlots
		if int64(at/width)-w.newest > windowSlots {
			delete(l.m, k)
		}
	}
	for k := range l.m {
		if len(l.m) < limiterSize*3/4 {
			return
		}
		delete(l.m, k)
	}
}

// turns lets each user say one thing at a time in a room with slow mode:
// connections in parallel would otherwise all find that nobody has spoken yet.
// Any goroutine may use it; it holds as many turns as there are sends under
// way.
type turns struct {
	mu sync.Mutex
	m  map[turn]chan struct{} // closed when the turn has ended
}

type turn struct {
	user chat.UserID
	room chat.RoomID
}

func newTurns() *turns { return &turns{m: make(map[turn]chan struct{})} }

// take waits for the user's other turns in the room to end.
func (t *turns) take(ctx context.Context, k turn) error {
	for {
		t.mu.Lock()
		other, busy := t.m[k]
		if !busy {
			t.m[k] = make(chan struct{})
			t.mu.Unlock()
			return nil
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// end ends a turn that take gave.
func (t *turns) end(k turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.m[k])
	delete(t.m, k)
}
