package transporttest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/core/client"
	"parley/core/session"
	"parley/core/wire"
)

// Serve serves sessions on a listener of loopback until the test has ended,
// over TLS where secure is not nil, and returns the URL for package client.
type Serve func(t testing.TB, sessions *session.Server, secure *tls.Config) (url string)

// Option changes how the suite's clients connect.
type Option int

// Deflate has them offer permessage-deflate.
const Deflate Option = iota

// Suite holds a transport to what both promise, with TLS and without.
func Suite(t *testing.T, serve Serve, options ...Option) {
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "TLS"}[secure], func(t *testing.T) {
			for name, test := range map[string]func(*bench){
				"everyone hears everything":      everyoneHearsEverything,
				"rests lose nothing":             restsLoseNothing,
				"a stalled reader loses nothing": aStalledReaderLosesNothing,
				"one answer of many records":     oneAnswerOfManyRecords,
				"a drain is told":                aDrainIsTold,
				"silence ends":                   silenceEnds,
				"a goodbye is counted":           aGoodbyeIsCounted,
			} {
				t.Run(name, func(t *testing.T) {
					test(&bench{T: t, serve: serve, secure: secure, deflate: slices.Contains(options, Deflate)})
				})
			}
		})
	}
}

// bench is one test of the suite.
type bench struct {
	*testing.T
	serve    Serve
	secure   bool
	deflate  bool
	sessions *session.Server
	url      string
	tls      *tls.Config // the clients'
}

func (b *bench) start(change func(*session.Config)) {
	b.Helper()
	b.sessions = Node(b, change)
	var server *tls.Config
	if b.secure {
		a := NewAuthority(b)
		server, b.tls = &tls.Config{Certificates: []tls.Certificate{a.Pair()}, DynamicRecordSizingDisabled: true}, a.Client()
	}
	b.url = b.serve(b, b.sessions, server)
}

func (b *bench) context() context.Context {
	ctx, cancel := context.WithTimeout(b.Context(), Patience)
	b.Cleanup(cancel)
	return ctx
}

// reader is a client that notes the texts of one room in order.
type reader struct {
	*client.Conn
	b    *bench
	next uint64 // seq it expects
	want int
	full chan struct{} // closed when it has seen as many as it wants
	gate chan struct{} // nil, or what it waits for before it reads on
	bad  atomic.Pointer[string]
}

// join connects a reader that wants so many messages. Where gate is not nil,
// it stops reading at the first message until gate is closed.
func (b *bench) join(name string, want int, gate chan struct{}) *reader {
	b.Helper()
	r := &reader{b: b, next: firstMessage - 1, want: want, full: make(chan struct{}), gate: gate}
	opt := client.Options{URL: b.url, Guest: name, TLS: b.tls, OnEvent: r.see, Timeout: Patience, Compress: b.deflate,
		NetDial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err == nil && gate != nil {
				err = c.(*net.TCPConn).SetReadBuffer(32 << 10)
			}
			return c, err
		}}
	conn, err := client.Dial(b.context(), opt)
	if err != nil {
		b.Fatal(err)
	}
	r.Conn = conn
	b.Cleanup(func() { conn.Cut() })
	if _, err := conn.Join(b.context(), "lobby", nil); err != nil {
		b.Fatal(err)
	}
	return r
}

func (r *reader) see(ev any) {
	e, ok := ev.(*wire.EntryEvent)
	if !ok {
		if _, reset := ev.(*wire.ResetEvent); reset {
			r.wrong("a reset")
		}
		return
	}
	if r.gate != nil {
		<-r.gate
	}
	r.next++
	if e.Seq != r.next || e.Text != textOf(e.Seq) {
		r.wrong(fmt.Sprintf("seq %d with %d bytes of text, want seq %d", e.Seq, len(e.Text), r.next))
	}
	if r.want--; r.want == 0 {
		close(r.full)
	}
}

func (r *reader) wrong(what string) { r.bad.CompareAndSwap(nil, &what) }

// done waits until the reader has seen what it wants.
func (r *reader) done() {
	r.b.Helper()
	select {
	case <-r.full:
	case <-r.Conn.Done():
		r.b.Fatalf("%s: the connection ended: %v", r.Welcome().User, r.Err())
	case <-r.b.context().Done():
		r.b.Fatalf("%s still waits for messages", r.Welcome().User)
	}
	if what := r.bad.Load(); what != nil {
		r.b.Errorf("%s got %s", r.Welcome().User, *what)
	}
}

// firstMessage is the seq of a new room's first message: its settings come
// before it.
const firstMessage = 2

// textOf is the text of the message with that seq: all lengths up to 4,000.
func textOf(seq uint64) string {
	return strings.Repeat("x", 1+int(seq*997%4000))
}

