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
	after := settled
	if collects {
		if err := server.Collect(ctx); err != nil {
			return nil, err
		}
		if after, err = server.Usage(); err != nil {
			return nil, err
		}
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
	figures = append(figures, sockets(kernel, now, n)...)
	figures = append(figures,
		report.Figure{Name: "goroutines", Value: counters.Goroutines},
		report.Figure{Name: "CPU per connect", Value: float64((connected.CPU - base.CPU).Microseconds()) / n, Unit: "µs", Note: "server, connect to joined"},
		report.Figure{Name: "CPU while idle", Value: (settled.CPU - connected.CPU).Seconds() / l.Duration.Seconds() * 60, Unit: "s/min"},
		report.Figure{Name: "connect p99", Value: ms(st.Connect.At(99)), Unit: "ms"},
	)
	return []report.Section{{Title: "idle connections", Text: Machine(), Figures: figures}}, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
