package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/wire"
)

// sink is a Socket that keeps what it is given.
type sink struct {
	mu     sync.Mutex
	news   *sync.Cond
	got    []byte
	full   bool          // takes nothing
	pace   time.Duration // what Write takes for 100 bytes, though full
	broken bool          // every write fails
	ended  bool          // Shutdown
	cut    bool          // Abort

	onWrite func([]byte) // sees what is written, before it is taken; set before there are writers
}

func newSink() *sink {
	s := &sink{}
	s.news = sync.NewCond(&s.mu)
	return s
}

func (s *sink) TryWrite(p []byte) (int, error) {
	if s.onWrite != nil {
		s.onWrite(p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.broken || s.cut:
		return 0, os.NewSyscallError("write", errors.New("broken pipe"))
	case s.full:
		return 0, nil
	}
	s.got = append(s.got, p...)
	s.news.Broadcast()
	return len(p), nil
}

func (s *sink) Write(p []byte, timeout time.Duration) (int, error) {
	late := false
	timer := time.AfterFunc(timeout, func() { s.set(func() { late = true }) })
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pace > 0 {
		s.mu.Unlock()
		time.Sleep(s.pace)
		s.mu.Lock()
		p = p[:min(len(p), 100)]
	}
	for s.full && s.pace == 0 && !s.cut {
		if late {
			return 0, os.ErrDeadlineExceeded
		}
		s.news.Wait()
	}
	if s.cut {
		return 0, net.ErrClosed
	}
	s.got = append(s.got, p...)
	s.news.Broadcast()
	return len(p), nil
}

func (s *sink) Shutdown() { s.set(func() { s.ended = true }) }
func (s *sink) Abort()    { s.set(func() { s.cut = true }) }

// taken returns what came since it was called last.
func (s *sink) taken() (b []byte) {
	s.set(func() { b, s.got = s.got, nil })
	return b
}

func (s *sink) shut() (ended bool) {
	s.set(func() { ended = s.ended })
	return ended
}

func (s *sink) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.news.Broadcast()
}

// event is any event of the protocol, as the tests look at it.
type event struct {
	Type, ID, Room, Epoch, User, Class, Session, Secret, Text, From, Nonce, Outcome, Event, Title, Mode, Reason string
	LastID                                                                                                      string `json:"last_id"`
	MessageID                                                                                                   string `json:"message_id"`
	Roles, Users                                                                                                []string
	Seq                                                                                                         uint64
	TS                                                                                                          int64
	Code                                                                                                        any
	Reasons                                                                                                     []chat.Reason
	Retryable, Repeat, Recovered, More, Reconnect                                                               bool
	RetryAfterMS                                                                                                int64 `json:"retry_after_ms"`
	HeartbeatMS                                                                                                 int64 `json:"heartbeat_ms"`
	Count                                                                                                       int
	Entries, Open, Decided                                                                                      []event
	ReviewID                                                                                                    string `json:"review_id"`
	Decision                                                                                                    string
	Appeal, By, Record                                                                                          any
	All, New                                                                                                    bool
	ExpiresTS                                                                                                   int64 `json:"expires_ts"`
	UntilTS                                                                                                     int64 `json:"until_ts"`
	Limits                                                                                                      map[string]int
	May                                                                                                         bool
	Blocks                                                                                                      []wire.WhyBlock
	Note, Revision                                                                                              string
}

// parse returns the complete events in b, which are lines, or WebSocket text
// frames whose payload ends with a newline.
func parse(t testing.TB, b []byte) (out []event) {
	t.Helper()
	for line := range bytes.Lines(b) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("bad line %q: %v", line, err)
		}
		out = append(out, e)
	}
	return out
}

// caller is a client over the line protocol. Its session runs on the test's
// goroutine, so an answer is there when the command returns.
type caller struct {
	*sink
	w    *world
	x    *Session
	last int
}

var local = netip.MustParseAddr("127.0.0.1")

func (w *world) connect() *caller {
	w.t.Helper()
	s := newSink()
	return &caller{sink: s, w: w, x: w.srv.Start(Conn{Transport: "tcp", Remote: local, Socket: s})}
}

// guest connects and says hello.
func (w *world) guest(name string) *caller {
	w.t.Helper()
	c := w.connect()
	if e := c.do(`{"type":"hello","guest":%q}`, name); e.Type != "welcome" {
		w.t.Fatalf("hello of %s: got %+v", name, e)
	}
	return c
}

// user connects with a token.
func (w *world) user(name chat.UserID, roles ...string) *caller {
	w.t.Helper()
	c := w.connect()
	if e := c.do(`{"type":"hello","token":%q}`, w.token(name, time.Hour, roles...)); e.Type != "welcome" {
		w.t.Fatalf("hello of %s: got %+v", name, e)
	}
	return c
}

// all carries out a command and returns every answer to it.
func (c *caller) all(format string, args ...any) (out []event) {
	c.w.t.Helper()
	c.last++
	id := fmt.Sprint(c.last)
	c.raw(fmt.Sprintf(`{"id":"%s",`, id) + strings.TrimPrefix(fmt.Sprintf(format, args...), "{"))
	for _, e := range c.events() {
		if e.ID == id {
			out = append(out, e)
		}
	}
	return out
}

// do carries out a command and returns its one answer.
func (c *caller) do(format string, args ...any) event {
	c.w.t.Helper()
	es := c.all(format, args...)
	if len(es) != 1 {
		c.w.t.Fatalf("%s: got %d answers, want 1: %+v", fmt.Sprintf(format, args...), len(es), es)
	}
	return es[0]
}

// raw hands the session one frame and reports whether it stays open.
func (c *caller) raw(frame string) bool { return c.x.Receive(c.x.Context(), []byte(frame)) }

func (c *caller) events() []event {
	c.w.t.Helper()
	c.mu.Lock()
	b := bytes.Clone(c.got)
	c.mu.Unlock()
	return parse(c.w.t, b)
}

// await waits until ok holds of an event and returns it.
func (c *caller) await(what string, ok func(event) bool) event {
	c.w.t.Helper()
	late := time.AfterFunc(30*time.Second, func() { c.set(func() { c.cut = true }) })
	defer late.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for _, e := range parse(c.w.t, c.got) {
			if ok(e) {
				return e
			}
		}
		if c.cut {
			c.w.t.Fatalf("waited in vain for %s; got %.2000s", what, c.got)
		}
		c.news.Wait()
	}
}

// closedWith returns the close event the client was sent.
func (c *caller) closedWith() event {
	c.w.t.Helper()
	es := c.events()
	if len(es) == 0 || es[len(es)-1].Type != "close" {
		c.w.t.Fatalf("got no close event last, but %+v", es)
	}
	return es[len(es)-1]
}

func (c *caller) checkClosed(code int, reconnect bool) {
	c.w.t.Helper()
	e := c.closedWith()
	if got, _ := e.Code.(float64); int(got) != code || e.Reconnect != reconnect || !c.shut() {
		c.w.t.Errorf("got close %v, reconnect %v, shut down %v, want %d, %v, true: %+v", e.Code, e.Reconnect, c.shut(), code, reconnect, e)
	}
	if c.raw(`{"type":"ping"}`) {
		c.w.t.Error("the session reads on after its close")
	}
}

func checkError(t testing.TB, e event, code chat.Code) {
	t.Helper()
	if e.Type != "error" || e.Code != string(code) || e.Text == "" {
		t.Errorf("got %+v, want the error %s", e, code)
	}
}

func (c *caller) end() { c.x.End() }
