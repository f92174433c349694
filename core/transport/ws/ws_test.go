package ws

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"parley/core/session"
	"parley/core/transport/transporttest"
	"parley/core/wire"
)

func TestTalk(t *testing.T) {
	n := start(t, nil)
	c := n.guest("ann")
	if got := c.Subprotocol(); got != wire.Subprotocol {
		t.Errorf("got subprotocol %q, want %q", got, wire.Subprotocol)
	}
	c.send(`{"type":"join","room":"lobby"}`)
	c.sees("joined")
	c.sees("presence")
	c.send(`{"type":"send","id":"5","room":"lobby","nonce":"n","text":"` + strings.Repeat("long ", 500) + `"}`)
	got := map[any]bool{}
	for range 2 {
		_, b, err := c.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(b, []byte("\n")) {
			t.Errorf("the payload %.80q does not end with a newline", b)
		}
		var e map[string]any
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
		got[e["type"]] = true
	}
	if !got["ack"] || !got["message"] {
		t.Errorf("got %v, want an ack and the message", got)
	}
}

// TestAConnectionKeepsOneGoroutine is why the HTTP handler returns: idle
// connections cost a reader each and nothing of net/http.
func TestAConnectionKeepsOneGoroutine(t *testing.T) {
	n := start(t, nil)
	n.guest("first") // whatever is started once
	before := runtime.NumGoroutine()
	const conns = 40
	for range conns {
		n.guest("")
	}
	limit := before + conns
	for end := time.Now().Add(transporttest.Patience); runtime.NumGoroutine() > limit; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("got %d goroutines for %d more connections, want %d", runtime.NumGoroutine()-before, conns, conns)
		}
	}
}

func TestBadMessagesCloseWithTheirCode(t *testing.T) {
	fragments := func(size, count int) func(*client) {
		return func(c *client) {
			w, err := c.NextWriter(websocket.TextMessage)
			if err != nil {
				c.t.Fatal(err)
			}
			for range count {
				if _, err := w.Write(bytes.Repeat([]byte(" "), size)); err != nil {
					return // it need not take all
				}
			}
			_ = w.Close()
		}
	}
	tests := []struct {
		name string
		do   func(*client)
		says string // code of the error before the close
		code int
	}{
		{"binary", func(c *client) { _ = c.WriteMessage(websocket.BinaryMessage, []byte("{}")) }, "bad_request", 1003},
		{"oversize", func(c *client) { _ = c.WriteMessage(websocket.TextMessage, make([]byte, 1001)) }, "frame_too_big", 1009},
		{"oversize in fragments", fragments(100, 11), "frame_too_big", 1009},
		{"endless fragments", fragments(4096, 1000), "frame_too_big", 1009},
		{"not UTF-8", func(c *client) {
			_ = c.WriteMessage(websocket.TextMessage, []byte("{\"type\":\"ping\",\"id\":\"\xff\"}"))
		}, "bad_request", 1007},
		{"twenty malformed", func(c *client) {
			for range 20 {
				c.send("{")
			}
			for range 19 {
				c.sees("error")
			}
		}, "bad_request", 4008},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, func(c *session.Config) { c.FrameBytes = 1000 })
			c := n.guest("ann")
			c.t = t
			sent := make(chan struct{})
			if tt.code == 4008 {
				tt.do(c)
				close(sent)
			} else {
				go func() { defer close(sent); tt.do(c) }()
			}
			if e := c.sees("error"); e["code"] != tt.says {
				t.Errorf("got %v, want %s", e, tt.says)
			}
			c.closed(tt.code)
			_ = c.Close()
			<-sent
			n.checkClose(wire.CloseCode(tt.code))
		})
	}
}

func TestAMessageAsLongAsAllowedPasses(t *testing.T) {
	n := start(t, func(c *session.Config) { c.FrameBytes = 1000 })
	c := n.guest("ann")
	c.send(`{"type":"ping","ts":1` + strings.Repeat(" ", 1000-22) + "}")
	c.sees("pong")
	unlimited := start(t, func(c *session.Config) { c.FrameBytes = 0 })
	c = unlimited.guest("ann")
	c.send(`{"type":"ping","ts":1` + strings.Repeat(" ", 1<<20) + "}")
	c.sees("pong")
}

