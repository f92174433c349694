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
		// The library draws its secondary axis on the left, where people look.
		YAxis: chartdraw.YAxis{Style: chartdraw.Style{Hidden: true}},
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
		s := chartdraw.ContinuousSeries{Name: l.Name, YAxis: chartdraw.YAxisSecondary, XValues: l.X, YValues: l.Y, Style: chartdraw.Style{StrokeColor: color, StrokeWidth: 2}}
		if len(l.X) <= dotsUpTo {
			s.Style.DotColor, s.Style.DotWidth = color, 3
		}
		ch.Series = append(ch.Series, s)
	}
	if len(xs) == 0 || slices.ContainsFunc(slices.Concat(xs, ys), func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }) {
		return fmt.Errorf("plot %q: nothing to draw, or values that are no numbers", p.Title)
	}
	// The axes begin at zero, so that the eye compares lengths.
	xRange, across := axis(slices.Min(xs), slices.Max(xs), 12)
	yRange, up := axis(slices.Min(ys), slices.Max(ys), 6)
	ch.XAxis = chartdraw.XAxis{Name: p.X, Range: xRange, Ticks: across}
	ch.YAxis.Range = yRange
	ch.YAxisSecondary = chartdraw.YAxis{Name: p.Y, Range: yRange, Ticks: up, GridMajorStyle: grid, GridMinorStyle: grid}
	if len(p.Lines) > 1 {
		ch.Elements = []chartdraw.Renderable{chartdraw.Legend(&ch, chartdraw.Style{StrokeColor: rgb(0xcc, 0xcc, 0xcc), FontStyle: chartdraw.FontStyle{FontSize: 9}})}
	}
	return ch.Render(chartdraw.SVG, w)
}

// dotsUpTo is how many points a line has at most to show each of them.
const dotsUpTo = 20

// grid is the style of the lines across the plot.
var grid = chartdraw.Style{StrokeColor: rgb(0xe5, 0xe5, 0xe5), StrokeWidth: 1}

// axis is a range from zero, or from low where that is below, to high, with at
// most so many ticks at round numbers: 1, 2 or 5 times a power of ten apart.
func axis(low, high float64, most int) (*chartdraw.ContinuousRange, []chartdraw.Tick) {
	low, high = min(0, low), max(0, high)
	if high <= low {
		high = low + 1
	}
	step := math.Pow(10, math.Floor(math.Log10((high-low)/float64(most))))
	for _, by := range []float64{2, 2.5, 2} { // 1, 2, 5, 10
		if (high-low)/step <= float64(most)-1 {
			break
		}
		step *= by
	}
	low, high = math.Floor(low/step)*step, math.Ceil(high/step)*step
	var ticks []chartdraw.Tick
	for i := range most + 2 {
		v := low + float64(i)*step
		if v > high+step/2 {
			break
		}
		ticks = append(ticks, chartdraw.Tick{Value: v, Label: Number(math.Round(v/step) * step)})
	}
	return &chartdraw.ContinuousRange{Min: low, Max: high}, ticks
}
