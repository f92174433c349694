package ws

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/core/transport/stream"
	"parley/core/wire"
)

// Front stands between a listener and an http.Server. It reads what a
// connection says first. An upgrade to a WebSocket, written as clients write
// it, goes to the Handler at once; any other connection goes to Accept with
// all its bytes, and so does what Front finds odd: it judges no request, it
// only knows one. That saves each client net/http's goroutines and buffers,
// which live for the length of one request.
//
// Run must run for Accept to return anything.
type Front struct {
	ln   *stream.Listener
	h    *Handler
	path string
	rest chan net.Conn
	done chan struct{} // closed by Close
	once sync.Once

	mu      sync.Mutex
	waiting map[net.Conn]struct{} // have not said all of a header yet; nil after Close
}

// Front returns a front for ln that knows upgrades at path.
func (h *Handler) Front(ln *stream.Listener, path string) *Front {
	return &Front{ln: ln, h: h, path: path, rest: make(chan net.Conn), done: make(chan struct{}), waiting: make(map[net.Conn]struct{})}
}

// Accept implements net.Listener.
func (f *Front) Accept() (net.Conn, error) {
	select {
	case c := <-f.rest:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (f *Front) Addr() net.Addr { return f.ln.Addr() }

// Close implements net.Listener: it closes the listener and the connections
// that have not said all of a header yet. It may be called twice.
func (f *Front) Close() (err error) {
	f.once.Do(func() {
		err = f.ln.Close()
		close(f.done)
		f.mu.Lock()
		waiting := f.waiting
		f.waiting = nil
		f.mu.Unlock()
		for c := range waiting {
			_ = c.Close()
		}
	})
	return err
}

// Run accepts connections until Close, or until ctx ends, which closes.
func (f *Front) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer stop()
	defer f.h.intake.Hold()()     // so that Wait waits for Run, and nothing is added to none
	pause := 5 * time.Millisecond // after an error, doubled to 1 s: file descriptors may be short
	for {
		c, err := f.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			f.h.log.Warn("connection could not be accepted", slog.Any("error", err))
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		f.h.intake.Go(func() { f.greet(c) })
	}
}

// pass leaves the connection to net/http.
func (f *Front) pass(c net.Conn) {
	select {
	case f.rest <- c:
	case <-f.done:
		_ = c.Close()
	}
}

// greet serves one connection as long as it is a WebSocket.
func (f *Front) greet(c net.Conn) {
	if !stream.Plain(c) { // net/http sees to TLS
		f.pass(c)
		return
	}
	if l := f.open(c); l != nil {
		l.start()
	}
}

// open waits for the request and has the crew answer it.
func (f *Front) open(c net.Conn) *link {
	if !f.wait(c) {
		return nil
	}
	o := &opening{f: f, c: c, in: bufio.NewReaderSize(c, readBuffer)}
	if _, err := o.in.Peek(1); err != nil {
		f.forget(c)
		_ = c.Close()
		return nil
	}
	f.h.intake.Do(o)
	return o.link
}

// wait notes that c is to be closed with f; false when f is closed already.
func (f *Front) wait(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting == nil {
		_ = c.Close()
		return false
	}
	f.waiting[c] = struct{}{}
	return true
}

// forget undoes wait.
func (f *Front) forget(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiting, c)
}

// opening is the answer to a connection's first request, done by the crew.
type opening struct {
	f    *Front
	c    net.Conn
	in   *bufio.Reader
	link *link // nil where the connection was passed on or refused
}

// headBytes bounds a request that Front looks at.
const headBytes = 4 << 10

var (
	heads   = sync.Pool{New: func() any { return new([headBytes]byte) }}
	headers = sync.Pool{New: func() any { return make(http.Header, upgradeHeaders) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, writeBuffer) }}
)

// headEnd ends a request's header (RFC 9112 §2.1).
var headEnd = []byte("\r\n\r\n")

// Run implements crew.Task.
func (o *opening) Run() {
	buf := heads.Get().(*[headBytes]byte)
	defer heads.Put(buf)
	n, err := o.read(buf[:])
	o.f.forget(o.c)
	if err != nil {
		_ = o.c.Close()
		return
	}
	fields := headers.Get().(http.Header) // nothing of a request outlives its answer
	defer func() { clear(fields); headers.Put(fields) }()
	r := parseUpgrade(buf[:n], o.f.path, fields)
	if r == nil {
		behind, _ := o.in.Peek(o.in.Buffered()) // what was read with the last of buf and did not fit
		stream.Unread(o.c, slices.Concat(buf[:n], behind))
		o.f.pass(o.c)
		return
	}
	r.RemoteAddr = o.c.RemoteAddr().String()
	w := &responder{c: o.c, in: o.in, out: writers.Get().(*bufio.Writer)}
	defer func() { w.out.Reset(nil); writers.Put(w.out) }() // not to keep the connection
	o.link = o.f.h.upgrade(w, r, o.c)
	if o.link == nil {
		_ = o.c.Close()
	}
}