// begins connects and says nothing until a session has begun: on a busy machine
// the time for hello may be over before there is one, and then the connection is
// cut without a word. It returns the code of the first event, an error.
func (n *node) begins() (c *client, code string) {
	n.t.Helper()
	for {
		c, err := n.try()
		if err != nil {
			continue
		}
		if _, b, err := c.ReadMessage(); err == nil {
			var e struct{ Type, Code string }
			if err := json.Unmarshal(b, &e); err != nil || e.Type != "error" {
				n.t.Fatalf("got %q, %v, want an error", b, err)
			}
			return c, e.Code
		}
		_ = c.Close()
	}
}

func TestNoHelloInTime(t *testing.T) {
	n := start(t, func(c *session.Config) { c.HandshakeTimeout = 20 * time.Millisecond })
	c, code := n.begins()
	if code != "unauthorized" {
		t.Errorf("got %s, want unauthorized", code)
	}
	c.closed(4009)
	n.checkClose(wire.CloseHandshake)
}

func TestHelloEndsTheWait(t *testing.T) {
	n := start(t, func(c *session.Config) { c.HandshakeTimeout = 200 * time.Millisecond })
	var c *client
	for welcome := false; !welcome; { // on a busy machine hello may come too late
		var err error
		if c, err = n.try(); err != nil {
			continue
		}
		_ = c.WriteMessage(websocket.TextMessage, []byte(`{"type":"hello","guest":""}`))
		_, b, _ := c.ReadMessage()
		welcome = bytes.Contains(b, []byte(`"type":"welcome"`))
	}
	other, _ := n.begins()
	other.closed(4009) // the time is over
	c.send(`{"type":"ping","ts":3}`)
	c.sees("pong")
}

func TestTheCloseHandshake(t *testing.T) {
	tests := []struct {
		name    string
		payload []byte
		want    int
	}{
		{"normal", websocket.FormatCloseMessage(1000, "bye"), 1000},
		{"the tab was closed", websocket.FormatCloseMessage(1001, ""), 1001},
		{"a code of the program's own", websocket.FormatCloseMessage(4711, "x"), 4711},
		{"without a code", nil, 1000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, nil)
			c := n.guest("ann")
			if err := c.WriteControl(websocket.CloseMessage, tt.payload, time.Now().Add(transporttest.Patience)); err != nil {
				t.Fatal(err)
			}
			c.closed(tt.want)
			n.checkClose(wire.CloseNormal)
		})
	}
}

func TestDrainSaysSoAndWaitsForTheAnswer(t *testing.T) {
	n := start(t, nil)
	c := n.guest("ann")
	n.sessions.Drain(t.Context())
	if e := c.closed(1012); e.Text != "going_away" { // gorilla's client answers by itself
		t.Errorf("got reason %q, want going_away", e.Text)
	}
	n.checkClose(wire.CloseRestart)
}

func TestAConnectionThatBreaksIsNoProtocolError(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn){
		"end of file": func(c *net.TCPConn) { _ = c.Close() },
		"reset":       func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, nil)
			c := n.guest("ann")
			end(c.NetConn().(*net.TCPConn))
			n.checkClose(wire.CloseNormal)
			n.sessions.Stats().Closes(func(code wire.CloseCode, count uint64) {
				if code == wire.CloseProtocol && count > 0 {
					t.Error("it was counted as a protocol error")
				}
			})
		})
	}
}

// raw connects without a WebSocket library, to send what none would.
func (n *node) raw() (net.Conn, *bufio.Reader) {
	n.t.Helper()
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(transporttest.Patience))
	_, _ = io.WriteString(c, "GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 {
		n.t.Fatalf("got %+v, %v, want 101", resp, err)
	}
	return c, r
}

