package ws

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"parley/core/session"
	"parley/core/transport/stream"
	"parley/core/transport/transporttest"
)

// upgrade is a request as a client writes it.
const upgrade = "GET /v1/ws HTTP/1.1\r\nHost: chat.example:8080\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

func TestParseUpgrade(t *testing.T) {
	with := func(field string) string { return strings.Replace(upgrade, "\r\n\r\n", "\r\n"+field+"\r\n\r\n", 1) }
	for name, tt := range map[string]struct {
		head string
		ok   bool
	}{
		"plain":                {upgrade, true},
		"with a query":         {strings.Replace(upgrade, "/v1/ws", "/v1/ws?a=b&c", 1), true},
		"a field twice":        {with("X-Forwarded-For: 10.0.0.1\r\nx-forwarded-for: 10.0.0.2"), true},
		"an empty value":       {with("X-Empty:"), true},
		"another path":         {strings.Replace(upgrade, "/v1/ws", "/v1/wss", 1), false},
		"the root":             {strings.Replace(upgrade, "/v1/ws", "/", 1), false},
		"an absolute target":   {strings.Replace(upgrade, "/v1/ws", "http://chat.example/v1/ws", 1), false},
		"POST":                 {strings.Replace(upgrade, "GET", "POST", 1), false},
		"HTTP/1.0":             {strings.Replace(upgrade, "HTTP/1.1", "HTTP/1.0", 1), false},
		"no upgrade":           {strings.Replace(upgrade, "Upgrade: websocket\r\n", "", 1), false},
		"no host":              {strings.Replace(upgrade, "Host: chat.example:8080\r\n", "", 1), false},
		"two hosts":            {with("Host: other.example"), false},
		"an odd host":          {strings.Replace(upgrade, "chat.example", "chat example", 1), false},
		"a body":               {with("Content-Length: 3"), false},
		"a chunked body":       {with("Transfer-Encoding: chunked"), false},
		"Expect":               {with("Expect: 100-continue"), false},
		"a folded line":        {with("X-Long: a\r\n b"), false},
		"a blank before colon": {with("X-Odd : a"), false},
		"a line without colon": {with("oops"), false},
		"a control character":  {with("X-Odd: a\x00b"), false},
		"beyond ASCII":         {with("X-Odd: \xc3\xa9"), false},
		"bytes behind":         {upgrade + "x", false},
		"the end is missing":   {strings.TrimSuffix(upgrade, "\r\n"), false},
		"too many fields":      {with(strings.Repeat("X-A: b\r\n", 60) + "X-B: c"), false},
		"nothing":              {"", false},
	} {
		if got := parseUpgrade([]byte(tt.head), "/v1/ws", http.Header{}) != nil; got != tt.ok {
			t.Errorf("%s: got taken %v, want %v", name, got, tt.ok)
		}
	}
}

// FuzzParseUpgrade: what Front takes, net/http reads alike.
func FuzzParseUpgrade(f *testing.F) {
	f.Add([]byte(upgrade))
	f.Add([]byte(strings.Replace(upgrade, "/v1/ws", "/v1/ws?x=%zz", 1)))
	f.Add([]byte(strings.Replace(upgrade, "\r\n\r\n", "\r\nOrigin: https://a.example\r\npragma: no-cache\r\n\r\n", 1)))
	f.Fuzz(func(t *testing.T, head []byte) {
		got := parseUpgrade(head, "/v1/ws", http.Header{})
		if got == nil {
			return
		}
		want, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
		if err != nil {
			t.Fatalf("net/http refuses what was taken: %v\n%q", err, head)
		}
		if want.Header.Get("Pragma") == "no-cache" { // net/http adds what HTTP/1.0 caches meant
			delete(want.Header, "Cache-Control")
			delete(got.Header, "Cache-Control")
		}
		if got.Method != want.Method || got.Host != want.Host || got.URL.Path != want.URL.Path || got.URL.RawQuery != want.URL.RawQuery ||
			got.RequestURI != want.RequestURI || !reflect.DeepEqual(got.Header, want.Header) {
			t.Errorf("got %+v\nwant %+v\nof %q", got, want, head)
		}
	})
}

