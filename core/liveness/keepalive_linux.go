package liveness

import (
	"math"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SetUserTimeout sets TCP_USER_TIMEOUT (RFC 5482, tcp(7)): how long sent bytes
// may stay unacknowledged before the kernel ends the connection. It is rounded
// up to milliseconds; 0 means the system's own.
func SetUserTimeout(rc syscall.RawConn, d time.Duration) error {
	ms := min(max((d+time.Millisecond-1)/time.Millisecond, 0), math.MaxInt32)
	var set error
	err := rc.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(ms))
	})
	if err != nil {
		return err
	}
	return set
}
