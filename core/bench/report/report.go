// Package report shows results: as a table on a terminal, as JSON, as one
// self-contained HTML page, and as Markdown with SVG files. Everything is a
// pure function of the sections it is given.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Section is one result: what was asked, what came out.
type Section struct {
	Title   string   `json:"title"`
	Text    string   `json:"text,omitempty"` // paragraphs, separated by an empty line
	Figures []Figure `json:"figures,omitempty"`
	Table   *Table   `json:"table,omitempty"`
	Plots   []Plot   `json:"plots,omitempty"`
}

// Figure is one measured value.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Note  string  `json:"note,omitempty"` // how to read it
}

// Table is rows of cells below column titles.
type Table struct {
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
}

// Plot is lines over two axes.
type Plot struct {
	Title string `json:"title"`
	X     string `json:"x"` // axis title with its unit
	Y     string `json:"y"`
	Lines []Line `json:"lines"`
}

// Line is one line of a plot; X and Y are of one length.
type Line struct {
	Name string    `json:"name"`
	X    []float64 `json:"x"`
	Y    []float64 `json:"y"`
}

// Text writes sections for a terminal.
func Text(w io.Writer, sections []Section) error {
	for i, s := range sections {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w, s.Title)
		fmt.Fprintln(w, strings.Repeat("=", len(s.Title)))
		if s.Text != "" {
			fmt.Fprintf(w, "%s\n", s.Text)
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, f := range s.Figures {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", f.Name, Number(f.Value), f.Unit, f.Note)
		}
		if s.Table != nil {
			fmt.Fprintln(t, strings.Join(s.Table.Columns, "\t"))
			for _, row := range s.Table.Rows {
				fmt.Fprintln(t, strings.Join(row, "\t"))
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// JSON writes sections as one document.
func JSON(w io.Writer, sections []Section) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(map[string]any{"sections": sections})
}

// Number writes a value with about three significant digits, as people do.
func Number(v float64) string {
	abs := max(v, -v)
	switch {
	case abs >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case abs >= 10_000:
		return fmt.Sprintf("%.1fk", v/1e3)
	case abs >= 100 || v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case abs >= 10:
		return fmt.Sprintf("%.1f", v)
	case abs >= 0.1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.2g", v)
}
