package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/core/client"
	"parley/core/transport/transporttest"
	"parley/core/wire"
)

// halfOpen is a way to connect and never come to the point.
type halfOpen struct {
	name  string
	addr  string
	begin func(net.Conn) (net.Conn, error) // nil: as it is
	drips string                           // what comes of it, a byte a second; "" = silence
}

// TestHalfOpenConnectionsAreCut holds 2,000 connections that never say hello
// beside people who come and talk.
func TestHalfOpenConnectionsAreCut(t *testing.T) {
	const total = 2000
	authority := transporttest.NewAuthority(t)
	cert, key, _ := authority.Files(t.TempDir(), time.Now().Add(time.Hour))
	n := startNode(t, settings{"tls.cert_file": cert, "tls.key_file": key, "tls.tcp": false})
	shake := func(c net.Conn) (net.Conn, error) {
		s := tls.Client(c, authority.Client())
		return s, s.Handshake()
	}
	const upgrade = "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\n"
	kinds := []halfOpen{
		{name: "TLS, silent", addr: n.HTTP},
		{name: "TLS, trickling", addr: n.HTTP, drips: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
		{name: "HTTP, silent", addr: n.HTTP, begin: shake},
		{name: "HTTP, trickling", addr: n.HTTP, begin: shake, drips: upgrade},
		{name: "TCP, silent", addr: n.TCP},
		{name: "TCP, trickling", addr: n.TCP, drips: `{"type":"hello","guest":"ann"`},
	}
	come := func(i int) time.Duration {
		began := time.Now()
		opt := client.Options{URL: "wss://" + n.HTTP + "/v1/ws", TLS: authority.Client()}
		if i%2 == 1 {
			opt = client.Options{URL: n.TCPURL()}
		}
		v := visit(t, opt)
		v.enters("lobby")
		_ = v.Close()
		return time.Since(began)
	}
	ctx, stop := context.WithCancel(within(t))
	var holding, opening sync.WaitGroup
	var longest atomic.Int64 // ns
	slots := make(chan struct{}, 64)
	for i := range total {
		kind := kinds[i%len(kinds)]
		opening.Add(1)
		slots <- struct{}{}
		holding.Go(func() {
			began := time.Now()
			c, err := new(net.Dialer).DialContext(ctx, "tcp", kind.addr)
			if err != nil {
				t.Errorf("%s: %v", kind.name, err)
			} else if kind.begin != nil {
				c, err = kind.begin(c) // on a slow machine it may be cut before it has begun
			}
			<-slots
			opening.Done()
			if err == nil {
				kind.hold(ctx, t, c)
			}
			if c != nil {
				_ = c.Close()
			}
			for d := time.Since(began); ; {
				old := longest.Load()
				if int64(d) <= old || longest.CompareAndSwap(old, int64(d)) {
					return
				}
			}
		})
	}
	opening.Wait()
	// Meanwhile others come, and are served.
	held := make(chan struct{})
	go func() { holding.Wait(); close(held) }()
	var meanwhile []time.Duration
	for open := true; open; {
		meanwhile = append(meanwhile, come(len(meanwhile)))
		select {
		case <-held:
			open = false
		default:
		}
	}
	stop()
	cut := n.Metric(`parley_connections_cut_total{listener="http",reason="handshake_timeout"}`) + n.Metric(`parley_closes_total{code="4009"}`)
	if cut < total*9/10 { // net/http's own deadlines may be first
		t.Errorf("got %v connections counted as cut for being late, want about %d", cut, total)
	}
	alone := make([]time.Duration, 0, len(meanwhile))
	for i := range cap(alone) {
		alone = append(alone, come(i))
	}
	t.Logf("%d half-open connections lasted at most %v; %d guests came meanwhile, p99 %v, and as many afterwards, p99 %v",
		total, time.Duration(longest.Load()).Round(time.Millisecond), len(meanwhile), p99(meanwhile), p99(alone))
	if d := time.Duration(longest.Load()); d > handshakeTimeout+busyMachine {
		t.Errorf("a half-open connection lasted %v, want %v and what a busy machine takes", d, handshakeTimeout)
	}
	if got, want := p99(meanwhile), 2*p99(alone)+busyMachine/2; got > want {
		t.Errorf("p99 of connecting: got %v beside the half-open, want %v", got, want)
	}
	n.Stop()
}

const (
	handshakeTimeout = 5 * time.Second // limits.handshake_timeout by default
	busyMachine      = 5 * time.Second // to begin and to end 2,000 connections of one process, with the race detector
)

// p99 is the nearest-rank percentile.
func p99(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[(len(all)*99+99)/100-1].Round(time.Millisecond)
}

// hold keeps the connection until the server ends it.
func (k *halfOpen) hold(ctx context.Context, t *testing.T, c net.Conn) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, c) // a word of farewell may come first
	}()
	drip := time.NewTicker(time.Second)
	defer drip.Stop()
	for at := 0; ; {
		select {
		case <-ended:
			return
		case <-ctx.Done():
			t.Errorf("%s: the connection stays", k.name)
			_ = c.Close()
			<-ended
			return
		case <-drip.C:
			if at < len(k.drips) {
				// When it fails, the reader sees the end too.
				_, _ = io.WriteString(c, k.drips[at:at+1])
				at++
			}
		}
	}
}

