package liveness

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ReadBack asks the kernel what it will do about a silent peer.
func ReadBack(rc syscall.RawConn) (Effective, error) {
	var v [5]int
	var asked error
	err := rc.Control(func(fd uintptr) {
		for i, o := range [...]struct{ level, name int }{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT}, {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
		} {
			if v[i], asked = unix.GetsockoptInt(int(fd), o.level, o.name); asked != nil {
				return
			}
		}
	})
	if err == nil {
		err = asked
	}
	if err != nil {
		return Effective{}, fmt.Errorf("read keepalive: %w", err)
	}
	return Effective{
		KeepAlive: v[0] != 0, Idle: time.Duration(v[1]) * time.Second, Interval: time.Duration(v[2]) * time.Second,
		Count: v[3], UserTimeout: time.Duration(v[4]) * time.Millisecond,
	}, nil
}
