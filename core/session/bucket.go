package session

import (
	"sync"
	"time"

	"parley/core/chat"
	"parley/core/gate"
)

// bucket is a token bucket: burst at once, then perSecond on average. The
// zero rate allows everything. It is not safe for concurrent use.
type bucket struct {
	perSecond float64
	burst     float64
	tokens    float64
	last      time.Time
}

func newBucket(perSecond, burst int) bucket {
	return bucket{perSecond: float64(perSecond), burst: float64(burst), tokens: float64(burst)}
}

// take takes n tokens, at most the burst, and returns 0, or takes none and
// returns how long to wait for them.
func (b *bucket) take(now time.Time, n float64) time.Duration {
	if b.perSecond <= 0 {
		return 0
	}
	n = min(n, b.burst)
	if !b.last.IsZero() {
		b.tokens = min(b.burst, b.tokens+now.Sub(b.last).Seconds()*b.perSecond)
	}
	b.last = now
	if b.tokens >= n {
		b.tokens -= n
		return 0
	}
	return time.Duration((n - b.tokens) / b.perSecond * float64(time.Second))
}

// limiterSize bounds the (user, room) pairs whose obligation rate_limit is
// remembered; when full, those with the most tokens left are forgotten first.
const limiterSize = 1 << 16

// limiter keeps the rate_limit obligations of policies.
type limiter struct {
	mu sync.Mutex
	m  map[limitKey]*bucket
}

type limitKey struct {
	user chat.UserID
	room chat.RoomID
	rate gate.RateLimit
}

func newLimiter() *limiter { return &limiter{m: make(map[limitKey]*bucket)} }

// take counts one message under the obligation and returns how long to wait
// if it is one too many.
func (l *limiter) take(u chat.UserID, r chat.RoomID, rate gate.RateLimit, now time.Time) time.Duration {
	if rate.Count <= 0 || rate.PerS <= 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	k := limitKey{u, r, rate}
	b := l.m[k]
	if b == nil {
		if len(l.m) >= limiterSize {
			l.forgetLocked(now)
		}
		b = &bucket{perSecond: float64(rate.Count) / float64(rate.PerS), burst: float64(rate.Count), tokens: float64(rate.Count)}
		l.m[k] = b
	}
	return b.take(now, 1)
}

// forgetLocked drops buckets that have filled up again, which changes nothing
// for their users, and a random quarter if that was not enough.
func (l *limiter) forgetLocked(now time.Time) {
	for k, b := range l.m {
		if b.tokens+now.Sub(b.last).Seconds()*b.perSecond >= b.burst {
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
