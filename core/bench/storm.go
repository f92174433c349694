package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/core/bench/load"
	"parley/core/bench/report"
)

// acceptKey is the limit that a storm meets, and stormLimits what is measured
// where the caller names none: no limit, and one.
const acceptKey = "limits.accepts_per_second"

var stormLimits = []string{"0", "500"}

// storm measures a room's latency at rest and while many connections arrive at
// the same moment, under each limit on new connections.
func (b *Bench) storm(ctx context.Context, l Load) ([]report.Section, error) {
	limits := stormLimits
	if v, ok := b.Keys[acceptKey]; ok || b.Target != "" {
		limits = []string{v}
	}
	l.Returns = true
	t := &report.Table{Columns: []string{"accepts/s", "", "latency p50", "p99", "p99.9", "p99 against rest", "server CPU", "joined", "after", "told to come back"}}
	s := report.Section{Title: fmt.Sprintf("%d connections at once beside %s", l.Arrivals, l.title()), Text: Machine(), Table: t}
	for _, limit := range limits {
		rows, err := b.stormUnder(ctx, l, limit)
		t.Rows = append(t.Rows, rows...)
		if err != nil {
			return []report.Section{s}, err
		}
	}
	return []report.Section{s}, nil
}

// stormUnder returns a row at rest, one while the same crowd storms another
// server, and one in the storm. The second shows what is the machine's share:
// where clients and servers run on the same CPUs, a crowd that connects takes
// them from the room whoever it connects to.
func (b *Bench) stormUnder(ctx context.Context, l Load, limit string) (rows [][]string, err error) {
	keys := map[string]string{acceptKey: limit}
	name := limit
	switch {
	case b.Target != "":
		name = "as it is"
	case limit == "0":
		name = "no limit"
	}
	server, err := b.server(ctx, keys, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	rest, err := b.run(ctx, server, l)
	if err != nil {
		return nil, err
	}
	rows = append(rows, append(rest.stormRow(name, "rest", rest), "", "", ""))
	if err := rest.wrong(); err != nil {
		return rows, err
	}
	if b.Target == "" {
		other, err := b.server(ctx, keys, nil)
		if err != nil {
			return rows, err
		}
		row, err := b.stormed(ctx, l, server, other, rest, name, "storm elsewhere")
		rows = append(rows, row...)
		if err := errors.Join(err, other.Stop()); err != nil {
			return rows, err
		}
	}
	row, err := b.stormed(ctx, l, server, server, rest, name, "storm")
	return append(rows, row...), err
}

// stormed measures the room at server while a crowd arrives at another one, or
// at the same.
func (b *Bench) stormed(ctx context.Context, l Load, server, at *Server, rest *Measured, limit, when string) (rows [][]string, err error) {
	crowd, err := b.fleet(ctx, at, Load{Members: l.Arrivals, RoomSize: arrivalsRoom, Parallel: l.Arrivals, Returns: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, crowd.Close()) }()
	come := make(chan arrived, 1)
	l.onMeasure = func(ctx context.Context) { come <- arrive(ctx, crowd, l.Duration) }
	m, err := b.run(ctx, server, l)
	if err != nil {
		return nil, err
	}
	a := <-come
	row := append(m.stormRow(limit, when, rest), report.Number(float64(a.open)), a.after(), report.Number(float64(a.returned)))
	return [][]string{row}, errors.Join(m.wrong(), a.err)
}

// arrivalsRoom is how many of those who arrive share a room.
const arrivalsRoom = 50

// arrived is what became of those who came at once.
type arrived struct {
	open     int
	returned uint64
	took     time.Duration // until the last had joined; 0: the measured time was over before
	err      error
}

// arrive connects all at once, for no longer than is measured.
func arrive(ctx context.Context, crowd *load.Fleet, within time.Duration) arrived {
	from := load.Monotonic()
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	st, err := crowd.Connect(limited)
	switch {
	case err != nil && ctx.Err() == nil && limited.Err() != nil:
		return arrived{open: crowd.Progress().Open}
	case err != nil:
		return arrived{err: err}
	case len(st.Refused) > 0:
		err = fmt.Errorf("connections of the storm were refused for good: %v", st.Refused)
	}
	return arrived{open: st.Open, returned: st.Returned, took: time.Duration(load.Monotonic() - from), err: err}
}

func (a arrived) after() string {
	if a.took == 0 {
		return "not all by the end"
	}
	return report.Number(a.took.Seconds()) + " s"
}

// stormRow is the part of a row that rest and storm share.
func (m *Measured) stormRow(limit, when string, rest *Measured) []string {
	num := report.Number
	cpu := "not known"
	if m.CPU > 0 {
		cpu = num(m.CPU.Seconds()/m.Took.Seconds()) + " cores"
	}
	return []string{
		limit, when, num(ms(m.Delivery.At(50))) + " ms", num(ms(m.Delivery.At(99))) + " ms", num(ms(m.Delivery.At(99.9))) + " ms",
		num(float64(m.Delivery.At(99))/max(float64(rest.Delivery.At(99)), 1)) + " x", cpu,
	}
}
