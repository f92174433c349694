//go:build linux

package experiments

import (
	"context"
	"time"

	"parley/core/bench"
	"parley/core/bench/report"
)

// gcLoop lets the benchmark tune the collector by itself: mode gc-loop, with
// its own load, from a setting that is known to be bad and from Go's default.
func gcLoop(ctx context.Context, l *Lab) (sections []report.Section, err error) {
	mode, err := bench.Find("gc-loop")
	if err != nil {
		return nil, err
	}
	b := *l.Bench
	b.Load = mode.Load
	b.Load.Members = l.scaled(b.Load.Members, 20) / 10 * 10 // whole rooms
	b.Load.Rate = max(b.Load.Rate*l.Scale, 100)
	b.Load.Warmup, b.Load.Duration = l.during(b.Load.Warmup), l.during(time.Minute)
	for _, from := range []string{badGOGC, goodGOGC} {
		b.Tunings = bench.Tunings(from)
		found, err := b.Run(ctx, mode)
		if err != nil {
			return nil, err
		}
		found[0].Title = "The collector tuned in a loop, from " + from
		if from == badGOGC {
			found[0].Text = paragraphs(
				"Claimed: who reads gctrace, takes profiles where the rate of collections or a pause stands out, changes a setting and measures again, finds the right one.",
				"`platform bench gc-loop` does so by itself, here from a setting that collects too often. It changes one thing, the room between two collections; who allocates, and so could allocate less, is named in the tables below for a person to read.",
				found[0].Text,
			)
			sections = append(sections, found...)
			continue
		}
		found[0].Text = paragraphs("The same loop from Go's own default.", found[0].Text)
		sections = append(sections, found[0]) // it is the same program that allocates
	}
	return sections, nil
}

// What the loop begins with: a setting some take from other programs to save
// memory, and Go's default.
const (
	badGOGC  = "GOGC=10"
	goodGOGC = "GOGC=100"
)
