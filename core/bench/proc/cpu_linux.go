package proc

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime reads the CPU clock of a process, in nanoseconds where /proc/PID/stat
// counts in hundredths of a second. The clock's number is made as
// clock_getcpuclockid(3) does: the complement of the pid above three bits that
// ask for the scheduler's account.
func cpuTime(pid int) (time.Duration, error) {
	const schedClock = 2 // CPUCLOCK_SCHED in linux/posix-timers.h
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		return 0, err
	}
	return time.Duration(ts.Nano()), nil
}
