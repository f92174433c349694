package bench

import (
	"context"
	"errors"
	"fmt"

	"parley/core/bench/report"
)

// fanout measures delivery: one room or many, open or closed loop.
func (b *Bench) fanout(ctx context.Context, l Load) (_ []report.Section, err error) {
	server, err := b.server(ctx, nil, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	m, err := b.run(ctx, server, l)
	if err != nil {
		return nil, err
	}
	text := Machine()
	if d := b.Cluster.describe(); d != "" {
		text = d + "; " + text
	}
	if len(b.Tunings) > 0 {
		text += "; with " + b.Tunings[0].Name
	}
	return []report.Section{{Title: l.title(), Text: text, Figures: m.figures(l), Plots: m.plots()}}, m.wrong()
}

// title says what a load is.
func (l Load) title() string {
	how := fmt.Sprintf("open loop, %s msg/s", report.Number(l.Rate))
	if l.Rate == 0 {
		how = fmt.Sprintf("loop closed by acks, %d publishers, each with %d messages unanswered", l.Publishers, l.InFlight)
		if l.ByArrival {
			how = fmt.Sprintf("loop closed by arrivals, %d publishers, each with %d messages that not every member has read", l.Publishers, l.InFlight)
		}
	}
	rooms := "one room"
	if n := l.rooms(); n > 1 {
		rooms = fmt.Sprintf("%d rooms", n)
	}
	return fmt.Sprintf("%s of %d, %s", rooms, l.RoomSize, how)
}

// figures are a run's results.
func (m *Measured) figures(l Load) []report.Figure {
	secs := m.Took.Seconds()
	all := []report.Figure{
		{Name: "messages", Value: float64(m.Sent) / secs, Unit: "1/s"},
		{Name: "deliveries", Value: float64(m.Delivered) / secs, Unit: "1/s", Note: fmt.Sprintf("%d checked in all", m.Delivery.Count())},
	}
	if m.CPU > 0 {
		cpu := m.CPU.Seconds()
		all = append(all,
			report.Figure{Name: "server CPU", Value: cpu / secs, Unit: "cores"},
			report.Figure{Name: "deliveries per server CPU-second", Value: float64(m.Delivered) / cpu},
			report.Figure{Name: "server CPU per message", Value: cpu * 1e6 / max(float64(m.Sent), 1), Unit: "µs"},
			report.Figure{Name: "server RSS", Value: float64(m.RSS) / (1 << 20), Unit: "MiB"},
		)
	}
	for _, p := range m.Parts {
		all = append(all,
			report.Figure{Name: p.Name + " CPU per message", Value: float64(p.CPU.Microseconds()) / max(float64(m.Sent), 1), Unit: "µs"},
			report.Figure{Name: p.Name + " RSS", Value: float64(p.RSS) / (1 << 20), Unit: "MiB"},
		)
	}
	all = append(all,
		report.Figure{Name: "latency p50", Value: ms(m.Delivery.At(50)), Unit: "ms", Note: "publisher's send to member's read"},
		report.Figure{Name: "latency p99", Value: ms(m.Delivery.At(99)), Unit: "ms"},
		report.Figure{Name: "latency p99.9", Value: ms(m.Delivery.At(99.9)), Unit: "ms"},
		report.Figure{Name: "latency max", Value: ms(m.Delivery.Max()), Unit: "ms"},
		report.Figure{Name: "ack p50", Value: ms(m.Ack.At(50)), Unit: "ms", Note: "send to durable"},
		report.Figure{Name: "ack p99", Value: ms(m.Ack.At(99)), Unit: "ms"},
	)
	if m.After != (Counters{}) {
		all = append(all,
			report.Figure{Name: "collections", Value: (m.After.Collections - m.Before.Collections) / secs, Unit: "1/s"},
			report.Figure{Name: "allocated per message", Value: (m.After.Allocated - m.Before.Allocated) / 1024 / max(float64(m.Sent), 1), Unit: "KiB"},
			report.Figure{Name: "objects per message", Value: (m.After.Mallocs - m.Before.Mallocs) / max(float64(m.Sent), 1)},
		)
		if len(m.Parts) == 0 { // otherwise the writes to members are not this process's
			all = append(all, report.Figure{Name: "deliveries per write", Value: float64(m.Delivered) / max(m.After.Writes-m.Before.Writes, 1)})
		}
	}
	all = append(all, report.Figure{Name: "client CPU", Value: m.Stats.CPU.Seconds() / secs, Unit: "cores", Note: "the busiest client process"})
	if l.Rate > 0 {
		all = append(all, report.Figure{Name: "client late p99", Value: ms(m.Behind.At(99)), Unit: "ms", Note: "publishers behind their own schedule"})
	}
	return append(all,
		report.Figure{Name: "lost", Value: float64(m.Faults.Lost)},
		report.Figure{Name: "duplicate", Value: float64(m.Faults.Duplicate)},
		report.Figure{Name: "late", Value: float64(m.Faults.Late)},
		report.Figure{Name: "holes in seq", Value: float64(m.Faults.Holes)},
	)
}

// ErrDelivery says that a run found something wrong with the deliveries.
var ErrDelivery = errors.New("the deliveries were not right")

// wrong returns an error that names what went wrong, nil for a clean run.
func (m *Measured) wrong() error {
	if m.Faults.None() && len(m.Closed) == 0 && len(m.Errors) == 0 && m.Pending == 0 && m.Redacted == 0 {
		return nil
	}
	return fmt.Errorf("%w: %+v; closed: %v; refused: %v; never answered: %d; redacted: %d", ErrDelivery, m.Faults, m.Closed, m.Errors, m.Pending, m.Redacted)
}

// plots shows a run over time and its latency's distribution.
func (m *Measured) plots() []report.Plot {
	var rate, p99, cpu, rss report.Line
	for i, s := range m.Seconds {
		rate.X, rate.Y = append(rate.X, float64(i)), append(rate.Y, float64(s.Delivered))
		p99.X, p99.Y = append(p99.X, float64(i)), append(p99.Y, s.P99ms)
	}
	for i, s := range m.Samples {
		if i == 0 {
			continue
		}
		cpu.X, cpu.Y = append(cpu.X, s.At.Seconds()), append(cpu.Y, s.CPU.Seconds()/(s.At-m.Samples[i-1].At).Seconds())
		rss.X, rss.Y = append(rss.X, s.At.Seconds()), append(rss.Y, float64(s.RSS)/(1<<20))
	}
	return []report.Plot{
		{Title: "Latency by percentile", X: "percentile", Y: "ms", Lines: []report.Line{m.quantiles()}},
		{Title: "Deliveries", X: "s", Y: "1/s", Lines: []report.Line{rate}},
		{Title: "Latency p99 of each second", X: "s", Y: "ms", Lines: []report.Line{p99}},
		{Title: "Server CPU", X: "s", Y: "cores", Lines: []report.Line{cpu}},
		{Title: "Server RSS", X: "s", Y: "MiB", Lines: []report.Line{rss}},
	}
}

// quantiles is the latency at each half percent.
func (m *Measured) quantiles() (line report.Line) {
	for q := 0.5; q < 100; q += 0.5 {
		line.X, line.Y = append(line.X, q), append(line.Y, ms(m.Delivery.At(q)))
	}
	return line
}
