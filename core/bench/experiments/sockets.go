//go:build linux

package experiments

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"parley/core/bench/report"
)

// sockets reads the options of sockets back that were set up in different
// ways, beside the machine's sysctl.
func sockets(ctx context.Context, _ *Lab) ([]report.Section, error) {
	t := &report.Table{Columns: []string{"socket", "KeepAlive", "idle", "interval", "count", "user timeout"}}
	row := []string{"sysctl net.ipv4.tcp_keepalive_*", ""}
	for _, name := range []string{"time", "intvl", "probes"} {
		v, err := os.ReadFile("/proc/sys/net/ipv4/tcp_keepalive_" + name)
		if err != nil {
			return nil, fmt.Errorf("read sysctl: %w", err)
		}
		row = append(row, strings.TrimSpace(string(v)))
	}
	t.Rows = append(t.Rows, append(row, ""))
	for _, s := range []struct {
		name  string
		keep  net.KeepAliveConfig
		plain time.Duration // of net.Dialer.KeepAlive, which is Go's older setting
		raw   func(fd int) error
	}{
		{name: "Go's default (net.Dialer, nothing set)"},
		{name: "KeepAlive: -1, off", plain: -1},
		{name: "KeepAliveConfig{Enable: true}", keep: net.KeepAliveConfig{Enable: true}},
		{name: "Enable, and -1: unset", keep: net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1}},
		{name: "Enable, 60 s / 10 s / 3", keep: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 10 * time.Second, Count: 3}},
		{name: "Enable, idle 60 s, the rest unset", keep: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: -1, Count: -1}},
		{name: "setsockopt(SO_KEEPALIVE) alone", plain: -1, raw: func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1) }},
		{name: "TCP_USER_TIMEOUT 12 s alone", plain: -1, raw: func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 12_000) }},
	} {
		d := net.Dialer{KeepAlive: s.plain, KeepAliveConfig: s.keep}
		if s.raw != nil {
			d.Control = func(_, _ string, rc syscall.RawConn) (err error) {
				return errors.Join(rc.Control(func(fd uintptr) { err = s.raw(int(fd)) }), err)
			}
		}
		cells, err := readBack(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		t.Rows = append(t.Rows, append([]string{s.name}, cells...))
	}
	text := paragraphs(
		"Claimed: net.ipv4.tcp_keepalive_time and its siblings decide when a dead connection is found.",
		"They decide for a socket that has KeepAlive switched on and nothing else set. A value set on the socket wins over sysctl (tcp(7)), and Go sets all three on each connection it makes or accepts: 15 s, 15 s and 9 unless told otherwise. So changing sysctl changes nothing for a Go server, unless the field is negative in net.KeepAliveConfig, which leaves the kernel's own. SO_KEEPALIVE alone inherits what sysctl says at that moment.",
		"TCP_USER_TIMEOUT is a fifth number with no sysctl: once set, it and not the count of probes ends the connection.",
	)
	return []report.Section{{Title: "Socket options against sysctl", Text: text, Table: t}}, nil
}

// readBack connects over loopback and reads the options of the dialled socket.
func readBack(ctx context.Context, d net.Dialer) (cells []string, err error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	c, err := d.DialContext(ctx, "tcp4", ln.Addr().String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	rc, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var read error
	option := func(fd, level, name int) int {
		v, err := unix.GetsockoptInt(fd, level, name)
		read = errors.Join(read, err)
		return v
	}
	err = rc.Control(func(fd uintptr) {

		state := "off"
		if option(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 0 {
			state = "on"
		}
		cells = append(cells, state)
		for _, name := range []int{unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT} {
			cells = append(cells, strconv.Itoa(option(int(fd), unix.IPPROTO_TCP, name)))
		}
		cells = append(cells, strconv.Itoa(option(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT))+" ms")
	})
	return cells, errors.Join(err, read)
}
