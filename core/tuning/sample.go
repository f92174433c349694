package tuning

import (
	"math"
	"runtime/metrics"
	"time"
)

// load is what a sampler has seen of the process since it was last called.
type load struct {
	procs    ProcsSample // Goroutines, CPU and Latency
	cpuKnown bool        // CPU is: there were two readings
	gc       GCSample    // Live and Other
}

type sampler func() load

// The runtime's own figures (package runtime/metrics). CPU time is not among
// them because /cpu/classes changes only when a collection ends.
var sampled = [...]string{
	"/sched/goroutines:goroutines",
	"/sched/latencies:seconds",
	"/gc/heap/live:bytes",
	"/memory/classes/total:bytes",
	"/memory/classes/heap/objects:bytes",
	"/memory/classes/heap/unused:bytes",
	"/memory/classes/heap/free:bytes",
	"/memory/classes/heap/released:bytes",
}

// newSampler returns a sampler for one goroutine. The first sample has neither
// CPU use nor latency, having nothing to compare with.
func newSampler() sampler {
	var (
		samples = make([]metrics.Sample, len(sampled))
		last    time.Time
		lastCPU time.Duration
		before  []uint64 // counts of the latency histogram
	)
	for i, name := range sampled {
		samples[i].Name = name
	}
	return func() (l load) {
		metrics.Read(samples)
		now := time.Now()
		cpu, ok := cpuTime()
		l.procs.Goroutines = int(samples[0].Value.Uint64())
		h := samples[1].Value.Float64Histogram()
		if !last.IsZero() && ok && now.After(last) {
			l.procs.CPU, l.cpuKnown = (cpu-lastCPU).Seconds()/now.Sub(last).Seconds(), true
			l.procs.Latency = quantile(before, h.Counts, h.Buckets, 0.99)
		}
		last, lastCPU, before = now, cpu, append(before[:0], h.Counts...)

		bytes := func(i int) int64 { return int64(samples[i].Value.Uint64()) }
		l.gc.Live = bytes(2)
		l.gc.Other = max(0, bytes(3)-bytes(4)-bytes(5)-bytes(6)-bytes(7))
		return l
	}
}

// quantile returns the upper edge of the bucket that holds the q-quantile of
// what a cumulative histogram gained between two readings, and 0 where it
// gained nothing. bounds has one element more than the counts and may begin and
// end with infinities (metrics.Float64Histogram).
func quantile(before, after []uint64, bounds []float64, q float64) time.Duration {
	gained := func(i int) uint64 {
		if i < len(before) {
			return after[i] - before[i]
		}
		return after[i]
	}
	var total uint64
	for i := range after {
		total += gained(i)
	}
	rank := uint64(math.Ceil(q * float64(total)))
	if rank == 0 {
		return 0
	}
	var seen uint64
	for i := range after {
		if seen += gained(i); seen >= rank {
			edge := bounds[i+1]
			if math.IsInf(edge, 1) {
				edge = bounds[i]
			}
			return time.Duration(edge * float64(time.Second))
		}
	}
	return 0
}

// CPUTime is the processor time that this process has used, where the system
// tells.
func CPUTime() (used time.Duration, ok bool) { return cpuTime() }
