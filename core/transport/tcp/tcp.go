// Package tcp carries sessions over plain TCP: the objects of protocol v1,
// one to a line. It can be used by hand with nc.
package tcp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"parley/core/chat"
	"parley/core/session"
	"parley/core/transport/intake"
	"parley/core/transport/stream"
	"parley/core/wire"
)

// readBuffer holds most commands, and is all an idle connection keeps.
const readBuffer = 256

// Server serves one listener.
type Server struct {
	sessions *session.Server
	log      *slog.Logger
	intake   *intake.Intake // of the connections
	refusing atomic.Int32   // connections that are being turned away
}

// A refused client is given refusalTime to read why; beyond maxRefusing at
// once, connections are cut without it, so that a flood costs nothing more.
const (
	refusalTime = time.Second
	maxRefusing = 256
)

// New returns a server; see Serve. in reads the connections; nil: an intake
// that does not park.
func New(in *intake.Intake, sessions *session.Server, log *slog.Logger) *Server {
	if in == nil {
		in = new(intake.Intake)
	}
	return &Server{intake: in, sessions: sessions, log: log}
}

// Serve accepts connections until ln is closed, which is no error. The
// connections live on; see Wait.
func (s *Server) Serve(ln net.Listener) error {
	defer s.intake.Hold()()                               // so that Wait waits for Serve, and nothing is added to none
	ctx, stop := context.WithCancel(context.Background()) // handshakes end with the listener
	defer stop()
	pause := 5 * time.Millisecond // after an error, doubled to 1 s: file descriptors may be short
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			s.log.Warn("tcp connection could not be accepted", slog.Any("error", err))
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		s.intake.Go(func() { s.serve(ctx, c) })
	}
}

// Wait returns when Serve has, and every connection has ended.
func (s *Server) Wait() { s.intake.Wait() }

// serve makes a link of the connection and leaves it to the intake.
func (s *Server) serve(ctx context.Context, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	ip := stream.RemoteIP(c) // waits for the PROXY header where one is due
	if !stop() {
		_ = c.Close()
		return
	}
	release, refused := s.sessions.Admit(ip)
	if refused != nil {
		s.turnAway(c, refused)
		_ = c.Close()
		return
	}
	hello := stream.Settle(c, s.sessions.Config().HandshakeTimeout)
	if err := stream.Handshake(ctx, c, hello); err != nil {
		s.log.Debug("tls handshake ended without a connection", slog.Any("error", err))
		_ = c.Close()
		release()
		return
	}
	c = stream.Bare(c)
	l := &link{c: c, in: lines{r: bufio.NewReaderSize(c, readBuffer), limit: s.sessions.Config().FrameBytes}, release: release}
	_ = c.SetReadDeadline(hello) // before there is a session, whose end sets a nearer one
	socket, raw := stream.New(c), syscall.RawConn(nil)
	if s.intake.Parks() {
		socket, raw = stream.Waking(socket, l.Wake), stream.Descriptor(c)
	}
	l.x = s.sessions.Start(session.Conn{Transport: "tcp", Remote: ip, Socket: socket})
	s.intake.Start(&l.Reader, l, raw)
}

// turnAway tells a client above the limits why it is not served.
func (s *Server) turnAway(c net.Conn, e *chat.Error) {
	defer s.refusing.Add(-1)
	if s.refusing.Add(1) > maxRefusing {
		return
	}
	_ = c.SetDeadline(time.Now().Add(refusalTime)) // over TLS the first write reads too
	code := wire.CloseTooMany
	if e.Code == chat.CodeGoingAway {
		code = wire.CloseRestart
	}
	_, _ = c.Write(append(wire.Encode(wire.ErrorOf("", "", e)).Line(),
		wire.Encode(wire.CloseEvent{Type: wire.Close, Code: int(code), Reason: string(e.Code), Reconnect: true, RetryAfterMS: e.Retry.Milliseconds()}).Line()...))
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		stream.Linger(c, refusalTime)
	}
}

// link is one connection, read by the server's intake.
type link struct {
	intake.Reader
	c       net.Conn
	in      lines
	x       *session.Session
	release func() // gives back what Admit counted
	err     error  // of waiting
	ended   bool
	greeted bool
	held    bool // answers are held back
}

