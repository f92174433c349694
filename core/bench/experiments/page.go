//go:build linux

package experiments

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"parley/core/bench/report"
)

// result is what one experiment came to, as it is kept beside the page: an
// experiment may be repeated alone, and the page is made of all.
type result struct {
	Machine  string           `json:"machine"`
	Sections []report.Section `json:"sections"`
}

// plots is the folder of the page's results and plots, beside the page.
const plots = "experiments"

// Keep writes an experiment's result into the folder of the page.
func Keep(docs string, e Experiment, machine string, sections []report.Section) error {
	b, err := json.MarshalIndent(result{Machine: machine, Sections: sections}, "", " ")
	if err != nil {
		return err
	}
	dir := filepath.Join(docs, plots)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder of results: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, e.Name+".json"), append(b, '\n'), 0o644)
}

const intro = `# Experiments

Classic claims about Go servers with many long connections, tried here. Written by
` + "`make experiments`" + `, which runs everything again; ` + "`make experiments ONLY=gogc`" + ` repeats
one. On another machine the figures differ, the ratios should not by much. The
figures of each experiment are in [experiments/](experiments) as JSON too.

Each section names the claim, then what was measured and why the two agree or differ:

`

// Page writes docs/experiments.md from the results that are kept.
func Page(docs string) error {
	var page, contents bytes.Buffer
	machine := ""
	for _, e := range All() {
		b, err := os.ReadFile(filepath.Join(docs, plots, e.Name+".json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read a result: %w", err)
		}
		var r result
		if err := json.Unmarshal(b, &r); err != nil {
			return fmt.Errorf("read the result of %s: %w", e.Name, err)
		}
		if r.Machine != machine {
			machine = r.Machine
			fmt.Fprintf(&page, "\nMachine: %s.\n", machine)
		}
		for i, s := range r.Sections {
			if i == 0 {
				fmt.Fprintf(&contents, "- `%s`: ", e.Name)
			} else {
				contents.WriteString(" · ")
			}
			fmt.Fprintf(&contents, "[%s](#%s)", s.Title, anchor(s.Title))
		}
		contents.WriteString("\n")
		err = report.Markdown(&page, plots, r.Sections, func(name string, svg []byte) error {
			return os.WriteFile(filepath.Join(docs, plots, name), svg, 0o644)
		})
		if err != nil {
			return fmt.Errorf("write %s: %w", e.Name, err)
		}
		fmt.Fprintf(&page, "\n`make experiments ONLY=%s`\n", e.Name)
	}
	all := slices.Concat([]byte(intro), contents.Bytes(), page.Bytes())
	return os.WriteFile(filepath.Join(docs, "experiments.md"), all, 0o644)
}

// anchor is what a heading is linked by: lower case, without punctuation, with
// hyphens for spaces. Of headings that are the same it finds the first.
func anchor(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, title)
}
