package intake

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds every wait for something that must happen.
const patience = 60 * time.Second

// plain is a connection that hands over its bytes one by one.
type plain struct {
	Reader
	tcp  net.Conn
	in   *bufio.Reader
	err  error
	got  chan byte
	done chan struct{}
	stay bool // Finish leaves the socket open
}

func (p *plain) Fill()         { _, p.err = p.in.Peek(1) }
func (p *plain) Over() bool    { return p.err != nil }
func (p *plain) Drained() bool { return p.in.Buffered() == 0 }
func (p *plain) Closed() bool  { return false }

func (p *plain) Run() {
	for p.err == nil && p.in.Buffered() > 0 {
		b, _ := p.in.ReadByte()
		p.got <- b
	}
}

func (p *plain) Finish() {
	if !p.stay {
		_ = p.tcp.Close()
	}
	close(p.done)
}

// dial starts a connection and returns its other end.
func dial(t *testing.T, in *Intake) (*plain, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	raw, err := near.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	p := &plain{tcp: near, in: bufio.NewReader(near), got: make(chan byte), done: make(chan struct{})}
	in.Start(&p.Reader, p, raw)
	return p, far
}

// running returns an intake that runs until Wait, and what Run returns.
func running(t *testing.T) (*Intake, <-chan error) {
	t.Helper()
	in, err := New(true)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- in.Run(context.Background()) }()
	await(t, "it runs", func() bool { return in.lot.stage.Load() == open })
	return in, ended
}

// hears says a byte to a connection, which must come.
func (p *plain) hears(t *testing.T, far net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(far, text); err != nil {
		t.Fatal(err)
	}
	for i := range len(text) {
		select {
		case b := <-p.got:
			if b != text[i] {
				t.Fatalf("got %q, want %q of %q", b, text[i], text)
			}
		case <-time.After(patience):
			t.Fatalf("%q does not come", text[i:])
		}
	}
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("it does not come true: %s", what)
		}
	}
}

// An event of a connection that has left its place does not reach the next
// holder. The first one's descriptor stays open, as it does for a moment where
// a child process is being started.
func TestAStaleEventFindsNobody(t *testing.T) {
	in, ended := running(t)
	first, far1 := dial(t, in)
	first.stay = true
	first.hears(t, far1, "a")
	await(t, "the first is parked", func() bool { return in.Parked() == 1 })
	old := first.spot
	_ = first.tcp.SetReadDeadline(time.Unix(1, 0))
	first.Wake() // its event stays armed
	<-first.done

	second, far2 := dial(t, in)
	second.hears(t, far2, "b")
	await(t, "the second is parked", func() bool { return in.Parked() == 1 })
	if second.spot.index != old.index || second.spot.gen == old.gen {
		t.Errorf("got place %v after %v, want the same in another generation", second.spot, old)
	}
	if _, err := io.WriteString(far1, "stale"); err != nil { // the event
		t.Fatal(err)
	}
	if r := in.lot.at(old.index, old.gen); r != nil {
		t.Error("the place is still the first one's")
	}
	if r := in.lot.at(second.spot.index, second.spot.gen); r != &second.Reader {
		t.Error("the place is not the second one's")
	}
	if r := in.lot.at(1000, 1); r != nil {
		t.Error("somebody is at a place that there is not")
	}
	for range 10 {
		second.hears(t, far2, "cd")
	}
	far2.Close()
	<-second.done
	in.Wait() // ends Run
	if err := <-ended; err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}

// The generation 0 is nobody's, also when the numbers begin again.
func TestGenerationsBeginAgain(t *testing.T) {
	l := &lot{spots: []place{{gen: ^uint32(0)}}, free: []uint32{0}}
	var r Reader
	l.enter(&r)
	if r.spot.gen != 1 || l.at(0, 1) != &r {
		t.Errorf("got %v, want generation 1", r.spot)
	}
	l.leave(&r)
	l.leave(&r) // it has left already
	if len(l.free) != 1 || r.spot.gen != 0 {
		t.Errorf("got free places %v, spot %v, want one and none", l.free, r.spot)
	}
}

// Where Run fails, it says so, and connections are served all the same.
func TestConnectionsOutliveRun(t *testing.T) {
	in, ended := running(t)
	p, far := dial(t, in)
	p.hears(t, far, "a")
	await(t, "it is parked", func() bool { return in.Parked() == 1 })
	_ = in.lot.file.SetReadDeadline(time.Unix(1, 0)) // nothing else makes it fail
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "wait for events: ") {
		t.Errorf("got %v, want an error", err)
	}
	for range 3 {
		p.hears(t, far, "bc")
	}
	if in.Parked() != 0 {
		t.Error("it is parked, and nobody would wake it")
	}
	far.Close()
	<-p.done
	in.Wait()
}

// What the kernel says of a connection it gives up is said once, and to the
// read that the event brings about. The other end's window is full for longer
// than TCP_USER_TIMEOUT (tcp(7)).
func TestTheKernelsReasonComesThrough(t *testing.T) {
	in, ended := running(t)
	p, far := dial(t, in)
	tcp := p.tcp.(*net.TCPConn)
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 300) // ms
	}); err != nil || set != nil {
		t.Fatal(err, set)
	}
	p.hears(t, far, "a")
	await(t, "it is parked", func() bool { return in.Parked() == 1 })
	full := make([]byte, 1<<20)
	for {
		n := 0
		if err := raw.Write(func(fd uintptr) bool {
			n, _ = unix.Write(int(fd), full)
			return true
		}); err != nil || n < len(full) { // not one write more: where this goroutine stood still, it would be told the reason
			break
		}
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if !errors.Is(p.err, unix.ETIMEDOUT) {
		t.Errorf("got %v, want %v", p.err, unix.ETIMEDOUT)
	}
	in.Wait()
	if err := <-ended; err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}

// A place that the kernel does not give is no loss: the connection waits as a
// goroutine.
func TestAnEpollSetThatTakesNothing(t *testing.T) {
	in, ended := running(t)
	in.lot.fd = -1
	p, far := dial(t, in)
	for range 3 {
		p.hears(t, far, "ab")
	}
	far.Close()
	<-p.done
	in.Wait()
	if in.Parked() != 0 || len(in.lot.free) != len(in.lot.spots) {
		t.Errorf("got %d parked and %d of %d places free, want none and all", in.Parked(), len(in.lot.free), len(in.lot.spots))
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}
