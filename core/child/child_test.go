package child_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley/core/child"
)

// TestMain lets the test binary be its own child.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "child-work" {
		code := child.Serve(os.Stdin, os.Stdout, 1<<20, work)
		if len(os.Args) > 2 {
			_ = os.Setenv("GOCOVERDIR", os.Args[2]) // os.Exit looks at it
		}
		os.Exit(code)
	}
	code := m.Run()
	if built := builtDir; built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

func work(request []byte) []byte {
	switch string(request) {
	case "spin":
		for n := 0; ; n++ {
			if n < 0 {
				return nil
			}
		}
	case "wait":
		var ends [2]int
		if err := syscall.Pipe(ends[:]); err != nil {
			return []byte(err.Error())
		}
		_, _ = syscall.Read(ends[0], make([]byte, 1)) // nobody writes
	case "talk":
		return make([]byte, 1<<20)
	case "environment":
		dir, _ := os.Getwd()
		return fmt.Appendf(nil, "%d %s", len(os.Environ()), dir)
	case "limits":
		var b []byte
		for _, resource := range []int{syscall.RLIMIT_CORE, syscall.RLIMIT_FSIZE, syscall.RLIMIT_CPU, syscall.RLIMIT_AS} {
			var l syscall.Rlimit
			if err := syscall.Getrlimit(resource, &l); err != nil {
				return []byte(err.Error())
			}
			b = fmt.Append(b, l.Cur, " ")
		}
		return b
	case "panic":
		panic("oh dear")
	case "write":
		n := 0
		f, err := os.Create("made")
		if err == nil {
			n, err = f.Write(make([]byte, 1000))
		}
		return fmt.Appendf(nil, "%d %v", n, err)
	}
	return append([]byte("got "), request...)
}

func limits() child.Limits {
	return child.Limits{MemoryBytes: 256 << 20, CPU: 20 * time.Second, Wall: time.Minute, AnswerBytes: 1 << 16}
}

func self() []string { return []string{os.Args[0], "child-work"} }

func TestRun(t *testing.T) {
	answer, err := child.Run(t.Context(), self(), limits(), []byte("hello"))
	if err != nil || string(answer) != "got hello" {
		t.Errorf("got %q, %v, want the answer", answer, err)
	}
	t.Setenv("PARLEY_SECRET", "x")
	if answer, err = child.Run(t.Context(), self(), limits(), []byte("environment")); err != nil || !bytes.HasPrefix(answer, []byte("0 /")) {
		t.Errorf("got %q, %v, want no environment, and the root for a folder", answer, err)
	}
}

// A child that lives to the end has gone through all that limits it. Where
// coverage is measured it says so, in files that the parent's are merged with.
func TestLimits(t *testing.T) {
	command, l := self(), limits()
	if f := flag.Lookup("test.gocoverdir"); testing.CoverMode() != "" && f != nil && f.Value.String() != "" {
		command = append(command, f.Value.String())
		l.FileBytes = 16 << 20
	}
	answer, err := child.Run(t.Context(), command, l, []byte("limits"))
	if err != nil {
		t.Fatal(err)
	}
	var core, file, cpu, memory uint64
	if _, err := fmt.Sscan(string(answer), &core, &file, &cpu, &memory); err != nil {
		t.Fatalf("%q: %v", answer, err)
	}
	if core != 0 || file != l.FileBytes || cpu != 20 {
		t.Errorf("got limits of %d bytes of a core, %d of a file and %d s, want 0, %d and 20", core, file, cpu, l.FileBytes)
	}
	if memory < l.MemoryBytes { // beyond what the program takes; without a limit under the race detector
		t.Errorf("got a limit of %d bytes of memory, want more than %d", memory, l.MemoryBytes)
	}
}

// A child writes where it is told to, and no more than it may.
func TestFiles(t *testing.T) {
	l := limits()
	l.Dir, l.FileBytes = t.TempDir(), 600
	answer, err := child.Run(t.Context(), self(), l, []byte("write"))
	if err != nil || !strings.HasPrefix(string(answer), "600 ") || !strings.Contains(string(answer), "file too large") {
		t.Errorf("got %q, %v, want 600 bytes written and then a refusal", answer, err)
	}
	if info, err := os.Stat(filepath.Join(l.Dir, "made")); err != nil || info.Size() != 600 {
		t.Errorf("got %v, %v, want the file in its folder", info, err)
	}
}

