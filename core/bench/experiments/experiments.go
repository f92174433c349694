//go:build linux

// Package experiments repeats the classic experiments on Go servers with many
// long connections, and says where the folklore holds and where it does not.
// `platform experiments` runs them; `make experiments` writes
// docs/experiments.md.
//
// Each experiment is one function that returns one or more sections: the
// claim, what was measured here, and why the two agree or differ. Texts say
// beforehand only what the runtime and the kernel document; every figure, and
// every sentence about what was seen, is made from the measurement.
package experiments

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"parley/core/bench"
	"parley/core/bench/report"
)

// Lab is what an experiment works with.
type Lab struct {
	Bench *bench.Bench // starts servers, loads, and the children: see Children
	Scale float64      // 1: as on the page; less: fewer connections for a shorter time, to test the experiment and not to learn from
	Runs  int          // how often what is measured is measured; below 1: once
}

// Experiment is one of them.
type Experiment struct {
	Name string // one word, for the command line
	Doc  string // one line
	Run  func(context.Context, *Lab) ([]report.Section, error)
}

// All lists the experiments in the order of the page.
func All() []Experiment {
	return []Experiment{
		{Name: "memory", Doc: "100,000 connections over six processes: who holds which memory", Run: memory},
		{Name: "gogc", Doc: "GOGC 10 to 200, and off with GOMEMLIMIT, at 100,000 connections", Run: gogc},
		{Name: "trigger", Doc: "when the first collection comes: the minimum heap of 4 MB", Run: trigger},
		{Name: "pauses", Doc: "how long mark start and mark termination stop the world", Run: pauses},
		{Name: "gc-loop", Doc: "read gctrace, take profiles, name who allocates, propose, apply, measure again", Run: gcLoop},
		{Name: "procs-chat", Doc: "GOMAXPROCS under chat with 2,000 connections", Run: procsChat},
		{Name: "procs-http", Doc: "GOMAXPROCS under HTTP JSON with 2,000 connections", Run: procsHTTP},
		{Name: "governor", Doc: "controllers of GOMAXPROCS and GOGC against the static setting", Run: governor},
		{Name: "chain", Doc: "1 to 12 modules in series against one stage, with and without WASI calls", Run: chain},
		{Name: "starvation", Doc: "fifty sleepers, fifty loops, fifty blocking calls", Run: starvation},
		{Name: "detection", Doc: "how long a dead connection goes unnoticed: keepalive, ping, both, ladder", Run: detection},
		{Name: "nat", Doc: "NATs that forget, one-way state, a stateless filter: what keeps a connection and who notices", Run: nat},
		{Name: "survival", Doc: "which connections live on over a link with loss and spikes", Run: survival},
		{Name: "sockets", Doc: "socket options against sysctl, read back from the kernel", Run: sockets},
	}
}

// Find returns the experiments of the given names, all for none.
func Find(names []string) (found []Experiment, err error) {
	all := All()
	if len(names) == 0 {
		return all, nil
	}
	for _, name := range names {
		i := slices.IndexFunc(all, func(e Experiment) bool { return e.Name == name })
		if i < 0 {
			var known []string
			for _, e := range all {
				known = append(known, e.Name)
			}
			return nil, fmt.Errorf("there is no experiment %q; there are %s", name, strings.Join(known, ", "))
		}
		found = append(found, all[i])
	}
	return found, nil
}

// scaled is n times Scale, at least low.
func (l *Lab) scaled(n, low int) int { return max(int(float64(n)*l.Scale), low) }

// during is d times Scale, at least as long as a busy machine needs to do
// something.
func (l *Lab) during(d time.Duration) time.Duration {
	return max(time.Duration(float64(d)*l.Scale), min(d, leastTime))
}

const leastTime = time.Second

// some are the first of all, as many as Scale's share of them and at least n.
func some[T any](l *Lab, all []T, n int) []T {
	share := int(math.Round(l.Scale * float64(len(all))))
	return all[:min(max(n, share), len(all))]
}

// median measures as often as Runs says and returns the run that is in the
// middle by key, whole: its figures belong together.
func median[T any](l *Lab, key func(T) float64, measure func() (T, error)) (middle T, err error) {
	var runs []T
	for range max(l.Runs, 1) {
		m, err := measure()
		if err != nil {
			return middle, err
		}
		runs = append(runs, m)
	}
	slices.SortStableFunc(runs, func(a, b T) int { return cmp.Compare(key(a), key(b)) })
	return runs[len(runs)/2], nil
}

// medianOf says what a row of a table is.
func (l *Lab) medianOf(by string) string {
	if l.Runs <= 1 {
		return "One run a row."
	}
	return fmt.Sprintf("Each row is the median of %d runs by %s.", l.Runs, by)
}

// paragraphs joins the parts of a section's text, empty ones left out.
func paragraphs(parts ...string) string {
	var all []string
	for _, p := range parts {
		if p = strings.TrimSpace(p); p != "" {
			all = append(all, p)
		}
	}
	return strings.Join(all, "\n\n")
}

func ms(d time.Duration) string { return report.Number(float64(d)/float64(time.Millisecond)) + " ms" }

func mib(bytes int64) string { return report.Number(float64(bytes)/(1<<20)) + " MiB" }