func TestBrokenFramesCloseWith1002Once(t *testing.T) {
	tests := []struct {
		name, frame, says string
	}{
		{"unmasked", "\x81\x02hi", "MASK"},
		{"reserved bit", "\xc1\x82\x00\x00\x00\x00hi", "RSV1"},
		{"unknown opcode", "\x83\x80\x00\x00\x00\x00", "opcode"},
		{"control frame in fragments", "\x09\x80\x00\x00\x00\x00", "FIN"},
		{"continuation of nothing", "\x80\x80\x00\x00\x00\x00", "continuation"},
		{"long control frame", "\x89\xfe\x00\x7e\x00\x00\x00\x00", "len"},
		{"bad close code", "\x88\x82\x00\x00\x00\x00\x03\xec", "close code"},
		{"negative length", "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, nil)
			c, r := n.raw()
			if _, err := io.WriteString(c, tt.frame); err != nil {
				t.Fatal(err)
			}
			all, err := io.ReadAll(r) // until the server has shut its side
			if err != nil {
				t.Fatal(err)
			}
			if len(all) < 4 || all[0] != 0x88 || int(all[1]) != len(all)-2 || all[2] != 0x03 || all[3] != 0xea || !strings.Contains(string(all[4:]), tt.says) {
				t.Errorf("got % x %q, want one close frame 1002 that names %q", all, all, tt.says)
			}
			_ = c.Close()
			n.checkClose(wire.CloseProtocol)
		})
	}
}

func TestPingsAreAnsweredBehindFullSocketsInOrder(t *testing.T) {
	n := start(t, func(c *session.Config) { c.FrameBytes = 0; c.TextBytes = 64 << 10 })
	c := n.dial()
	c.send(`{"type":"hello","guest":"ann"}`)
	c.sees("welcome")
	for range 20 {
		c.send(`{"type":"send","room":"lobby","text":"` + strings.Repeat("x", 60<<10) + `"}`)
		c.sees("ack")
	}
	pongs := make(chan string, 1)
	c.SetPongHandler(func(data string) error { pongs <- data; return nil })
	const asked = 12
	for range asked { // megabytes that the client does not read yet
		c.send(`{"type":"history","id":"h","room":"lobby"}`)
	}
	if err := c.WriteControl(websocket.PingMessage, []byte("still there?"), time.Now().Add(transporttest.Patience)); err != nil {
		t.Fatal(err)
	}
	for range asked {
		if e := c.sees("history"); len(e["entries"].([]any)) == 0 {
			t.Fatalf("got %v", e)
		}
	}
	c.send(`{"type":"ping","ts":1}`)
	c.sees("pong")
	if got := <-pongs; got != "still there?" {
		t.Errorf("got the pong %q", got)
	}
}

func TestManyConnectionsAtOnce(t *testing.T) {
	n := start(t, nil)
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			g, _, err := websocket.DefaultDialer.Dial(n.url(), nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer g.Close()
			for _, command := range []string{`{"type":"hello","guest":""}`, `{"type":"join","room":"lobby"}`, `{"type":"send","room":"lobby","text":"hi"}`} {
				if err := g.WriteMessage(websocket.TextMessage, []byte(command)); err != nil {
					t.Error(err)
				}
			}
			for acked := false; !acked; {
				_, b, err := g.ReadMessage()
				if err != nil {
					t.Error(err)
					return
				}
				acked = bytes.Contains(b, []byte(`"ack"`))
			}
		})
	}
	wg.Wait()
	n.awaitIdle()
	if got := n.sessions.Stats().Sent.Load(); got != 30 {
		t.Errorf("got %d messages, want 30", got)
	}
}

func BenchmarkPingPong(b *testing.B) {
	n := start(b, nil)
	c := n.guest("ann")
	_ = c.SetReadDeadline(time.Time{})
	b.ReportAllocs()
	for b.Loop() {
		if err := c.WriteMessage(websocket.TextMessage, []byte(`{"type":"ping","id":"1","ts":1764000000123}`)); err != nil {
			b.Fatal(err)
		}
		if _, _, err := c.ReadMessage(); err != nil {
			b.Fatal(err)
		}
	}
}

// frame is a masked frame as a client writes it; the mask is 0.
func frame(first byte, payload string) string {
	return string([]byte{first, masked | byte(len(payload)), 0, 0, 0, 0}) + payload
}

// The answer to a command does not wait for the rest of a message of which
// only the first fragment has come.
func TestAFragmentHoldsNoAnswerBack(t *testing.T) {
	n := start(t, nil)
	c := n.guest("ann")
	const text = 1
	ping := `{"type":"ping","ts":7}`
	if _, err := io.WriteString(c.NetConn(), frame(final|text, ping)+frame(text, ping[:5])); err != nil {
		t.Fatal(err)
	}
	c.sees("pong")
	if _, err := io.WriteString(c.NetConn(), frame(final, ping[5:])); err != nil {
		t.Fatal(err)
	}
	c.sees("pong")
}
