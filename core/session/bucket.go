package session

import "time"

// bucket is a token bucket: burst at once, then perSecond on average. The
// zero rate allows everything. It is not safe for concurrent use.
type bucket struct {
	perSecond float64
	burst     float64
	tokens    float64
	last      time.Time
}

// newBucket returns a full bucket. A burst below the rate could never reach
// it, and one below 1 would let nothing through, so the rate is the least.
func newBucket(perSecond, burst int) bucket {
	b := float64(max(burst, perSecond))
	return bucket{perSecond: float64(perSecond), burst: b, tokens: b}
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
	return max(1, time.Duration((n-b.tokens)/b.perSecond*float64(time.Second)))
}

// wait returns what take would, and takes nothing.
func (b bucket) wait(now time.Time, n float64) time.Duration { return b.take(now, n) }
