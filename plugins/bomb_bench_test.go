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
	"parley/plugins/internal/asm"
	"parley/sdk/abi"
)

// bombs are the modules that would run for ever, by name.
func bombs() []hostile {
	names := []string{"endless loop", "endless recursion", "recursion with large frames",
		"memory.fill bomb", "memory.copy bomb", "memory.grow bomb", "memory.grow by nothing",
		"table.fill bomb", "table.copy bomb", "table.grow bomb", "ref.func bomb",
		"host call bomb", "host call bomb through a table", "bomb of divisions", "bomb of loads that wait for each other"}
	var out []hostile
	for _, m := range stoppedModules() {
		if slices.Contains(names, m.name) {
			out = append(out, m)
		}
	}
	return out
}

// budgets are the defaults: of guests in C, Rust and AssemblyScript, and of Go's.
var budgets = []struct{ name, manifest string }{
	{"1 million fuel", `{"limits":{"fuel":1000000}}`},
	{"50 million fuel", `{"limits":{"fuel":50000000}}`},
}

// BenchmarkBomb prints how long a decision lasts that its budget ends, of a
// thousand or more, with making the instance anew that a trap costs.
func BenchmarkBomb(b *testing.B) {
	h := newHost(b)
	for _, m := range bombs() {
		for _, budget := range budgets {
			b.Run(m.name+", "+budget.name, func(b *testing.B) {
				p := mustLoad(b, h, m.wasm, budget.manifest)
				var took []time.Duration
				for b.Loop() {
					for range 1_000 {
						start := time.Now()
						run(p, "x")
						took = append(took, time.Since(start))
					}
				}
				reportTimes(b, took)
			})
		}
	}
}

// reportTimes prints quantiles in place of the time of an iteration.
func reportTimes(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	us := func(i int) float64 { return float64(took[i].Nanoseconds()) / 1e3 }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(len(took)), "times")
	b.ReportMetric(us(len(took)/2), "p50-us")
	b.ReportMetric(us(len(took)*99/100), "p99-us")
	b.ReportMetric(us(len(took)-1), "max-us")
}

// BenchmarkGCPause prints how long the garbage collector stops everything, in a
// thousand collections or more: while nothing else runs, while Go code or a good
// plugin does all the time, and while a bomb does, on either default budget.
func BenchmarkGCPause(b *testing.B) {
	h := newHost(b)
	deciding := func(wasm []byte, manifest, text string) func() {
		p := mustLoad(b, h, wasm, manifest)
		return func() { run(p, text) }
	}
	busy := []struct {
		name string
		work func() // runs again and again
	}{
		{"nothing runs", nil},
		{"Go code runs", func() { slices.Sort(slices.Repeat([]int{3, 1, 2}, 1_000)) }},
		{"a C guest decides", deciding(buildC(b, "words"), words200(), text120)},
	}
	for _, m := range bombs() {
		if !slices.Contains([]string{"endless loop", "endless recursion", "memory.fill bomb", "host call bomb"}, m.name) {
			continue
		}
		for _, budget := range budgets {
			busy = append(busy, struct {
				name string
				work func()
			}{m.name + ", " + budget.name, deciding(m.wasm, budget.manifest, "x")})
		}
	}
	for _, c := range busy {
		b.Run(c.name, func(b *testing.B) {
			var wg sync.WaitGroup
			stop := make(chan struct{})
			if c.work != nil {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							c.work()
						}
					}
				})
			}
			collections := 0
			before := pauses()
			for b.Loop() {
				for range 1_000 {
					runtime.GC()
					collections++
				}
			}
			after := pauses()
			close(stop)
			wg.Wait()
			for i := range after.Counts {
				after.Counts[i] -= before.Counts[i]
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(collections), "times")
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
		mustLoad(b, h, trapOn("x"), "{}"), mustLoad(b, h, onX(nil, forever, asm.Const64(0)), "{}"),
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
