//go:build linux

package experiments

import (
	"context"
	"fmt"
	"math"
	"time"

	"parley/core/bench"
	"parley/core/bench/gctrace"
	"parley/core/bench/load"
	"parley/core/bench/report"
)

// servers is over how many processes 100,000 connections are spread: each then
// stays below the usual file limit of 20,000.
const servers = 6

// crowd is one server's share of 100,000 connections.
func (l *Lab) crowd() bench.Load {
	n := l.scaled(16_670, 20)
	return bench.Load{Members: n / 10 * 10, RoomSize: 10, Parallel: 32, TextBytes: 120}
}

// memory is the table of who holds which memory.
func memory(ctx context.Context, l *Lab) ([]report.Section, error) {
	c := l.crowd()
	c.Duration = l.during(10 * time.Second)
	rss := func(all []report.Section) float64 { return total(all, "RSS per connection, collected") }
	all, err := median(l, rss, func() ([]report.Section, error) { return l.Bench.IdleCrowd(ctx, l.scaled(servers, 2), c) })
	if err != nil {
		return nil, err
	}
	t := &report.Table{Columns: []string{"process", "connections", "RSS per connection", "after a collection", "goroutines"}}
	sum := map[string]float64{}
	for i, s := range all {
		v := map[string]float64{}
		for _, f := range s.Figures {
			v[f.Name] = f.Value
			sum[f.Name] += f.Value
		}
		t.Rows = append(t.Rows, []string{
			fmt.Sprint(i + 1), report.Number(v["connections"]), report.Number(v["RSS per connection"]) + " KiB",
			report.Number(v["RSS per connection, collected"]) + " KiB", report.Number(v["goroutines"]),
		})
	}
	n := float64(len(all))
	t.Rows = append(t.Rows, []string{
		"all", report.Number(sum["connections"]), report.Number(sum["RSS per connection"]/n) + " KiB",
		report.Number(sum["RSS per connection, collected"]/n) + " KiB", report.Number(sum["goroutines"]),
	})
	// Each process divided what the whole machine took by its own connections.
	slab, buffers := sum["kernel slab"]/n/n, sum["kernel socket buffers"]/n/n
	owners := &report.Table{Columns: []string{"who holds it", "KiB a connection", "of what"}}
	for _, o := range []struct{ figure, who, what string }{
		{"- of it objects", "heap, objects", "session, name, place in a room, buffers, timers"},
		{"", "heap, pages not full", "pages of the heap less the objects in them"},
		{"- heap free, kept", "heap, free", "pages that were not given back"},
		{"- stacks", "stacks", "of goroutines"},
		{"- runtime", "the Go runtime", "spans, bitmaps, profiles"},
		{"- the rest", "the rest of the process", "mapped files, plugins; less what is reserved and untouched"},
	} {
		v := sum[o.figure]
		if o.figure == "" {
			v = sum["- heap in use"] - sum["- of it objects"]
		}
		owners.Rows = append(owners.Rows, []string{o.who, report.Number(v / n), o.what})
	}
	owners.Rows = append(owners.Rows,
		[]string{"the process, all of it", report.Number(sum["RSS per connection, collected"] / n), "RSS after a collection, less that before the first connection"},
		[]string{"the kernel, objects", report.Number(slab), "of sockets, both ends (SUnreclaim of /proc/meminfo)"},
		[]string{"the kernel, queues", report.Number(buffers), "bytes in socket buffers, both ends"})
	text := paragraphs(
		"Claimed: a connection costs a goroutine of 2 KB, so 100,000 of them fit anywhere.",
		fmt.Sprintf("Measured: the stack is one part of several, %s KiB of %s that a process holds for each connection after a collection; the second table names the others. The kernel holds another %s KiB of its own objects, for both ends together, since the clients run on the same machine (SUnreclaim of /proc/meminfo), and %s KiB in queues. %s",
			report.Number(sum["- stacks"]/n), report.Number(sum["RSS per connection, collected"]/n), report.Number(slab), report.Number(buffers), l.medianOf("memory after a collection, all six processes together")),
	)
	return []report.Section{
		{Title: "100,000 connections over six processes", Text: text, Table: t},
		{Title: "Who holds the memory of a connection", Table: owners},
	}, nil
}

// total adds up the figures of one name.
func total(all []report.Section, name string) (sum float64) {
	for _, s := range all {
		for _, f := range s.Figures {
			if f.Name == name {
				sum += f.Value
			}
		}
	}
	return sum
}

