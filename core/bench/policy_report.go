package bench

import (
	"fmt"
	"strings"

	"parley/core/bench/report"
)

// cacheSection is how often the decision cache had the answer.
func (f *following) cacheSection(what string) report.Section {
	a, secs := f.steady, max(f.steady.took.Seconds(), 1e-9)
	var mix []string
	for _, s := range shares {
		name := s.do
		if name == "leave" {
			name = "leave and join"
		}
		mix = append(mix, fmt.Sprintf("%s %d %%", name, s.share))
	}
	return report.Section{
		Title: "decision cache: " + what,
		Text: Machine() + "\n\n" + fmt.Sprintf("Commands: %s. One client in %d has an account, one in %d is a moderator of the server. "+
			"The rules are the built-in ones, out of a repository, and do not change while this is measured.",
			strings.Join(mix, ", "), accountOneIn, moderatorOneIn),
		Figures: []report.Figure{
			{Name: "cache hit rate", Value: a.rate(), Unit: "%", Note: "of the server's own counters"},
			{Name: "decisions", Value: (a.hits + a.evals) / secs, Unit: "1/s"},
			{Name: "evaluated", Value: a.evals / secs, Unit: "1/s"},
			{Name: "commands", Value: a.commands / secs, Unit: "1/s"},
		},
	}
}

// section is how long merges took.
func (f *following) section(what string) report.Section {
	s := report.Section{Title: "poll alone: " + what, Text: Machine() + "\n\nThe server polls with the default policy.git.interval; the time is from before `git commit`."}
	if f.hooked {
		s.Title = "webhook: " + what
		s.Text = Machine() + "\n\nThe time is from before the webhook's call to the answer of the server's status that names the commit; it is asked every " + liveEvery.String() + "."
	}
	s.Figures = append(s.Figures, report.Figure{Name: "merges", Value: float64(f.toLive.Count())})
	for _, q := range []float64{50, 99} {
		s.Figures = append(s.Figures, report.Figure{Name: fmt.Sprintf("to live p%v", q), Value: ms(f.toLive.At(q)), Unit: "ms"})
	}
	s.Figures = append(s.Figures, report.Figure{Name: "to live max", Value: ms(f.toLive.Max()), Unit: "ms"})
	if f.hooked {
		s.Figures = append(s.Figures,
			report.Figure{Name: "commit to live p50", Value: ms(f.merged.At(50)), Unit: "ms", Note: "git commit itself included"},
			report.Figure{Name: "commit to live p99", Value: ms(f.merged.At(99)), Unit: "ms"})
	}
	s.Figures = append(s.Figures,
		report.Figure{Name: "cache hit rate", Value: f.merging.rate(), Unit: "%", Note: "while merging: each revision begins with an empty cache and asks again about everybody in a room"},
		report.Figure{Name: "commands answered", Value: f.merging.commands, Note: "none refused, none unanswered"})
	line := report.Line{Name: "to live"}
	for i, v := range f.each {
		line.X, line.Y = append(line.X, float64(i+1)), append(line.Y, v)
	}
	s.Plots = []report.Plot{{Title: "Time until live", X: "merge", Y: "ms", Lines: []report.Line{line}}}
	return s
}