// through dials and says first what a proxy would.
func through(header string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			_, err = io.WriteString(c, header)
		}
		return c, err
	}
}

// TestTheProxyProtocolNamesTheClient puts a proxy in front of both listeners,
// which speak TLS behind the header.
func TestTheProxyProtocolNamesTheClient(t *testing.T) {
	t.Parallel()
	authority := transporttest.NewAuthority(t)
	cert, key, _ := authority.Files(t.TempDir(), time.Now().Add(time.Hour))
	n := startNode(t, settings{
		"tls.cert_file": cert, "tls.key_file": key, "limits.connections_per_ip": 1,
		"proxy.trusted": []string{"127.0.0.0/8"}, "proxy.http": "protocol", "proxy.tcp": "protocol",
	})
	const one, two = "PROXY TCP4 203.0.113.1 127.0.0.1 5000 80\r\n", "PROXY TCP6 2001:db8::2 ::1 5000 80\r\n"
	wss, tcps := "wss://"+n.HTTP+"/v1/ws", "tls://"+n.TCP
	dial := func(url, header string) (*visitor, error) {
		return tryVisit(t, client.Options{URL: url, TLS: authority.Client(), NetDial: through(header)})
	}
	ann, err := dial(wss, one)
	if err != nil {
		t.Fatal(err)
	}
	bob, err := dial(tcps, two)
	if err != nil {
		t.Fatal(err)
	}
	ann.enters("lobby")
	bob.enters("lobby")
	_, nonce := ann.says("lobby", "two houses, one street")
	bob.hears(nonce)

	var shake *client.HandshakeError
	if _, err := dial(wss, two); !errors.As(err, &shake) || shake.Status != 503 || shake.RetryAfter != 10*time.Second {
		t.Errorf("a second connection over WebSocket: got %v, want 503 and when to come again", err)
	}
	var closed *client.CloseError
	if _, err := dial(tcps, one); !errors.As(err, &closed) || closed.Code != wire.CloseTooMany || closed.RetryAfter != 10*time.Second {
		t.Errorf("a second connection over TCP: got %v, want %d and when to come again", err, wire.CloseTooMany)
	}
	// Who is a client by the PROXY header is one, wherever it is: what it says
	// of itself counts for nothing.
	const three = "PROXY TCP4 127.0.0.9 127.0.0.1 5000 80\r\n"
	for i, want := range []string{"101", "503"} {
		raw, err := through(three)(t.Context(), "tcp", n.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(patience))
		cfg := authority.Client().Clone()
		cfg.ServerName = "127.0.0.1"
		c := tls.Client(raw, cfg)
		fmt.Fprintf(c, "GET /v1/ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Forwarded-For: 198.51.100.%d\r\n\r\n", n.HTTP, i)
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 "+want) {
			t.Errorf("connection %d of a client with a forged X-Forwarded-For: got %q, %v, want %s", i+1, line, err, want)
		}
	}
	if _, err := dial(wss, ""); err == nil {
		t.Error("a connection without a header was served")
	}
	await(t, "the missing header is counted", func() bool {
		return n.Metric(`parley_connections_cut_total{listener="http",reason="proxy_header"}`) > 0
	})
	n.Stop()
}

// TestAStormIsLetInByTurns sends more clients at once than limits.accepts_per_second
// lets in. Each is told when to come again, all are in soon, and who was there
// before notices nothing.
func TestAStormIsLetInByTurns(t *testing.T) {
	t.Parallel()
	const clients = 120
	n := startNode(t, settings{"limits.accepts_per_second": 30, "limits.commands_per_second": 0})
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	ann.enters("lobby")
	var in atomic.Int64
	for i := range clients {
		r, err := client.NewResilient(client.ResilientOptions{
			Options: client.Options{URL: n.URL(i), Timeout: patience}, OnConnect: func(*wire.WelcomeEvent) { in.Add(1) },
		})
		if err != nil {
			t.Fatal(err)
		}
		keep(t, r)
	}
	await(t, "everyone is in", func() bool {
		ann.says("lobby", "do come in")
		return in.Load() == clients
	})
	refused := n.Metric(`parley_errors_total{code="overloaded"}`)
	if refused == 0 || refused > 3*clients {
		t.Errorf("got %v refusals for %d clients, want some, and few more than one each", refused, clients)
	}
	t.Logf("%d clients were refused %v times", clients, refused)
	n.Stop()
}
