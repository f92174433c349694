package config

import (
	"fmt"
	"strings"

	"parley/core/spelling"
)

// Problem is one thing that is wrong with the configuration.
type Problem struct {
	Source string // file name, "environment" or "flag"
	Line   int    // from 1; 0 outside a file
	Column int    // from 1; 0 where unknown
	Key    string // dotted key, variable or flag as the operator wrote it; may be ""
	Text   string // what is wrong and what is allowed
}

// String writes the problem on one line, beginning as compilers do.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Source)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
		if p.Column > 0 {
			fmt.Fprintf(&b, ":%d", p.Column)
		}
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// MaxProblems bounds how many problems one Error lists.
const MaxProblems = 20

// Error lists what is wrong, in the order file, environment, flags, rules
// between keys.
type Error struct {
	Problems []Problem // at most MaxProblems
	More     int       // how many others there are
}

// Error puts each problem on a line of its own.
func (e *Error) Error() string {
	if len(e.Problems) == 1 && e.More == 0 {
		return e.Problems[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d problems in the configuration:", len(e.Problems)+e.More)
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.String())
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\n  and %d more", e.More)
	}
	return b.String()
}

// nearestKey looks for a key: first one that ends as text does, so that a key
// put in the wrong section is found, then the one spelt most alike.
func nearestKey(text string, names []string) string {
	last := text[strings.LastIndexByte(text, '.')+1:]
	found := ""
	for _, n := range names {
		if n[strings.LastIndexByte(n, '.')+1:] == last {
			if found != "" {
				found = "" // ambiguous: let the spelling decide
				break
			}
			found = n
		}
	}
	if found != "" {
		return found
	}
	return spelling.Nearest(text, names)
}