// read reads to the end of the header, to what shows that it is an odd one, or
// what fits.
func (o *opening) read(buf []byte) (n int, err error) {
	for n < len(buf) {
		m, err := o.in.Read(buf[n:]) // first what is buffered, then straight from the connection
		from, begin := max(0, n-len(headEnd)+1), n
		n += m
		if bytes.Contains(buf[from:n], headEnd) || bareFeed(buf[:n], begin) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// bareFeed reports whether a line of b ends, at from or later, with LF alone,
// which servers may take for CR LF (RFC 9112 §2.2): such a header may be at its
// end without headEnd.
func bareFeed(b []byte, from int) bool {
	for i := from; i < len(b); i++ {
		if b[i] == '\n' && (i == 0 || b[i-1] != '\r') {
			return true
		}
	}
	return false
}

// upgradeHeaders bounds the fields of a request that Front takes.
const upgradeHeaders = 40

// parseUpgrade returns the request in head if it is a plain GET of path with
// HTTP/1.1, an Upgrade field, one Host and no body, whose fields are of the
// simple form that every client sends (RFC 9112 §3, §5); else nil. head must
// end with the header. The fields go into h, which is empty.
func parseUpgrade(head []byte, path string, h http.Header) *http.Request {
	text, ok := strings.CutSuffix(string(head), "\r\n\r\n")
	if !ok {
		return nil
	}
	line, fields, _ := strings.Cut(text, "\r\n")
	target, ok := strings.CutPrefix(line, "GET ")
	if !ok {
		return nil
	}
	if target, ok = strings.CutSuffix(target, " HTTP/1.1"); !ok {
		return nil
	}
	query := ""
	if target != path {
		if query, ok = strings.CutPrefix(target, path+"?"); !ok || !printable(query) || strings.ContainsAny(query, " #") {
			return nil
		}
	}
	if !parseFields(fields, h) || h["Upgrade"] == nil || len(h["Host"]) != 1 {
		return nil
	}
	host := h["Host"][0]
	if host == "" || strings.Trim(host, hostBytes) != "" {
		return nil
	}
	delete(h, "Host") // as net/http has it
	return &http.Request{Method: http.MethodGet, URL: &url.URL{Path: path, RawQuery: query}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: http.NoBody, Host: host, RequestURI: target}
}

// hostBytes may be in a Host field that Front takes.
const hostBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]"

func parseFields(fields string, h http.Header) bool {
	values := make([]string, 0, 16) // one array for the fields that clients send
	for n := 0; fields != ""; n++ {
		var field string
		field, fields, _ = strings.Cut(fields, "\r\n")
		name, value, ok := strings.Cut(field, ":")
		if !ok || !token(name) || n == upgradeHeaders {
			return false
		}
		value = strings.Trim(value, " \t")
		if !printable(value) {
			return false
		}
		name = http.CanonicalHeaderKey(name)
		switch name {
		case "Content-Length", "Transfer-Encoding", "Expect", "Trailer", "Te":
			return false
		case "Sec-Websocket-Protocol":
			if value == wire.Subprotocol {
				value = wire.Subprotocol // gorilla keeps it: not a part of the whole request
			}
		}
		if old := h[name]; old != nil {
			h[name] = append(old[:len(old):len(old)], value)
			continue
		}
		values = append(values, value)
		h[name] = values[len(values)-1:]
	}
	return true
}

// token reports whether s is a field name of letters, digits and dashes.
func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return s != ""
}

// printable reports whether s is visible ASCII, blanks and tabs.
func printable(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != '\t' && (c < ' ' || c > '~') {
			return false
		}
	}
	return true
}

// responder is the http.ResponseWriter of an upgrade that net/http never saw.
// A refusal ends the connection.
type responder struct {
	c      net.Conn
	in     *bufio.Reader
	out    *bufio.Writer // gorilla borrows its buffer
	header http.Header
	wrote  bool
}

// Header implements http.ResponseWriter.
func (w *responder) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}

// WriteHeader implements http.ResponseWriter.
func (w *responder) WriteHeader(status int) {
	if w.wrote {
		return
	}
	w.wrote = true
	w.Header().Set("Connection", "close") // and so no length is needed (RFC 9112 §6.3)
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	_ = w.header.Write(&b)
	b.WriteString("\r\n")
	_, _ = w.c.Write(b.Bytes())
}

// Write implements http.ResponseWriter.
func (w *responder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.c.Write(p)
}

// Hijack implements http.Hijacker.
func (w *responder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.c, bufio.NewReadWriter(w.in, w.out), nil
}
