package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"parley/core/wire"
)

const (
	textMessage      = websocket.TextMessage
	binaryMessage    = websocket.BinaryMessage
	closedAbnormally = wire.CloseCode(websocket.CloseAbnormalClosure)
)

// stream is one connection's bytes. read belongs to the reader; write and
// goodbye are called one at a time; close from anywhere, more than once.
type stream interface {
	read() ([]byte, error) // one frame, valid until the next read
	write(kind int, frame []byte, deadline time.Time) error
	goodbye(deadline time.Time)
	silence(limit time.Duration) // how long nothing may come; 0 = for ever
	close()
}

// HandshakeError says that the server refused the WebSocket handshake.
type HandshakeError struct {
	Status int    // HTTP status
	Body   string // the first bytes of the answer
	// RetryAfter is the wait that the server asks for (RFC 9110 §10.2.3); 0 =
	// unsaid.
	RetryAfter time.Duration
	Cause      error
}

// Error names the status and what the server said.
func (e *HandshakeError) Error() string {
	return fmt.Sprintf("websocket handshake refused with HTTP status %d: %s", e.Status, strings.TrimSpace(e.Body))
}

// Unwrap returns the cause.
func (e *HandshakeError) Unwrap() error { return e.Cause }

func open(ctx context.Context, opt *Options) (stream, error) {
	u, err := url.Parse(opt.URL)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	switch u.Scheme {
	case "ws", "wss":
		return openWS(ctx, opt)
	case "tcp", "tls":
		nc, err := opt.NetDial(ctx, "tcp", u.Host)
		if err == nil && u.Scheme == "tls" {
			nc, err = secure(ctx, nc, u.Hostname(), opt.TLS)
		}
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", opt.URL, err)
		}
		return newLines(nc, opt.MaxFrame), nil
	}
	return nil, fmt.Errorf("dial %q: the scheme must be ws, wss, tcp or tls", opt.URL)
}

// secure does the handshake of TLS on nc, which it closes when that fails.
func secure(ctx context.Context, nc net.Conn, host string, cfg *tls.Config) (net.Conn, error) {
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	t := tls.Client(nc, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return t, nil
}

func openWS(ctx context.Context, opt *Options) (stream, error) {
	d := websocket.Dialer{
		NetDialContext:    opt.NetDial,
		Subprotocols:      []string{wire.Subprotocol},
		EnableCompression: opt.Compress,
		ReadBufferSize:    4 << 10,
		WriteBufferSize:   2 << 10,
		TLSClientConfig:   opt.TLS,
	}
	h := http.Header{}
	if opt.Origin != "" {
		h.Set("Origin", opt.Origin)
	}
	ws, resp, err := d.DialContext(ctx, opt.URL, h)
	if err != nil {
		if resp != nil && errors.Is(err, websocket.ErrBadHandshake) {
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
			_ = resp.Body.Close()
			seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
			return nil, &HandshakeError{Status: resp.StatusCode, Body: string(body), RetryAfter: time.Duration(max(0, seconds)) * time.Second, Cause: err}
		}
		return nil, fmt.Errorf("dial %s: %w", opt.URL, err)
	}
	if got := ws.Subprotocol(); got != wire.Subprotocol {
		_ = ws.Close()
		return nil, fmt.Errorf("dial %s: the server chose subprotocol %q, want %q", opt.URL, got, wire.Subprotocol)
	}
	s := &frames{ws: ws, silent: silent{conn: ws.NetConn()}}
	ws.SetReadLimit(int64(opt.MaxFrame))
	pong := ws.PingHandler()
	ws.SetPingHandler(func(data string) error {
		s.extend()
		return pong(data)
	})
	return s, nil
}

// silent closes the wait for a peer that has gone quiet.
type silent struct {
	conn  net.Conn
	limit atomic.Int64 // ns
}

func (s *silent) silence(limit time.Duration) {
	s.limit.Store(int64(limit))
	s.extend()
}

// extend is called right before each read, so that time spent in callbacks
// does not count as silence.
func (s *silent) extend() {
	if d := time.Duration(s.limit.Load()); d > 0 {
		_ = s.conn.SetReadDeadline(time.Now().Add(d))
	}
}

// frames is a WebSocket connection.
type frames struct {
	silent
	ws *websocket.Conn
}

func (s *frames) read() ([]byte, error) {
	s.extend()
	_, b, err := s.ws.ReadMessage()
	return b, err
}

func (s *frames) write(kind int, b []byte, deadline time.Time) error {
	if err := s.ws.SetWriteDeadline(deadline); err != nil {
		return err
	}
	return s.ws.WriteMessage(kind, b)
}

func (s *frames) goodbye(deadline time.Time) {
	_ = s.ws.WriteControl(websocket.CloseMessage,
		websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), deadline)
}

func (s *frames) close() { _ = s.ws.Close() }

// lines is a TCP connection of newline-delimited JSON.
type lines struct {
	silent
	in *bufio.Scanner
}

func newLines(nc net.Conn, limit int) *lines {
	s := &lines{silent: silent{conn: nc}, in: bufio.NewScanner(nc)}
	s.in.Buffer(make([]byte, 0, 4<<10), limit)
	s.in.Split(wholeLines)
	return s
}

// wholeLines is bufio.ScanLines but for a last line without its end: a broken
// connection leaves one, and half an event is none.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, bytes.TrimSuffix(data[:i], []byte{'\r'}), nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return 0, nil, nil
}

func (s *lines) read() ([]byte, error) {
	for {
		s.extend()
		if !s.in.Scan() {
			if err := s.in.Err(); err != nil {
				return nil, err
			}
			return nil, io.EOF
		}
		if b := s.in.Bytes(); len(b) > 0 {
			return b, nil
		}
	}
}

func (s *lines) write(_ int, b []byte, deadline time.Time) error {
	if err := s.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err := s.conn.Write(append(b[:len(b):len(b)], '\n'))
	return err
}

func (s *lines) goodbye(time.Time) {} // TCP says goodbye with FIN

func (s *lines) close() { _ = s.conn.Close() }

// closeErrorOf says how a read failed: by the server's close frame, by its
// farewell line, or by a broken connection.
func closeErrorOf(err error, said *CloseError) *CloseError {
	var ce *websocket.CloseError
	switch {
	case errors.As(err, &ce) && ce.Code != websocket.CloseAbnormalClosure:
		return &CloseError{Code: wire.CloseCode(ce.Code), Reason: ce.Text}
	case said != nil:
		return said
	}
	return &CloseError{Code: closedAbnormally, Cause: err}
}
