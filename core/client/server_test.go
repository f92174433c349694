package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"parley/core/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is the server's end of one connection in these tests.
type peer struct {
	n     int // 0 for the first connection
	ws    *websocket.Conn
	nc    net.Conn
	lines *bufio.Scanner
}

func (p *peer) next() (wire.Command, error) {
	var c wire.Command
	var b []byte
	if p.ws != nil {
		var err error
		if _, b, err = p.ws.ReadMessage(); err != nil {
			return c, err
		}
	} else {
		if !p.lines.Scan() {
			return c, errors.New("end of input")
		}
		b = p.lines.Bytes()
	}
	err := json.Unmarshal(b, &c)
	return c, err
}

func (p *peer) raw(b []byte) {
	if p.ws != nil {
		_ = p.ws.WriteMessage(websocket.TextMessage, b)
		return
	}
	_, _ = p.nc.Write(append(b, '\n'))
}

func (p *peer) say(ev any) { p.raw(wire.Encode(ev).JSON()) }

func (p *peer) welcome(secret string) (wire.Command, bool) {
	c, err := p.next()
	if err != nil || c.Type != wire.Hello {
		return c, false
	}
	p.say(wire.WelcomeEvent{Type: wire.Welcome, ID: c.ID, Protocol: 1, User: "ann", Secret: secret, HeartbeatMS: 60_000})
	return c, true
}

// end closes the connection as the server would.
func (p *peer) end(code wire.CloseCode, reason string) {
	if p.ws != nil {
		_ = p.ws.WriteControl(websocket.CloseMessage, wire.ControlClose(code, reason)[2:], time.Now().Add(time.Minute))
		return
	}
	p.say(wire.CloseEvent{Type: wire.Close, Code: int(code), Reason: reason, Reconnect: code.Reconnect()})
}

// serve runs script for each connection and returns the URL.
func serve(t *testing.T, scheme string, script func(*peer)) string {
	t.Helper()
	var mu sync.Mutex
	var n int
	number := func() int {
		mu.Lock()
		defer mu.Unlock()
		n++
		return n - 1
	}
	if scheme == "ws" {
		up := websocket.Upgrader{Subprotocols: []string{wire.Subprotocol}}
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ws, err := up.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer ws.Close()
			script(&peer{n: number(), ws: ws})
		}))
		t.Cleanup(srv.Close)
		return "ws" + strings.TrimPrefix(srv.URL, "http") + "/v1/ws"
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				script(&peer{n: number(), nc: nc, lines: bufio.NewScanner(nc)})
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return "tcp://" + ln.Addr().String()
}

// both runs a test over each transport.
func both(t *testing.T, test func(t *testing.T, scheme string)) {
	for _, scheme := range []string{"ws", "tcp"} {
		t.Run(scheme, func(t *testing.T) { test(t, scheme) })
	}
}

func mustDial(t *testing.T, opt Options) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
