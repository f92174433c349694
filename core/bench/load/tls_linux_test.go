package load

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"parley/core/transport/transporttest"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// TestTransports holds every way to a server to the same.
func TestTransports(t *testing.T) {
	pair := transporttest.NewAuthority(t).Pair()
	for name, c := range map[string]struct {
		tcp     bool
		version uint16 // of TLS; 0: none
	}{
		"lines":                  {tcp: true},
		"WebSocket over TLS 1.2": {version: tls.VersionTLS12},
		"WebSocket over TLS 1.3": {version: tls.VersionTLS13},
		"lines over TLS 1.3":     {tcp: true, version: tls.VersionTLS13},
	} {
		t.Run(name, func(t *testing.T) {
			ln := listen(t)
			if c.version != 0 {
				ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: c.version})
			}
			s := talkOn(t, &talker{lines: c.tcp}, ln)
			all := specs(s.addr)
			for i := range all {
				all[i].TCP, all[i].TLS = c.tcp, c.version != 0
			}
			connected, st := runFleet(t, all, short)
			if connected.Open != 4 || !st.Faults.None() || st.Answered != 40 || st.Pending != 0 || st.Pings != 3 || st.Open != 4 {
				t.Errorf("got %d connected and %+v, want 4, 40 answered without a fault, and 3 pings", connected.Open, st)
			}
		})
	}
}

func TestAnEventThatCloses(t *testing.T) {
	s := talkOn(t, &talker{lines: true}, listen(t))
	s.fault = func(m int, e []byte) [][]byte {
		if m == 0 && has(e, 3) {
			return [][]byte{[]byte(`{"type":"close","code":4501,"reason":"slow_consumer"}`)}
		}
		return [][]byte{e}
	}
	all := specs(s.addr)
	for i := range all {
		all[i].TCP = true
	}
	if _, st := runFleet(t, all, short); st.Closed["close 4501"] != 1 || st.Open != 3 {
		t.Errorf("got %v and %d open, want one close 4501 and 3", st.Closed, st.Open)
	}
}

func TestNoTLSThere(t *testing.T) {
	s := startTalker(t)
	s.begin = "HTTP/1.1 400 Bad Request\r\n\r\n"
	all := specs(s.addr)[:1]
	all[0].TLS = true
	connected, _ := runFleet(t, all, short)
	for why, n := range connected.Refused {
		if !strings.HasPrefix(why, "TLS: ") || n != 3 {
			t.Errorf("got %d refused for %q, want 3 for TLS", n, why)
		}
	}
	if connected.Open != 0 || len(connected.Refused) != 1 {
		t.Errorf("got %d open, refused %v, want none open for one reason", connected.Open, connected.Refused)
	}
}

// TestAHandshakeIsLeft ends a process whose handshakes nobody answers: its
// coroutines must end too (goleak).
func TestAHandshakeIsLeft(t *testing.T) {
	ln := listen(t)
	all := specs(ln.Addr().String())[:1]
	all[0].TLS = true
	f, err := NewFleet(within(t), all, inProcess)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.procs[0].order(order{Do: "connect"}); err != nil {
		t.Fatal(err)
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil { // the head of a ClientHello's record
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