func TestWhatEndsAChildIsNamed(t *testing.T) {
	short := func(change func(*child.Limits)) child.Limits {
		l := limits()
		change(&l)
		return l
	}
	for _, tt := range []struct {
		request, want string
		lim           child.Limits
		passing       bool
	}{
		{"spin", "more than 1s of processor time (RLIMIT_CPU)", short(func(l *child.Limits) { l.CPU = time.Second }), false},
		{"wait", "longer than 1s", short(func(l *child.Limits) { l.Wall = time.Second }), true},
		{"talk", "more than 65536 bytes", limits(), true},
		{"panic", "panic: oh dear", limits(), true},
	} {
		t.Run(tt.request, func(t *testing.T) {
			t.Parallel()
			_, err := child.Run(t.Context(), self(), tt.lim, []byte(tt.request))
			if !errors.Is(err, child.ErrDied) || !strings.Contains(err.Error(), tt.want) || child.Passing(err) != tt.passing {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

var builtDir string

// plain is a child without the race detector, which leaves no room for
// RLIMIT_AS.
var plain = sync.OnceValues(func() (string, error) {
	var err error
	if builtDir, err = os.MkdirTemp("", "parley-child-"); err != nil {
		return "", err
	}
	out := filepath.Join(builtDir, "hungry")
	if msg, err := exec.Command("go", "build", "-o", out, "./testdata/hungry").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the child: %w\n%s", err, msg)
	}
	return out, nil
})

func TestMemoryIsNamed(t *testing.T) {
	path, err := plain()
	if err != nil {
		t.Fatal(err)
	}
	for _, request := range []string{"eat", "recurse"} {
		_, err := child.Run(t.Context(), []string{path}, limits(), []byte(request))
		if !errors.Is(err, child.ErrDied) || !strings.Contains(err.Error(), "more than 256 MiB of memory (RLIMIT_AS)") {
			t.Errorf("%s: got %v, want the limit named", request, err)
		}
	}
}

func TestRunFailures(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := child.Run(ctx, self(), limits(), []byte("wait")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v, want context.Canceled", err)
	}
	if _, err := child.Run(t.Context(), []string{"/nonexistent"}, limits(), nil); err == nil || errors.Is(err, child.ErrDied) {
		t.Errorf("no such command: got %v, want a fault that is not the request's", err)
	}
	for _, script := range []string{"exit 3", "kill -9 $$"} {
		if _, err := child.Run(t.Context(), []string{"/bin/sh", "-c", script}, limits(), nil); !errors.Is(err, child.ErrDied) || !strings.Contains(err.Error(), "it ended with") {
			t.Errorf("%s: got %v, want how it ended", script, err)
		}
	}
	for name, l := range map[string]child.Limits{
		"memory": {MemoryBytes: 1, CPU: time.Second, Wall: time.Second, AnswerBytes: 1},
		"time":   {MemoryBytes: 1 << 30, CPU: 1, Wall: time.Second, AnswerBytes: 1},
		"answer": {MemoryBytes: 1 << 30, CPU: time.Second, Wall: time.Second},
	} {
		if _, err := child.Run(t.Context(), self(), l, nil); err == nil {
			t.Errorf("%s: got no error, want the limit refused", name)
		}
	}
}

// What is no request does not bring a child to limit itself or to work.
func TestServeRefuses(t *testing.T) {
	for _, in := range []string{"", "short", strings.Repeat("\xff", 32)} {
		var out bytes.Buffer
		if code := child.Serve(strings.NewReader(in), &out, 10, work); code == 0 || out.Len() > 0 {
			t.Errorf("%q: got %d, %q, want a failure without an answer", in, code, out.String())
		}
	}
}

func TestCommand(t *testing.T) {
	if c := child.Command("work"); len(c) != 2 || c[1] != "work" {
		t.Errorf("got %v, want this program and the word", c)
	}
}
