package plugins

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Retry says when files are tried again that another try may let pass: no
// process could be started, the trial took too long, a file could not be read.
type Retry struct {
	First, Most time.Duration // until the first; the interval doubles up to Most, a quarter more or less
}

func (r *Retry) check() error {
	if r.First <= 0 || r.Most < r.First {
		return errors.New("plugins: the interval of retries begins above zero and does not shrink")
	}
	return nil
}

// after is how long to wait after that many tries.
func (r *Retry) after(tries int) time.Duration {
	d := r.First
	for range tries - 1 {
		if d = min(2*d, r.Most); d == r.Most {
			break
		}
	}
	return time.Duration((0.75 + rand.Float64()/2) * float64(d))
}

// again is when files are tried again.
type again struct {
	at    time.Time
	tries int // so far
}

// due reports whether it is time; nil never is.
func (g *again) due(now time.Time) bool { return g != nil && !now.Before(g.at) }

func dueNow() *again { return &again{at: time.Now()} }

// errUntried is of a module whose trial has been left for later.
var errUntried = passing(errors.New("its trial has not ended yet"))

// tryAgain loads the folder anew when it is time for one of its files, until ctx
// ends.
func (c *Catalog) tryAgain(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var not time.Time // before that
	for {
		timer.Stop()
		if at, ok := c.set.Load().again(); ok {
			timer.Reset(max(time.Until(at), time.Until(not)))
		}
		select {
		case <-ctx.Done():
			return
		case <-c.placed:
		case <-timer.C:
			_ = c.Load(ctx)                         // each error has been logged, and is in Status
			not = time.Now().Add(c.cfg.Retry.First) // an unreadable folder leaves what is due
		}
	}
}

// again returns the first time that something is to be tried again.
func (s *set) again() (at time.Time, ok bool) {
	for _, e := range s.entries {
		if e.again != nil && (!ok || e.again.at.Before(at)) {
			at, ok = e.again.at, true
		}
	}
	return at, ok
}
