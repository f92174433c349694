package liveness

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Stats are a wheel's counters since it was made.
type Stats struct {
	Connections int    // in the wheel now
	Suspects    int    // of them, with an overdue pong
	Pings       uint64 // sent
	Overdue     uint64 // connections taken for dead
	Postponed   uint64 // verdicts put off because the wheel ran late
	Late        uint64 // times it ran late by a tick or more
	RTT         RTT    // of pings that were answered
}

// RTT is a histogram of round-trip times, as heartbeats see them: with the
// time both programs take to get to it.
type RTT struct {
	Bounds []time.Duration // upper bounds; the last bucket has none
	Counts []uint64        // len(Bounds)+1, not cumulative
	Sum    time.Duration
	Count  uint64
}

// rttBuckets are 1 ms, 2 ms, 4 ms ... 16.384 s and beyond.
const rttBuckets = 16

// histogram counts durations in buckets of powers of two milliseconds.
type histogram struct {
	counts [rttBuckets]atomic.Uint64
	sum    atomic.Int64
}

func (h *histogram) add(d time.Duration) {
	// the smallest i with d <= 2^i ms
	ms := uint64(max(d-1, 0) / time.Millisecond)
	h.counts[min(bits.Len64(ms), rttBuckets-1)].Add(1)
	h.sum.Add(int64(d))
}

func (h *histogram) read() RTT {
	r := RTT{
		Bounds: make([]time.Duration, rttBuckets-1),
		Counts: make([]uint64, rttBuckets),
		Sum:    time.Duration(h.sum.Load()),
	}
	for i := range r.Bounds {
		r.Bounds[i] = time.Millisecond << i
	}
	for i := range r.Counts {
		r.Counts[i] = h.counts[i].Load()
		r.Count += r.Counts[i]
	}
	return r
}

// Stats reads the counters. The caller owns the slices.
func (w *Wheel) Stats() Stats {
	w.mu.Lock()
	connections, suspects := w.count, w.nsuspect
	w.mu.Unlock()
	return Stats{
		Connections: connections,
		Suspects:    suspects,
		Pings:       w.pings.Load(),
		Overdue:     w.overdue.Load(),
		Postponed:   w.postponed.Load(),
		Late:        w.late.Load(),
		RTT:         w.rtt.read(),
	}
}

// StateOf returns where a connection stands.
func (w *Wheel) StateOf(b *Beat) State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return b.state
}
