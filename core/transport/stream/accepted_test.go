package stream

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"parley/core/transport/proxy"
	"parley/core/transport/transporttest"
)

// listen returns a listener on loopback.
func listen(t *testing.T, opt Options) *Listener {
	t.Helper()
	ln, err := Listen(t.Context(), "127.0.0.1:0", opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// dial connects and says what is given.
func dial(t *testing.T, ln net.Listener, says string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, says); err != nil {
		t.Fatal(err)
	}
	return c
}

func accept(t *testing.T, ln net.Listener) net.Conn {
	t.Helper()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func loopback(t *testing.T) proxy.Networks {
	t.Helper()
	n, err := proxy.Parse([]string{"127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// tally counts what Options.Admit is asked for.
type tally struct {
	mu    sync.Mutex
	open  map[netip.Addr]int
	limit int
}

func (a *tally) admit(ip netip.Addr) (func(), bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open[ip] >= a.limit {
		return nil, false
	}
	a.open[ip]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.open[ip]--
	}, true
}

func (a *tally) of(ip string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open[netip.MustParseAddr(ip)]
}

func TestATrustedProxySaysWhoTheClientIs(t *testing.T) {
	const line = "PROXY TCP4 203.0.113.9 127.0.0.1 5000 80\r\n"
	count := &tally{open: make(map[netip.Addr]int), limit: 1}
	ln := listen(t, Options{Proxies: loopback(t), Admit: count.admit})
	dial(t, ln, line+"hello")
	c := accept(t, ln)
	if got := RemoteIP(c).String(); got != "203.0.113.9" {
		t.Errorf("got %s, want the client's address", got)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("got %q, %v, want what follows the header", b, err)
	}
	if n := count.of("203.0.113.9"); n != 1 {
		t.Errorf("got %d connections counted, want 1", n)
	}

	dial(t, ln, line) // one too many
	c2 := accept(t, ln)
	if _, err := c2.Read(b); !errors.Is(err, errRefused) {
		t.Errorf("got %v, want %v", err, errRefused)
	}
	Release(c)
	Release(c)
	_ = c.Close()
	if n := count.of("203.0.113.9"); n != 0 {
		t.Errorf("got %d connections counted, want none", n)
	}

	dial(t, ln, "PROXY UNKNOWN\r\nhello") // a health check
	if got := RemoteIP(accept(t, ln)).String(); got != "127.0.0.1" {
		t.Errorf("got %s, want the proxy's address", got)
	}
	dial(t, ln, `{"type":"hello","guest":"ann"}`)
	if _, err := accept(t, ln).Read(b); !errors.Is(err, proxy.ErrNoHeader) {
		t.Errorf("got %v, want %v", err, proxy.ErrNoHeader)
	}
	if s := ln.Stats(); s.Headers.Load() != 1 {
		t.Errorf("got %d bad headers, want 1", s.Headers.Load())
	}
}

func TestAStrangersHeaderIsNotBelieved(t *testing.T) {
	n, err := proxy.Parse([]string{"10.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	ln := listen(t, Options{Proxies: n})
	const line = "PROXY TCP4 203.0.113.9 127.0.0.1 5000 80\r\n"
	dial(t, ln, line)
	c := accept(t, ln)
	b := make([]byte, len(line))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != line || RemoteIP(c).String() != "127.0.0.1" {
		t.Errorf("got %q, %v from %v, want it as it came", b, err, RemoteIP(c))
	}
}

func TestTheHeaderComesBeforeTLS(t *testing.T) {
	a := transporttest.NewAuthority(t)
	ln := listen(t, Options{Proxies: loopback(t), TLS: &tls.Config{Certificates: []tls.Certificate{a.Pair()}}})
	raw := dial(t, ln, "PROXY TCP6 2001:db8::9 ::1 5000 80\r\n")
	var talking sync.WaitGroup
	talking.Go(func() {
		if _, err := io.WriteString(tls.Client(raw, a.Client()), "hello"); err != nil {
			t.Error(err)
		}
	})
	c := accept(t, ln)
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("got %q, %v", b, err)
	}
	talking.Wait()
	if got := RemoteIP(c).String(); got != "2001:db8::9" {
		t.Errorf("got %s, want the client's address", got)
	}
}

func TestWhoTakesTooLongIsCut(t *testing.T) {
	a := transporttest.NewAuthority(t)
	for name, opt := range map[string]Options{
		"plain": {}, "TLS": {TLS: &tls.Config{Certificates: []tls.Certificate{a.Pair()}}}, "PROXY": {Proxies: loopback(t)},
	} {
		t.Run(name, func(t *testing.T) {
			count := &tally{open: make(map[netip.Addr]int), limit: 10}
			opt.Deadline, opt.Admit = 50*time.Millisecond, count.admit
			ln := listen(t, opt)
			far := dial(t, ln, "")
			c := accept(t, ln)
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("read something from a silent connection")
			}
			if _, err := io.ReadAll(far); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Logf("the other side sees %v", err)
			}
			if ln.Stats().Late.Load() != 1 || count.of("127.0.0.1") != 0 {
				t.Errorf("got %d cut, %d still counted, want 1 and 0", ln.Stats().Late.Load(), count.of("127.0.0.1"))
			}
		})
	}
}

func TestSettledConnectionsStay(t *testing.T) {
	ln := listen(t, Options{Deadline: time.Hour})
	before := time.Now()
	dial(t, ln, "")
	c := accept(t, ln)
	if got := Settle(c, 0); !got.IsZero() {
		t.Errorf("got %v, want no deadline", got)
	}
	if acceptedOf(c).guard.Stop() {
		t.Error("the guard was still there")
	}
	got := Settle(c, time.Minute)
	if got.Before(before.Add(time.Minute)) || got.After(time.Now().Add(time.Minute)) {
		t.Errorf("got %v, want a minute after it was accepted", got)
	}
	near, far := net.Pipe() // of no Listener
	defer near.Close()
	defer far.Close()
	if got := Settle(near, time.Minute); got.Before(before.Add(time.Minute)) {
		t.Errorf("got %v, want a minute from now", got)
	}
	Release(near)
}

func TestAboveTheLimitAcceptGoesOn(t *testing.T) {
	count := &tally{open: make(map[netip.Addr]int), limit: 1}
	ln := listen(t, Options{Admit: count.admit})
	dial(t, ln, "")
	first := accept(t, ln)
	refused := []net.Conn{dial(t, ln, ""), dial(t, ln, "")}
	accepted := make(chan net.Conn)
	go func() {
		c, err := ln.Accept() // passes over those that are refused
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	for _, c := range refused {
		if b, err := io.ReadAll(c); err == nil && len(b) > 0 {
			t.Errorf("a refused connection got %q", b)
		}
	}
	_ = first.Close()
	dial(t, ln, "")
	_ = (<-accepted).Close()
	if n := ln.Stats().Refused.Load(); n != 2 {
		t.Errorf("got %d refused, want 2", n)
	}
}
