package plugins

import (
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/moderation"
	"parley/sdk/abi"
)

// quarantineRules say when a plugin is no longer asked, and when it is again.
type quarantineRules struct {
	limit       int           // people whose messages failed; 0: never
	window      time.Duration // within this
	first, most time.Duration // between probes; the interval doubles with each that fails
	good        int           // that many good probes in a row end it
}

const (
	// maxFaulters bounds whose faults are remembered, and so rules.limit.
	maxFaulters = 64
	// wellPerFaulter decisions that went well speak for a plugin against one
	// person whose messages it failed at: above that it is those people's texts
	// that are odd, and on_error deals with them one by one. Decisions are a
	// function of the input, so a plugin that judges most people's messages is
	// not broken; but whoever has many names could say that it is.
	wellPerFaulter = 10
)

// person is a hash of a user name; seeded, so that nobody can choose a name
// that is taken for another.
type person uint64

var personSeed = maphash.MakeSeed()

// author returns who wrote the message of an input.
func author(input []byte) person {
	user, _ := abi.FieldBytes(input, abi.FieldUser) // encoded by the stage
	return person(maphash.Bytes(personSeed, user))
}

// faulter is somebody a plugin failed at.
type faulter struct {
	who person
	at  time.Time // of the last fault
}

// mark is how many decisions had gone well at a time.
type mark struct {
	at   time.Time
	well uint64
}

// quarantine is the state of one plugin's. It is a pure state machine: callers
// bring the time and the lock.
type quarantine struct {
	rules quarantineRules
	// recent are those whose messages failed within the window, each once, the
	// latest last; in quarantine those who brought it on, at most maxFaulters.
	recent      []faulter
	before, now mark // marks a window and more apart, set at faults

	on      bool
	since   time.Time
	why     string // the fault that filled the measure
	every   time.Duration
	next    time.Time // of the next probe
	probing bool      // one is under way
	neutral bool      // the neutral message has passed since the last bad probe
	probes  uint64
	good    int // in a row
}

// fault counts a failure of a live decision on a message of who and reports
// whether it put the plugin into quarantine. well is how many decisions have
// gone well so far.
//
// Who fails again within the window is still one person: so nobody can take a
// plugin from everybody alone.
func (q *quarantine) fault(now time.Time, who person, well uint64, why string) bool {
	if q.on || q.rules.limit == 0 { // on: a decision that was begun before
		return false
	}
	q.recent = slices.DeleteFunc(q.recent, func(f faulter) bool { return now.Sub(f.at) > q.rules.window })
	q.blame(now, who)
	if now.Sub(q.now.at) >= q.rules.window {
		q.before, q.now = q.now, mark{now, well}
	}
	went := well - min(well, q.before.well)
	if len(q.recent) < q.rules.limit || went >= uint64(wellPerFaulter*len(q.recent)) {
		return false
	}
	*q = quarantine{rules: q.rules, on: true, since: now, why: why, every: q.rules.first, next: now.Add(q.rules.first), recent: q.recent, before: q.before, now: q.now}
	return true
}

// blame makes who the latest of recent.
func (q *quarantine) blame(now time.Time, who person) {
	q.recent = slices.DeleteFunc(q.recent, func(f faulter) bool { return f.who == who })
	if len(q.recent) == maxFaulters {
		q.recent = slices.Delete(q.recent, 0, 1)
	}
	q.recent = append(q.recent, faulter{who, now})
}

func (q *quarantine) blamed(who person) bool {
	return slices.ContainsFunc(q.recent, func(f faulter) bool { return f.who == who })
}

// probe is what is to be tried of a plugin in quarantine: the neutral message,
// then the one that has come.
type probe struct{ neutral, live bool }

// probe says what is to be tried now that a message of who has come. Whoever
// is told to try something calls probed once.
//
// A probe begins with the neutral message, so that nobody's text decides
// whether there is one. Messages of those who brought the quarantine on are
// tried only when nobody else has written for a window.
func (q *quarantine) probe(now time.Time, who person) probe {
	if !q.on || q.probing || now.Before(q.next) {
		return probe{}
	}
	t := probe{neutral: !q.neutral, live: !q.blamed(who) || now.Sub(q.next) >= q.rules.window}
	if t != (probe{}) {
		q.probing = true
		q.probes++
	}
	return t
}

// probed takes what came of a probe and reports whether it ended the
// quarantine. neutral says whether the neutral message passed, where it was
// tried, ok whether all did.
func (q *quarantine) probed(now time.Time, who person, t probe, neutral, ok bool) bool {
	if !q.on || !q.probing {
		return false
	}
	q.probing = false
	q.neutral = q.neutral || t.neutral && neutral
	switch {
	case ok && t.live:
		q.good++
		q.next = now.Add(q.rules.first)
		if q.good >= q.rules.good {
			q.lift()
		}
		return !q.on
	case ok: // somebody else's message is to follow
	case q.neutral && q.blamed(who): // it says nothing new
		q.next = now
	default:
		if q.neutral { // it was this message
			q.blame(now, who)
		}
		q.good, q.neutral = 0, false
		q.every = min(2*q.every, q.rules.most)
		q.next = now.Add(q.every)
	}
	return false
}

// lift ends the quarantine.
func (q *quarantine) lift() {
	*q = quarantine{rules: q.rules, recent: q.recent[:0], before: q.before, now: q.now}
}

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
	NextProbe  time.Time `json:"next_probe"` // the first message from then on brings one about
	Probes     uint64    `json:"probes"`
	GoodProbes int       `json:"good_probes"` // in a row
	Needed     int       `json:"needed"`      // in a row, to be back
}

// fault counts a live failure at a message of who; began reports whether the
// quarantine did, and first when the first probe is due then. well is how many
// decisions have gone well so far.
func (w *ward) fault(p *Plugin, err error, who person, well uint64, now time.Time) (first time.Duration, began bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = err
	if !w.q.fault(now, who, well, err.Error()) {
		return 0, false
	}
	w.err = fmt.Errorf("plugin %s: %w after it failed at messages of %d people within %v: %w", p.name, moderation.ErrQuarantined, len(w.q.recent), w.q.rules.window, err)
	w.on.Store(true)
	return w.q.rules.first, true
}

// probe returns nil if the quarantine is over, else the error of this decision
// and what the caller is to try first.
func (w *ward) probe(now time.Time, who person) (probe, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.q.on {
		return probe{}, nil
	}
	return w.q.probe(now, who), w.err
}

// probed takes what came of a probe; it reports whether the plugin is back.
func (w *ward) probed(now time.Time, who person, t probe, neutral bool, err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.last = err
	}
	back := w.q.probed(now, who, t, neutral, err == nil)
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
