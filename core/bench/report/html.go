package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"
)

//go:embed page.html.tmpl
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"svg": func(p Plot) (template.HTML, error) {
		var b bytes.Buffer
		if err := SVG(&b, p); err != nil {
			return "", err
		}
		return template.HTML(b.String()), nil // drawn by SVG, which escapes texts
	},
	"number":     Number,
	"paragraphs": func(s string) []string { return strings.Split(strings.TrimSpace(s), "\n\n") },
}).Parse(pageText))

// HTML writes one page that needs nothing else: its style and its plots are
// within it.
func HTML(w io.Writer, title string, at time.Time, sections []Section) error {
	drawn := make([]Section, len(sections))
	for i, s := range sections {
		s.Plots = drawable(s.Plots)
		drawn[i] = s
	}
	return page.Execute(w, map[string]any{"Title": title, "At": at.UTC().Format(time.DateTime), "Sections": drawn})
}

// drawable leaves out plots without a point.
func drawable(plots []Plot) []Plot {
	return slices.DeleteFunc(slices.Clone(plots), func(p Plot) bool {
		return !slices.ContainsFunc(p.Lines, func(l Line) bool { return len(l.X) > 0 })
	})
}

// Markdown writes sections as a page for docs/, with its plots as SVG files:
// save takes a file's name and content, and dir is where the page finds them.
func Markdown(w io.Writer, dir string, sections []Section, save func(name string, svg []byte) error) error {
	var out bytes.Buffer
	for _, s := range sections {
		fmt.Fprintf(&out, "\n## %s\n", s.Title)
		if s.Text != "" {
			fmt.Fprintf(&out, "\n%s\n", strings.TrimSpace(s.Text))
		}
		if len(s.Figures) > 0 {
			fmt.Fprint(&out, "\n| | | |\n|---|---|---|\n")
			for _, f := range s.Figures {
				fmt.Fprintf(&out, "| %s | %s %s | %s |\n", cell(f.Name), Number(f.Value), cell(f.Unit), cell(f.Note))
			}
		}
		if s.Table != nil {
			fmt.Fprintf(&out, "\n| %s |\n|%s\n", joined(s.Table.Columns), strings.Repeat("---|", len(s.Table.Columns)))
			for _, row := range s.Table.Rows {
				fmt.Fprintf(&out, "| %s |\n", joined(row))
			}
		}
		for i, p := range drawable(s.Plots) {
			var svg bytes.Buffer
			if err := SVG(&svg, p); err != nil {
				return err
			}
			name := fmt.Sprintf("%s-%d.svg", slug(s.Title), i+1)
			if err := save(name, svg.Bytes()); err != nil {
				return err
			}
			fmt.Fprintf(&out, "\n![%s](%s/%s)\n", p.Title, dir, name)
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func joined(cells []string) string {
	safe := make([]string, len(cells))
	for i, c := range cells {
		safe[i] = cell(c)
	}
	return strings.Join(safe, " | ")
}

// slug is a title as a file's name.
func slug(title string) string {
	words := strings.FieldsFunc(strings.ToLower(title), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	return strings.Join(words, "-")
}
