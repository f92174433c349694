package tuning_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"parley/core/tuning"
)

// beQuiet is what a child process of the tests does.
const beQuiet = "PARLEY_TEST_BE_QUIET"

func TestMain(m *testing.M) {
	if os.Getenv(beQuiet) == "" {
		os.Exit(m.Run())
	}
	tuning.QuietMonitor()
	began, err := os.ReadFile("/proc/self/environ")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for e := range bytes.SplitSeq(began, []byte{0}) {
		if rest, ok := strings.CutPrefix(string(e), "GODEBUG="); ok {
			fmt.Println("began with", rest)
		}
	}
	now, ok := os.LookupEnv("GODEBUG")
	fmt.Println("has", now, ok, os.Getpid(), os.Args[1:])
	os.Exit(0)
}

func TestQuietMonitor(t *testing.T) {
	const setting = "schedtrace=2147483647"
	for _, c := range []struct{ name, given, began, has string }{
		{"nothing was set", "", "began with " + setting + "\n", "has  false"},
		{"something was set", "GODEBUG=gctrace=0,madvdontneed=1", "began with gctrace=0,madvdontneed=1," + setting + "\n", "has gctrace=0,madvdontneed=1 true"},
		{"the operator wants none", "GODEBUG=schedtrace=0", "began with schedtrace=0\n", "has schedtrace=0 true"},
		{"the operator wants one", "GODEBUG=madvdontneed=1,schedtrace=60000", "began with madvdontneed=1,schedtrace=60000\n", "has madvdontneed=1,schedtrace=60000 true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			child := exec.Command(os.Args[0], "one", "two words")
			child.Env = slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "GODEBUG=") })
			child.Env = append(child.Env, beQuiet+"=1")
			if c.given != "" {
				child.Env = append(child.Env, c.given)
			}
			out, err := child.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if want := fmt.Sprintf("%s%s %d [one two words]\n", c.began, c.has, child.Process.Pid); string(out) != want {
				t.Errorf("got %q, want %q", out, want)
			}
		})
	}
}
