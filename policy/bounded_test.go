package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/topdown"
)

// chain writes lines x1 to xN, each made from the one before by f.
func chain(first string, n int, f func(before string) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "x0 := %s\n", first)
	for i := range n {
		fmt.Fprintf(&b, "x%d := %s\n", i+1, f(fmt.Sprintf("x%d", i)))
	}
	fmt.Fprintf(&b, "x := x%d\n", n)
	return b.String()
}

// A few lines must not make more than the machine has, nor keep it busy past
// the limits. Each of these took gigabytes or minutes.
func TestGrowingIsRefused(t *testing.T) {
	twice := func(format string) func(string) string {
		return func(x string) string { return fmt.Sprintf(format, x, x) }
	}
	for _, c := range []struct{ name, rules, want string }{
		{"concat", chain(`"0123456789"`, 40, twice(`concat("", [%s, %s])`)), "more than"},
		{"concat of a set", chain(`"0123456789"`, 40, twice(`concat(%s, {"a", "b", %s})`)), "more than"},
		{"sprintf of values", chain(`"0123456789"`, 40, twice(`sprintf("%%s%%s", [%s, %s])`)), "more than"},
		{"sprintf of one value", chain(`"0123456789"`, 40, func(x string) string { return fmt.Sprintf(`sprintf("%%[1]s%%[1]s", [%s])`, x) }), "more than"},
		{"sprintf by width", `x := sprintf("` + strings.Repeat("%999999d", 500) + `", [1])`, "more than"},
		{"sprintf by precision", `x := sprintf("` + strings.Repeat("%.999999f", 500) + `", [1])`, "more than"},
		{"sprintf by a value's width", `x := sprintf("` + strings.Repeat("%[1]*[1]d", 500) + `", [999999])`, "more than"},
		{"template", chain(`"0123456789"`, 40, twice(`$"{%s}{%s}"`)), "more than"},
		{"replace", chain(`"aaaaaaaa"`, 20, func(x string) string { return fmt.Sprintf(`replace(%s, "a", "aaaaaaaa")`, x) }), "more than"},
		{"replace nothing", chain(`"aaaaaaaa"`, 40, twice(`replace(%s, "", %s)`)), "more than"},
		{"strings.replace_n", chain(`"aaaaaaaa"`, 40, twice(`strings.replace_n({"a": %s}, %s)`)), "more than"},
		{"regex.replace", chain(`"aaaaaaaa"`, 40, func(x string) string {
			return fmt.Sprintf(`regex.replace(%s, ".*", "%s")`, x, strings.Repeat("$0", 32))
		}), "more than"},
		{"hex.encode", chain(`"0123456789"`, 60, func(x string) string { return fmt.Sprintf(`hex.encode(%s)`, x) }), "more than"},
		{"json.marshal of text", chain(`"\"\"\"\""`, 60, func(x string) string { return fmt.Sprintf(`json.marshal(%s)`, x) }), "more than"},
		{"json.marshal of shared parts", chain(`[1]`, 60, twice(`[%s, %s]`)) + "y := json.marshal(x)\n", "more than"},
		{"sprintf of shared parts", chain(`[1]`, 60, twice(`[%s, %s]`)) + "y := sprintf(\"%v\", [x])\n", "more than"},
		{"array.concat", chain(`[1, 2]`, 60, twice(`array.concat(%s, %s)`)), "more than"},
		{"object.union of shared parts", chain(`{}`, 60, twice(`{"a": %s, "b": %s}`)) + "y := object.union(x, x)\n", "more than"},
		{"floor", `x := floor(data.large)`, "digits"},
		{"format_int", `x := format_int(data.large, 2)`, "digits"},
		{"rem", `x := data.large % 7`, "digits"},
		{"mul", chain("data.large", 40, twice("%s * %s")), "digits"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules := "decision := {\"allow\": count([x, y]) == 2}\n" + c.rules
			if !strings.Contains(c.rules, "y := ") {
				rules += "\ny := 1\n"
			}
			o := Defaults()
			o.EvalTimeout = time.Minute // what stops it must not be the clock
			_, err := o.Compile(t.Context(), Files{
				"p.rego":    []byte("package parley\n" + rules),
				"data.json": []byte(`{"large": 1e30000}`),
			}, "r1")
			var problems Problems
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want Problems that speak of %q", err, c.want)
			}
		})
	}
}

// The same holds in a policy's own tests, where no steps are counted.
func TestGrowingIsRefusedInTests(t *testing.T) {
	_, err := Compile(t.Context(), Files{
		"p.rego":      []byte("package parley\ndefault decision := {\"allow\": true}"),
		"p_test.rego": []byte("package parley\ntest_grow if count(x) > 0\n" + chain(`"0123456789"`, 40, func(x string) string { return `concat("", [` + x + `, ` + x + `])` })),
	}, "r1")
	if err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v, want the bound", err)
	}
}

// What people write stays far below the bounds.
func TestOrdinaryValuesPass(t *testing.T) {
	engineOf(t, `decision := {"allow": true, "reasons": [a, b, c, d, e, sprintf("%d", [f])]}
names := [sprintf("user-%05d", [i]) | some i in [1, 22, 333]]
a := concat(", ", names)
b := sprintf("%-20s|%[1]v|%5.2f|%x|%v", ["ann", 3.5, "ab", {"k": [1, 2]}])
c := replace("a-b-c", "-", " and ")
d := regex.replace("2026-11-23", "(\\d+)-(\\d+)", "$2/$1")
e := json.marshal({"a": split("x,y", ","), "b": lower("ABC"), "c": object.union({"a": 1}, {"b": 2})})
f := (2 * 3.5e2) + floor(-1e18) - count({1, 2} - {1})
`)
}

// An engine whose table lacks one of these would panic when a policy calls it.
func TestGrowingAreBuiltins(t *testing.T) {
	for name := range growing {
		if topdown.GetBuiltin(name) == nil {
			t.Errorf("OPA has no builtin %s", name)
		}
		found := false
		for _, pure := range pureBuiltins {
			found = found || pure == name
		}
		if !found {
			t.Errorf("%s is paid for, but not open to policies", name)
		}
	}
}
