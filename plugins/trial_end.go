package plugins

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// What a child's end says about its module is told from what no module can
// fake: the exit code, the signal, the time the kernel counted, and the runtime's
// own last line. An end counts for good only when the module's own limits surely
// brought it about; the machine's troubles are no fault of a module, and
// it is tried again.

// exitCPU is a child's exit code at RLIMIT_CPU: see limitProcess.
const exitCPU = 70

// passingError is an error that another try may not find again. It says nothing
// about a module.
type passingError struct{ err error }

func (e *passingError) Error() string { return e.err.Error() }
func (e *passingError) Unwrap() error { return e.err }

func passing(err error) error { return &passingError{err} }

func isPassing(err error) bool {
	var p *passingError
	return errors.As(err, &p)
}

// bySystem reports whether a system call failed for another reason than memory,
// of which a child has a limited amount by design.
func bySystem(err error) bool {
	var no syscall.Errno
	return errors.As(err, &no) && no != syscall.ENOMEM
}

// died says why a child ended without an answer, and whether another would end
// the same way.
func (t *Trial) died(state *os.ProcessState, stderr []byte) (text string, final bool) {
	fatal := fatalLine(stderr)
	switch code := state.ExitCode(); {
	case code == exitCPU, code < 0 && state.UserTime()+state.SystemTime() >= t.CPU:
		return fmt.Sprintf("it used more than %v of processor time (RLIMIT_CPU); make its functions smaller", t.CPU), true
	case fatal == "stack overflow":
		return "the compiler recursed too deeply on it; nest its blocks less", true
	case strings.Contains(fatal, "out of memory"), strings.Contains(fatal, "cannot allocate"):
		return t.outOfMemory()
	}
	return fmt.Sprintf("the child ended with %v; if the kernel killed it for want of memory, give the machine more: %s", state, gist(stderr)), false
}

// outOfMemory tells the child's own limit from a machine without memory: where
// this process is granted as much as the child may have, it was the limit.
func (t *Trial) outOfMemory() (text string, final bool) {
	if !granted(t.MemoryBytes) {
		return fmt.Sprintf("it ran out of memory, and the machine has not the %d MiB free that a trial may take; give it more", t.MemoryBytes>>20), false
	}
	return fmt.Sprintf("it needs more than %d MiB of address space (RLIMIT_AS) to compile and run; make its functions or its memory smaller", t.MemoryBytes>>20), true
}

// fatalLine is what Go's runtime gave up with, "" if it did not. A panic's text,
// which a module may have a part in, begins its every other line with a tab.
func fatalLine(stderr []byte) string {
	for line := range bytes.Lines(stderr) {
		if text, ok := bytes.CutPrefix(line, []byte("fatal error: ")); ok {
			return strings.TrimSpace(string(text))
		}
		if bytes.HasPrefix(line, []byte("panic: ")) {
			break
		}
	}
	return ""
}

// gist is the first line that somebody wrote to stderr.
func gist(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(strings.ToValidUTF8(string(b), "?")), "\n")
	if line == "" {
		return "it said nothing"
	}
	return short(line)
}
