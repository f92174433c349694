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
	"parley/core/liveness/netlab"
)

// changed are the sysctls after the change, in the order of keepaliveSysctls.
// No system has them, so that who shows them has inherited them.
var changed = []string{"1111", "22", "3"}

var keepaliveSysctls = []string{"time", "intvl", "probes"}

// sockets reads the options of sockets back that were set up in different
// ways, beside the sysctls, and once more after these were changed while the
// sockets were open. It does so in a network namespace, which has sysctls of
// its own.
func sockets(ctx context.Context, _ *Lab) (sections []report.Section, err error) {
	lab, err := netlab.New(0)
	if err != nil {
		return nil, err
	}
	defer lab.Close()
	err = lab.A.Do(func() (err error) {
		sections, err = socketsHere(ctx)
		return err
	})
	return sections, err
}

// socketsHere runs on a thread inside the namespace.
func socketsHere(ctx context.Context) ([]report.Section, error) {
	t := &report.Table{Columns: []string{"socket", "KeepAlive", "idle", "interval", "count", "user timeout", "after sysctl was changed"}}
	row := []string{"sysctl net.ipv4.tcp_keepalive_*", ""}
	for _, name := range keepaliveSysctls {
		v, err := os.ReadFile(sysctlFile(name))
		if err != nil {
			return nil, fmt.Errorf("read sysctl: %w", err)
		}
		row = append(row, strings.TrimSpace(string(v)))
	}
	t.Rows = append(t.Rows, append(row, "", strings.Join(changed, " / ")))
	var open []*pair
	defer func() {
		for _, p := range open {
			p.close()
		}
	}()
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
		p, err := connect(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		open = append(open, p)
		cells, err := p.readBack()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		t.Rows = append(t.Rows, append([]string{s.name}, cells...))
	}
	for i, name := range keepaliveSysctls {
		if err := os.WriteFile(sysctlFile(name), []byte(changed[i]), 0); err != nil {
			return nil, fmt.Errorf("change sysctl in a namespace: %w", err)
		}
	}
	inherit := 0
	for i, p := range open {
		cells, err := p.readBack()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Rows[i+1][0], err)
		}
		now := strings.Join(cells[1:4], " / ")
		if cells[0] == "on" && now == strings.Join(changed, " / ") {
			inherit++
		}
		t.Rows[i+1] = append(t.Rows[i+1], now)
	}
	text := paragraphs(
		"Claimed: net.ipv4.tcp_keepalive_time and its siblings decide when a dead connection is found.",
		"They decide for a socket that has KeepAlive switched on and nothing else set. A value set on the socket wins over sysctl (tcp(7)), and Go sets all three on each connection it makes or accepts: 15 s, 15 s and 9 unless told otherwise. So changing sysctl changes nothing for a Go server, unless the field is negative in net.KeepAliveConfig, which leaves the kernel's own. SO_KEEPALIVE alone inherits what sysctl says at that moment.",
		fmt.Sprintf("The last column is what the same open sockets, in a network namespace of their own, show after its sysctls were changed to %s: %d that have KeepAlive on followed in all three.", strings.Join(changed, " / "), inherit),
		"TCP_USER_TIMEOUT is a fifth number with no sysctl: once set, it and not the count of probes ends the connection.",
	)
	return []report.Section{{Title: "Socket options against sysctl", Text: text, Table: t}}, nil
}

func sysctlFile(name string) string { return "/proc/sys/net/ipv4/tcp_keepalive_" + name }

// pair is a connection over loopback.
type pair struct {
	ln net.Listener
	c  net.Conn
}

func connect(ctx context.Context, d net.Dialer) (p *pair, err error) {
	p = &pair{}
	var lc net.ListenConfig
	if p.ln, err = lc.Listen(ctx, "tcp4", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	if p.c, err = d.DialContext(ctx, "tcp4", p.ln.Addr().String()); err != nil {
		return nil, errors.Join(err, p.ln.Close())
	}
	return p, nil
}

func (p *pair) close() { _, _ = p.c.Close(), p.ln.Close() }

// readBack reads the options of the dialled socket.
func (p *pair) readBack() (cells []string, err error) {
	rc, err := p.c.(*net.TCPConn).SyscallConn()
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
