package liveness

import (
	"sync/atomic"
	"time"

	"parley/core/histogram"
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
	RTT         histogram.Values  // of pings that were answered, in seconds
	Swept       Sweep
}

// Sweep is what the slow sweep over all connections has seen.
type Sweep struct {
	Looks     uint64           // connections looked at
	Poor      uint64           // of them, poor ones: see Evidence.Poor
	KernelRTT histogram.Values // the kernel's smoothed round trip, in seconds
	LossShare histogram.Values // segments sent again, as a share of all
	Unacked   histogram.Values // segments in flight
}

// counters are a wheel's, safe for any goroutine.
type counters struct {
	pings, late atomic.Uint64
	rtt         histogram.Histogram
	swept       swept
	convicted   map[Cause]*atomic.Uint64 // the maps are complete from the start
	excused     map[Excuse]*atomic.Uint64
}

// swept is a Sweep under way.
type swept struct {
	looks, poor atomic.Uint64
	rtt         histogram.Histogram
	loss        histogram.Histogram // in 1/100 %
	unacked     histogram.Histogram
}

func (s *swept) add(e *Evidence) {
	if !e.Known {
		return
	}
	s.looks.Add(1)
	if e.Poor() {
		s.poor.Add(1)
	}
	s.rtt.Time(e.RTT)
	s.loss.Add(uint64(e.LossShare() * 10_000))
	s.unacked.Add(uint64(max(e.Unacked, 0)))
}

func (c *counters) init() {
	c.rtt.Unit, c.swept.rtt.Unit = uint64(time.Millisecond), uint64(time.Millisecond)
	c.swept.loss.Unit, c.swept.unacked.Unit = 1, 1
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
		RTT:         w.rtt.Read(1e-9),
		Swept: Sweep{
			Looks: w.swept.looks.Load(), Poor: w.swept.poor.Load(), KernelRTT: w.swept.rtt.Read(1e-9),
			LossShare: w.swept.loss.Read(1e-4), Unacked: w.swept.unacked.Read(1),
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