// speak sends count messages from seq on, many at a time.
func (b *bench) speak(r *reader, from uint64, count int) {
	b.Helper()
	var sending sync.WaitGroup
	for seq := from; seq < from+uint64(count); seq++ {
		sending.Add(1)
		err := r.SendAsync("lobby", client.NewNonce(), textOf(seq), func(_ *wire.AckEvent, err error) {
			if err != nil {
				b.Errorf("message %d: %v", seq, err)
			}
			sending.Done()
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	sending.Wait()
}

func everyoneHearsEverything(b *bench) {
	b.start(nil)
	const messages = 200
	var all []*reader
	for _, name := range []string{"ann", "bob", "cid", "dee"} {
		all = append(all, b.join(name, messages, nil))
	}
	b.speak(all[0], firstMessage, messages)
	for _, r := range all {
		r.done()
	}
}

// restsLoseNothing has clients speak by turns, a few messages each, so that
// every connection rests between what it says.
func restsLoseNothing(b *bench) {
	b.start(nil)
	const turns, each = 100, 8
	var all []*reader
	for _, name := range []string{"ann", "bob", "cid"} {
		all = append(all, b.join(name, turns*each, nil))
	}
	for turn := range turns {
		b.speak(all[turn%len(all)], firstMessage+uint64(turn*each), each)
	}
	for _, r := range all {
		r.done()
	}
}

func aStalledReaderLosesNothing(b *bench) {
	b.start(nil)
	const messages = 550 // 1.1 MB: more than its socket holds, less than the bound on lag
	gate := make(chan struct{})
	stalled := b.join("sleepy", messages, gate)
	fast := []*reader{b.join("ann", messages, nil), b.join("bob", messages, nil)}
	b.speak(fast[0], firstMessage, messages)
	for _, r := range fast {
		r.done()
	}
	close(gate)
	stalled.done()
}

func oneAnswerOfManyRecords(b *bench) {
	b.start(nil)
	const messages = 150
	ann := b.join("ann", messages, nil)
	b.speak(ann, firstMessage, messages)
	h, err := ann.History(b.context(), "lobby", 0, 0, messages)
	if err != nil {
		b.Fatal(err)
	}
	if len(h.Entries) < 50 { // an answer has a bound in bytes too
		b.Fatalf("got %d entries, want some 100 KB of them", len(h.Entries))
	}
	for _, e := range h.Entries {
		if e.Text != textOf(e.Seq) {
			b.Errorf("entry %d is not what was sent", e.Seq)
		}
	}
}

func aDrainIsTold(b *bench) {
	b.start(nil)
	ann := b.join("ann", 1, nil)
	b.sessions.Drain(b.context())
	<-ann.Conn.Done()
	var ce *client.CloseError
	if !errors.As(ann.Err(), &ce) || ce.Code != wire.CloseRestart {
		b.Errorf("got %v, want %d", ann.Err(), wire.CloseRestart)
	}
}

// silenceEnds connects and says nothing, before TLS and after.
func silenceEnds(b *bench) {
	b.start(func(c *session.Config) { c.HandshakeTimeout = 300 * time.Millisecond })
	conn, err := client.Dial(b.context(), client.Options{URL: b.url, TLS: b.tls, SkipHello: true, Timeout: Patience})
	if err == nil { // else the time was over before the upgrade
		<-conn.Done()
		var ce *client.CloseError
		// On a slow machine the time may be over before there is a session.
		if !errors.As(conn.Err(), &ce) || ce.Code != wire.CloseHandshake && ce.Code != 1006 {
			b.Errorf("got %v, want %d", conn.Err(), wire.CloseHandshake)
		}
		_ = conn.Close()
	}
	_, rest, _ := strings.Cut(b.url, "://")
	host, _, _ := strings.Cut(rest, "/")
	raw, err := net.Dial("tcp", host)
	if err != nil {
		b.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetReadDeadline(time.Now().Add(Patience))
	for buf := make([]byte, 512); ; { // a farewell may come first
		if _, err = raw.Read(buf); err != nil {
			break
		}
	}
	var network net.Error
	if errors.As(err, &network) && network.Timeout() {
		b.Error("a silent connection stays")
	}
}

func aGoodbyeIsCounted(b *bench) {
	b.start(nil)
	ann := b.join("ann", 1, nil)
	_ = ann.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(Patience); b.sessions.Open() > 0; <-tick.C {
		if time.Now().After(end) {
			b.Fatal("the session stays")
		}
	}
	b.sessions.Stats().Closes(func(c wire.CloseCode, n uint64) {
		if (n == 1) != (c == wire.CloseNormal) {
			b.Errorf("got %d closes %d counted", n, c)
		}
	})
}
