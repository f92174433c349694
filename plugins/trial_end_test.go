package plugins_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/plugins"
)

// Only what a module's own limits surely brought about is remembered; the
// machine's troubles are tried again.
func TestTrialEnds(t *testing.T) {
	fatal := func(text string) string { return "echo '" + text + "' >&2; exit 2" }
	tiny := func(c *plugins.Config) { c.Trial.MemoryBytes = 64 << 20 }
	for _, c := range []struct {
		name, script string
		edit         func(*plugins.Config)
		want         string
		final        bool
	}{
		{"no thread", fatal("runtime: failed to create new OS thread (have 5 already; errno=11)\nfatal error: newosproc"), nil, "ended with exit status 2", false},
		{"out of memory", fatal("runtime: out of memory: cannot allocate 4194304-byte block (3932160 in use)\nfatal error: out of memory"), tiny, "more than 64 MiB of memory (RLIMIT_AS)", true},
		{"the machine out of memory", fatal("fatal error: runtime: out of memory"), func(c *plugins.Config) { c.Trial.MemoryBytes = 1 << 62 }, "ran out of memory, and the machine has not the", false},
		{"no address space any machine has", fatal("fatal error: runtime: cannot allocate memory"), func(c *plugins.Config) { c.Trial.MemoryBytes = 1<<64 - 1 }, "ran out of memory, and the machine", false},
		{"a panic that says so", fatal("panic: function\n\tfatal error: out of memory\nfatal error: out of memory"), tiny, "ended with exit status 2", false},
		{"a line that says so", fatal("it said fatal error: out of memory, cannot allocate memory, SIGXCPU"), tiny, "ended with exit status 2", false},
		{"a deep stack", fatal("runtime: goroutine stack exceeds 1000000000-byte limit\nfatal error: stack overflow"), nil, "recursed too deeply", true},
		{"a fault in the runtime", fatal("SIGSEGV: segmentation violation\nPC=0x40b1d3 m=0 sigcode=1 addr=0x18"), tiny, "more than 64 MiB of memory (RLIMIT_AS)", true},
		{"a panic over a fault", fatal("panic: runtime error: invalid memory address\n[signal SIGSEGV: segmentation violation]"), tiny, "ended with exit status 2", false},
		{"processor time", "exit 70", nil, "processor time (RLIMIT_CPU)", true},
		{"killed early", "kill -9 $$", nil, "ended with signal: killed", false},
		{"SIGXCPU early", "kill -XCPU $$", nil, "ended with signal: CPU time limit exceeded", false},
		{"killed when its time was up", "ulimit -t 2; while :; do :; done", func(c *plugins.Config) { c.Trial.CPU = time.Second }, "more than 1s of processor time (RLIMIT_CPU)", true},
		{"a system call failed", `echo '{"error":"open x: too many open files","passing":true}'`, nil, "too many open files", false},
		{"a system call was refused memory", `echo '{"error":"mmap","is":["memory"]}'`, tiny, "more than 64 MiB of memory (RLIMIT_AS)", true},
		{"a guest that says so", `echo '{"error":"configure returned 1; it printed \"out of memory: cannot allocate memory\""}'`, tiny, `configure returned 1; it printed "out of memory`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			h := newHost(t, inChild(dir), func(cfg *plugins.Config) {
				cfg.Trial.Command = []string{"/bin/sh", "-c", c.script}
				if c.edit != nil {
					c.edit(cfg)
				}
			})
			_, err := load(t, h, allower(), "{}")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
			if plugins.IsPassing(err) == c.final {
				t.Errorf("got passing %v, want %v", plugins.IsPassing(err), !c.final)
			}
			if got := len(files(t, filepath.Join(dir, "trials"))) == 1; got != c.final {
				t.Errorf("remembered: %v, want %v", got, c.final)
			}
		})
	}
}

// What a module is called or says does not pass for a want of memory.
func TestTrialKeepsTheModulesOwnError(t *testing.T) {
	h := newHost(t, inChild(t.TempDir()))
	_, err := load(t, h, masker(), `{"vectors":[{"name":"out of memory: cannot allocate memory","text":"hi!","want":"allow"}]}`)
	if err == nil || !strings.Contains(err.Error(), "got redact") || errors.Is(err, plugins.ErrTrial) {
		t.Errorf("got %v, want the vector that failed", err)
	}
}

// A module that passed its trial and cannot be loaded here is not to blame, and
// neither is one whose trial could not begin.
func TestTrialTroubleIsPassing(t *testing.T) {
	dir := t.TempDir()
	for _, edit := range []func(*plugins.Config){
		func(c *plugins.Config) { c.Trial.Command = []string{"/nonexistent"} },
		func(c *plugins.Config) {
			c.Trial.Command, c.Trial.Wall = []string{"/bin/sh", "-c", "exec cat /dev/zero >/dev/null"}, time.Second
		},
		func(c *plugins.Config) {
			c.Trial.Command = []string{"/bin/sh", "-c", `mkdir compiled; echo x > compiled/x; echo '{"ok":true}'`}
		},
	} {
		if _, err := load(t, newHost(t, inChild(dir), edit), allower(), "{}"); !plugins.IsPassing(err) {
			t.Errorf("got %v, want it passing", err)
		}
	}
	if _, err := load(t, newHost(t, inChild(dir)), allower(), `{"sha256":"`+strings.Repeat("ab", 32)+`"}`); err == nil || plugins.IsPassing(err) {
		t.Errorf("got %v, want another module's manifest refused for good", err)
	}
}
