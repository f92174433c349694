// Package ws carries sessions over WebSocket (RFC 6455) with gorilla.
//
// The HTTP handler upgrades and returns, so net/http keeps neither its
// buffers nor its goroutine. What remains is a connection of an intake (package
// intake), which waits for bytes and has a crew carry out what they say.
// gorilla only reads: answers to pings and close frames go through the
// connection's room.Peer like every other byte, because a frame of ours may be
// half out, and what gorilla would write by itself is dropped.
package ws

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"parley/core/chat"
	"parley/core/session"
	"parley/core/transport/intake"
	"parley/core/transport/proxy"
	"parley/core/transport/stream"
	"parley/core/wire"
)

// Most commands fit in one read of readBuffer bytes, and an idle connection
// holds no more. gorilla takes a given reader only above 256 bytes.
const (
	readBuffer  = 257
	writeBuffer = 512 // pooled; for the handshake's answer
)

// keepBuffer is the largest message buffer that goes back to the pool.
const keepBuffer = 16 << 10

// Handler upgrades requests and serves them as sessions.
type Handler struct {
	sessions *session.Server
	origins  map[string]struct{}
	proxies  proxy.Networks
	compress bool
	log      *slog.Logger
	upgrader websocket.Upgrader
	intake   *intake.Intake // of the connections
	refused  atomic.Uint64
}

// Config is the handler's configuration.
type Config struct {
	Origins []string       // web origins allowed besides the server's own host, as "https://chat.example"
	Proxies proxy.Networks // whose X-Forwarded-For is believed
	Deflate bool           // agree to permessage-deflate (RFC 7692)
	Intake  *intake.Intake // reads the connections; nil: one that does not park
}

// New returns a handler.
func New(cfg Config, sessions *session.Server, log *slog.Logger) *Handler {
	h := &Handler{sessions: sessions, origins: make(map[string]struct{}), proxies: cfg.Proxies, compress: cfg.Deflate, log: log}
	if h.intake = cfg.Intake; h.intake == nil {
		h.intake = new(intake.Intake)
	}
	for _, o := range cfg.Origins {
		h.origins[strings.ToLower(o)] = struct{}{}
	}
	h.upgrader = websocket.Upgrader{
		WriteBufferSize:  writeBuffer,
		WriteBufferPool:  new(sync.Pool),
		Subprotocols:     []string{wire.Subprotocol},
		CheckOrigin:      h.allowed,
		HandshakeTimeout: 10 * time.Second,
		Error:            h.refuse,
	}
	return h
}

// RefusedOrigins returns how many upgrades were refused for their Origin.
func (h *Handler) RefusedOrigins() uint64 { return h.refused.Load() }

// Wait returns when every connection has ended. Call it when no request can
// come any more: after http.Server.Shutdown.
func (h *Handler) Wait() { h.intake.Wait() }

// allowed checks the Origin (RFC 6455 §10.2): browsers always send it, other
// clients need not.
func (h *Handler) allowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	if _, ok := h.origins[strings.ToLower(origin)]; ok {
		return true
	}
	u, err := url.Parse(origin)
	if err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) {
		return true
	}
	h.refused.Add(1)
	return false
}

// refuse answers a request that gorilla would not upgrade.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, status int, reason error) {
	text := reason.Error()
	if status == http.StatusForbidden {
		origin := r.Header.Get("Origin")
		text = "this page's origin " + strings.ToValidUTF8(origin[:min(len(origin), 200)], "?") + " may not open a connection; the operator can add it to origins"
	}
	w.Header().Set("Sec-WebSocket-Version", "13")
	answer(w, status, chat.Errorf(chat.CodeBadRequest, "%s", text))
}

func answer(w http.ResponseWriter, status int, e *chat.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Connection", "close") // nobody counts it any more
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(wire.ErrorOf("", "", e))
}

// ServeHTTP implements http.Handler. It returns as soon as the connection is
// upgraded.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		answer(w, http.StatusInternalServerError, chat.Errorf(chat.CodeInternal, "the server lost track of this connection"))
		return
	}
	defer h.intake.Hold()() // while http.Server.Shutdown still waits for the request: it forgets what is taken over
	if l := h.upgrade(w, r, conn); l != nil {
		l.start()
	}
}

