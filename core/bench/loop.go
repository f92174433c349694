package bench

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"parley/core/bench/gctrace"
	"parley/core/bench/report"
)

// What the loop takes for a spike. A collector that runs more than once in two
// seconds, or stops the world longer than a frame of 60 Hz takes, is worth a
// look.
const (
	rateWanted  = 0.5 // collections a second
	pauseWanted = 16 * time.Millisecond
)

// firstTuning is what the loop begins with: Go's own default.
func firstTuning() Tuning { return Tunings("GOGC=100")[0] }

// loop is mode gc-loop: measure with gctrace, notice spikes, take profiles,
// name who allocates, propose a setting, apply it, measure again.
func (b *Bench) loop(ctx context.Context, l Load) ([]report.Section, error) {
	first := firstTuning()
	if len(b.Tunings) > 0 {
		first = b.Tunings[0]
	}
	var heap, cpu *profile.Profile
	before, err := b.Tuned(ctx, l, first, func(ctx context.Context, s *Server) (err error) {
		start, err := s.profile(ctx, "/debug/pprof/allocs")
		if err != nil {
			return err
		}
		seconds := max(int(l.Duration/time.Second)-1, 1)
		if cpu, err = s.profile(ctx, "/debug/pprof/profile?seconds="+strconv.Itoa(seconds)); err != nil {
			return err
		}
		if heap, err = s.profile(ctx, "/debug/pprof/allocs"); err != nil {
			return err
		}
		start.Scale(-1) // what was allocated before does not count
		heap, err = profile.Merge([]*profile.Profile{heap, start})
		return err
	})
	if err != nil {
		return nil, err
	}
	found := spikes(before.GC)
	next, why := propose(first, before.GC, before.RSS)
	text := []string{Machine(), "Seen with " + first.Name + ": " + strings.Join(found, "; ") + "."}
	sections := []report.Section{{Title: "gc-loop: " + l.title()}}
	all := []*Tuned{before}
	if next.Name != first.Name {
		text = append(text, "Proposed: "+next.Name+", because "+why+".")
		after, err := b.Tuned(ctx, l, next, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, after)
		text = append(text, compared(before, after))
	} else {
		text = append(text, "Nothing is proposed: "+why+".")
	}
	sections[0].Text = strings.Join(text, "\n\n")
	sections[0].Table = SweepSections("", all)[0].Table
	return append(sections,
		report.Section{Title: "Who allocates", Text: "Bytes allocated while the load was measured, by the function that asked for them.", Table: top(heap, "alloc_space", 10)},
		report.Section{Title: "Who burns CPU", Text: "CPU time while the load was measured, by function.", Table: top(cpu, "cpu", 10)},
	), nil
}

// spikes names what a look is worth.
func spikes(s gctrace.Summary) (found []string) {
	if s.Rate > rateWanted {
		found = append(found, fmt.Sprintf("%s collections a second, more than %v", report.Number(s.Rate), rateWanted))
	}
	if s.PauseMax > pauseWanted {
		found = append(found, fmt.Sprintf("a pause of %v, more than %v", s.PauseMax.Round(10*time.Microsecond), pauseWanted))
	}
	if found == nil {
		found = []string{fmt.Sprintf("%s collections a second and no pause above %v", report.Number(s.Rate), pauseWanted)}
	}
	return found
}

// maxGOGC is the most the loop proposes: beyond it a memory limit is the
// better bound.
const maxGOGC = 800

// propose returns the setting to try next. The rate of collections falls in
// proportion to the room between live heap and goal, which GOGC sets. The limit
// is twice the memory seen, for the day on which more is alive.
func propose(now Tuning, s gctrace.Summary, rss int64) (next Tuning, why string) {
	gogc, err := strconv.Atoi(now.Env["GOGC"])
	if err != nil || s.Rate <= rateWanted {
		return now, fmt.Sprintf("%s collections a second are not too many", report.Number(s.Rate))
	}
	want := int(math.Ceil(float64(gogc)*s.Rate/rateWanted/50) * 50)
	want = min(want, maxGOGC)
	if want <= gogc {
		return now, fmt.Sprintf("GOGC is %d already", gogc)
	}
	limit := max((2*rss>>20+63)/64*64, 64) // MiB
	next = Tunings(fmt.Sprintf("GOGC=%d GOMEMLIMIT=%dMiB", want, limit))[0]
	return next, fmt.Sprintf("collections fall as the heap may grow between them, and %d MiB bound it should the live heap of %d MiB grow", limit, s.LiveMedian>>20)
}

// compared says in a sentence what a change brought.
func compared(before, after *Tuned) string {
	return fmt.Sprintf("Measured again: collections %s -> %s a second, longest pause %v -> %v, p99 %s -> %s ms, RSS %d -> %d MiB, deliveries per server CPU-second %s -> %s.",
		report.Number(before.GC.Rate), report.Number(after.GC.Rate),
		before.GC.PauseMax.Round(time.Microsecond), after.GC.PauseMax.Round(time.Microsecond),
		report.Number(ms(before.Delivery.At(99))), report.Number(ms(after.Delivery.At(99))), before.RSS>>20, after.RSS>>20,
		report.Number(float64(before.Delivered)/max(before.CPU.Seconds(), 1e-9)), report.Number(float64(after.Delivered)/max(after.CPU.Seconds(), 1e-9)))
}

// profile reads a profile of the server.
func (s *Server) profile(ctx context.Context, path string) (*profile.Profile, error) {
	body, err := s.ask(ctx, http.MethodGet, path)
	if err != nil {
		return nil, fmt.Errorf("take a profile: %w", err)
	}
	p, err := profile.Parse(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("read the profile %s: %w", path, err)
	}
	return p, nil
}

// top is a table of the n functions that most of a profile's value of a kind
// goes to.
func top(p *profile.Profile, kind string, n int) *report.Table {
	at := slices.IndexFunc(p.SampleType, func(v *profile.ValueType) bool { return v.Type == kind })
	if at < 0 {
		return &report.Table{Columns: []string{"function", "the profile has no " + kind}}
	}
	sums := make(map[string]int64)
	var total int64
	for _, s := range p.Sample {
		sums[blame(s)] += s.Value[at]
		total += s.Value[at]
	}
	names := make([]string, 0, len(sums))
	for name := range sums {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(sums[b], sums[a]), strings.Compare(a, b))
	})
	t := &report.Table{Columns: []string{"function", "share"}}
	for _, name := range names[:min(n, len(names))] {
		t.Rows = append(t.Rows, []string{name, fmt.Sprintf("%.1f %%", 100*float64(sums[name])/float64(max(total, 1)))})
	}
	return t
}

// blame names the function a sample is of: the innermost one.
func blame(s *profile.Sample) string {
	for _, loc := range s.Location {
		for _, line := range loc.Line {
			if line.Function != nil {
				name, _, _ := strings.Cut(line.Function.Name, "[") // type arguments fill lines
				return name
			}
		}
	}
	return "unknown"
}
