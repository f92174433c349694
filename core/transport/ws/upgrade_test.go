package ws

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"parley/core/session"
)

func TestOrigins(t *testing.T) {
	n := start(t, nil, "https://Chat.example")
	tests := []struct {
		origin, host string
		ok           bool
	}{
		{"", "", true},
		{"http://HOST", "", true},
		{"https://chat.example", "", true},
		{"https://CHAT.example", "", true},
		{"http://chat.example", "", false},
		{"https://chat.example.evil", "", false},
		{"https://evil.example", "", false},
		{"null", "", false},
		{"null", "null", false},
		{"%zz", "", false},
		{"http://parley.internal", "parley.internal", true},
		{"http://parley.internal:81", "parley.internal", false},
		{"https://" + strings.Repeat("x", 5000), "", false},
	}
	refused := uint64(0)
	for _, tt := range tests {
		origin := strings.ReplaceAll(tt.origin, "HOST", n.addr)
		h := http.Header{}
		if origin != "" {
			h.Set("Origin", origin)
		}
		if tt.host != "" {
			h.Set("Host", tt.host)
		}
		g, resp, err := websocket.DefaultDialer.Dial(n.url(), h)
		if ok := err == nil; ok != tt.ok {
			t.Errorf("origin %.50q, host %q: got admitted %v, want %v (%v)", tt.origin, tt.host, ok, tt.ok, err)
		}
		if err == nil {
			_ = g.Close()
			continue
		}
		if resp == nil {
			t.Fatalf("origin %.50q: %v", tt.origin, err)
		}
		if tt.ok {
			continue
		}
		refused++
		var e struct{ Type, Code, Text string }
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || resp.StatusCode != 403 || e.Code != "bad_request" || !strings.Contains(e.Text, "origin") || len(e.Text) > 400 {
			t.Errorf("origin %.50q: got %d %+v, %v, want 403 and why", tt.origin, resp.StatusCode, e, err)
		}
	}
	if got := n.ws.RefusedOrigins(); got != refused {
		t.Errorf("got %d refused origins counted, want %d", got, refused)
	}
	n.awaitIdle()
}

// A request without a Host (HTTP/1.0) has no origin of its own.
func TestNoHostIsNobodysOrigin(t *testing.T) {
	h := New(Config{}, nil, nil)
	r := &http.Request{Header: http.Header{"Origin": {"null"}}}
	if h.allowed(r) {
		t.Error("an origin without a host was taken for a server without one")
	}
}

func TestOrdinaryRequestsAreAnswered(t *testing.T) {
	n := start(t, nil)
	for name, ask := range map[string]func() (*http.Response, error){
		"GET":  func() (*http.Response, error) { return http.Get("http://" + n.addr + "/v1/ws") },
		"POST": func() (*http.Response, error) { return http.Post("http://"+n.addr+"/v1/ws", "text/plain", nil) },
	} {
		resp, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		var e struct{ Type, Code, Text string }
		err = json.NewDecoder(resp.Body).Decode(&e)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 400 || e.Type != "error" || e.Code != "bad_request" || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: got %d %+v, %v", name, resp.StatusCode, e, err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	n.awaitIdle()
}

func TestAServerThatForgotContext(t *testing.T) {
	n := start(t, nil)
	w := &recorder{header: http.Header{}}
	n.ws.ServeHTTP(w, (&http.Request{Header: http.Header{}}).WithContext(context.Background()))
	if w.status != 500 || !strings.Contains(w.body.String(), "internal") {
		t.Errorf("got %d %s, want 500", w.status, w.body.String())
	}
	// and one whose connections cannot be taken over
	c, far := net.Pipe()
	defer c.Close()
	defer far.Close()
	r := &http.Request{Method: "GET", Host: "x", Header: http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}}
	w = &recorder{header: http.Header{}}
	n.ws.ServeHTTP(w, r.WithContext(Context(context.Background(), c)))
	if w.status != 500 {
		t.Errorf("got %d %s, want 500", w.status, w.body.String())
	}
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

func TestRefusedConnectionsAreToldWhy(t *testing.T) {
	n := start(t, func(c *session.Config) { c.ConnectionsPerIP = 1 })
	c := n.guest("ann")
	_, resp, err := websocket.DefaultDialer.Dial(n.url(), nil)
	if err == nil || resp == nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "10" {
		t.Fatalf("got %+v, %v, want 503 with Retry-After: 10", resp, err)
	}
	var e struct{ Type, Code string }
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Type != "error" || e.Code != "too_many_conns" {
		t.Errorf("got %+v, %v", e, err)
	}
	_ = c.Close()
	n.awaitIdle()
	for { // the place is given back when the reader has ended
		release, refused := n.sessions.Admit(netip.MustParseAddr("127.0.0.1"))
		if refused == nil {
			release()
			break
		}
		runtime.Gosched()
	}
	n.guest("bob")
	n.sessions.Drain(t.Context())
	if _, resp, err := websocket.DefaultDialer.Dial(n.url(), nil); err == nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "5" {
		t.Errorf("while draining: got %+v, %v, want 503", resp, err)
	}
}

// A failed upgrade gives its place back.
func TestFailedUpgradesAreNotCounted(t *testing.T) {
	n := start(t, func(c *session.Config) { c.ConnectionsPerIP = 1 })
	for range 3 {
		resp, err := http.Get("http://" + n.addr + "/v1/ws")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("got %d, want 400", resp.StatusCode)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	n.guest("ann")
}
