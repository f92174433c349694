package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"parley/core/bench/gctrace"
)

func TestParseTuning(t *testing.T) {
	got, err := ParseTuning("GOGC=off  GOMEMLIMIT=1GiB")
	if err != nil || got.Env["GOGC"] != "off" || got.Env["GOMEMLIMIT"] != "1GiB" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "GOGC", "GOGC=", "PATH=/"} {
		if got, err := ParseTuning(bad); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, got)
		}
	}
}

func TestSpikes(t *testing.T) {
	for name, c := range map[string]struct {
		in   gctrace.Summary
		want []string
	}{
		"calm":  {in: gctrace.Summary{Rate: 0.1}, want: []string{"no pause above"}},
		"rate":  {in: gctrace.Summary{Rate: 3}, want: []string{"3 collections a second, more than"}},
		"pause": {in: gctrace.Summary{PauseMax: time.Second}, want: []string{"a pause of 1s"}},
		"both":  {in: gctrace.Summary{Rate: 3, PauseMax: time.Second}, want: []string{"3 collections", "a pause of 1s"}},
	} {
		got := spikes(c.in)
		if len(got) != len(c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], c.want[i]) {
				t.Errorf("%s: got %q, want %q", name, got[i], c.want[i])
			}
		}
	}
}

func TestPropose(t *testing.T) {
	for _, c := range []struct {
		name, now, want string
		rate            float64
	}{
		{name: "calm", now: "GOGC=100", rate: 0.4, want: "GOGC=100"},
		{name: "busy", now: "GOGC=100", rate: 2, want: "GOGC=400 GOMEMLIMIT=256MiB"},
		{name: "very busy", now: "GOGC=100", rate: 50, want: "GOGC=800 GOMEMLIMIT=256MiB"},
		{name: "at the most", now: "GOGC=800", rate: 50, want: "GOGC=800"},
		{name: "off", now: "GOGC=off GOMEMLIMIT=64MiB", rate: 50, want: "GOGC=off GOMEMLIMIT=64MiB"},
	} {
		next, why := propose(Tunings(c.now)[0], gctrace.Summary{Rate: c.rate}, 100<<20)
		if next.Name != c.want || why == "" {
			t.Errorf("%s: got %q because %q, want %q", c.name, next.Name, why, c.want)
		}
	}
}

func TestTop(t *testing.T) {
	line := func(name string) *profile.Location {
		return &profile.Location{Line: []profile.Line{{Function: &profile.Function{Name: name}}}}
	}
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "objects"}, {Type: "space"}},
		Sample: []*profile.Sample{
			{Value: []int64{9, 10}, Location: []*profile.Location{line("a.One"), line("main")}},
			{Value: []int64{1, 50}, Location: []*profile.Location{line("b.Two[go.shape.int]")}},
			{Value: []int64{1, 30}, Location: []*profile.Location{{}, line("a.One")}},
			{Value: []int64{1, 10}},
		},
	}
	got := top(p, "space", 2)
	if len(got.Rows) != 2 || got.Rows[0][0] != "b.Two" || got.Rows[0][1] != "50.0 %" || got.Rows[1][0] != "a.One" || got.Rows[1][1] != "40.0 %" {
		t.Errorf("got %v, want b.Two with half and a.One with 40 %%", got.Rows)
	}
	if got := top(p, "time", 2); len(got.Rows) != 0 {
		t.Errorf("got %v for a kind the profile has not", got.Rows)
	}
}

func TestParseMetrics(t *testing.T) {
	got := parseMetrics([]byte("# HELP a b\na 1\nb{c=\"d e\"} 2.5\nbad\nworse x\n\n"))
	if len(got) != 2 || got["a"] != 1 || got[`b{c="d e"}`] != 2.5 {
		t.Errorf("got %v, want two series", got)
	}
}

func FuzzParseMetrics(f *testing.F) {
	f.Add([]byte("# HELP a b\na 1\nb{c=\"d e\"} 2.5\n"))
	f.Add([]byte(" \n"))
	f.Fuzz(func(t *testing.T, page []byte) {
		for name := range parseMetrics(page) {
			if len(name) > len(page) {
				t.Errorf("got %q out of %q", name, page)
			}
		}
	})
}

func TestBar(t *testing.T) {
	for part, want := range map[float64]string{-1: "[..", 0.5: "###...", 7: "##]"} {
		if got := bar("x", part, "now"); !strings.Contains(got, want) || !strings.HasSuffix(got, "now") {
			t.Errorf("bar at %v: got %q, want %q in it", part, got, want)
		}
	}
}
