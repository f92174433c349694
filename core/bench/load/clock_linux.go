package load

import "golang.org/x/sys/unix"

// Monotonic is CLOCK_MONOTONIC in nanoseconds (clock_gettime(2)): the same for
// every process of a machine.
func Monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // EINVAL alone, and Linux has had this clock since 2.6
	}
	return ts.Nano()
}