// TestARequestInPieces: a request, and one that is not an upgrade, arrive byte
// by byte and are answered all the same.
func TestARequestInPieces(t *testing.T) {
	n := start(t, nil)
	for _, tt := range []struct{ request, want string }{
		{upgrade, "101 Switching Protocols"},
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "404 Not Found"},
		{"GET / HTTP/1.1\nHost: x\nConnection: close\n\n", "404 Not Found"}, // lines as some probes end them
		{"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: close\r\n\r\n", "400 Bad Request"},
		{strings.Replace(upgrade, "\r\n\r\n", "\r\nX-Long: "+strings.Repeat("x", 2*headBytes)+"\r\n\r\n", 1), "101 Switching Protocols"},
	} {
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(transporttest.Patience))
		for i := 0; i < len(tt.request); i += 7 {
			if _, err := c.Write([]byte(tt.request[i:min(len(tt.request), i+7)])); err != nil {
				t.Fatal(err)
			}
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.Contains(line, tt.want) {
			t.Errorf("%.40q: got %q, %v, want %s", tt.request, line, err, tt.want)
		}
		_ = c.Close()
	}
	n.awaitIdle()
}

// TestALongHeaderIsPassedOnWhole: what Front has read of a header that does
// not fit goes on to net/http to the last byte, however it was cut on its way.
func TestALongHeaderIsPassedOnWhole(t *testing.T) {
	request := "GET / HTTP/1.1\r\nHost: x\r\nCookie: " + strings.Repeat("0123456789", headBytes/10+readBuffer) + "\r\n\r\n"
	for _, first := range []int{1, headBytes - readBuffer, headBytes - 100, headBytes - 1, headBytes, headBytes + 1} {
		ln, err := stream.Listen(t.Context(), "127.0.0.1:0", stream.Options{})
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		f := New(Config{}, nil, nil).Front(ln, "/v1/ws")
		arrives := io.MultiReader(strings.NewReader(request[:first]), strings.NewReader(request[first:])) // two reads
		passed := make(chan net.Conn, 1)
		go func() { c, _ := f.Accept(); passed <- c }()
		(&opening{f: f, c: c, in: bufio.NewReaderSize(arrives, readBuffer)}).Run()
		left, _ := io.ReadAll(arrives)
		read := make([]byte, len(request)-len(left))
		_ = c.SetDeadline(time.Now().Add(transporttest.Patience))
		_ = client.Close() // nothing comes behind what was put back
		n, err := io.ReadFull(<-passed, read)
		if err != nil || string(read)+string(left) != request {
			t.Errorf("cut behind %d bytes: got %d bytes put back, %v, want %d", first, n, err, len(read))
		}
		_ = c.Close()
		_ = f.Close()
	}
}

// TestAnUpgradeBehindARequestHasItsOwnTime: a reverse proxy sends an upgrade on
// a connection that has served others for longer than a client has for hello.
func TestAnUpgradeBehindARequestHasItsOwnTime(t *testing.T) {
	ln, err := stream.Listen(t.Context(), "127.0.0.1:0", stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted := stream.Settle(c, time.Hour)
	State(c, http.StateNew)
	State(c, http.StateActive)
	if got := stream.Settle(c, time.Hour); !got.Equal(accepted) {
		t.Errorf("got %v for the first request, want an hour from Accept, %v", got, accepted)
	}
	State(c, http.StateIdle)
	asked := time.Now()
	State(c, http.StateActive)
	if got := stream.Settle(c, time.Hour); got.Before(asked.Add(time.Hour)) {
		t.Errorf("got %v for the second, want an hour from its header, %v or later", got, asked.Add(time.Hour))
	}
}

// TestCloseEndsTheSilent: connections that have said nothing end with the
// front.
func TestCloseEndsTheSilent(t *testing.T) {
	n := start(t, nil)
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n.dial() // whoever came before is in by now
	for range 2 {
		if err := n.front.Close(); err != nil && !strings.Contains(err.Error(), "closed") {
			t.Error(err)
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(transporttest.Patience))
	if _, err := c.Read(make([]byte, 1)); err == nil || err != io.EOF && !strings.Contains(err.Error(), "reset") {
		t.Errorf("got %v, want the end", err)
	}
	if _, err := n.front.Accept(); err != net.ErrClosed {
		t.Errorf("got %v from Accept after Close, want %v", err, net.ErrClosed)
	}
}

// A header that never ends does not keep the front from closing.
func TestCloseEndsHalfAHeader(t *testing.T) {
	n := start(t, func(c *session.Config) { c.HandshakeTimeout = 0 })
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(transporttest.Patience))
	if _, err := io.WriteString(c, "GET /v1/ws HTTP/1.1\r\nHost:"); err != nil {
		t.Fatal(err)
	}
	n.guest("ann") // so that the first has been accepted
	_ = n.front.Close()
	if _, err := io.ReadAll(c); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stays")
	}
}
