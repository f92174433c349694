package report

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/go-analyze/charts/chartdraw"
	"github.com/go-analyze/charts/chartdraw/drawing"
)

// Size of a plot in pixels; pages scale it.
const (
	plotWidth  = 720
	plotHeight = 320
)

// colors tell lines apart, also for people who do not tell red from green:
// Okabe and Ito's palette.
var colors = []drawing.Color{
	rgb(0x00, 0x72, 0xb2), rgb(0xd5, 0x5e, 0x00), rgb(0x00, 0x9e, 0x73), rgb(0xcc, 0x79, 0xa7),
	rgb(0xe6, 0x9f, 0x00), rgb(0x56, 0xb4, 0xe9), rgb(0x00, 0x00, 0x00), rgb(0x99, 0x99, 0x99),
}

func rgb(r, g, b uint8) drawing.Color { return drawing.Color{R: r, G: g, B: b, A: 255} }

// SVG draws a plot. A line without points is left out; a plot without lines is
// an error.
func SVG(w io.Writer, p Plot) error {
	ch := chartdraw.Chart{
		Title: p.Title, Width: plotWidth, Height: plotHeight,
		TitleStyle: chartdraw.Style{FontStyle: chartdraw.FontStyle{FontSize: 11, FontColor: rgb(0x22, 0x22, 0x22)}},
		Background: chartdraw.Style{Padding: chartdraw.NewBox(16, 36, 24, 12)},
		XAxis:      chartdraw.XAxis{Name: p.X, ValueFormatter: tick},
		YAxis:      chartdraw.YAxis{Name: p.Y, ValueFormatter: tick},
	}
	var xs, ys []float64
	for i, l := range p.Lines {
		if len(l.X) != len(l.Y) {
			return fmt.Errorf("plot %q: line %q has %d values of x and %d of y", p.Title, l.Name, len(l.X), len(l.Y))
		}
		if len(l.X) == 0 {
			continue
		}
		xs, ys = append(xs, l.X...), append(ys, l.Y...)
		color := colors[i%len(colors)]
		s := chartdraw.ContinuousSeries{Name: l.Name, XValues: l.X, YValues: l.Y, Style: chartdraw.Style{StrokeColor: color, StrokeWidth: 2}}
		if len(l.X) <= dotsUpTo {
			s.Style.DotColor, s.Style.DotWidth = color, 3
		}
		ch.Series = append(ch.Series, s)
	}
	if len(xs) == 0 || slices.ContainsFunc(slices.Concat(xs, ys), func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }) {
		return fmt.Errorf("plot %q: nothing to draw, or values that are no numbers", p.Title)
	}
	// The axes begin at zero, so that the eye compares lengths.
	ch.XAxis.Range = span(min(0, slices.Min(xs)), slices.Max(xs))
	ch.YAxis.Range = span(min(0, slices.Min(ys)), slices.Max(ys)*1.05)
	if len(p.Lines) > 1 {
		ch.Elements = []chartdraw.Renderable{chartdraw.LegendThin(&ch)}
	}
	return ch.Render(chartdraw.SVG, w)
}

// dotsUpTo is how many points a line has at most to show each of them.
const dotsUpTo = 20

func span(low, high float64) *chartdraw.ContinuousRange {
	if high <= low {
		high = low + 1
	}
	return &chartdraw.ContinuousRange{Min: low, Max: high}
}

func tick(v any) string {
	if f, ok := v.(float64); ok {
		return Number(math.Round(f*1e6) / 1e6)
	}
	return fmt.Sprint(v)
}
