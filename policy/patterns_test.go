package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/topdown"

	"parley/core/gate"
)

// Patterns that would run for seconds or hours are refused at once.
func TestMatchingIsBounded(t *testing.T) {
	as := strings.Repeat("a", 64)
	for name, tt := range map[string]struct{ call, want string }{
		"glob of many stars":   {fmt.Sprintf(`glob.match("%s*b*a", [], "%s")`, strings.Repeat("*a", 6), as), "too much work"},
		"glob of alternatives": {fmt.Sprintf(`glob.match("%s*b*a", [], "%s")`, strings.Repeat("*{a,aa}", 4), as), "too much work"},
		"glob of a long text":  {fmt.Sprintf(`glob.match("*a*a*b*a", [], "%s")`, strings.Repeat("a", 4000)), "too much work"},
		"glob that nests":      {fmt.Sprintf(`glob.match("%sb%s", [], "aa")`, strings.Repeat("{a,", 3000), strings.Repeat("}", 3000)), "more than 1000 bytes"},
		"expression spelt out": {fmt.Sprintf(`regex.match("%sb", "%s")`, strings.Repeat("(a?){100}", 100), strings.Repeat("a", 1000)), "too much work"},
		"nested repetitions":   {fmt.Sprintf(`regex.match("((((a{1,3}){1,9}){1,9}){1,4}){1}%s", "%s")`, strings.Repeat("(b{30}){30}", 80), as), "too much work"},
		"long expression":      {fmt.Sprintf(`regex.replace("x", "%s", "y") == "x"`, strings.Repeat("(a|b)", 300)), "more than 1000 bytes"},
		"many small ones":      {fmt.Sprintf(`count([1 | some i in split("%s", ""); regex.match(sprintf("[a-z]{100}%%s", [i]), "%s")]) > 0`, strings.Repeat("b", 900), strings.Repeat("a", 900)), "too much work"},
	} {
		t.Run(name, func(t *testing.T) {
			o := Defaults()
			o.EvalTimeout = time.Minute // what stops it must not be the clock
			_, err := o.Compile(t.Context(), Files{"p.rego": []byte("package parley\ndefault decision := {\"allow\": false}\ndecision := {\"allow\": true} if " + tt.call)}, "r1")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// What people write stays far below the bound.
func TestOrdinaryPatternsPass(t *testing.T) {
	in := gate.Sample(gate.MessageSend)
	e := engineOf(t, `default decision := {"allow": false}
decision := {"allow": true} if {
	regex.match("^[a-z][a-z0-9_-]{1,30}(\\.[a-z]{2,12}){0,3}$", input.subject.id)
	glob.match("team-*-{red,blue,green}", [], "team-7-blue")
	glob.match("*.example.*", ["."], "chat.example.org")
	every room in ["a", "b", "c", "d", "e", "f", "g", "h"] { not regex.match("(news|ops|sec)-[0-9]{1,4}", room) }
	regex.replace("2026-11-23", "(\\d{4})-(\\d{2})", "$2/$1") == "11/2026-23"
}`)
	if d, err := e.Evaluate(t.Context(), in); err != nil || !d.Allow {
		t.Errorf("got %+v, %v, want it allowed", d, err)
	}
}

func TestSpelt(t *testing.T) {
	for pattern, want := range map[string]int{
		"": 1, "abc": 4, "a{3}": 4, "a{2,10}b": 12, "(ab){3}": 10, "((a{3}){3}){3}": 38, "[a-z]{4}": 5, "[]]{4}": 5, `\(\{`: 3, "a{": 2, "a{x}": 2,
		"(": 2, ")": 2, "[": 2, `\`: 2, "a{99999}": 1001,
	} {
		if got := spelt(pattern); got < want || got > want+12 {
			t.Errorf("%q: got %d, want %d or a little more", pattern, got, want)
		}
	}
}

func TestMatchingAreBuiltins(t *testing.T) {
	for name, m := range matching {
		if topdown.GetBuiltin(name) == nil {
			t.Errorf("OPA has no builtin %s", name)
		}
		if (m.pattern == m.text) != (name == "regex.is_valid") {
			t.Errorf("%s: pattern and text are the same operand", name)
		}
	}
	for _, name := range pureBuiltins {
		if _, ok := matching[name]; !ok && (strings.HasPrefix(name, "regex.") || strings.HasPrefix(name, "glob.")) && name != "glob.quote_meta" {
			t.Errorf("%s takes patterns and does not pay", name)
		}
	}
}
