package ws

import (
	"bytes"
	"compress/flate"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"parley/core/session"
	"parley/core/transport/transporttest"
	"parley/core/wire"
)

func deflating(t *testing.T) *node {
	t.Helper()
	return serve(t, transporttest.Node(t, nil), nil, Config{Deflate: true})
}

// offering connects with an offer of permessage-deflate.
func (n *node) offering() (*client, *http.Response) {
	n.t.Helper()
	d := websocket.Dialer{Subprotocols: []string{wire.Subprotocol}, HandshakeTimeout: transporttest.Patience, EnableCompression: true}
	g, resp, err := d.Dial(n.url(), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = g.Close() })
	return &client{g, n.t}, resp
}

// Members with and without compression hear the same, live and from history,
// and what they say is understood.
func TestDeflateAndPlainMembersHearTheSame(t *testing.T) {
	n := deflating(t)
	small, resp := n.offering()
	if got := resp.Header.Get("Sec-WebSocket-Extensions"); !strings.Contains(got, "server_no_context_takeover") {
		t.Fatalf("got extensions %q, want permessage-deflate without context takeover", got)
	}
	plain := n.dial()
	for name, c := range map[string]*client{"sam": small, "pat": plain} {
		c.send(`{"type":"hello","guest":"` + name + `"}`)
		c.sees("welcome")
		c.send(`{"type":"join","room":"lobby"}`)
		c.sees("joined")
	}
	long := strings.Repeat("over and over ", 200)
	small.send(`{"type":"send","room":"lobby","text":"` + long + `"}`)
	for name, c := range map[string]*client{"sam": small, "pat": plain} {
		for got := ""; got == ""; {
			_, b, err := c.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			var e struct{ Type, Text string }
			if err := json.Unmarshal(b, &e); err != nil {
				t.Fatal(err)
			}
			if e.Type == "message" {
				got = e.Text
				if strings.TrimSpace(got) != strings.TrimSpace(long) {
					t.Errorf("%s: got %d bytes of text, want %d", name, len(got), len(long))
				}
			}
		}
	}
}

func TestDeflateIsAgreedOnOnlyWhereItCanBe(t *testing.T) {
	n := deflating(t)
	for offer, want := range map[string]bool{
		"permessage-deflate; client_max_window_bits":   true,
		"permessage-deflate; server_max_window_bits=9": false,
		"x-permessage-deflate":                         false,
		"permessage-bzip2":                             false,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.addr+"/v1/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Extensions": offer} {
			req.Header.Set(name, value)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get("Sec-WebSocket-Extensions") != ""; got != want {
			t.Errorf("%s: got agreed %v, want %v", offer, got, want)
		}
	}
	off := start(t, nil)
	if _, resp := off.offering(); resp.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Error("compression is on by default")
	}
}

// compressedFrame is one masked text frame with payload as it is.
func compressedFrame(payload []byte) []byte {
	b := []byte{final | 0x40 | websocket.TextMessage, masked | 127}
	b = binary.BigEndian.AppendUint64(b, uint64(len(payload)))
	return append(append(b, 0, 0, 0, 0), payload...) // the mask of zeros
}

// A frame of 60 KB that would become 60 MB, and one that is longer than a
// frame may be and becomes nothing, are refused alike.
func TestBombsAreRefused(t *testing.T) {
	var mega bytes.Buffer
	w, err := flate.NewWriter(&mega, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	bomb := bytes.Repeat(mega.Bytes(), 60) // blocks may follow each other
	if len(bomb) > 64<<10 {
		t.Fatalf("the bomb has %d bytes, more than a frame may have", len(bomb))
	}
	for name, payload := range map[string][]byte{
		"inflates to 60 MB":    bomb[:len(bomb)-4],
		"inflates to nothing":  bytes.Repeat([]byte("\x00\x00\x00\xff\xff"), 100_000/5),
		"is no deflate stream": {0xff, 0xff, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			n := deflating(t)
			c, _ := n.offering()
			c.t = t
			c.send(`{"type":"hello","guest":"ann"}`)
			c.sees("welcome")
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				_, _ = c.NetConn().Write(compressedFrame(payload))
			}()
			code := int(wire.CloseTooBig)
			if len(payload) == 3 {
				code = int(wire.CloseProtocol)
			} else if e := c.sees("error"); e["code"] != "frame_too_big" {
				t.Errorf("got %v, want frame_too_big", e)
			}
			c.closed(code)
			<-sent
			_ = c.Close()
			n.checkClose(wire.CloseCode(code))
		})
	}
}

// TestSuiteDeflated runs what both transports promise over compressed frames.
func TestSuiteDeflated(t *testing.T) {
	transporttest.Suite(t, func(t testing.TB, sessions *session.Server, secure *tls.Config) string {
		n := serve(t, sessions, secure, Config{Deflate: true})
		if secure != nil {
			return "wss://" + n.addr + "/v1/ws"
		}
		return n.url()
	}, transporttest.Deflate)
}
