package transporttest

import (
	"bufio"
	"net"
	"net/netip"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"parley/core/session"
	"parley/core/transport/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNodeTakesGuestsAndNoTokens(t *testing.T) {
	s := Node(t, func(c *session.Config) { c.ConnectionsPerUser = 1 })
	if s.Config().ConnectionsPerUser != 1 {
		t.Error("the change was not taken")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer ln.Close()
	for hello, want := range map[string]string{
		`{"type":"hello","guest":"ann"}`: `"welcome"`, `{"type":"hello","guest":"-"}`: `"bad_request"`, `{"type":"hello","token":"x"}`: `"unauthorized"`,
	} {
		far, err := net.Dial("tcp", ln.Addr().String())
		check(t, err)
		near, err := ln.Accept()
		check(t, err)
		x := s.Start(session.Conn{Transport: "tcp", Remote: netip.MustParseAddr("::1"), Socket: stream.New(near)})
		x.Receive(x.Context(), []byte(hello))
		if got, err := bufio.NewReader(far).ReadString('\n'); !strings.Contains(got, want) {
			t.Errorf("%s: got %s, %v, want %s", hello, got, err, want)
		}
		x.End()
		near.Close()
		far.Close()
	}
}