// upgrade answers the request and returns the connection it becomes, to be
// served; nil where it was refused.
func (h *Handler) upgrade(w http.ResponseWriter, r *http.Request, conn net.Conn) *link {
	stream.Release(conn) // it is counted as a session's from here on
	ip := h.proxies.Client(stream.RemoteIP(conn), r.Header["X-Forwarded-For"])
	release, refused := h.sessions.Admit(ip)
	if refused != nil {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(refused.Retry.Seconds())))))
		answer(w, http.StatusServiceUnavailable, refused)
		return nil
	}
	t := &tap{ResponseWriter: w}
	g, err := h.upgraderOf(r).Upgrade(t, r, nil)
	if err != nil { // refuse has answered
		release()
		return nil
	}
	l := &link{h: h, g: g, in: t.in, release: release}
	hello := stream.Settle(conn, h.sessions.Config().HandshakeTimeout)
	t.conn.Conn = stream.Bare(t.conn.Conn)
	_ = g.SetReadDeadline(hello) // before there is a session, whose end sets a nearer one
	socket := stream.New(t.conn.Conn)
	if h.intake.Parks() {
		socket = stream.Waking(socket, l.Wake)
	}
	l.x = h.sessions.Start(session.Conn{Transport: "ws", Remote: ip, Socket: socket, Deflate: t.conn.deflate})
	if limit := h.sessions.Config().FrameBytes; t.conn.deflate && limit > 0 {
		g.SetReadLimit(int64(limit)) // of compressed bytes, which might inflate to nothing for ever
		l.limited = true
	}
	t.conn.sealed.Store(true)
	g.SetPingHandler(func(data string) error { l.x.Ping([]byte(data)); return nil })
	g.SetPongHandler(func(data string) error { l.x.Pong([]byte(data)); return nil })
	g.SetCloseHandler(func(int, string) error { return nil }) // NextReader returns it; see ended
	return l
}

// link is one connection, read by the handler's intake.
type link struct {
	intake.Reader
	h       *Handler
	g       *websocket.Conn
	in      *bufio.Reader // what g reads from
	x       *session.Session
	release func() // gives back what Admit counted
	err     error  // of waiting
	ended   bool
	greeted bool
	held    bool // answers are held back
	limited bool // gorilla counts compressed bytes
}

// start begins to read.
func (l *link) start() {
	var raw syscall.RawConn
	if l.h.intake.Parks() {
		raw = stream.Descriptor(l.g.NetConn().(*tapConn).Conn)
	}
	l.h.intake.Start(&l.Reader, l, raw)
}

// Fill implements intake.Connection.
func (l *link) Fill() { _, l.err = l.in.Peek(1) }

// Over implements intake.Connection.
func (l *link) Over() bool { return l.ended }

// Drained implements intake.Connection. Up to hello there is a deadline.
func (l *link) Drained() bool { return l.greeted && l.in.Buffered() == 0 }

// Closed implements intake.Connection.
func (l *link) Closed() bool { return l.x.Closed() }

// Finish implements intake.Connection. The peer was told why; its answer may
// arrive so that ours is not reset.
func (l *link) Finish() {
	l.x.End()
	_ = l.g.SetReadDeadline(time.Now().Add(stream.LingerTime))
	for {
		if _, _, err := l.g.NextReader(); err != nil { // passes over the message before it, and inflates nothing
			break
		}
	}
	_ = l.g.Close()
	l.release()
}

// Run implements crew.Task: it carries out what has arrived, and what is on
// its way where only the beginning of a frame has.
func (l *link) Run() {
	if l.err != nil { // the kernel says why a connection ended only once
		l.broke(l.err)
		l.ended = true
	}
	for !l.ended {
		l.ended = !l.control() && !l.next()
		if l.in.Buffered() == 0 {
			break
		}
	}
	l.letGo()
}

