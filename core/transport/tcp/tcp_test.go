package tcp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/session"
	"parley/core/transport/intake"
	"parley/core/transport/proxy"
	"parley/core/transport/stream"
	"parley/core/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a server on a real listener.
type node struct {
	t        testing.TB
	sessions *session.Server
	tcp      *Server
	addr     string
	stop     func() // ends Run
}

func start(t testing.TB, change func(*session.Config)) *node {
	t.Helper()
	return serve(t, transporttest.Node(t, change), nil)
}

// serve serves sessions, over TLS where secure is not nil.
func serve(t testing.TB, sessions *session.Server, secure *tls.Config, more ...func(*stream.Options)) *node {
	t.Helper()
	return serveFrom(t, transporttest.Intake(t, true), sessions, secure, more...)
}

func serveFrom(t testing.TB, in *intake.Intake, sessions *session.Server, secure *tls.Config, more ...func(*stream.Options)) *node {
	t.Helper()
	n := &node{t: t, sessions: sessions}
	n.tcp = New(in, n.sessions, slog.New(slog.DiscardHandler))
	opt := stream.Options{Tune: func(c *net.TCPConn) { _ = c.SetWriteBuffer(16 << 10) }, TLS: secure, Deadline: sessions.Config().HandshakeTimeout}
	for _, change := range more {
		change(&opt)
	}
	ln, err := stream.Listen(t.Context(), "127.0.0.1:0", opt)
	if err != nil {
		t.Fatal(err)
	}
	n.addr = ln.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	served := make(chan error, 1)
	go func() { served <- n.tcp.Run(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
		n.sessions.Abort()
		n.tcp.Wait()
	})
	return n
}

func TestSuite(t *testing.T) {
	for _, park := range []bool{false, true} {
		t.Run(map[bool]string{false: "goroutines", true: "parked"}[park], func(t *testing.T) { suite(t, park) })
	}
}

func suite(t *testing.T, park bool) {
	transporttest.Suite(t, func(t testing.TB, sessions *session.Server, secure *tls.Config) string {
		n := serveFrom(t, transporttest.Intake(t, park), sessions, secure)
		if secure != nil {
			return "tls://" + n.addr
		}
		return "tcp://" + n.addr
	})
}

// client is a person with nc.
type client struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

func (n *node) dial() *client {
	n.t.Helper()
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(transporttest.Patience))
	return &client{c.(*net.TCPConn), n.t, bufio.NewReader(c)}
}

func (c *client) types(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

type event struct {
	Type, Code, Text, User string
	Raw                    map[string]any
}

// sees reads the next event but presence, which must be of the type.
func (c *client) sees(typ string) event {
	c.t.Helper()
	line, err := c.r.ReadString('\n')
	for strings.Contains(line, `"type":"presence"`) {
		line, err = c.r.ReadString('\n')
	}
	if err != nil {
		c.t.Fatalf("waiting for %s: %v", typ, err)
	}
	var raw map[string]any
	if err := json.Unmarshal([]byte(line), &raw); err != nil {
		c.t.Fatalf("bad line %q: %v", line, err)
	}
	e := event{Raw: raw}
	e.Type, _ = raw["type"].(string)
	e.Code, _ = raw["code"].(string)
	e.Text, _ = raw["text"].(string)
	e.User, _ = raw["user"].(string)
	if e.Type != typ {
		c.t.Fatalf("got %s, want %s", line, typ)
	}
	return e
}

// closed wants a close event with the code, and then the end.
func (c *client) closed(code int, reconnect bool) {
	c.t.Helper()
	e := c.sees("close")
	if e.Raw["code"] != float64(code) || e.Raw["reconnect"] != reconnect {
		c.t.Errorf("got %v, want code %d, reconnect %v", e.Raw, code, reconnect)
	}
	if rest, err := io.ReadAll(c.r); len(rest) != 0 || err != nil {
		c.t.Errorf("after the close: got %q, %v, want the end", rest, err)
	}
}

func TestByHand(t *testing.T) {
	n := start(t, nil)
	c := n.dial()
	c.types("\n\r\n" + `{"type":"hello","guest":"ann"}` + "\r\n")
	if e := c.sees("welcome"); e.User != "ann" {
		t.Errorf("got %v", e.Raw)
	}
	c.types(`{"type":"join","ro`)
	c.types(`om":"lobby"}` + "\n" + `{"type":"send","room":"lobby","text":"hi"}` + "\n")
	c.sees("joined")
	for seen := map[string]bool{}; !seen["ack"] || !seen["message"]; { // in either order, and her own presence in between
		line, err := c.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.Contains(line, `"type":"ack"`):
			seen["ack"] = true
		case strings.Contains(line, `"text":"hi"`):
			seen["message"] = true
		case strings.Contains(line, `"type":"presence"`):
		default:
			t.Fatalf("got %s", line)
		}
	}
	c.types("hello?\n")
	if e := c.sees("error"); e.Code != "bad_request" {
		t.Errorf("got %v", e.Raw)
	}
}

