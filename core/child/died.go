package child

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
)

// What a child's end says about its request is told from what no request can
// fake: the exit code, the signal, the time the kernel counted, and the runtime's
// own last line. An end counts for good only when the child's own limits surely
// brought it about; the machine's troubles are no fault of a request, and it may
// be tried again.

// ErrDied is wrapped by the error of a child that gave no answer.
var ErrDied = errors.New("the child process that tried it died")

// diedError says what a child died of.
type diedError struct {
	cause   string
	passing bool
}

func (e *diedError) Error() string { return ErrDied.Error() + ": " + e.cause }
func (e *diedError) Unwrap() error { return ErrDied }

// Passing reports whether err is of a child that died, and another may live to
// answer the same request: the wall clock ended it, or the machine's troubles.
func Passing(err error) bool {
	var died *diedError
	return errors.As(err, &died) && died.passing
}

// exitCPU is a child's exit code at RLIMIT_CPU: see limitProcess.
const exitCPU = 70

// cause says why a child ended without an answer.
func (l Limits) cause(state *os.ProcessState, said []byte) error {
	fatal := fatalLine(said)
	switch code := state.ExitCode(); {
	case code == exitCPU, code < 0 && state.UserTime()+state.SystemTime() >= l.CPU:
		return &diedError{fmt.Sprintf("it used more than %v of processor time (RLIMIT_CPU)", l.CPU), false}
	case fatal == "stack overflow":
		return &diedError{"it recursed too deeply; nest less", false}
	case fatal == "newosproc":
		return &diedError{fmt.Sprintf("it needs more than %d MiB of memory (RLIMIT_AS), or the machine has no thread left: it ended with %v", l.MemoryBytes>>20, state), true}
	case strings.Contains(fatal, "out of memory"), strings.Contains(fatal, "cannot allocate"),
		strings.HasPrefix(fatal, "SIGSEGV"): // what a refused allocation ends in, deep in the runtime
		return l.OutOfMemory()
	}
	return &diedError{fmt.Sprintf("it ended with %v; if the kernel killed it for want of memory, give the machine more: %s", state, gist(said)), true}
}

// OutOfMemory is the error of a child that was refused memory, which it may have
// lived to say. It tells the child's own limit from a machine without memory:
// where this process is granted as much as the child may have, it was the limit.
func (l Limits) OutOfMemory() error {
	if !granted(l.MemoryBytes) {
		return &diedError{fmt.Sprintf("it ran out of memory, and the machine has not the %d MiB free that it may take; give it more", l.MemoryBytes>>20), true}
	}
	return &diedError{fmt.Sprintf("it needs more than %d MiB of memory (RLIMIT_AS)", l.MemoryBytes>>20), false}
}

// fatalLine is what Go's runtime gave up with, "" if it did not. A panic's text,
// which a request may have a part in, begins its every other line with a tab.
func fatalLine(said []byte) string {
	for line := range bytes.Lines(said) {
		line = bytes.TrimRight(line, "\r\n")
		switch text, ok := bytes.CutPrefix(line, []byte("fatal error: ")); {
		case ok:
			return string(text)
		case bytes.HasPrefix(line, []byte("SIGSEGV: ")): // in the runtime itself
			return string(line)
		case bytes.HasPrefix(line, []byte("panic: ")):
			return ""
		}
	}
	return ""
}

// gist is the first line that somebody wrote.
func gist(said []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(strings.ToValidUTF8(string(said), "?")), "\n")
	if line == "" {
		return "it said nothing"
	}
	return line[:min(len(line), 200)]
}
