package load

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// dial begins a connection without waiting for it.
func dial(to netip.AddrPort, from netip.Addr, rcvbuf int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	// Closing sends a reset, so that a finished run leaves no port in TIME_WAIT.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return -1, fmt.Errorf("set SO_LINGER: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return -1, fmt.Errorf("set TCP_NODELAY: %w", err)
	}
	if rcvbuf > 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, rcvbuf); err != nil {
			return -1, fmt.Errorf("set SO_RCVBUF: %w", err)
		}
	}
	if from.IsValid() {
		// The port is chosen at connect, by the whole four-tuple (ip(7)).
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return -1, fmt.Errorf("set IP_BIND_ADDRESS_NO_PORT: %w", err)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}); err != nil {
			return -1, fmt.Errorf("bind to %s: %w", from, err)
		}
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return -1, fmt.Errorf("connect to %s: %w", to, err)
	}
	return fd, nil
}

// dialled returns how a connection attempt ended.
func dialled(fd int) error {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return err
}

// poller is an epoll set (epoll(7)), level-triggered.
type poller struct {
	fd     int
	events [512]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll set: %w", err)
	}
	return &poller{fd: fd}, nil
}

// watch adds fd; wait reports it as key.
func (p *poller) watch(fd int, key int32, writable bool) error {
	return p.control(unix.EPOLL_CTL_ADD, fd, key, writable)
}

func (p *poller) change(fd int, key int32, writable bool) error {
	return p.control(unix.EPOLL_CTL_MOD, fd, key, writable)
}

// forget leaves the descriptor alone from now on.
func (p *poller) forget(fd int) error { return p.control(unix.EPOLL_CTL_DEL, fd, 0, false) }

func (p *poller) control(op, fd int, key int32, writable bool) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: key}
	if writable {
		ev.Events |= unix.EPOLLOUT
	}
	if err := unix.EpollCtl(p.fd, op, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// wait returns what is ready, after ms milliseconds at the latest.
func (p *poller) wait(ms int) ([]unix.EpollEvent, error) {
	n, err := unix.EpollWait(p.fd, p.events[:], ms)
	if errors.Is(err, unix.EINTR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("epoll_wait: %w", err)
	}
	return p.events[:n], nil
}

func (p *poller) close() { _ = unix.Close(p.fd) }

// timer wakes the poller at a time of the monotonic clock, exactly: epoll_wait
// counts in milliseconds.
type timer struct{ fd int }

func newTimer() (timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return timer{-1}, fmt.Errorf("make a timer: %w", err)
	}
	return timer{fd}, nil
}

// set arms the timer for at, Monotonic.
func (t timer) set(at int64) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(at, 1))} // 0 would disarm it
	if err := unix.TimerfdSettime(t.fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		return fmt.Errorf("set a timer: %w", err)
	}
	return nil
}

// drain takes the expiry, so that the timer is no longer ready.
func (t timer) drain() {
	var b [8]byte
	_, _ = unix.Read(t.fd, b[:])
}

func (t timer) close() { _ = unix.Close(t.fd) }
