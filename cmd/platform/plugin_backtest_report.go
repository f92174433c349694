package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"parley/plugins/backtest"
)

// pairs are the counted pairs of verdicts, changed ones first, then the most
// frequent.
func pairs(r backtest.Report) []backtest.Pair {
	out := make([]backtest.Pair, 0, len(r.Pairs))
	for p := range r.Pairs {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b backtest.Pair) int {
		if same := a.Old == a.New; same != (b.Old == b.New) {
			if same {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(r.Pairs[b], r.Pairs[a]), cmp.Compare(a.Old, b.Old), cmp.Compare(a.New, b.New))
	})
	return out
}

// showBacktest is for people.
func showBacktest(out io.Writer, r backtest.Report, before, after *loaded) error {
	for i, c := range r.Changes {
		if i == 0 {
			fmt.Fprintln(out, "changed:")
		}
		fmt.Fprintf(out, "  %s  %s in %s  %s -> %s  %s\n", time.UnixMilli(c.Time).UTC().Format(time.RFC3339), plain(c.User), plain(c.Room), c.Old.Verdict, c.New.Verdict, plain(c.ID))
		fmt.Fprintf(out, "      text  %s\n", plain(c.Text))
		showOutcome(out, "old", c.Old)
		showOutcome(out, "new", c.New)
	}
	if more := r.Changed - uint64(len(r.Changes)); more > 0 {
		fmt.Fprintf(out, "  and %d more (--limit)\n", more)
	}
	fmt.Fprintf(out, "%d messages, %d changed, %d for another rule or reason only, in %.1f s\n", r.Records, r.Changed, r.Reworded, r.Took.Seconds())
	if r.Malformed > 0 {
		fmt.Fprintf(out, "%d records left out: they hold no input of this ABI\n", r.Malformed)
	}
	if r.Records == 0 {
		_, err := fmt.Fprintln(out, "nothing was judged: the server keeps originals only where its evidence store is on, and not for long")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nold\tnew\tmessages\t")
	for _, p := range pairs(r) {
		mark := ""
		if p.Old != p.New {
			mark = "changed"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", p.Old, p.New, r.Pairs[p], mark)
	}
	fmt.Fprintln(w, "\nversion\tdigest\tdecisions\tfailed\tdecisions/s\tfuel each\tmost fuel")
	for _, s := range []struct {
		name string
		l    *loaded
		side backtest.Side
	}{{"old", before, r.Old}, {"new", after, r.New}} {
		fmt.Fprintf(w, "%s %s\t%s\t%d\t%d\t%.0f\t%d\t%d\n", s.name, plain(s.l.Manifest.Version), short(s.l.Digest()), s.side.Decisions, s.side.Failed,
			s.side.PerSecond(), s.side.Fuel.Sum/max(1, s.side.Decisions), s.side.Fuel.Max)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return showFuel(out, r)
}

func showOutcome(out io.Writer, which string, o backtest.Outcome) {
	said := o.Verdict
	if o.Code != 0 {
		said += fmt.Sprintf(" rule_%d", o.Code)
	}
	for _, s := range []string{o.Masked, o.Reason, o.Error} {
		if s != "" {
			said += "  " + plain(s)
		}
	}
	fmt.Fprintf(out, "      %s   %s\n", which, said)
}

// fuelBar is the longest bar, in characters.
const fuelBar = 30

// showFuel draws both histograms side by side.
func showFuel(out io.Writer, r backtest.Report) error {
	counts := map[uint64][2]uint64{}
	most := uint64(1)
	for side, h := range []*backtest.Histogram{&r.Old.Fuel, &r.New.Fuel} {
		for _, b := range h.Buckets() {
			both := counts[b.Below]
			both[side] = b.Count
			counts[b.Below] = both
			most = max(most, b.Count)
		}
	}
	below := make([]uint64, 0, len(counts))
	for b := range counts {
		below = append(below, b)
	}
	slices.Sort(below)
	fmt.Fprintf(out, "\nfuel below  %-*s  new\n", fuelBar+9, "old")
	for _, b := range below {
		bar := func(n uint64) string {
			return fmt.Sprintf("%8d %s", n, strings.Repeat("#", int((n*fuelBar+most-1)/most)))
		}
		if _, err := fmt.Fprintf(out, "%10d  %-*s  %s\n", b, fuelBar+9, bar(counts[b][0]), bar(counts[b][1])); err != nil {
			return err
		}
	}
	return nil
}

// backtestSide and backtestReport are what --json prints.
type backtestSide struct {
	Digest    string            `json:"digest"`
	Version   string            `json:"version,omitempty"`
	Decisions uint64            `json:"decisions"`
	Failed    uint64            `json:"failed"`
	PerSecond float64           `json:"decisions_per_second"`
	Fuel      uint64            `json:"fuel"`
	MostFuel  uint64            `json:"most_fuel"`
	Histogram []backtest.Bucket `json:"fuel_histogram"`
}

type backtestPair struct {
	Old      string `json:"old"`
	New      string `json:"new"`
	Messages uint64 `json:"messages"`
}

type backtestReport struct {
	Records   uint64            `json:"records"`
	Malformed uint64            `json:"malformed"`
	Changed   uint64            `json:"changed"`
	Reworded  uint64            `json:"reworded"`
	Seconds   float64           `json:"seconds"`
	Pairs     []backtestPair    `json:"pairs"`
	Changes   []backtest.Change `json:"changes"`
	Old       backtestSide      `json:"old"`
	New       backtestSide      `json:"new"`
}

func backtestJSON(r backtest.Report, before, after *loaded) backtestReport {
	side := func(s backtest.Side, l *loaded) backtestSide {
		return backtestSide{l.Digest(), l.Manifest.Version, s.Decisions, s.Failed, s.PerSecond(), s.Fuel.Sum, s.Fuel.Max, s.Fuel.Buckets()}
	}
	out := backtestReport{Records: r.Records, Malformed: r.Malformed, Changed: r.Changed, Reworded: r.Reworded, Seconds: r.Took.Seconds(),
		Pairs: []backtestPair{}, Changes: r.Changes, Old: side(r.Old, before), New: side(r.New, after)}
	for _, p := range pairs(r) {
		out.Pairs = append(out.Pairs, backtestPair{p.Old, p.New, r.Pairs[p]})
	}
	return out
}
