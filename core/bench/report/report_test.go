package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

// sample holds everything a section may, with texts that must be escaped.
func sample() []Section {
	return []Section{
		{
			Title: "idle <connections>", Text: "First paragraph & more.\n\nSecond.",
			Figures: []Figure{{Name: "RSS", Value: 5.25, Unit: "KiB", Note: "a|b"}, {Name: "lost", Value: 0}},
			Plots: []Plot{
				{Title: "p < q & \"r\"", X: "s", Y: "<ms>", Lines: []Line{
					{Name: "a<b", X: []float64{0, 1, 2}, Y: []float64{1, 4, 2}},
					{Name: "flat", X: []float64{0, 2}, Y: []float64{3, 3}},
					{Name: "empty"},
				}},
				{Title: "nothing"},
			},
		},
		{Title: "table", Table: &Table{Columns: []string{"setting", "p99"}, Rows: [][]string{{"GOGC=50", "1|2"}, {"GOGC=200", "3"}}}},
	}
}

func TestText(t *testing.T) {
	var b strings.Builder
	if err := Text(&b, sample()); err != nil {
		t.Fatal(err)
	}
	want := `idle <connections>
==================
First paragraph & more.

Second.
RSS   5.25  KiB  a|b
lost  0          

table
=====
setting   p99
GOGC=50   1|2
GOGC=200  3
`
	if b.String() != want {
		t.Errorf("got\n%q\nwant\n%q", b.String(), want)
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := JSON(&b, sample()); err != nil {
		t.Fatal(err)
	}
	var back struct{ Sections []Section }
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || len(back.Sections) != 2 || back.Sections[0].Figures[0].Value != 5.25 {
		t.Errorf("got %+v, %v, want the sections again", back, err)
	}
}

// wellFormed fails unless b is XML from end to end.
func wellFormed(t *testing.T, b []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(b))
	d.Strict = true
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%v in:\n%s", err, b)
		}
	}
}

func TestHTMLIsOneSafePage(t *testing.T) {
	var b bytes.Buffer
	if err := HTML(&b, "bench <1>", time.Unix(0, 0), sample()); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{"<title>bench &lt;1&gt;</title>", "1970-01-01 00:00:00 UTC", "idle &lt;connections&gt;", "<p>Second.</p>", "GOGC=200", "<svg ", "a&lt;b"} {
		if !strings.Contains(page, want) {
			t.Errorf("got no %q in the page", want)
		}
	}
	for _, bad := range []string{"<script", "src=", "href=\"http", "@import", "url(http", "<connections>"} {
		if strings.Contains(page, bad) {
			t.Errorf("got %q: the page must need nothing else and run nothing", bad)
		}
	}
	from, to := strings.Index(page, "<svg "), strings.Index(page, "</svg>")+len("</svg>")
	wellFormed(t, []byte(page[from:to]))
	if n := strings.Count(page, "<svg "); n != 1 {
		t.Errorf("got %d plots, want 1: a plot without points is left out", n)
	}
}

func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	files := map[string][]byte{}
	err := Markdown(&b, "plots", sample(), func(name string, svg []byte) error { files[name] = svg; return nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"## idle <connections>\n", "| RSS | 5.25 KiB | a\\|b |\n", "| setting | p99 |\n|---|---|\n| GOGC=50 | 1\\|2 |\n", "](plots/idle-connections-1.svg)"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("got no %q in:\n%s", want, b.String())
		}
	}
	if len(files) != 1 {
		t.Fatalf("got %d files, want 1", len(files))
	}
	wellFormed(t, files["idle-connections-1.svg"])
	full := errors.New("disk full")
	if err := Markdown(io.Discard, "plots", sample(), func(string, []byte) error { return full }); !errors.Is(err, full) {
		t.Errorf("got %v, want the error of save", err)
	}
}

func TestSVGRefuses(t *testing.T) {
	for name, p := range map[string]Plot{
		"nothing":       {},
		"no points":     {Lines: []Line{{Name: "a"}}},
		"uneven":        {Lines: []Line{{X: []float64{1}, Y: []float64{1, 2}}}},
		"not a number":  {Lines: []Line{{X: []float64{1, 2}, Y: []float64{1, math.NaN()}}}},
		"without bound": {Lines: []Line{{X: []float64{1, math.Inf(1)}, Y: []float64{1, 2}}}},
	} {
		if err := SVG(io.Discard, p); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	bad := []Section{{Title: "x", Plots: []Plot{{Lines: []Line{{X: []float64{1}, Y: []float64{1, 2}}}}}}}
	if err := HTML(io.Discard, "x", time.Now(), bad); err == nil {
		t.Error("HTML: got no error for a plot that cannot be drawn")
	}
	if err := Markdown(io.Discard, "x", bad, nil); err == nil {
		t.Error("Markdown: got no error for a plot that cannot be drawn")
	}
}

func TestSVGDrawsAnyRange(t *testing.T) {
	for name, l := range map[string]Line{
		"one point": {X: []float64{3}, Y: []float64{7}}, "zeros": {X: []float64{0, 0}, Y: []float64{0, 0}},
		"negative": {X: []float64{-2, -1}, Y: []float64{-5, -4}}, "tiny": {X: []float64{0, 1e-9}, Y: []float64{1e-9, 2e-9}},
		"huge": {X: []float64{0, 1e12}, Y: []float64{1e15, 2e15}},
	} {
		var b bytes.Buffer
		if err := SVG(&b, Plot{Title: name, Lines: []Line{l}}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		wellFormed(t, b.Bytes())
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 3: "3", 0.123: "0.12", 0.0123: "0.012", 5.678: "5.68", 12.345: "12.3", 123.4: "123", 9999: "9999",
		12345: "12.3k", 1234567: "1.23M", -12345: "-12.3k",
	} {
		if got := Number(v); got != want {
			t.Errorf("Number(%v): got %q, want %q", v, got, want)
		}
	}
}

func TestAxis(t *testing.T) {
	for _, c := range []struct {
		low, high float64
		want      string
	}{
		{0, 99.5, "0 20 40 60 80 100"},
		{0.5, 4.2, "0 1 2 3 4 5"},
		{-3, 7, "-4 -2 0 2 4 6 8"},
		{0, 0, "0 0.20 0.40 0.60 0.80 1"},
		{5, 1234, "0 500 1000 1500"},
	} {
		r, ticks := axis(c.low, c.high, 6)
		var got []string
		for _, x := range ticks {
			got = append(got, x.Label)
		}
		if strings.Join(got, " ") != c.want || r.Min > c.low || r.Max < c.high {
			t.Errorf("axis(%v, %v): got %v over %+v, want %s", c.low, c.high, got, r, c.want)
		}
	}
}
