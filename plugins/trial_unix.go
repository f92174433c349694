//go:build linux || darwin || freebsd

package plugins

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
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
	over := make(chan os.Signal, 1)
	signal.Notify(over, unix.SIGXCPU)
	go func() { // as long as the process
		<-over
		os.Exit(exitCPU)
	}()
	return nil
}

// granted reports whether this process would be given that much memory now. It
// takes none.
func granted(bytes uint64) bool {
	if bytes > math.MaxInt {
		return false
	}
	b, err := unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	return err == nil && unix.Munmap(b) == nil
}

// ownGroup keeps the terminal's Ctrl-C from the child: the parent ends it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
