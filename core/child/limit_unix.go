//go:build linux || darwin || freebsd

package child

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// limitProcess bounds this process for the rest of its life.
func limitProcess(l Limits) error {
	seconds := uint64(l.CPU / time.Second)
	memory := l.MemoryBytes + taken()
	if memory < l.MemoryBytes {
		memory = math.MaxUint64
	}
	for _, l := range []struct {
		what      string
		resource  int
		soft, top uint64
	}{
		{"RLIMIT_CORE", syscall.RLIMIT_CORE, 0, 0},
		{"RLIMIT_FSIZE", syscall.RLIMIT_FSIZE, l.FileBytes, l.FileBytes},
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
	over := make(chan os.Signal, 1)
	signal.Notify(over, syscall.SIGXCPU)
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
	b, err := syscall.Mmap(-1, 0, int(bytes), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	return err == nil && syscall.Munmap(b) == nil
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
