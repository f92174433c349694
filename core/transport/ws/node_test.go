package ws

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"parley/core/session"
	"parley/core/transport/stream"
	"parley/core/transport/transporttest"
	"parley/core/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is the handler behind a real HTTP server.
type node struct {
	t        testing.TB
	sessions *session.Server
	ws       *Handler
	front    *Front
	http     *http.Server
	addr     string
}

func start(t testing.TB, change func(*session.Config), origins ...string) *node {
	t.Helper()
	return serve(t, transporttest.Node(t, change), nil, Config{Origins: origins})
}

// serve serves sessions, over TLS where secure is not nil.
func serve(t testing.TB, sessions *session.Server, secure *tls.Config, cfg Config, more ...func(*stream.Options)) *node {
	t.Helper()
	return serveHTTP(t, sessions, secure, cfg, false, more...)
}

// serveHTTP is serve; bare leaves the Front out, so that net/http reads every
// request.
func serveHTTP(t testing.TB, sessions *session.Server, secure *tls.Config, cfg Config, bare bool, more ...func(*stream.Options)) *node {
	t.Helper()
	n := &node{t: t, sessions: sessions}
	if cfg.Intake == nil {
		cfg.Intake = transporttest.Intake(t, true)
	}
	n.ws = New(cfg, n.sessions, slog.New(slog.DiscardHandler))
	mux := http.NewServeMux()
	mux.Handle("/v1/ws", n.ws)
	n.http = &http.Server{Handler: mux, ConnContext: Context, ConnState: State, ReadHeaderTimeout: transporttest.Patience, ErrorLog: log.New(io.Discard, "", 0)}
	opt := stream.Options{
		Tune: func(c *net.TCPConn) { _ = c.SetWriteBuffer(16 << 10) }, TLS: secure,
		Deadline: sessions.Config().HandshakeTimeout, Admit: sessions.Visit,
	}
	for _, change := range more {
		change(&opt)
	}
	ln, err := stream.Listen(t.Context(), "127.0.0.1:0", opt)
	if err != nil {
		t.Fatal(err)
	}
	n.addr = ln.Addr().String()
	var behind net.Listener = ln
	served := make(chan error, 2)
	if n.front = n.ws.Front(ln, "/v1/ws"); !bare {
		behind = n.front
		go func() { served <- n.front.Run(context.Background()) }()
	} else {
		served <- nil
	}
	go func() { served <- n.http.Serve(behind) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), transporttest.Patience)
		defer cancel()
		if err := n.http.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		<-served
		<-served
		n.sessions.Abort()
		n.ws.Wait()
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
		n := serve(t, sessions, secure, Config{Intake: transporttest.Intake(t, park)})
		if secure != nil {
			return "wss://" + n.addr + "/v1/ws"
		}
		return n.url()
	})
}

func TestSuiteBehindNetHTTP(t *testing.T) {
	transporttest.Suite(t, func(t testing.TB, sessions *session.Server, secure *tls.Config) string {
		n := serveHTTP(t, sessions, secure, Config{Intake: transporttest.Intake(t, false)}, true)
		if secure != nil {
			return "wss://" + n.addr + "/v1/ws"
		}
		return n.url()
	})
}

func (n *node) url() string { return "ws://" + n.addr + "/v1/ws" }

// dial connects with gorilla's client.
func (n *node) dial() *client {
	n.t.Helper()
	c, err := n.try()
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// try is dial that may fail.
func (n *node) try() (*client, error) {
	d := websocket.Dialer{Subprotocols: []string{wire.Subprotocol}, HandshakeTimeout: transporttest.Patience}
	g, resp, err := d.Dial(n.url(), nil)
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close()
	n.t.Cleanup(func() { _ = g.Close() })
	_ = g.SetReadDeadline(time.Now().Add(transporttest.Patience))
	return &client{g, n.t}, nil
}

// guest says hello too.
func (n *node) guest(name string) *client {
	n.t.Helper()
	c := n.dial()
	c.send(`{"type":"hello","guest":"` + name + `"}`)
	c.sees("welcome")
	return c
}

type client struct {
	*websocket.Conn
	t testing.TB
}

func (c *client) send(text string) {
	c.t.Helper()
	if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// sees reads the next event, which must be of the type.
func (c *client) sees(typ string) map[string]any {
	c.t.Helper()
	kind, b, err := c.ReadMessage()
	if err != nil {
		c.t.Fatalf("waiting for %s: %v", typ, err)
	}
	var e map[string]any
	if err := json.Unmarshal(b, &e); err != nil || kind != websocket.TextMessage || e["type"] != typ {
		c.t.Fatalf("got %d %q, %v, want %s", kind, b, err, typ)
	}
	return e
}

// closed wants the close frame with the code.
func (c *client) closed(code int) *websocket.CloseError {
	c.t.Helper()
	_, b, err := c.ReadMessage()
	var e *websocket.CloseError
	if !errors.As(err, &e) || e.Code != code {
		c.t.Fatalf("got %q, %v, want close %d", b, err, code)
	}
	return e
}

func (n *node) awaitIdle() {
	n.t.Helper()
	for end := time.Now().Add(transporttest.Patience); n.sessions.Open() > 0; runtime.Gosched() {
		if time.Now().After(end) {
			n.t.Fatalf("%d sessions stay", n.sessions.Open())
		}
	}
}

func (n *node) checkClose(code wire.CloseCode) {
	n.t.Helper()
	n.awaitIdle()
	n.sessions.Stats().Closes(func(c wire.CloseCode, count uint64) {
		if c == code && count == 0 {
			n.t.Errorf("no close %d was counted", code)
		}
	})
}
