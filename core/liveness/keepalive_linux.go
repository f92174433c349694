package liveness

import (
	"cmp"
	"fmt"
	"math"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Bequeath sets on a listening socket what Apply sets on a connection: on
// Linux accepted connections inherit these options, which saves a system call
// for each of them on every accept.
func Bequeath(rc syscall.RawConn, cfg Config) error {
	k := KeepAlive(cfg)
	options := []struct {
		what               string
		level, name, value int
		wanted             bool
	}{
		{"keepalive", unix.SOL_SOCKET, unix.SO_KEEPALIVE, flag(k.Enable), true},
		{"keepalive's idle time", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, wholeSeconds(k.Idle), k.Enable},
		{"keepalive's interval", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, wholeSeconds(k.Interval), k.Enable},
		{"keepalive's count", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, k.Count, k.Enable},
	}
	var failed error
	err := rc.Control(func(fd uintptr) {
		for _, o := range options {
			if !o.wanted {
				continue
			}
			if err := unix.SetsockoptInt(int(fd), o.level, o.name, o.value); err != nil {
				failed = fmt.Errorf("set %s of a listening socket: %w", o.what, err)
				return
			}
		}
	})
	if err := cmp.Or(err, failed); err != nil || cfg.UserTimeout <= 0 {
		return err
	}
	return SetUserTimeout(rc, cfg.UserTimeout)
}

func flag(on bool) int {
	if on {
		return 1
	}
	return 0
}

// wholeSeconds is d as the kernel takes it, rounded up.
func wholeSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

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
