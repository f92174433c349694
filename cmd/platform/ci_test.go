package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCoverageGate runs the gate of CI on profiles above, at and below it, and
// on ones that measured nothing of what it is about.
func TestCoverageGate(t *testing.T) {
	for _, c := range []struct {
		name, profile, want string
		ok                  bool
	}{
		{"above", "parley/core/x/a.go:1.1,2.2 9 1\nparley/policy/b.go:1.1,2.2 1 0\n", "90.0%", true},
		{"at", "parley/core/x/a.go:1.1,2.2 17 1\nparley/plugins/b.go:1.1,2.2 3 0\n", "85.0%", true},
		{"below", "parley/core/x/a.go:1.1,2.2 8 1\nparley/core/x/a.go:3.1,4.2 2 0\n", "80.0%", false},
		{"a block that several tests ran", "parley/core/x/a.go:1.1,2.2 9 0\nparley/core/x/a.go:1.1,2.2 9 3\n", "100.0%", true},
		{"other packages do not count", "parley/core/x/a.go:1.1,2.2 1 0\nparley/cmd/platform/b.go:1.1,2.2 99 1\n", "0.0%", false},
		{"nothing of them", "parley/cmd/platform/b.go:1.1,2.2 99 1\n", "holds nothing", false},
		{"nothing at all", "", "holds nothing", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			profile := write(t, t.TempDir(), "coverage.out", "mode: atomic\n"+c.profile)
			out, err := exec.Command("sh", "../../.ci/coverage", profile, "85").CombinedOutput()
			if (err == nil) != c.ok || !strings.Contains(string(out), c.want) {
				t.Errorf("got %v: %s, want it to say %s and to pass: %v", err, out, c.want, c.ok)
			}
		})
	}
}

// TestFuzzScript runs the script of `make fuzz` over a fuzz test that finds
// something, one whose needs are not there and one that finds nothing: the second is
// no finding.
func TestFuzzScript(t *testing.T) {
	script, err := filepath.Abs("../../.ci/fuzz")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, "go.mod", "module fuzzed\n\ngo 1.26\n")
	for name, body := range map[string]string{
		"finds":  `f.Add("x"); f.Fuzz(func(t *testing.T, s string) { t.Error(s) })`,
		"lacks":  `f.Fatal("it needs a compiler")`,
		"passes": `f.Add("x"); f.Fuzz(func(t *testing.T, s string) {})`,
	} {
		write(t, dir, name+"/a_test.go", "package a\n\nimport \"testing\"\n\nfunc FuzzIt(f *testing.F) { "+body+" }\n")
	}
	c := exec.Command("sh", script, "1x")
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err == nil {
		t.Error("got no error, want one")
	}
	for _, want := range []string{"\nfound something: fuzzed/finds.FuzzIt\n", "\ncould not be run: fuzzed/lacks.FuzzIt (make setup"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("got %s, want it to say %q", out, want)
		}
	}
}
