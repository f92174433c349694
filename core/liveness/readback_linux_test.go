package liveness_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"parley/core/liveness"
)

// sysctl reads a number of net.ipv4.
func sysctl(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestWhatGoSetsOnAccept is docs/keepalive.md's table of net.KeepAliveConfig:
// a Go upgrade that changes it fails here.
func TestWhatGoSetsOnAccept(t *testing.T) {
	inherited := liveness.Effective{
		KeepAlive: true, Idle: time.Duration(sysctl(t, "tcp_keepalive_time")) * time.Second,
		Interval: time.Duration(sysctl(t, "tcp_keepalive_intvl")) * time.Second, Count: sysctl(t, "tcp_keepalive_probes"),
	}
	off := inherited
	off.KeepAlive = false
	goes := liveness.Effective{KeepAlive: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 9}
	for _, tt := range []struct {
		name string
		lc   net.ListenConfig
		want liveness.Effective
	}{
		{"nothing", net.ListenConfig{}, goes},
		{"KeepAlive: -1", net.ListenConfig{KeepAlive: -1}, off},
		{"Enable alone", net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true}}, goes},
		{"Enable, all else -1", net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1}}, inherited},
		{"Enable: false", net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Idle: 5 * time.Second}}, goes},
	} {
		l, err := tt.lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := readBack(t, s); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
		for _, end := range []interface{ Close() error }{c, s, l} {
			if err := end.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func readBack(t *testing.T, c net.Conn) liveness.Effective {
	t.Helper()
	rc, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	e, err := liveness.ReadBack(rc)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestReadBackIsWhatApplySet(t *testing.T) {
	s, _ := tcpPair(t)
	err := liveness.Apply(s, liveness.Config{KeepAliveIdle: 60 * time.Second, KeepAliveInterval: 10 * time.Second, KeepAliveCount: 3, UserTimeout: 12 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	want := liveness.Effective{KeepAlive: true, Idle: 60 * time.Second, Interval: 10 * time.Second, Count: 3, UserTimeout: 12 * time.Second}
	if got := readBack(t, s); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	rc, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if got, err := liveness.ReadBack(rc); err == nil {
		t.Errorf("closed: got %+v, want an error", got)
	}
}

// TestAcceptedInherit holds Bequeath to Apply: a connection that was accepted
// has what the listening socket was given.
func TestAcceptedInherit(t *testing.T) {
	for _, cfg := range []liveness.Config{
		{KeepAliveIdle: 61 * time.Second, KeepAliveInterval: 11 * time.Second, KeepAliveCount: 4, UserTimeout: 46 * time.Second},
		{UserTimeout: 46 * time.Second},
		{},
	} {
		lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, rc syscall.RawConn) error { return liveness.Bequeath(rc, cfg) }}
		l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		inherited, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		applied, _ := tcpPair(t)
		if err := liveness.Apply(applied, cfg); err != nil {
			t.Fatal(err)
		}
		got, want := readBack(t, inherited.(*net.TCPConn)), readBack(t, applied)
		if cfg.KeepAliveIdle == 0 { // then only the switch is set
			want.Idle, want.Interval, want.Count = got.Idle, got.Interval, got.Count
		}
		if got != want {
			t.Errorf("%+v: an accepted connection has %+v, want %+v", cfg, got, want)
		}
		_, _, _ = c.Close(), inherited.Close(), l.Close() // nothing depends on it
	}
}

// TestUserTimeoutEndsSlowReaders is why the configuration wants a user timeout
// above limits.lag_seconds: the kernel ends a reader that takes nothing for that
// long, although it answers every probe of its closed window.
func TestUserTimeoutEndsSlowReaders(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	reader, err := net.Dial("tcp", l.Addr().String()) // and never reads
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := liveness.Apply(s.(*net.TCPConn), liveness.Config{UserTimeout: time.Second}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for b := make([]byte, 64<<10); err == nil; {
		_, err = s.Write(b)
	}
	if !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("writing to a reader that stands still ended with %v, want %v", err, syscall.ETIMEDOUT)
	}
}
