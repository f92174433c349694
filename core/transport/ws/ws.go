// Package ws carries sessions over WebSocket (RFC 6455) with gorilla.
//
// The HTTP handler upgrades and returns, so net/http keeps neither its
// buffers nor its goroutine; one reader goroutine a connection remains.
// gorilla only reads: whatever it would write by itself (answers to pings,
// close frames after a protocol error) goes through the connection's
// room.Peer like every other byte, because a frame of ours may be half out.
package ws

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"parley/core/chat"
	"parley/core/session"
	"parley/core/transport/stream"
	"parley/core/wire"
)

// readBuffer is gorilla's own buffer: most commands fit in one read, and an
// idle connection holds no more.
const readBuffer = 512

// keepBuffer is the largest message buffer that goes back to the pool.
const keepBuffer = 16 << 10

// Handler upgrades requests and serves them as sessions.
type Handler struct {
	sessions *session.Server
	origins  map[string]struct{}
	log      *slog.Logger
	upgrader websocket.Upgrader
	readers  sync.WaitGroup
	refused  atomic.Uint64
}

// New returns a handler. origins are the web origins allowed besides the
// server's own host, as "https://chat.example".
func New(sessions *session.Server, origins []string, log *slog.Logger) *Handler {
	h := &Handler{sessions: sessions, origins: make(map[string]struct{}), log: log}
	for _, o := range origins {
		h.origins[strings.ToLower(o)] = struct{}{}
	}
	h.upgrader = websocket.Upgrader{
		ReadBufferSize:   readBuffer,
		WriteBufferSize:  readBuffer,
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

// Wait returns when every connection has ended.
func (h *Handler) Wait() { h.readers.Wait() }

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
	if err == nil && strings.EqualFold(u.Host, r.Host) {
		return true
	}
	h.refused.Add(1)
	return false
}

// refuse answers a request that gorilla would not upgrade.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, status int, reason error) {
	text := reason.Error()
	if status == http.StatusForbidden {
		text = "this page's origin " + strings.ToValidUTF8(r.Header.Get("Origin"), "?") + " may not open a connection; the operator can add it to origins"
	}
	w.Header().Set("Sec-WebSocket-Version", "13")
	answer(w, status, chat.Errorf(chat.CodeBadRequest, "%s", text))
}

func answer(w http.ResponseWriter, status int, e *chat.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(wire.ErrorOf("", "", e))
}

// ServeHTTP implements http.Handler. It returns as soon as the connection is
// upgraded.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tap := &tap{ResponseWriter: w}
	conn, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		answer(w, http.StatusInternalServerError, chat.Errorf(chat.CodeInternal, "the server lost track of this connection"))
		return
	}
	ip := stream.RemoteIP(conn)
	release, refused := h.sessions.Admit(ip)
	if refused != nil {
		w.Header().Set("Retry-After", "5")
		answer(w, http.StatusServiceUnavailable, refused)
		return
	}
	g, err := h.upgrader.Upgrade(tap, r, nil)
	if err != nil { // refuse has answered
		release()
		return
	}
	x := h.sessions.Start(session.Conn{Transport: "ws", Remote: ip, Socket: stream.New(tap.conn.Conn)})
	tap.conn.through.Store(x)
	h.readers.Go(func() {
		defer release()
		h.serve(g, x)
	})
}

// serve reads until the connection ends.
func (h *Handler) serve(g *websocket.Conn, x *session.Session) {
	defer g.Close()
	g.SetPingHandler(func(data string) error { x.Ping([]byte(data)); return nil })
	g.SetPongHandler(func(string) error { x.Pong(); return nil })
	g.SetCloseHandler(func(int, string) error { return nil }) // NextReader returns it; see ended
	h.read(g, x)
	x.End()
	// The peer was told why; let its answer arrive so that ours is not reset.
	for {
		if _, r, err := g.NextReader(); err != nil {
			return
		} else if _, err := io.Copy(io.Discard, r); err != nil {
			return
		}
	}
}

func (h *Handler) read(g *websocket.Conn, x *session.Session) {
	cfg := h.sessions.Config()
	waiting := cfg.HandshakeTimeout > 0
	if waiting {
		_ = g.SetReadDeadline(time.Now().Add(cfg.HandshakeTimeout))
	}
	for {
		kind, r, err := g.NextReader()
		if err != nil {
			ended(x, err)
			return
		}
		if kind != websocket.TextMessage {
			x.Fail(wire.CloseBinary, chat.Errorf(chat.CodeBadRequest, "binary messages are not part of this protocol; send JSON in text frames"))
			return
		}
		if !h.message(r, x, cfg.FrameBytes) {
			return
		}
		if waiting && x.Greeted() {
			waiting = false
			_ = g.SetReadDeadline(time.Time{})
		}
	}
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// message reads one message and hands it to the session.
func (h *Handler) message(r io.Reader, x *session.Session, limit int) (open bool) {
	buf := buffers.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= keepBuffer {
			buf.Reset()
			buffers.Put(buf)
		}
	}()
	if limit > 0 {
		r = io.LimitReader(r, int64(limit)+1)
	}
	if _, err := buf.ReadFrom(r); err != nil {
		ended(x, err)
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
	return x.Receive(x.Context(), buf.Bytes())
}

// ended tells the session why reading ended.
func ended(x *session.Session, err error) {
	var closed *websocket.CloseError
	switch {
	case errors.As(err, &closed):
		x.Close(wire.CloseNormal, "client closed")
	case errors.Is(err, os.ErrDeadlineExceeded) && !x.Greeted():
		x.Fail(wire.CloseHandshake, &chat.Error{Code: chat.CodeUnauthorized, Text: "no hello arrived in time; connect again and say hello first", Retry: -1})
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		x.Close(wire.CloseNormal, "connection ended")
	default:
		x.Close(wire.CloseProtocol, "protocol error")
	}
}
