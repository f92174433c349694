//go:build unix

package tuning

import (
	"syscall"
	"time"
)

// cpuTime is the CPU time this process has used, in user and kernel mode
// (getrusage(2)).
func cpuTime() (used time.Duration, ok bool) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0, false
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), true
}
