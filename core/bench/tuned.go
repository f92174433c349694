package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"parley/core/bench/gctrace"
	"parley/core/bench/load"
	"parley/core/bench/report"
)

// Tuning is one setting of a server's Go runtime, as environment variables.
type Tuning struct {
	Name string
	Env  map[string]string
}

// ParseTuning reads "GOGC=off GOMEMLIMIT=512MiB".
func ParseTuning(text string) (Tuning, error) {
	t := Tuning{Name: text, Env: map[string]string{}}
	for _, word := range strings.Fields(text) {
		k, v, ok := strings.Cut(word, "=")
		switch {
		case !ok || v == "":
			return t, fmt.Errorf("%q: NAME=VALUE is expected", word)
		case k != "GOGC" && k != "GOMEMLIMIT" && k != "GOMAXPROCS":
			return t, fmt.Errorf("%q: GOGC, GOMEMLIMIT or GOMAXPROCS is expected", word)
		}
		t.Env[k] = v
	}
	if len(t.Env) == 0 {
		return t, errors.New("a setting names GOGC, GOMEMLIMIT or GOMAXPROCS")
	}
	return t, nil
}

// collectorTunings are the rows of mode gc.
func collectorTunings() []Tuning {
	return Tunings("GOGC=10", "GOGC=50", "GOGC=100", "GOGC=200", "GOGC=400", "GOGC=off GOMEMLIMIT=512MiB")
}

// processorTunings are the rows of mode gomaxprocs: powers of two up to four
// times the CPUs there are, and the CPUs themselves.
func processorTunings() (all []Tuning) {
	n := runtime.NumCPU()
	seen := false
	for p := 1; p <= 4*n; p *= 2 {
		if p > n && !seen {
			all = append(all, Tunings("GOMAXPROCS="+strconv.Itoa(n))...)
		}
		seen = seen || p >= n
		all = append(all, Tunings("GOMAXPROCS="+strconv.Itoa(p))...)
	}
	return all
}

// Tunings reads several settings, which must be right: they are constants.
func Tunings(texts ...string) (all []Tuning) {
	for _, text := range texts {
		t, err := ParseTuning(text)
		if err != nil {
			panic(err) // the texts are constants
		}
		all = append(all, t)
	}
	return all
}

// Tuned is a load measured under a tuning.
type Tuned struct {
	Tuning
	*Measured
	GC     gctrace.Summary
	Cycles []gctrace.Cycle // of the measured time
}

// Tuned starts a server with a tuning, runs the load on it and reads its
// gctrace. during may look at the server while the load is measured; it may be
// nil.
func (b *Bench) Tuned(ctx context.Context, l Load, t Tuning, during func(context.Context, *Server) error) (_ *Tuned, err error) {
	if b.Target != "" {
		return nil, errors.New("this mode starts servers of its own with other settings; it takes no --target")
	}
	env := map[string]string{"GODEBUG": "gctrace=1"}
	for k, v := range t.Env {
		env[k] = v
	}
	started := load.Monotonic() // gctrace counts from here, give or take the time to load the program
	server, err := b.server(ctx, nil, env)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Name, err)
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	looking := make(chan error, 1)
	if during != nil {
		l.onMeasure = func(ctx context.Context) { looking <- during(ctx, server) }
	} else {
		looking <- nil
	}
	m, err := b.run(ctx, server, l)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Name, err)
	}
	if err := <-looking; err != nil {
		return nil, fmt.Errorf("%s: %w", t.Name, err)
	}
	file, err := os.Open(server.logFile())
	if err != nil {
		return nil, fmt.Errorf("read the server's gctrace: %w", err)
	}
	defer file.Close()
	cycles, err := gctrace.Read(file)
	if err != nil {
		return nil, fmt.Errorf("read the server's gctrace: %w", err)
	}
	from := time.Duration(m.Begun - started)
	return &Tuned{Tuning: t, Measured: m, GC: gctrace.Summarize(cycles, from, from+m.Took), Cycles: cycles}, m.wrong()
}

// sweep measures the load under each tuning.
func (b *Bench) sweep(ctx context.Context, l Load, rows []Tuning) (all []*Tuned, err error) {
	if len(b.Tunings) > 0 {
		rows = b.Tunings
	}
	for _, t := range rows {
		m, err := b.Tuned(ctx, l, t, nil)
		if m != nil {
			all = append(all, m)
		}
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// collector is mode gc.
func (b *Bench) collector(ctx context.Context, l Load) ([]report.Section, error) {
	all, err := b.sweep(ctx, l, collectorTunings())
	return SweepSections("garbage collector: "+l.title(), all), err
}

// processors is mode gomaxprocs.
func (b *Bench) processors(ctx context.Context, l Load) ([]report.Section, error) {
	all, err := b.sweep(ctx, l, processorTunings())
	return SweepSections("GOMAXPROCS: "+l.title(), all), err
}

// SweepSections shows tunings beside each other.
func SweepSections(title string, all []*Tuned) []report.Section {
	t := &report.Table{Columns: []string{"setting", "GC/s", "pause p99", "pause max", "GC CPU", "heap ±", "RSS", "deliveries/s", "per CPU-s", "p50", "p99", "p99.9", "goroutines started/s"}}
	plot := report.Plot{Title: "Latency by percentile", X: "percentile", Y: "ms"}
	for _, m := range all {
		t.Rows = append(t.Rows, m.row())
		line := m.quantiles()
		line.Name = m.Name
		plot.Lines = append(plot.Lines, line)
	}
	return []report.Section{{Title: title, Text: Machine(), Table: t, Plots: []report.Plot{plot}}}
}

func (m *Tuned) row() []string {
	num := report.Number
	return []string{
		m.Name, num(m.GC.Rate), num(ms(m.GC.PauseP99)) + " ms", num(ms(m.GC.PauseMax)) + " ms",
		num(100*m.GC.Busy.Seconds()/max(m.CPU.Seconds(), 1e-9)) + " %", num(float64(m.GC.Swing())/(1<<20)) + " MiB",
		num(float64(m.RSS)/(1<<20)) + " MiB", num(float64(m.Delivered) / m.Took.Seconds()),
		num(float64(m.Delivered) / max(m.CPU.Seconds(), 1e-9)),
		num(ms(m.Delivery.At(50))) + " ms", num(ms(m.Delivery.At(99))) + " ms", num(ms(m.Delivery.At(99.9))) + " ms",
		num(m.StartRate()),
	}
}