// gogc compares settings of the collector at 100,000 connections.
func gogc(ctx context.Context, l *Lab) ([]report.Section, error) {
	c := l.crowd()
	c.Publishers, c.Rate = 8, float64(l.scaled(100, 20)) // of each server: the machine has to carry six
	c.Warmup, c.Duration = l.during(10*time.Second), l.during(30*time.Second)
	settings := some(l, bench.Tunings("GOGC=10", "GOGC=50", "GOGC=100", "GOGC=200", "GOGC=off GOMEMLIMIT=1GiB"), 2)
	t := &report.Table{Columns: []string{"setting", "GC/s of a process", "GC/s of all", "heap ± of a process", "GC share of CPU", "pause p99", "deliveries per CPU-s", "p99", "RSS of all"}}
	line := report.Line{Name: "all six"}
	var rows []sums
	for i, s := range settings {
		row, err := median(l, sums.perCPU, func() (sums, error) {
			all, err := l.Bench.Crowd(ctx, l.scaled(servers, 2), c, s)
			return summed(all), err
		})
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
		t.Rows = append(t.Rows, row.cells(s.Name))
		line.X, line.Y = append(line.X, float64(i+1)), append(line.Y, row.rate)
	}
	text := paragraphs(
		"Claimed: tuning takes a server from 8.2 to 1.7 collections a second, the swing of its heap from ±320 to ±65 MB, and the throughput lost to the collector from 23 to 4 %.",
		"The three cannot all come from GOGC. The collector starts when the heap has grown by GOGC percent over what was alive: a larger GOGC means fewer collections and a LARGER swing, a smaller one the opposite. Both fall together only when the program allocates less, or keeps less alive.",
		traded(settings, rows),
		"GOGC=off with a memory limit collects only near the limit, which must be above what is alive: below it the collector runs without pause. The share of CPU is gctrace's own account, which counts a collector's thread by the wall clock: on a machine that is busy with the clients too, it says more than was used.",
		l.medianOf("deliveries for a second of CPU"),
	)
	plot := report.Plot{Title: "Collections a second, all processes", X: "row of the table", Y: "1/s", Lines: []report.Line{line}}
	return []report.Section{{Title: "GOGC at 100,000 connections", Text: text, Table: t, Plots: []report.Plot{plot}}}, nil
}

// traded says what became of rate and swing between the first setting, the
// smallest GOGC, and the largest that has no limit.
func traded(settings []bench.Tuning, rows []sums) string {
	last := len(rows) - 1
	for last > 0 && settings[last].Env["GOMEMLIMIT"] != "" {
		last--
	}
	if last < 1 {
		return ""
	}
	a, b := rows[0], rows[last]
	most := 0.0
	for _, r := range rows {
		most = max(most, r.perCPU())
	}
	lost := func(r sums) float64 { return math.Round(1000*(1-r.perCPU()/max(most, 1e-9))) / 10 }
	what := "the opposite of the claim's falling together"
	if !(b.rate < a.rate && b.swing > a.swing) {
		what = "which is not the trade that was to be expected"
	}
	return fmt.Sprintf("From %s to %s collections went from %s to %s a second for each process, the largest swing from %s to %s: %s. Deliveries for a second of CPU went from %s to %s; against the most of all rows, the two lose %s and %s %% (claimed: 23 and 4 %%).",
		settings[0].Name, settings[last].Name, report.Number(a.rate/float64(a.n)), report.Number(b.rate/float64(b.n)), mib(a.swing), mib(b.swing), what,
		report.Number(a.perCPU()), report.Number(b.perCPU()), report.Number(lost(a)), report.Number(lost(b)))
}

// sums is several servers taken together.
type sums struct {
	n                int
	rate             float64
	swing, rss       int64
	busy, cpu, pause time.Duration
	delivered        float64
	latency          load.Latency
}

func summed(all []*bench.Tuned) sums {
	s := sums{n: len(all), latency: load.NewLatency()}
	for _, m := range all {
		s.rate += m.GC.Rate
		s.swing = max(s.swing, m.GC.Swing())
		s.busy += m.GC.Busy
		s.cpu += m.CPU
		s.rss += m.RSS
		s.pause = max(s.pause, m.GC.PauseP99)
		s.delivered += float64(m.Delivered)
		s.latency.Merge(m.Delivery)
	}
	return s
}

// perCPU is deliveries for a second of the servers' CPU.
func (s sums) perCPU() float64 { return s.delivered / max(s.cpu.Seconds(), 1e-9) }

