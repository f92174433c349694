package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExperimentsSayWhatIsWrong holds the command to refusing what it cannot
// run before anything is started.
func TestExperimentsSayWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"unknown experiment": {args: []string{"--only", "sockets,alchemy"}, want: `no experiment "alchemy"`},
		"scale":              {args: []string{"--scale", "2"}, want: "--scale 2 is not within 0 and 1"},
		"unknown child":      {args: []string{"child", "alchemy"}, want: `no child "alchemy"`},
	} {
		if _, err := command(t, append([]string{"experiments"}, c.args...)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// TestOneExperiment runs the quickest of them and keeps its result.
func TestOneExperiment(t *testing.T) {
	docs := t.TempDir()
	out, err := command(t, "experiments", "--only", "sockets", "--docs", docs)
	if err != nil || !strings.Contains(out, "# sockets: ") {
		t.Errorf("got %q, %v, want the experiment's result", out, err)
	}
	if page, err := os.ReadFile(filepath.Join(docs, "experiments.md")); err != nil || !strings.Contains(string(page), "ONLY=sockets") {
		t.Errorf("got %q, %v, want a page with the experiment", page, err)
	}
}
