//go:build linux

package experiments

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"parley/core/bench/report"
	"parley/core/moderation"
	"parley/plugins"
)

// How the modules of a chain are put together.
const (
	inSeries = "in series" // a stage for each, which takes the text the one before let through
	oneStage = "one stage" // all see the same input, as Parley runs them
)

// maxChain is the longest chain.
const maxChain = 12

// chain sets modules in series against one stage that asks them all, with and
// without calls into the host.
func chain(ctx context.Context, l *Lab) ([]report.Section, error) {
	dir, err := os.MkdirTemp("", "parley-chain-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	module := filepath.Join(dir, "chainguest.wasm")
	if err := buildChainGuest(ctx, module); err != nil {
		return nil, err
	}
	t := &report.Table{Columns: []string{"modules", "put together", "WASI calls each", "p50", "p99", "messages/s", "fuel a message"}}
	p50 := report.Plot{Title: "Median time of a message", X: "modules", Y: "µs"}
	p99 := report.Plot{Title: "p99 of a message", X: "modules", Y: "µs"}
	ends := map[string][2]chainAnswer{} // of each line: the shortest chain and the longest
	var longest int
	for _, calls := range []int{0, 1} {
		for _, kind := range []string{inSeries, oneStage} {
			name := fmt.Sprintf("%s, %s", kind, map[int]string{0: "no calls", 1: "with calls"}[calls])
			mid, tail := report.Line{Name: name}, report.Line{Name: name}
			for _, n := range chainLengths(l) {
				orders := chainOrders{Module: module, Cache: filepath.Join(dir, "cache"), Modules: n, Kind: kind, Calls: calls, Duration: l.during(5 * time.Second)}
				a, err := median(l, func(a chainAnswer) float64 { return float64(a.P50) }, func() (a chainAnswer, err error) {
					_, err = l.child(ctx, "chain", nil, orders, &a)
					return a, err
				})
				if err != nil {
					return nil, err
				}
				t.Rows = append(t.Rows, []string{
					strconv.Itoa(n), kind, strconv.Itoa(3 * calls), us(a.P50), us(a.P99), report.Number(a.Rate), report.Number(a.Fuel),
				})
				mid.X, mid.Y = append(mid.X, float64(n)), append(mid.Y, float64(a.P50)/1e3)
				tail.X, tail.Y = append(tail.X, float64(n)), append(tail.Y, float64(a.P99)/1e3)
				pair, seen := ends[name]
				if !seen {
					pair[0] = a
				}
				pair[1] = a
				ends[name], longest = pair, n
			}
			p50.Lines, p99.Lines = append(p50.Lines, mid), append(p99.Lines, tail)
		}
	}
	series, stage := ends[inSeries+", no calls"], ends[oneStage+", no calls"]
	asking := ends[oneStage+", with calls"]
	text := paragraphs(
		"Claimed: moderation modules in series add up, so a chain of them is slow, and each call out of the sandbox makes it slower.",
		fmt.Sprintf("A Go guest that looks for one word judged a message of %d bytes, on every CPU without pause. In series each module has a stage of its own, which normalises and encodes the text again; in one stage that is done once and every module sees the same input.", len(chainText)),
		fmt.Sprintf("The median went from %s with 1 module to %s with %d in series, %.1f times as much, and from %s to %s in one stage, %.1f times. With %d modules in series a message took %.2f times as long as in one stage (p99 %s and %s).",
			us(series[0].P50), us(series[1].P50), longest, times(series[1].P50, series[0].P50), us(stage[0].P50), us(stage[1].P50), times(stage[1].P50, stage[0].P50),
			longest, times(series[1].P50, stage[1].P50), us(series[1].P99), us(stage[1].P99)),
		fmt.Sprintf("So what adds up is the guests' own time, which no arrangement saves: %s for each further module of the stage. To have it in a stage of its own changes that by %s.", us((stage[1].P50-stage[0].P50)/time.Duration(max(longest-1, 1))), ns((series[1].P50-stage[1].P50)/time.Duration(max(longest-1, 1)))),
		fmt.Sprintf("Reading the clock and drawing random numbers once in each decision is three WASI calls (Go reads two clocks). In one stage of %d modules they cost %s a message at the median, %s for each call. The host answers them from memory: the clock is frozen and the numbers are seeded, so that a decision can be repeated.",
			longest, us(asking[1].P50-stage[1].P50), ns((asking[1].P50-stage[1].P50)/time.Duration(3*longest))),
		l.medianOf("the median"),
	)
	return []report.Section{{Title: "Modules in series and in one stage", Text: text, Table: t, Plots: []report.Plot{p50, p99}}}, nil
}

// chainLengths are 1 to maxChain, at a small scale its ends.
func chainLengths(l *Lab) []int {
	if l.Scale < 0.1 {
		return []int{1, maxChain}
	}
	return []int{1, 2, 3, 4, 6, 8, 10, maxChain}
}

func us(d time.Duration) string { return report.Number(float64(d)/1e3) + " µs" }

func ns(d time.Duration) string { return report.Number(float64(d)) + " ns" }

func times(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }

// buildChainGuest compiles the guest. It needs the Go toolchain and this
// repository, which `make experiments` has.
func buildChainGuest(ctx context.Context, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, "parley/core/bench/experiments/chainguest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the guest (run it in Parley's repository, with Go): %w: %.500s", err, text)
	}
	return nil
}

