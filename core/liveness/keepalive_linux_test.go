package liveness_test

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"parley/core/liveness"
)

// tcpPair returns both ends of a loopback connection.
func tcpPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// option reads a socket option.
func option(t *testing.T, c *net.TCPConn, level, name int) int {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var v int
	if cerr := rc.Control(func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), level, name) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return v
}

func TestApply(t *testing.T) {
	s, _ := tcpPair(t)
	cfg := liveness.Config{
		KeepAliveIdle: time.Minute, KeepAliveInterval: 10 * time.Second, KeepAliveCount: 3,
		UserTimeout: 12*time.Second + 1, // rounded up to a millisecond
	}
	if err := liveness.Apply(s, cfg); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name              string
		level, opt, value int
	}{
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 10},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 12001},
	} {
		if got := option(t, s, tt.level, tt.opt); got != tt.value {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.value)
		}
	}
	if err := liveness.Apply(s, liveness.Config{}); err != nil {
		t.Fatal(err)
	}
	if got := option(t, s, unix.SOL_SOCKET, unix.SO_KEEPALIVE); got != 0 {
		t.Errorf("KeepAlive off: got SO_KEEPALIVE %d, want 0", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := liveness.Apply(s, cfg); err == nil {
		t.Error("closed connection: got no error")
	}
	if rc, err := s.SyscallConn(); err == nil {
		if err := liveness.SetUserTimeout(rc, time.Second); err == nil {
			t.Error("user timeout of a closed connection: got no error")
		}
	}
}