func TestWhatWasAskedBeforeTheEndIsAnswered(t *testing.T) {
	n := start(t, nil)
	c := n.dial() // printf ... | nc -N
	c.types(`{"type":"hello","guest":"ann"}` + "\n" + `{"type":"send","room":"lobby","text":"hi"}` + "\n" + `{"type":"send","room":"lobby","text":"cut sh`)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.sees("welcome")
	c.sees("ack")
	c.closed(1000, false)
	n.tcp.awaitIdle(t, n.sessions)
	if got := n.sessions.Stats().Sent.Load(); got != 1 {
		t.Errorf("got %d messages, want 1: the cut line must not count", got)
	}
}

// awaitIdle waits until no session is left.
func (s *Server) awaitIdle(t testing.TB, sessions *session.Server) {
	t.Helper()
	for end := time.Now().Add(transporttest.Patience); sessions.Open() > 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d sessions stay", sessions.Open())
		}
	}
}

func TestALineTooLongIsRefusedWithItsReason(t *testing.T) {
	n := start(t, func(c *session.Config) { c.FrameBytes = 1000 })
	for name, text := range map[string]string{
		"with an end": strings.Repeat("x", 1001) + "\n", "without an end": strings.Repeat("x", 1<<20),
	} {
		c := n.dial()
		c.types(`{"type":"hello","guest":""}` + "\n")
		c.sees("welcome")
		go func() { _, _ = io.WriteString(c, text) }() // it may not take all
		if e := c.sees("error"); e.Code != "frame_too_big" || !strings.Contains(e.Text, "1000") {
			t.Errorf("%s: got %v", name, e.Raw)
		}
		c.closed(1009, false)
	}
}

// begins connects and says something that is no command, until a session has
// begun: on a busy machine the time for hello may be over before there is one,
// and then the connection is cut without a word. It returns the first event, an
// error.
func (n *node) begins() (*client, event) {
	n.t.Helper()
	for {
		c := n.dial()
		_, _ = io.WriteString(c, "\n{\"type\":")
		if _, err := c.r.Peek(1); err == nil {
			return c, c.sees("error")
		}
		c.Close()
	}
}

func TestNoHelloInTime(t *testing.T) {
	n := start(t, func(c *session.Config) { c.HandshakeTimeout = 20 * time.Millisecond })
	c, e := n.begins()
	if e.Code != "unauthorized" {
		t.Errorf("got %v", e.Raw)
	}
	c.closed(4009, true)
}

func TestHelloEndsTheWait(t *testing.T) {
	n := start(t, func(c *session.Config) { c.HandshakeTimeout = 200 * time.Millisecond })
	var c *client
	for welcome := false; !welcome; { // on a busy machine hello may come too late
		c = n.dial()
		_, _ = io.WriteString(c, `{"type":"hello","guest":""}`+"\n")
		line, _ := c.r.ReadString('\n')
		welcome = strings.Contains(line, `"type":"welcome"`)
	}
	other, _ := n.begins()
	other.closed(4009, true) // the time is over
	c.types(`{"type":"ping","ts":3}` + "\n")
	c.sees("pong")
}

func TestRefusedConnectionsAreToldWhy(t *testing.T) {
	n := start(t, func(c *session.Config) { c.ConnectionsPerIP = 1 })
	first := n.dial()
	first.types(`{"type":"hello","guest":"ann"}` + "\n")
	first.sees("welcome")
	for range 3 {
		c := n.dial()
		_, _ = io.WriteString(c, `{"type":"hello","guest":"bob"}`+"\n") // unread: it must not cost the client the reason
		if e := c.sees("error"); e.Code != "too_many_conns" || e.Raw["retryable"] != true {
			t.Errorf("got %v", e.Raw)
		}
		c.closed(4503, true)
	}
	first.Close()
	n.tcp.awaitIdle(t, n.sessions)
	for { // the place is given back once the connection has lingered
		release, refused := n.sessions.Admit(netip.MustParseAddr("127.0.0.1"))
		if refused == nil {
			release()
			break
		}
		runtime.Gosched()
	}
	c := n.dial()
	c.types(`{"type":"hello","guest":""}` + "\n")
	c.sees("welcome")
}

