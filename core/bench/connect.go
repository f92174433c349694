package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/core/bench/load"
	"parley/core/bench/proc"
	"parley/core/bench/report"
)

// connectMode measures connecting: the upgrade, hello and join of each member.
// With as many connections being opened at once as there are, it is a storm,
// as after a restart.
func (b *Bench) connectMode(ctx context.Context, l Load) (_ []report.Section, err error) {
	server, err := b.server(ctx, nil, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	before, err := server.Usage()
	if err != nil {
		return nil, err
	}
	fleet, err := b.fleet(ctx, server, l)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fleet.Close()) }()
	from := load.Monotonic()
	st, err := b.connect(ctx, fleet, l)
	if err != nil {
		return nil, err
	}
	took := time.Duration(load.Monotonic() - from)
	after, err := server.Usage()
	if err != nil {
		return nil, err
	}
	n := float64(st.Open)
	figures := []report.Figure{
		{Name: "connections", Value: n, Note: fmt.Sprintf("%d at a time, rooms of %d", l.Parallel, l.RoomSize)},
		{Name: "connects", Value: n / took.Seconds(), Unit: "1/s", Note: "upgrade, hello, join"},
	}
	if len(server.PIDs) > 0 {
		figures = append(figures, report.Figure{Name: "server CPU per connect", Value: float64((after.CPU - before.CPU).Microseconds()) / n, Unit: "µs"})
	}
	for _, q := range []float64{50, 99} {
		figures = append(figures, report.Figure{Name: fmt.Sprintf("connect p%v", q), Value: ms(st.Connect.At(q)), Unit: "ms", Note: "connect(2) to joined"})
	}
	figures = append(figures, report.Figure{Name: "connect max", Value: ms(st.Connect.Max()), Unit: "ms"})
	return []report.Section{{Title: "connecting", Text: Machine(), Figures: figures}}, nil
}

// liveness measures what the heartbeats of connections that do nothing else
// cost.
func (b *Bench) liveness(ctx context.Context, l Load) (_ []report.Section, err error) {
	server, err := b.server(ctx, nil, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	if len(server.PIDs) == 0 {
		return nil, errors.New("liveness measures a process's CPU time: name it with --pid")
	}
	fleet, err := b.fleet(ctx, server, l)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fleet.Close()) }()
	if _, err := b.connect(ctx, fleet, l); err != nil {
		return nil, err
	}
	if err := b.rest(ctx, "resting", l.Warmup); err != nil {
		return nil, err
	}
	pings := server.pings(ctx)
	before, err := server.Usage()
	if err != nil {
		return nil, err
	}
	if err := b.rest(ctx, "heartbeats", l.Duration); err != nil {
		return nil, err
	}
	after, err := server.Usage()
	if err != nil {
		return nil, err
	}
	pings = server.pings(ctx) - pings
	st, err := fleet.Settle(ctx, nil, settleQuiet)
	if err != nil {
		return nil, err
	}
	cpu := (after.CPU - before.CPU).Seconds()
	s := report.Section{Title: "heartbeats", Text: Machine(), Figures: []report.Figure{
		{Name: "connections", Value: float64(l.Members)},
		{Name: "server CPU", Value: cpu / l.Duration.Minutes(), Unit: "s/min", Note: "everything an idle server does"},
		{Name: "pings", Value: pings / l.Duration.Minutes(), Unit: "1/min"},
		{Name: "server CPU per ping", Value: cpu * 1e6 / max(pings, 1), Unit: "µs"},
		{Name: "connections lost", Value: float64(l.Members - st.Open)},
	}}
	if st.Open != l.Members {
		return []report.Section{s}, fmt.Errorf("the server closed connections that answered every ping: %v", st.Closed)
	}
	return []report.Section{s}, nil
}

// rest lets time pass.
func (b *Bench) rest(ctx context.Context, what string, d time.Duration) error {
	from := load.Monotonic()
	stop := b.progress(what, func() (float64, string) {
		gone := time.Duration(load.Monotonic() - from)
		return float64(gone) / float64(d), gone.Truncate(time.Second).String()
	})
	defer stop()
	return until(ctx, from+int64(d))
}

func (s *Server) pings(ctx context.Context) float64 {
	m, err := s.Metrics(ctx)
	if err != nil {
		return 0
	}
	return m["parley_pings_total"]
}

// sockets is what the kernel keeps for connections, per connection.
func sockets(before, after proc.Sockets, n float64) []report.Figure {
	per := func(bytes int64) float64 { return float64(bytes) / 1024 / n }
	return []report.Figure{
		{Name: "kernel socket buffers", Value: per(after.Buffer - before.Buffer), Unit: "KiB/conn", Note: "both ends, /proc/net/sockstat"},
		{Name: "kernel slab", Value: per(after.Slab - before.Slab), Unit: "KiB/conn", Note: "both ends, SUnreclaim of /proc/meminfo"},
	}
}
