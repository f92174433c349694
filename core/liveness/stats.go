package liveness

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Stats are a wheel's counters since it was made. The caller owns what they
// point to.
type Stats struct {
	Connections int               // in the wheel now
	Suspects    int               // of them, with an overdue pong
	Pings       uint64            // sent
	Dead        map[Cause]uint64  // connections taken for dead
	Excused     map[Excuse]uint64 // looks at a suspect that gave it more time
	Late        uint64            // times the wheel ran late by a tick or more
	RTT         Histogram         // of pings that were answered, in seconds
	Swept       Sweep
}

// Sweep is what the slow sweep over all connections has seen.
type Sweep struct {
	Looks     uint64    // connections looked at
	Poor      uint64    // of them, poor ones: see Evidence.Poor
	KernelRTT Histogram // the kernel's smoothed round trip, in seconds
	LossShare Histogram // segments sent again, as a share of all
	Unacked   Histogram // segments in flight
}

// Histogram counts values in buckets.
type Histogram struct {
	Bounds []float64 // upper bounds; the last bucket has none
	Counts []uint64  // len(Bounds)+1, not cumulative
	Sum    float64
	Count  uint64
}

// buckets is how many each histogram has.
const buckets = 16

// histogram counts values in buckets that end at unit, 2 unit, 4 unit and so
// on.
type histogram struct {
	unit   uint64 // set at construction
	counts [buckets]atomic.Uint64
	sum    atomic.Uint64
}

func (h *histogram) add(v uint64) {
	steps := (v + h.unit - 1) / h.unit // the smallest i with steps <= 2^i
	h.counts[min(bits.Len64(max(steps, 1)-1), buckets-1)].Add(1)
	h.sum.Add(v)
}

// duration counts a time in a histogram of nanoseconds.
func (h *histogram) duration(d time.Duration) { h.add(uint64(max(d, 0))) }

// read gives the histogram out, its values multiplied by scale.
func (h *histogram) read(scale float64) Histogram {
	r := Histogram{Bounds: make([]float64, buckets-1), Counts: make([]uint64, buckets), Sum: float64(h.sum.Load()) * scale}
	for i := range r.Bounds {
		r.Bounds[i] = float64(h.unit<<i) * scale
	}
	for i := range r.Counts {
		r.Counts[i] = h.counts[i].Load()
		r.Count += r.Counts[i]
	}
	return r
}

// counters are a wheel's, safe for any goroutine.
type counters struct {
	pings, late atomic.Uint64
	rtt         histogram
	swept       swept
	convicted   map[Cause]*atomic.Uint64 // the maps are complete from the start
	excused     map[Excuse]*atomic.Uint64
}

// swept is a Sweep under way.
type swept struct {
	looks, poor atomic.Uint64
	rtt         histogram
	loss        histogram // in 1/100 %
	unacked     histogram
}

func (s *swept) add(e *Evidence) {
	if !e.Known {
		return
	}
	s.looks.Add(1)
	if e.Poor() {
		s.poor.Add(1)
	}
	s.rtt.duration(e.RTT)
	s.loss.add(uint64(e.LossShare() * 10_000))
	s.unacked.add(uint64(max(e.Unacked, 0)))
}

func (c *counters) init() {
	c.rtt.unit, c.swept.rtt.unit = uint64(time.Millisecond), uint64(time.Millisecond)
	c.swept.loss.unit, c.swept.unacked.unit = 1, 1
	c.convicted = make(map[Cause]*atomic.Uint64)
	for _, v := range Causes() {
		c.convicted[v] = new(atomic.Uint64)
	}
	c.excused = make(map[Excuse]*atomic.Uint64)
	for _, v := range Excuses() {
		c.excused[v] = new(atomic.Uint64)
	}
}

func (c *counters) convict(v Cause)           { c.convicted[v].Add(1) }
func (c *counters) excuse(v Excuse, n uint64) { c.excused[v].Add(n) }

// KernelGaveUp counts a connection that the kernel ended by itself, for who
// reads the socket. See CauseKernel.
func (w *Wheel) KernelGaveUp() { w.convict(CauseKernel) }

// Stats reads the counters.
func (w *Wheel) Stats() Stats {
	w.mu.Lock()
	connections, suspects := w.count, len(w.trials)
	w.mu.Unlock()
	s := Stats{
		Connections: connections,
		Suspects:    suspects,
		Pings:       w.pings.Load(),
		Dead:        make(map[Cause]uint64),
		Excused:     make(map[Excuse]uint64),
		Late:        w.late.Load(),
		RTT:         w.rtt.read(1e-9),
		Swept: Sweep{
			Looks: w.swept.looks.Load(), Poor: w.swept.poor.Load(), KernelRTT: w.swept.rtt.read(1e-9),
			LossShare: w.swept.loss.read(1e-4), Unacked: w.swept.unacked.read(1),
		},
	}
	for v, n := range w.convicted {
		s.Dead[v] = n.Load()
	}
	for v, n := range w.excused {
		s.Excused[v] = n.Load()
	}
	return s
}

// StateOf returns where a connection stands.
func (w *Wheel) StateOf(b *Beat) State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return b.state
}
