package plugins

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/moderation"
)

// quarantineRules say when a plugin is no longer asked, and when it is again.
type quarantineRules struct {
	limit       int           // that many faults; 0: never
	window      time.Duration // within this
	first, most time.Duration // between probes; the interval doubles with each that fails
	good        int           // that many good probes in a row end it
}

// quarantine is the state of one plugin's. It is a pure state machine: callers
// bring the time and the lock.
type quarantine struct {
	rules  quarantineRules
	recent []time.Time // the last faults, oldest first; at most rules.limit

	on      bool
	since   time.Time
	why     string // the fault that filled the measure
	every   time.Duration
	next    time.Time // of the next probe
	probing bool      // one is under way
	probes  uint64
	good    int // in a row
}

// fault counts a failure of a live decision and reports whether it put the
// plugin into quarantine.
func (q *quarantine) fault(now time.Time, why string) bool {
	if q.on || q.rules.limit == 0 { // on: a decision that was begun before
		return false
	}
	if len(q.recent) == q.rules.limit {
		q.recent = append(q.recent[:0], q.recent[1:]...)
	}
	q.recent = append(q.recent, now)
	if len(q.recent) < q.rules.limit || now.Sub(q.recent[0]) > q.rules.window {
		return false
	}
	*q = quarantine{rules: q.rules, on: true, since: now, why: why, every: q.rules.first, next: now.Add(q.rules.first), recent: q.recent[:0]}
	return true
}

// probe reports whether a message that has come now is to be given to the
// plugin. Whoever is told so calls probed once.
func (q *quarantine) probe(now time.Time) bool {
	if !q.on || q.probing || now.Before(q.next) {
		return false
	}
	q.probing = true
	q.probes++
	return true
}

// probed takes what came of a probe and reports whether it ended the
// quarantine.
func (q *quarantine) probed(now time.Time, ok bool) bool {
	if !q.on || !q.probing {
		return false
	}
	q.probing = false
	if ok {
		q.good++
		q.next = now.Add(q.rules.first)
		if q.good >= q.rules.good {
			q.lift()
		}
		return !q.on
	}
	q.good = 0
	q.every = min(2*q.every, q.rules.most)
	q.next = now.Add(q.every)
	return false
}

// lift ends the quarantine.
func (q *quarantine) lift() { *q = quarantine{rules: q.rules, recent: q.recent[:0]} }

// ward is a plugin's quarantine with its lock. A plugin that no catalog has
// enrolled, as tools load them, has no rules and is always asked.
type ward struct {
	on atomic.Bool // as q.on: what a decision of a healthy plugin looks at

	mu   sync.Mutex
	q    quarantine
	last error // the last fault, of probes too
	err  error // what callers get meanwhile
}

// Quarantine is what operators see of a plugin's.
type Quarantine struct {
	Since      time.Time `json:"since"`
	Why        string    `json:"why"`        // the fault that filled the measure
	NextProbe  time.Time `json:"next_probe"` // the first message from then on is a probe
	Probes     uint64    `json:"probes"`
	GoodProbes int       `json:"good_probes"` // in a row
	Needed     int       `json:"needed"`      // in a row, to be back
}

// fault counts a live failure; it reports whether the quarantine began.
func (w *ward) fault(p *Plugin, err error, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = err
	if !w.q.fault(now, err.Error()) {
		return false
	}
	w.err = fmt.Errorf("plugin %s: %w after %d faults within %v: %w", p.name, moderation.ErrQuarantined, w.q.rules.limit, w.q.rules.window, err)
	w.on.Store(true)
	return true
}

// probe returns nil if the quarantine is over, else the error of this decision
// and whether the caller is to probe first.
func (w *ward) probe(now time.Time) (probe bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.q.on {
		return false, nil
	}
	return w.q.probe(now), w.err
}

// probed takes what came of a probe; it reports whether the plugin is back.
func (w *ward) probed(err error, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.last = err
	}
	back := w.q.probed(now, err == nil)
	if back {
		w.on.Store(false)
	}
	return back
}

// lift ends the quarantine; it reports whether there was one.
func (w *ward) lift() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.q.on
	w.q.lift()
	w.on.Store(false)
	return was
}

// status returns the quarantine if the plugin is in one, and the last fault.
func (w *ward) status() (q *Quarantine, last error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.q.on {
		return nil, w.last
	}
	return &Quarantine{Since: w.q.since, Why: w.q.why, NextProbe: w.q.next, Probes: w.q.probes, GoodProbes: w.q.good, Needed: w.q.rules.good}, w.last
}