// Fill implements intake.Connection. The kernel says why a connection ended
// only once.
func (l *link) Fill() { _, l.err = l.in.r.Peek(1) }

// Over implements intake.Connection.
func (l *link) Over() bool { return l.ended }

// Drained implements intake.Connection. Up to hello there is a deadline.
func (l *link) Drained() bool { return l.greeted && l.in.r.Buffered() == 0 }

// Closed implements intake.Connection.
func (l *link) Closed() bool { return l.x.Closed() }

// Finish implements intake.Connection.
func (l *link) Finish() {
	l.x.End()
	stream.Linger(l.c, stream.LingerTime)
	_ = l.c.Close()
	l.release()
}

// Run implements crew.Task: it carries out what has arrived, and what is on
// its way where only the beginning of a line has.
func (l *link) Run() {
	for !l.ended {
		l.ended = !l.next()
		if l.in.r.Buffered() == 0 {
			break
		}
	}
	l.letGo()
}

// carryOut hands one line to the session. Answers to lines that came together
// leave in one write.
func (l *link) carryOut(line []byte) (open bool) {
	more := l.in.another()
	if more && !l.held {
		l.held = true
		l.x.Peer().Hold()
	}
	open = l.x.Receive(l.x.Context(), line)
	if !more {
		l.letGo()
	}
	return open
}

// letGo sends what was held back.
func (l *link) letGo() {
	if l.held {
		l.held = false
		l.x.Peer().Release()
	}
}

// next reads one line and carries it out.
func (l *link) next() (open bool) {
	line, err := []byte(nil), l.err
	if err == nil {
		line, err = l.in.next()
	}
	switch {
	case errors.Is(err, errLong):
		l.x.Fail(wire.CloseTooBig, chat.Errorf(chat.CodeFrameTooBig, "the line has more than the %d bytes that are allowed", l.in.limit))
		return false
	case errors.Is(err, os.ErrDeadlineExceeded) && !l.x.Greeted():
		l.x.Fail(wire.CloseHandshake, &chat.Error{Code: chat.CodeUnauthorized, Text: "no hello arrived in time; connect again and say hello first", Retry: time.Second})
		return false
	case errors.Is(err, syscall.ETIMEDOUT):
		l.x.KernelGaveUp()
		return false
	case err != nil:
		l.x.Close(wire.CloseNormal, "connection ended")
		return false
	case len(line) == 0 && !l.x.Closed(): // typed by hand
		if !l.in.another() {
			l.letGo()
		}
		return true
	}
	open = l.carryOut(line)
	if !open {
		return false
	}
	if !l.greeted && l.x.Greeted() {
		l.greeted = true
		_ = l.c.SetReadDeadline(time.Time{})
		return !l.x.Closed() // meanwhile; that it shuts the connection down soon is undone now
	}
	return true
}

var errLong = errors.New("tcp: line too long")

// lines splits a stream into lines without keeping more than one of them.
type lines struct {
	r     *bufio.Reader
	limit int // 0 = no limit
	long  []byte
}

// next returns the next line without its end; it is valid until the next
// call. A last line without an end is dropped: it may be half of one.
func (l *lines) next() ([]byte, error) {
	l.long = nil
	for {
		part, err := l.r.ReadSlice('\n')
		if l.limit > 0 && len(l.long)+len(part) > l.limit+2 { // CR LF
			return nil, errLong
		}
		switch {
		case err == nil && l.long == nil:
			return l.fit(part)
		case err == nil:
			l.long = append(l.long, part...)
			return l.fit(l.long)
		case errors.Is(err, bufio.ErrBufferFull):
			l.long = append(l.long, part...)
		default:
			return nil, err
		}
	}
}

// another reports whether a whole line waits.
func (l *lines) another() bool {
	b, _ := l.r.Peek(l.r.Buffered())
	return bytes.IndexByte(b, '\n') >= 0
}

func (l *lines) fit(line []byte) ([]byte, error) {
	line = bytes.TrimRight(line, "\r\n")
	if l.limit > 0 && len(line) > l.limit {
		return nil, errLong
	}
	return line, nil
}

// Run serves ln until ctx ends.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	return s.Serve(ln)
}
