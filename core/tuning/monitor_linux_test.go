package tuning_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"parley/core/tuning"
)

// beQuiet is what a child process of the tests does.
const beQuiet = "PARLEY_TEST_BE_QUIET"

func TestMain(m *testing.M) {
	if os.Getenv(beQuiet) == "" {
		os.Exit(m.Run())
	}
	if os.Getenv(beQuiet) == "stuck" {
		os.Exit(beStuck())
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
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("has", now, ok, os.Getpid(), os.Args[1:], strings.TrimSpace(string(comm)))
	os.Exit(0)
}

// beStuck is a program that cannot be executed again: it may open as many files
// as before all the same.
func beStuck() int {
	var before, after syscall.Rlimit
	if err := errors.Join(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before), os.Chmod(os.Args[0], 0o600)); err != nil {
		fmt.Println(err)
		return 1
	}
	tuning.QuietMonitor()
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &after); err != nil || after != before || before.Cur <= 200 {
		fmt.Println("files:", after, err, "want", before, "and more than 200")
		return 1
	}
	return 0
}

func TestQuietMonitorThatCannot(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	b, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(program, b, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("/bin/sh", "-c", `ulimit -Sn 200; exec "$0"`, program)
	child.Env = slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "GODEBUG=") })
	child.Env = append(child.Env, beQuiet+"=stuck")
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
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
			name := filepath.Base(os.Args[0])
			if want := fmt.Sprintf("%s%s %d [one two words] %s\n", c.began, c.has, child.Process.Pid, name[:min(len(name), 15)]); string(out) != want {
				t.Errorf("got %q, want %q", out, want)
			}
		})
	}
}
