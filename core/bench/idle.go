package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/core/bench/proc"
	"parley/core/bench/report"
)

// idle measures the memory of connections that do nothing. The baseline is the
// server's memory after a collection that gives memory back, so that nothing
// the start has left over can hide what connections take.
func (b *Bench) idle(ctx context.Context, l Load) (_ []report.Section, err error) {
	server, err := b.server(ctx, nil, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	if len(server.PIDs) == 0 {
		return nil, errors.New("idle measures a process's memory: name it with --pid")
	}
	collects := server.Collect(ctx) == nil
	base, err := server.Usage()
	if err != nil {
		return nil, err
	}
	before := server.counters(ctx)
	kernel, err := proc.ReadSockets()
	if err != nil {
		return nil, err
	}
	if err := l.meet.all(ctx); err != nil {
		return nil, err
	}
	fleet, err := b.fleet(ctx, server, l)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fleet.Close()) }()
	st, err := b.connect(ctx, fleet, l)
	if err != nil {
		return nil, err
	}
	connected, err := server.Usage()
	if err != nil {
		return nil, err
	}
	if err := l.meet.all(ctx); err != nil {
		return nil, err
	}
	if err := b.rest(ctx, "idle", l.Duration); err != nil {
		return nil, err
	}
	settled, err := server.Usage()
	if err != nil {
		return nil, err
	}
	counters := server.counters(ctx)
	after, consists := settled, counters
	if collects {
		if err := server.Collect(ctx); err != nil {
			return nil, err
		}
		if after, err = server.Usage(); err != nil {
			return nil, err
		}
		consists = server.counters(ctx)
	}
	now, err := proc.ReadSockets()
	if err != nil {
		return nil, err
	}
	if err := l.meet.all(ctx); err != nil { // the kernel's figures are of all of them
		return nil, err
	}
	n := float64(l.Members + l.Publishers)
	per := func(bytes int64) float64 { return float64(bytes) / 1024 / n }
	figures := []report.Figure{
		{Name: "connections", Value: n, Note: fmt.Sprintf("rooms of %d", l.RoomSize)},
		{Name: "RSS before", Value: float64(base.RSS) / (1 << 20), Unit: "MiB", Note: "after a collection with scavenge"},
		{Name: "RSS per connection", Value: per(settled.RSS - base.RSS), Unit: "KiB", Note: "after " + l.Duration.String()},
	}
	if collects {
		figures = append(figures, report.Figure{Name: "RSS per connection, collected", Value: per(after.RSS - base.RSS), Unit: "KiB", Note: "after one collection with scavenge"})
	}
	if consists != (Counters{}) {
		figures = append(figures, parts(before, consists, after.RSS-base.RSS, n)...)
	}
	figures = append(figures, sockets(kernel, now, n)...)
	figures = append(figures,
		report.Figure{Name: "goroutines", Value: counters.Goroutines},
		report.Figure{Name: "CPU per connect", Value: float64((connected.CPU - base.CPU).Microseconds()) / n, Unit: "µs", Note: "server, connect to joined"},
		report.Figure{Name: "CPU while idle", Value: (settled.CPU - connected.CPU).Seconds() / l.Duration.Seconds() * 60, Unit: "s/min"},
		report.Figure{Name: "connect p99", Value: ms(st.Connect.At(99)), Unit: "ms"},
	)
	return []report.Section{{Title: "idle connections", Text: Machine(), Figures: figures}}, nil
}

// parts divides what n connections have added to a server's RSS, as its
// runtime accounts for it (runtime.MemStats). The rest is memory that the
// runtime knows nothing of, such as mapped files and compiled plugins, less
// what it has reserved and never touched.
func parts(before, after Counters, rss int64, n float64) []report.Figure {
	kib := func(bytes float64) float64 { return bytes / 1024 / n }
	heap, free := after.HeapSpans-before.HeapSpans, after.HeapFree-before.HeapFree
	stacks, runtime := after.Stacks-before.Stacks, after.Runtime-before.Runtime
	return []report.Figure{
		{Name: "- heap in use", Value: kib(heap), Unit: "KiB", Note: "pages that hold objects"},
		{Name: "- of it objects", Value: kib(after.HeapLive - before.HeapLive), Unit: "KiB", Note: "the pages are not quite full"},
		{Name: "- heap free, kept", Value: kib(free), Unit: "KiB", Note: "pages not given back"},
		{Name: "- stacks", Value: kib(stacks), Unit: "KiB", Note: "of goroutines"},
		{Name: "- runtime", Value: kib(runtime), Unit: "KiB", Note: "its own structures: spans, bitmaps, profiles"},
		{Name: "- the rest", Value: kib(float64(rss) - heap - free - stacks - runtime), Unit: "KiB", Note: "mapped files, plugins; less what is reserved and untouched"},
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
