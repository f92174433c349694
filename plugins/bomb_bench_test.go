package plugins_test

import (
	"math"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"testing"
	"time"

	"parley/plugins"
	"parley/sdk/abi"
)

// bombs are the modules that would run for ever, by name.
func bombs() []hostile {
	names := []string{"endless loop", "endless recursion", "recursion with large frames", "memory.fill bomb", "memory.copy bomb", "memory.grow bomb"}
	var out []hostile
	for _, m := range stoppedModules() {
		if slices.Contains(names, m.name) {
			out = append(out, m)
		}
	}
	return out
}

// How long a decision lasts that its budget of 1 million fuel ends.
func BenchmarkBomb(b *testing.B) {
	h := newHost(b)
	for _, m := range bombs() {
		b.Run(m.name, func(b *testing.B) {
			p := mustLoad(b, h, m.wasm, "{}")
			took := make([]time.Duration, 0, b.N)
			for b.Loop() {
				start := time.Now()
				run(p, "x")
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
		})
	}
}

// BenchmarkGCPause prints the longest of the pauses of the collector's world
// stop: of an idle process, while a bomb runs on its default budget, and while
// one runs on a Go guest's.
func BenchmarkGCPause(b *testing.B) {
	loop := bombs()[0].wasm
	for _, c := range []struct{ name, manifest string }{
		{"nothing runs", ""},
		{"endless loop, 1 million fuel", "{}"},
		{"endless loop, 50 million fuel", `{"limits":{"fuel":50000000}}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			var wg sync.WaitGroup
			stop := make(chan struct{})
			if c.manifest != "" {
				p := mustLoad(b, newHost(b), loop, c.manifest)
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							run(p, "x")
						}
					}
				})
			}
			before := pauses()
			for b.Loop() {
				runtime.GC()
			}
			after := pauses()
			close(stop)
			wg.Wait()
			for i := range after.Counts {
				after.Counts[i] -= before.Counts[i]
			}
			b.ReportMetric(quantile(after, 0.5)*1e6, "p50-us")
			b.ReportMetric(quantile(after, 0.99)*1e6, "p99-us")
			b.ReportMetric(quantile(after, 1)*1e6, "max-us")
		})
	}
}

func pauses() *metrics.Float64Histogram {
	s := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}}
	metrics.Read(s)
	h := s[0].Value.Float64Histogram()
	return &metrics.Float64Histogram{Counts: slices.Clone(h.Counts), Buckets: h.Buckets}
}

// quantile returns the upper bound of the bucket that holds it, in seconds.
func quantile(h *metrics.Float64Histogram, q float64) float64 {
	total, sum := uint64(0), uint64(0)
	for _, n := range h.Counts {
		total += n
	}
	for i, n := range h.Counts {
		if sum += n; n > 0 && float64(sum) >= q*float64(total) {
			return min(h.Buckets[i+1], math.MaxFloat32)
		}
	}
	return 0
}

// BenchmarkSoak runs b.N decisions of four guests, one in a thousand of which
// traps, and prints the process's memory before and after. 10 million:
//
//	go test ./plugins -run '^$' -bench Soak -benchtime 10000000x
func BenchmarkSoak(b *testing.B) {
	h := newHost(b)
	guests := []*plugins.Plugin{
		mustLoad(b, h, masker(), "{}"), mustLoad(b, h, buildC(b, "words"), words200()),
		mustLoad(b, h, trapOn("x"), "{}"), mustLoad(b, h, onX(nil, forever), "{}"),
	}
	in := abi.Input{TimeMS: 1, Text: []byte(text120), Normalized: []byte(text120), User: "ann", Room: "lobby", Kind: "message"}
	input := abi.AppendInput(nil, &in)
	round := func(n int) {
		for i := range n {
			if i%1_000 == 999 {
				run(guests[2], "x")
				continue
			}
			guests[i%4].Run(input, in.Text, in.Normalized)
		}
	}
	round(100_000)
	runtime.GC()
	before := rss(b)
	start := time.Now()
	for left := b.N; left > 0; left -= 100_000 {
		round(min(left, 100_000))
	}
	took := time.Since(start)
	runtime.GC()
	b.ReportMetric(before, "MB-before")
	b.ReportMetric(rss(b), "MB-after")
	b.ReportMetric(float64(b.N)/took.Seconds(), "decisions/s")
}
