//go:build linux || darwin || freebsd

package plugins

import (
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxTrialFile bounds each file that a child writes: machine code of the
// largest module is some 30 MB.
const maxTrialFile = 256 << 20

// limitProcess bounds this process for the rest of its life.
func limitProcess(memory uint64, cpu time.Duration) error {
	seconds := uint64(cpu / time.Second)
	for _, l := range []struct {
		what      string
		resource  int
		soft, top uint64
	}{
		{"RLIMIT_CORE", unix.RLIMIT_CORE, 0, 0},
		{"RLIMIT_FSIZE", unix.RLIMIT_FSIZE, maxTrialFile, maxTrialFile},
		{"RLIMIT_CPU", unix.RLIMIT_CPU, seconds, seconds + 1}, // SIGXCPU, then SIGKILL
		{"RLIMIT_AS", unix.RLIMIT_AS, memory, memory},
	} {
		if l.resource == unix.RLIMIT_AS && raceDetector {
			continue // it maps terabytes before main begins
		}
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: l.soft, Max: l.top}); err != nil {
			return fmt.Errorf("limit the process that tries it: %s: %w", l.what, err)
		}
	}
	return nil
}

// ownGroup keeps the terminal's Ctrl-C from the child: the parent ends it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
