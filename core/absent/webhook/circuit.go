package webhook

import (
	"math/rand/v2"
	"time"
)

// circuit keeps a worker from trying every item in vain while the endpoint is
// down. It opens after failures of several items with no success in between, or
// when the endpoint asks for a pause; when its time is over one item is tried,
// and it stays open for longer or closes. The worker's loop owns it.
type circuit struct {
	failing map[string]struct{} // items that failed since the last success
	until   time.Time           // zero while closed
	opened  int                 // times in a row
	probing bool
}

const (
	circuitItems = 5 // items that must fail in a row; one alone may be at fault itself
	circuitFirst = time.Second
	circuitMost  = time.Minute
)

func (c *circuit) open() bool { return !c.until.IsZero() }

// may reports whether an item may be tried now.
func (c *circuit) may(now time.Time) bool {
	if !c.open() {
		return true
	}
	return !c.probing && !now.Before(c.until)
}

// try notes that an item is tried.
func (c *circuit) try() { c.probing = c.open() }

// good notes that the endpoint has answered as one that works does.
func (c *circuit) good() { *c = circuit{} }

// bad notes that the endpoint did not take the item, and for how long it asked
// to be left alone. probe says that the item was tried while the circuit was
// open.
func (c *circuit) bad(id string, after time.Duration, probe bool, now time.Time) {
	if c.failing == nil {
		c.failing = make(map[string]struct{})
	}
	if len(c.failing) < circuitItems {
		c.failing[id] = struct{}{}
	}
	if probe {
		c.probing = false
	}
	if !probe && c.open() { // it was under way when the circuit opened
		if end := now.Add(after); after > 0 && end.After(c.until) {
			c.until = end
		}
		return
	}
	if probe || after > 0 || len(c.failing) >= circuitItems {
		wait := max(backoff(c.opened, circuitFirst, circuitMost), after)
		c.until = now.Add(wait)
		c.opened++
	}
}

// backoff is how long to wait after n failures before: first doubled n times, at
// most most, and between half and all of that, so that many who failed together
// do not come back together.
func backoff(n int, first, most time.Duration) time.Duration {
	d := most
	if n < 40 && first<<n > 0 && first<<n < most {
		d = first << n
	}
	return d/2 + rand.N(d/2+1)
}
