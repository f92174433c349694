package gitsync

import (
	"slices"
	"sync"
	"time"
)

// Result is how a poll ended.
type Result string

// The results.
const (
	ResultUnchanged Result = "unchanged" // nothing new
	ResultTaken     Result = "taken"     // a commit is live
	ResultRefused   Result = "refused"   // a commit was not taken
	ResultError     Result = "error"     // the repository could not be read
)

// Results lists them all.
var Results = []Result{ResultUnchanged, ResultTaken, ResultRefused, ResultError}

// Buckets are the values of a histogram.
type Buckets struct {
	Bounds []float64 // upper bounds, rising; the last bucket has none
	Counts []uint64  // len(Bounds)+1, not cumulative
	Sum    float64
	Count  uint64
}

// liveBounds are in seconds: a webhook's way, a poll's way, and a merge that
// waited for somebody.
var liveBounds = []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200}

func newBuckets() Buckets {
	return Buckets{Bounds: liveBounds, Counts: make([]uint64, len(liveBounds)+1)}
}

// observe counts d; what is below zero is a clock ahead of ours and counts as 0.
func (b *Buckets) observe(d time.Duration) {
	v := max(d.Seconds(), 0)
	i, _ := slices.BinarySearch(b.Bounds, v)
	b.Counts[i]++
	b.Sum += v
	b.Count++
}

func (b *Buckets) clone() Buckets {
	c := *b
	c.Counts = slices.Clone(b.Counts)
	return c
}

// Stats count since the start of the process.
type Stats struct {
	Polls map[Result]uint64
	// SinceTrigger is the time from the first Trigger that a poll answers to
	// the moment its commit is live, by our clock.
	SinceTrigger Buckets
	// SinceCommit is the time from a commit's own date to the moment it is live.
	// The date is by the clock of whoever made it, in whole seconds, and may lie
	// long before the push. The first commit after a start and pinned ones do
	// not count.
	SinceCommit Buckets
}

// tally is Stats as they grow. Any goroutine may use it.
type tally struct {
	mu        sync.Mutex
	polls     map[Result]uint64 // guarded by mu
	triggered time.Time         // of the first Trigger not yet answered; guarded by mu
	trigger   Buckets           // guarded by mu
	commit    Buckets           // guarded by mu
}

func newTally() *tally {
	return &tally{polls: make(map[Result]uint64), trigger: newBuckets(), commit: newBuckets()}
}

func (t *tally) polled(r Result) {
	t.mu.Lock()
	t.polls[r]++
	t.mu.Unlock()
}

// asked notes a Trigger.
func (t *tally) asked(now time.Time) {
	t.mu.Lock()
	if t.triggered.IsZero() {
		t.triggered = now
	}
	t.mu.Unlock()
}

// since is when what a poll begun at that time has found was first asked for.
func (t *tally) since(begun time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.triggered.IsZero() && t.triggered.Before(begun) {
		return t.triggered
	}
	return begun
}

// settled notes that a poll begun at that time took nothing new: what asked
// for it had no commit to wait for.
func (t *tally) settled(begun time.Time) {
	t.mu.Lock()
	if t.triggered.Before(begun) {
		t.triggered = time.Time{}
	}
	t.mu.Unlock()
}

// live notes that a commit of that date went live. A zero date does not count.
func (t *tally) live(now, committed time.Time) {
	t.mu.Lock()
	if !t.triggered.IsZero() {
		t.trigger.observe(now.Sub(t.triggered))
		t.triggered = time.Time{}
	}
	if !committed.IsZero() {
		t.commit.observe(now.Sub(committed))
	}
	t.mu.Unlock()
}

// Stats returns the counters.
func (s *Syncer) Stats() Stats {
	t := s.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	out := Stats{Polls: make(map[Result]uint64, len(Results)), SinceTrigger: t.trigger.clone(), SinceCommit: t.commit.clone()}
	for _, r := range Results {
		out.Polls[r] = t.polls[r]
	}
	return out
}