// The first two bytes of a whole control frame from a client, and where its
// payload begins (RFC 6455 §5.2, §5.5).
const (
	opPing, opPong = websocket.PingMessage, websocket.PongMessage
	final          = 0x80
	masked         = 0x80
	maxControl     = 125
	controlHeader  = 2 + 4 // with the mask
)

// control carries out a ping or pong that has arrived whole between two
// messages. Left to gorilla, it would keep a worker until the next message:
// NextReader returns for nothing less. A frame that is not like this is left
// to it all the same.
func (l *link) control() bool {
	head, err := l.in.Peek(2)
	if err != nil {
		return false
	}
	op, n := head[0], int(head[1])-masked
	if op != final|opPing && op != final|opPong || n < 0 || n > maxControl || l.in.Buffered() < controlHeader+n {
		return false
	}
	f, err := l.in.Peek(controlHeader + n)
	if err != nil {
		return false
	}
	mask, payload := f[2:controlHeader], f[controlHeader:]
	for i := range payload { // in place: the bytes are read once
		payload[i] ^= mask[i%4]
	}
	if op == final|opPing {
		l.x.Ping(payload)
	} else {
		l.x.Pong(payload)
	}
	_, _ = l.in.Discard(len(f))
	if !l.another() {
		l.letGo()
	}
	return true
}

// next reads one message and carries it out.
func (l *link) next() (open bool) {
	kind, r, err := l.g.NextReader()
	if err != nil {
		l.broke(err)
		return false
	}
	if kind != websocket.TextMessage {
		l.x.Fail(wire.CloseBinary, chat.Errorf(chat.CodeBadRequest, "binary messages are not part of this protocol; send JSON in text frames"))
		return false
	}
	if !l.receive(r) {
		return false
	}
	if !l.greeted && l.x.Greeted() {
		l.greeted = true
		_ = l.g.SetReadDeadline(time.Time{})
		return !l.x.Closed() // meanwhile; that it shuts the connection down soon is undone now
	}
	return true
}

// message is what reading one message needs, kept for the next.
type message struct {
	buf   bytes.Buffer
	bound io.LimitedReader
}

var messages = sync.Pool{New: func() any { return new(message) }}

// receive reads one message and hands it to the session.
func (l *link) receive(r io.Reader) (open bool) {
	x, limit := l.x, l.h.sessions.Config().FrameBytes
	m := messages.Get().(*message)
	buf := &m.buf
	defer func() {
		if buf.Cap() <= keepBuffer {
			buf.Reset()
			m.bound.R = nil
			messages.Put(m)
		}
	}()
	if limit > 0 {
		m.bound = io.LimitedReader{R: r, N: int64(limit) + 1}
		r = &m.bound
	}
	if _, err := buf.ReadFrom(r); err != nil {
		l.broke(err)
		return false
	}
	switch {
	case limit > 0 && buf.Len() > limit:
		x.Fail(wire.CloseTooBig, chat.Errorf(chat.CodeFrameTooBig, "the frame has more than the %d bytes that are allowed", limit))
		return false
	case !utf8.Valid(buf.Bytes()): // RFC 6455 §8.1
		x.Fail(wire.CloseUTF8, chat.Errorf(chat.CodeBadRequest, "a text frame must be UTF-8"))
		return false
	}
	// Answers to commands that came together leave in one write.
	more := l.another()
	if more && !l.held {
		l.held = true
		x.Peer().Hold()
	}
	open = x.Receive(x.Context(), buf.Bytes())
	if !more {
		l.letGo()
	}
	return open
}

// another reports whether a whole frame waits behind the message just read. One
// that is not the last of its message is none: the rest may be long in coming.
func (l *link) another() bool {
	n := l.in.Buffered()
	f, err := l.in.Peek(min(n, 4))
	if err != nil || len(f) < 4 || f[0]&final == 0 {
		return false
	}
	size, header := int(f[1]&^masked), controlHeader
	switch {
	case size == 126:
		size, header = int(f[2])<<8|int(f[3]), header+2
	case size > 126: // more than the buffer holds
		return false
	}
	return n >= header+size
}

// letGo sends what was held back.
func (l *link) letGo() {
	if l.held {
		l.held = false
		l.x.Peer().Release()
	}
}
