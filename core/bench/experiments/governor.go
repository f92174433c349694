//go:build linux

package experiments

import (
	"context"
	"fmt"
	"time"

	"parley/core/bench"
	"parley/core/bench/report"
)

// governed are the settings compared: Parley's own, and each controller. They
// look each second, so that a short run sees them act.
func governed() []bench.Tuning {
	with := func(name, key, value string) bench.Tuning {
		return bench.Tuning{Name: name, Env: map[string]string{"PARLEY_RUNTIME_GOVERNOR_" + key: value, "PARLEY_RUNTIME_GOVERNOR_EVERY": "1s"}}
	}
	return []bench.Tuning{
		{Name: static},
		with("runtime.governor.procs: mixed", "PROCS", "mixed"),
		with("runtime.governor.procs: batch", "PROCS", "batch"),
		with("runtime.governor.gc: true", "GC", "true"),
	}
}

// static is the row to beat: GOMAXPROCS as many as there are CPUs, GOGC=200.
const static = "static (default)"

// governor sets the controllers of docs/tuning.md against the static setting,
// under a load that leaves the CPUs alone and one that takes all it gets.
func governor(ctx context.Context, l *Lab) ([]report.Section, error) {
	quiet := bench.Load{
		Members: l.scaled(2000, 20) / 10 * 10, RoomSize: 10, Publishers: 16, Rate: float64(l.scaled(200, 50)), TextBytes: 120, Parallel: 64,
		Warmup: l.during(65 * time.Second), Duration: l.during(15 * time.Second), // mixed gives up a P after a minute
	}
	busy := quiet
	busy.Rate, busy.InFlight, busy.Warmup = 0, 4, l.during(5*time.Second)
	t := &report.Table{Columns: []string{"load", "setting", "deliveries/s", "per CPU-s", "p50", "p99", "GC/s", "RSS"}}
	var rows []governedRow
	for _, load := range []struct {
		name string
		bench.Load
	}{{"quiet", quiet}, {"busy", busy}} {
		for _, setting := range some(l, governed(), 2) {
			m, err := median(l, perCPU, func() (*bench.Tuned, error) { return l.Bench.Tuned(ctx, load.Load, setting, nil) })
			if err != nil {
				return nil, err
			}
			rows = append(rows, governedRow{load: load.name, setting: setting.Name, perCPU: perCPU(m), p99: m.Delivery.At(99)})
			t.Rows = append(t.Rows, []string{
				load.name, setting.Name, report.Number(deliveryRate(m)), report.Number(perCPU(m)), ms(m.Delivery.At(50)), ms(m.Delivery.At(99)),
				report.Number(m.GC.Rate), mib(m.RSS),
			})
		}
	}
	text := paragraphs(
		"Claimed: a controller that moves GOMAXPROCS and GOGC with the load beats fixed values.",
		fmt.Sprintf("Measured with %d connections in rooms of 10: quiet is %v messages a second, busy a closed loop. A controller beats the static setting where it delivers at least %.0f %% more for a second of CPU and p99 is not that much longer.", quiet.Members, quiet.Rate, 100*margin),
		judged(rows),
		l.medianOf("deliveries for a second of CPU"),
	)
	return []report.Section{{Title: "Controllers against static settings", Text: text, Table: t}}, nil
}

func perCPU(m *bench.Tuned) float64 { return float64(m.Delivered) / max(m.CPU.Seconds(), 1e-9) }

// margin is what a difference must exceed to be one: runs differ by themselves.
const margin = 0.1

// governedRow is what the verdict needs of a row.
type governedRow struct {
	load, setting string
	perCPU        float64
	p99           time.Duration
}

// judged says which controllers beat the static setting under every load, and
// so might be on by default.
func judged(rows []governedRow) string {
	base := map[string]governedRow{}
	won, tried := map[string]int{}, []string{}
	for _, r := range rows {
		if r.setting == static {
			base[r.load] = r
			continue
		}
		if won[r.setting] == 0 {
			won[r.setting] = 1 // tried
			tried = append(tried, r.setting)
		}
		if b := base[r.load]; r.perCPU >= (1+margin)*b.perCPU && float64(r.p99) <= (1+margin)*float64(b.p99) {
			won[r.setting]++
		}
	}
	var winners, some []string
	for _, name := range tried {
		switch n := won[name] - 1; {
		case n == len(base):
			winners = append(winners, name)
		case n > 0:
			some = append(some, name)
		}
	}
	return paragraphs(
		listed("Under both loads the static setting was beaten by: ", winners),
		listed("Under one load alone it was beaten by: ", some),
		map[bool]string{true: "No controller beat the static setting under both loads. They stay off by default.", false: ""}[winners == nil],
	)
}
