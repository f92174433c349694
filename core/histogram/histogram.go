// Package histogram counts values in buckets whose bounds double. It is what
// metrics of times and sizes are made of; core/metrics shows them.
package histogram

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// buckets is how many each histogram has.
const buckets = 16

// Histogram counts values in buckets that end at Unit, 2 Unit, 4 Unit and so
// on; the last of 16 has no end. Any goroutine may use it; Unit must be set
// before and not changed. Adding costs two atomic additions and allocates
// nothing.
type Histogram struct {
	Unit   uint64
	counts [buckets]atomic.Uint64
	sum    atomic.Uint64
}

// Of returns a histogram of times whose first bucket ends at unit.
func Of(unit time.Duration) Histogram { return Histogram{Unit: uint64(unit)} }

// Add counts a value.
func (h *Histogram) Add(v uint64) {
	steps := (v + h.Unit - 1) / h.Unit // the smallest i with steps <= 2^i
	h.counts[min(bits.Len64(max(steps, 1)-1), buckets-1)].Add(1)
	h.sum.Add(v)
}

// Time counts a time, in nanoseconds; one below zero counts as none.
func (h *Histogram) Time(d time.Duration) { h.Add(uint64(max(d, 0))) }

// Values are what a histogram holds at a moment.
type Values struct {
	Bounds []float64 // upper bounds, rising; the last bucket has none
	Counts []uint64  // len(Bounds)+1, not cumulative
	Sum    float64
	Count  uint64
}

// Read returns the values multiplied by scale, which makes seconds of
// nanoseconds, say. Values added meanwhile may be in one field and not yet in
// another.
func (h *Histogram) Read(scale float64) Values {
	r := Values{Bounds: make([]float64, buckets-1), Counts: make([]uint64, buckets), Sum: float64(h.sum.Load()) * scale}
	for i := range r.Bounds {
		r.Bounds[i] = float64(h.Unit<<i) * scale
	}
	for i := range r.Counts {
		r.Counts[i] = h.counts[i].Load()
		r.Count += r.Counts[i]
	}
	return r
}