type chainOrders struct {
	Module, Cache string // file and folder
	Modules       int
	Kind          string
	Calls         int
	Duration      time.Duration
}

type chainAnswer struct {
	P50, P99 time.Duration // of a message
	Rate     float64       // messages a second
	Fuel     float64       // of a message
}

// chainText is a message of 120 bytes, as the figures of docs/performance.md have.
var chainText = strings.Repeat("the quick brown fox jumps over it, ", 4)[:120]

// chainSamples bounds what one goroutine remembers, 8 bytes each.
const chainSamples = 1 << 20

func chainChild(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	var o chainOrders
	if err := ordered(in, &o); err != nil {
		return err
	}
	if o.Modules < 1 || o.Modules > maxChain || o.Kind != inSeries && o.Kind != oneStage || o.Calls < 0 || o.Calls > 100 {
		return fmt.Errorf("%d modules %q with %d calls: not known", o.Modules, o.Kind, o.Calls)
	}
	cfg := plugins.Defaults()
	cfg.CacheDir = o.Cache
	host, err := plugins.NewHost(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer host.Close()
	stages, err := chainStages(ctx, host, o)
	if err != nil {
		return err
	}
	procs := runtime.GOMAXPROCS(0)
	taken, fuel, failed := make([][]int64, procs), make([]uint64, procs), make([]error, procs)
	count := 0
	begin := time.Now()
	var wg sync.WaitGroup
	for g := range procs {
		taken[g] = make([]int64, 0, chainSamples)
		wg.Go(func() { taken[g], fuel[g], failed[g] = judgeOn(ctx, stages, o.Duration, taken[g]) })
	}
	wg.Wait()
	span := time.Since(begin)
	var all []int64
	var burnt uint64
	for g := range procs {
		if failed[g] != nil {
			return failed[g]
		}
		all = append(all, taken[g]...)
		burnt += fuel[g]
		count += len(taken[g])
	}
	slices.Sort(all)
	at := func(share float64) time.Duration { return time.Duration(all[int(share*float64(len(all)-1))]) }
	return json.NewEncoder(out).Encode(chainAnswer{
		P50: at(0.5), P99: at(0.99), Rate: float64(count) / span.Seconds(), Fuel: float64(burnt) / float64(count),
	})
}

// judges is a moderation.Source of fixed judges.
type judges []moderation.Judge

// Judges implements moderation.Source.
func (j judges) Judges() []moderation.Judge { return j }

// chainStages loads the module as often as ordered and puts it together.
func chainStages(ctx context.Context, host *plugins.Host, o chainOrders) (stages []*moderation.Stage, err error) {
	file, err := os.ReadFile(o.Module)
	if err != nil {
		return nil, err
	}
	m, err := plugins.ParseManifest(fmt.Appendf(nil, `{"config":{"calls":%d}}`, o.Calls))
	if err != nil {
		return nil, err
	}
	var all judges
	for i := range o.Modules {
		p, err := host.Load(ctx, fmt.Sprintf("module-%02d", i), file, m)
		if err != nil {
			return nil, fmt.Errorf("load the guest: %w", err)
		}
		all = append(all, p)
	}
	for i := range all {
		part := all[i : i+1]
		if o.Kind == oneStage {
			part = all
		}
		s, err := moderation.New(moderation.Defaults(), part)
		if err != nil {
			return nil, err
		}
		stages = append(stages, s)
		if o.Kind == oneStage {
			break
		}
	}
	return stages, nil
}

// judgeOn has the stages judge one message after another and returns how long
// each took, as many as into has room for, and the fuel of all.
func judgeOn(ctx context.Context, stages []*moderation.Stage, d time.Duration, into []int64) (taken []int64, fuel uint64, err error) {
	for end := time.Now().Add(d); len(into) < cap(into); {
		m := moderation.Message{Room: "lobby", User: "ann", Kind: "message", Text: chainText}
		start := time.Now()
		for _, s := range stages {
			r, err := s.Judge(ctx, &m, nil)
			if err != nil {
				return into, fuel, err
			}
			for i := range r.Records {
				if r.Records[i].Err != nil {
					return into, fuel, r.Records[i].Err
				}
				fuel += r.Records[i].Fuel
			}
			m.Text = r.Text
		}
		now := time.Now()
		into = append(into, int64(now.Sub(start)))
		if now.After(end) {
			break
		}
	}
	return into, fuel, nil
}
