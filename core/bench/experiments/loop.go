//go:build linux

package experiments

import (
	"context"
	"time"

	"parley/core/bench"
	"parley/core/bench/report"
)

// gcLoop lets the benchmark tune the collector by itself: mode gc-loop, with
// its own load.
func gcLoop(ctx context.Context, l *Lab) ([]report.Section, error) {
	mode, err := bench.Find("gc-loop")
	if err != nil {
		return nil, err
	}
	b := *l.Bench
	b.Load = mode.Load
	b.Load.Members = l.scaled(b.Load.Members, 20) / 10 * 10 // whole rooms
	b.Load.Rate = max(b.Load.Rate*l.Scale, 100)
	b.Load.Warmup, b.Load.Duration = l.during(b.Load.Warmup), l.during(time.Minute)
	sections, err := b.Run(ctx, mode)
	if err != nil {
		return nil, err
	}
	sections[0].Title = "The collector tuned in a loop"
	sections[0].Text = paragraphs(
		"Claimed: who reads gctrace, takes profiles where the rate of collections or a pause stands out, changes a setting and measures again, finds the right one.",
		"`platform bench gc-loop` does so by itself, from Go's default on. It changes one thing, the room between two collections; who allocates, and so could allocate less, is named in the tables below for a person to read.",
		sections[0].Text,
	)
	return sections, nil
}
