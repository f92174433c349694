package main

import (
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading = regexp.MustCompile(`^#{1,6} +(.*?) *#*$`)
)

// page is what a Markdown file offers and wants.
type page struct {
	anchors map[string]bool
	links   []string
}

// TestLinks follows every relative link of every Markdown file, with its
// anchor.
func TestLinks(t *testing.T) {
	root := filepath.Join("..", "..")
	pages := map[string]page{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || d.Name() == "bin" || d.Name() == "data"):
			return filepath.SkipDir
		case filepath.Ext(path) == ".md":
			text, err := os.ReadFile(path)
			pages[filepath.Clean(path)] = readPage(string(text))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for path, p := range pages {
		for _, l := range p.links {
			u, err := url.Parse(l)
			if err != nil {
				t.Errorf("%s: link %q: %v", path, l, err)
				continue
			}
			if u.Scheme != "" || u.Host != "" {
				continue // elsewhere
			}
			checked++
			to := path
			if u.Path != "" {
				to = filepath.Join(filepath.Dir(path), filepath.FromSlash(u.Path))
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: link %q: %v", path, l, err)
				continue
			}
			if target, ok := pages[to]; u.Fragment != "" && ok && !target.anchors[u.Fragment] {
				t.Errorf("%s: link %q: %s has no such heading", path, l, to)
			}
		}
	}
	if checked < 100 {
		t.Errorf("%d links were checked: the test does not see the pages", checked)
	}
}

// readPage reads a page outside its blocks of code.
func readPage(text string) page {
	p := page{anchors: map[string]bool{}}
	fenced := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if fenced || strings.HasPrefix(line, "    ") {
			continue
		}
		for _, m := range link.FindAllStringSubmatch(line, -1) {
			p.links = append(p.links, m[1])
		}
		if m := heading.FindStringSubmatch(line); m != nil {
			p.anchors[anchor(m[1])] = true
		}
	}
	return p
}

// anchor is a heading as forges name it: lower case, without punctuation, with
// a hyphen for each space.
func anchor(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			b.WriteRune(r)
		}
	}
	return b.String()
}

// TestAnchor gives headings the names that links use.
func TestAnchor(t *testing.T) {
	for text, want := range map[string]string{
		"A commit's way in":          "a-commits-way-in",
		"`plugins.share`, and more":  "pluginsshare-and-more",
		"Two words - three":          "two-words---three",
		"The question: `input` here": "the-question-input-here",
	} {
		if got := anchor(text); got != want {
			t.Errorf("anchor(%q): got %q, want %q", text, got, want)
		}
	}
	p := readPage("# One\n```\n# no [x](y)\n```\n[a](b#c)\n    [not](this)\n")
	if len(p.anchors) != 1 || !p.anchors["one"] || len(p.links) != 1 || p.links[0] != "b#c" {
		t.Errorf("got %+v", p)
	}
}
