//go:build linux || darwin || freebsd

package child

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// limitProcess bounds this process for the rest of its life. It may write no
// file.
func limitProcess(memory uint64, cpu time.Duration) error {
	seconds := uint64(cpu / time.Second)
	memory += taken()
	for _, l := range []struct {
		what      string
		resource  int
		soft, top uint64
	}{
		{"RLIMIT_CORE", syscall.RLIMIT_CORE, 0, 0},
		{"RLIMIT_FSIZE", syscall.RLIMIT_FSIZE, 0, 0},
		{"RLIMIT_CPU", syscall.RLIMIT_CPU, seconds, seconds + 1}, // SIGXCPU, then SIGKILL
		{"RLIMIT_AS", syscall.RLIMIT_AS, memory, memory},
	} {
		if l.resource == syscall.RLIMIT_AS && raceDetector {
			continue // it maps terabytes before main begins
		}
		if err := setLimit(l.resource, l.soft, l.top); err != nil {
			return fmt.Errorf("limit the child process: %s: %w", l.what, err)
		}
	}
	return nil
}

// taken is the address space that this process has now. A Go program reserves
// more than a gigabyte before it uses any, how much depends on its version.
func taken() uint64 {
	const otherwise = 2 << 30 // where the system does not tell
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return otherwise
	}
	pages, _, _ := strings.Cut(string(b), " ")
	n, err := strconv.ParseUint(pages, 10, 40)
	if err != nil {
		return otherwise
	}
	return n * uint64(os.Getpagesize())
}

// ownGroup keeps the terminal's Ctrl-C from the child: the parent ends it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