func TestAFloodOfRefusedConnectionsIsCut(t *testing.T) {
	n := start(t, func(c *session.Config) { c.Connections = 1 })
	first := n.dial()
	first.types(`{"type":"ping"}` + "\n")
	first.sees("pong")
	n.tcp.refusing.Store(maxRefusing)
	c := n.dial()
	if rest, _ := io.ReadAll(c); len(rest) != 0 {
		t.Errorf("got %q, want the end at once", rest)
	}
	n.tcp.refusing.Store(0)
}

func TestDrainTellsConnectionsAndNewOnes(t *testing.T) {
	n := start(t, nil)
	c := n.dial()
	c.types(`{"type":"hello","guest":"ann"}` + "\n")
	c.sees("welcome")
	n.sessions.Drain(t.Context())
	c.closed(1012, true)
	late := n.dial()
	if e := late.sees("error"); e.Code != "going_away" {
		t.Errorf("got %v", e.Raw)
	}
	late.closed(1012, true)
	for _, c := range []*client{c, late} {
		c.Close()
	}
	n.tcp.awaitIdle(t, n.sessions)
}

// A client that says nothing and does not go away after its close must not be
// kept for longer than the linger time.
func TestAClosedClientThatStaysIsLeft(t *testing.T) {
	n := start(t, nil)
	c := n.dial()
	c.types(`{"type":"hello","guest":"ann"}` + "\n")
	c.sees("welcome")
	n.sessions.Drain(t.Context())
	c.closed(1012, true)
	start := time.Now()
	for end := start.Add(transporttest.Patience); ; {
		if _, err := c.Write([]byte("\n")); err != nil {
			break // the server has closed its side too
		}
		if time.Now().After(end) {
			t.Fatal("the server keeps the connection")
		}
		runtime.Gosched()
	}
}

func TestManyConnectionsAtOnce(t *testing.T) {
	n := start(t, nil)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			c := n.dial()
			defer c.Close()
			for _, command := range []string{`{"type":"hello","guest":""}`, `{"type":"join","room":"lobby"}`, `{"type":"send","room":"lobby","text":"hi"}`} {
				if _, err := io.WriteString(c, command+"\n"); err != nil {
					t.Error(err)
				}
			}
			for acked := false; !acked; {
				line, err := c.r.ReadString('\n')
				if err != nil {
					t.Error(err)
					return
				}
				acked = strings.Contains(line, `"ack"`)
			}
		})
	}
	wg.Wait()
	n.tcp.awaitIdle(t, n.sessions)
	if got := n.sessions.Stats().Sent.Load(); got != 50 {
		t.Errorf("got %d messages, want 50", got)
	}
}

// moody is a listener that fails a few times first, as one does that is short
// of file descriptors.
type moody struct {
	net.Listener
	fails int
}

func (m *moody) Accept() (net.Conn, error) {
	if m.fails--; m.fails >= 0 {
		return nil, errors.New("too many open files")
	}
	return m.Listener.Accept()
}

func TestServeOutlivesErrors(t *testing.T) {
	sessions := transporttest.Node(t, nil)
	var log bytes.Buffer
	s := New(nil, sessions, slog.New(slog.NewTextHandler(&log, nil)))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(&moody{ln, 2}) }()
	n := &node{t: t, sessions: sessions, tcp: s, addr: ln.Addr().String()}
	c := n.dial()
	c.types(`{"type":"ping"}` + "\n")
	c.sees("pong")
	ln.Close()
	if err := <-served; err != nil {
		t.Errorf("got %v, want nil for a closed listener", err)
	}
	c.Close()
	s.Wait()
	if n := strings.Count(log.String(), "could not be accepted"); n != 2 {
		t.Errorf("got %d lines in the log, want 2:\n%s", n, log.String())
	}
}

// A proxy that has not said all of its header does not keep the server from
// ending.
func TestHalfAProxyHeaderEndsWithTheServer(t *testing.T) {
	trusted, err := proxy.Parse([]string{"127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	sessions := transporttest.Node(t, func(c *session.Config) { c.HandshakeTimeout = 10 * time.Minute })
	n := serve(t, sessions, nil, func(o *stream.Options) { o.Proxies = trusted })
	half, whole := n.dial(), n.dial()
	half.types("PROXY TCP4 203.0.113.9 ")
	whole.types("PROXY UNKNOWN\r\n{\"type\":\"hello\",\"guest\":\"ann\"}\n")
	whole.sees("welcome") // so that the first has been accepted
	n.stop()
	n.sessions.Abort()
	done := make(chan struct{})
	go func() { n.tcp.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(transporttest.Patience):
		t.Error("the server waits for the rest of a PROXY header")
	}
	_ = half.Close()
	<-done
}