func (s sums) cells(name string) []string {
	return []string{
		name, report.Number(s.rate / float64(s.n)), report.Number(s.rate), mib(s.swing),
		report.Number(100*s.busy.Seconds()/max(s.cpu.Seconds(), 1e-9)) + " %", ms(s.pause),
		report.Number(s.perCPU()), ms(s.latency.At(99)), mib(s.rss),
	}
}

// pauses takes the two times apart for which the world stands still, for a
// small crowd and for one ten times as large.
func pauses(ctx context.Context, l *Lab) ([]report.Section, error) {
	t := &report.Table{Columns: []string{"connections", "live heap", "goroutines", "collections", "mark start p99", "longest", "mark termination p99", "longest", "both p99", "longest"}}
	var plots []report.Plot
	var sizes []paused
	for _, members := range []int{1000, 10_000} {
		c := bench.Load{
			Members: max(l.scaled(members, 20)/10*10, 10), RoomSize: 10, Publishers: 16, Rate: float64(l.scaled(1000, 100)), TextBytes: 120, Parallel: 64,
			Warmup: l.during(5 * time.Second), Duration: l.during(time.Minute),
		}
		whole := func(m *bench.Tuned) gctrace.Summary { return gctrace.Summarize(m.Cycles, 0, 24*time.Hour) } // with the start: a pause is a pause
		p99 := func(m *bench.Tuned) float64 { return float64(whole(m).PauseP99) }
		m, err := median(l, p99, func() (*bench.Tuned, error) {
			return l.Bench.Tuned(ctx, c, bench.Tunings("GOGC=50")[0], nil) // more collections to look at than by default
		})
		if err != nil {
			return nil, err
		}
		seen := whole(m)
		t.Rows = append(t.Rows, []string{
			fmt.Sprint(c.Members), mib(seen.LiveMedian), report.Number(m.After.Goroutines), fmt.Sprint(seen.Cycles),
			ms(seen.StartP99), ms(longest(m.Cycles, func(c gctrace.Cycle) time.Duration { return c.MarkStart })),
			ms(seen.EndP99), ms(longest(m.Cycles, func(c gctrace.Cycle) time.Duration { return c.MarkEnd })),
			ms(seen.PauseP99), ms(seen.PauseMax),
		})
		sizes = append(sizes, paused{c.Members, seen})
		var start, end report.Line
		start.Name, end.Name = "mark start", "mark termination"
		for i, c := range m.Cycles {
			start.X, start.Y = append(start.X, float64(i+1)), append(start.Y, float64(c.MarkStart)/1e6)
			end.X, end.Y = append(end.X, float64(i+1)), append(end.Y, float64(c.MarkEnd)/1e6)
		}
		plots = append(plots, report.Plot{Title: fmt.Sprintf("Pauses of each collection, %d connections", c.Members), X: "collection", Y: "ms", Lines: []report.Line{start, end}})
	}
	text := paragraphs(
		"Claimed: the collector stops the world twice, and the pauses grow with the heap and the number of goroutines.",
		grown(sizes[0], sizes[1]),
		"The work that grows with the heap, marking, runs beside the program (Go has scanned stacks concurrently since 1.9). In the two pauses the runtime waits until every processor has reached a safe point; where there are fewer CPUs than busy threads, reaching it takes the kernel's scheduler too.",
		l.medianOf("the p99 of both pauses"),
	)
	return []report.Section{{Title: "Mark start and mark termination", Text: text, Table: t, Plots: plots}}, nil
}

// paused is how long the collector stopped a server of some connections.
type paused struct {
	connections int
	gctrace.Summary
}

// grown says whether pauses grew with the crowd. p50 is compared: some hundred
// collections have one or two beyond the p99, which the machine decides.
func grown(small, large paused) string {
	text := fmt.Sprintf("Measured, from %d to %d connections the live heap went from %s to %s and the median of both pauses together from %s to %s (p99 %s and %s): ",
		small.connections, large.connections, mib(small.LiveMedian), mib(large.LiveMedian), ms(small.PauseP50), ms(large.PauseP50), ms(small.PauseP99), ms(large.PauseP99))
	heap := float64(large.LiveMedian) / max(float64(small.LiveMedian), 1)
	pause := float64(large.PauseP50) / max(float64(small.PauseP50), 1)
	switch {
	case heap < 1.5:
		return text + "the heap hardly grew, so nothing follows from it."
	case pause < 1.5:
		return text + "they did not grow with it."
	case pause < heap/2:
		return text + "they grew by far less than the heap."
	}
	return text + "they grew as claimed."
}

func longest(all []gctrace.Cycle, of func(gctrace.Cycle) time.Duration) (d time.Duration) {
	for _, c := range all {
		d = max(d, of(c))
	}
	return d
}
