package stream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/room"
	"parley/core/transport/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ room.Socket = stream.Socket(nil)

const patience = 30 * time.Second

// pair returns both ends of a TCP connection with small buffers.
func pair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialed := make(chan net.Conn, 1)
	go func() {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Error(err)
		}
		dialed <- c
	}()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	near, far = c.(*net.TCPConn), (<-dialed).(*net.TCPConn)
	t.Cleanup(func() { near.Close(); far.Close() })
	_ = near.SetWriteBuffer(16 << 10)
	_ = far.SetReadBuffer(16 << 10)
	_ = far.SetDeadline(time.Now().Add(patience))
	return near, far
}

// fill writes until the socket is full and returns how much it took.
func fill(t testing.TB, s stream.Socket) (n int) {
	t.Helper()
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	for {
		k, err := s.TryWrite(chunk)
		if err != nil {
			t.Fatal(err)
		}
		n += k
		if k < len(chunk) { // what is left of the buffer may be taken in a second go
			if k, err = s.TryWrite(chunk[:1]); err != nil {
				t.Fatal(err)
			} else if k == 0 {
				return n
			}
			n += k
		}
	}
}

func TestTryWriteNeverWaits(t *testing.T) {
	near, far := pair(t)
	s := stream.New(near)
	if n, err := s.TryWrite(nil); n != 0 || err != nil {
		t.Errorf("nothing: got %d, %v", n, err)
	}
	n := fill(t, s)
	if n == 0 || n > 64<<20 {
		t.Fatalf("took %d bytes before it was full", n)
	}
	if k, err := s.TryWrite([]byte("more")); k != 0 || err != nil {
		t.Errorf("full: got %d, %v, want 0 and no error", k, err)
	}
	if _, err := io.CopyN(io.Discard, far, int64(n)); err != nil {
		t.Fatal(err)
	}
	tail := "and on it goes"
	for rest := []byte(tail); len(rest) > 0; {
		k, err := s.TryWrite(rest)
		if err != nil {
			t.Fatal(err)
		}
		rest = rest[k:]
	}
	got := make([]byte, len(tail))
	if _, err := io.ReadFull(far, got); err != nil || string(got) != tail {
		t.Errorf("got %q, %v, want %q", got, err, tail)
	}
}

func TestWriteWaitsAndItsDeadlinePoisonsNothing(t *testing.T) {
	near, far := pair(t)
	s := stream.New(near)
	n := fill(t, s)
	if k, err := s.Write([]byte("x"), 10*time.Millisecond); k != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("full: got %d, %v, want the deadline", k, err)
	}
	if k, err := s.TryWrite([]byte("x")); k != 0 || err != nil {
		t.Errorf("after the deadline: got %d, %v, want 0 and no error", k, err)
	}
	type result struct {
		n   int
		err error
	}
	wrote := make(chan result)
	go func() {
		k, err := s.Write([]byte("the end"), 0)
		wrote <- result{k, err}
	}()
	if _, err := io.CopyN(io.Discard, far, int64(n)); err != nil {
		t.Fatal(err)
	}
	if r := <-wrote; r.n != 7 || r.err != nil {
		t.Errorf("once there is room: got %d, %v, want 7", r.n, r.err)
	}
}

func TestWriteThatGetsSomewhereIsNoFailure(t *testing.T) {
	near, _ := pair(t)
	s := stream.New(near)
	big := make([]byte, 64<<20) // more than both kernels hold
	n, err := 0, os.ErrDeadlineExceeded
	for n == 0 && errors.Is(err, os.ErrDeadlineExceeded) { // the time may be over before the first byte where this goroutine stood still
		n, err = s.Write(big, 50*time.Millisecond)
	}
	if n == 0 || n == len(big) || err != nil {
		t.Errorf("got %d of %d bytes, %v, want some and no error", n, len(big), err)
	}
}

func TestShutdownDeliversTheLastBytesAndEndsReading(t *testing.T) {
	near, far := pair(t)
	s := stream.New(near)
	if _, err := s.TryWrite([]byte("goodbye")); err != nil {
		t.Fatal(err)
	}
	s.Shutdown()
	if got, err := io.ReadAll(far); string(got) != "goodbye" || err != nil {
		t.Errorf("got %q, %v, want goodbye and the end", got, err)
	}
	if _, err := far.Write([]byte("you too")); err != nil {
		t.Errorf("the other side can answer no more: %v", err)
	}
	far.CloseWrite()
	if got, err := io.ReadAll(near); string(got) != "you too" || err != nil {
		t.Errorf("got %q, %v, want the answer", got, err)
	}
	if n, err := s.TryWrite([]byte("x")); n != 0 || err == nil {
		t.Errorf("writing after Shutdown: got %d, %v, want an error", n, err)
	}
}

func TestShutdownWakesAWriter(t *testing.T) {
	near, _ := pair(t)
	s := stream.New(near)
	fill(t, s)
	wrote := make(chan error)
	go func() {
		for { // the deadline it may have set after Shutdown's is the shutdown's to end
			if _, err := s.Write([]byte("x"), patience); err != nil {
				wrote <- err
				return
			}
		}
	}()
	s.Shutdown()
	if err := <-wrote; err == nil {
		t.Error("got no error")
	}
}

func TestAbortEndsBothSides(t *testing.T) {
	near, far := pair(t)
	s := stream.New(near)
	s.Abort()
	s.Abort()
	if n, err := s.TryWrite([]byte("x")); n != 0 || err == nil {
		t.Errorf("TryWrite: got %d, %v, want an error", n, err)
	}
	if n, err := s.Write([]byte("x"), time.Second); n != 0 || err == nil {
		t.Errorf("Write: got %d, %v, want an error", n, err)
	}
	if _, err := far.Read(make([]byte, 1)); err == nil {
		t.Error("the other side still reads")
	}
}

func TestAConnectionThatIsGoneIsAnError(t *testing.T) {
	near, far := pair(t)
	s := stream.New(near)
	_ = far.SetLinger(0) // a reset
	far.Close()
	for {
		if _, err := s.TryWrite([]byte("x")); err != nil {
			return // the reset may take a moment to arrive; a full socket would be 0, nil for ever
		}
	}
}

// A connection without a file descriptor is a pipe here, or TLS.
func TestAConnectionWithoutADescriptorIsLeftToTheDrainer(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	s := stream.New(near)
	if n, err := s.TryWrite([]byte("x")); n != 0 || err != nil {
		t.Errorf("TryWrite: got %d, %v, want 0 and no error", n, err)
	}
	read := make(chan string)
	go func() {
		b := make([]byte, 1)
		_, _ = io.ReadFull(far, b)
		read <- string(b)
	}()
	if n, err := s.Write([]byte("x"), patience); n != 1 || err != nil {
		t.Errorf("Write: got %d, %v, want 1", n, err)
	}
	if got := <-read; got != "x" {
		t.Errorf("got %q, want x", got)
	}
	s.Shutdown()
	s.Abort()
	if n, err := s.Write([]byte("x"), time.Second); n != 0 || err == nil {
		t.Errorf("after Abort: got %d, %v, want an error", n, err)
	}
	if ip := stream.RemoteIP(near); ip.IsValid() {
		t.Errorf("got the address %v of a pipe", ip)
	}
}

func TestEvidenceIsOfTheSocketBelow(t *testing.T) {
	near, _ := pair(t)
	e, err := stream.New(near).Evidence()
	if runtime.GOOS == "linux" && (err != nil || !e.Known || e.Unread != 0) {
		t.Errorf("TCP: got %+v, %v, want the kernel's", e, err)
	}
	pipe, far := net.Pipe()
	defer pipe.Close()
	defer far.Close()
	if e, err := stream.New(pipe).Evidence(); e.Known || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("pipe: got %+v, %v, want none", e, err)
	}
}

func TestLingerEndsWithThePeerOrTheTime(t *testing.T) {
	near, far := pair(t)
	if _, err := far.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	far.CloseWrite()
	stream.Linger(near, patience) // returns, or the test does not end in time
	silent, _ := pair(t)
	stream.Linger(silent, time.Millisecond)
}

func TestListenTunesWhatItAccepts(t *testing.T) {
	var tuned atomic.Int32
	ln, err := stream.Listen(t.Context(), "127.0.0.1:0", stream.Options{Tune: func(*net.TCPConn) { tuned.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	if tuned.Load() != 1 {
		t.Errorf("got %d connections tuned, want 1", tuned.Load())
	}
	if ip := stream.RemoteIP(near); ip != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("got %v, want 127.0.0.1", ip)
	}
	ln.Close()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
	if tuned.Load() != 1 {
		t.Error("what was not accepted was tuned")
	}
	if _, err := stream.Listen(context.Background(), "127.0.0.1:no", stream.Options{}); err == nil || !bytes.Contains([]byte(err.Error()), []byte("listen on 127.0.0.1:no")) {
		t.Errorf("got %v, want an error that names the address", err)
	}
}

func BenchmarkTryWrite(b *testing.B) {
	near, far := pair(b)
	_ = far.SetDeadline(time.Time{})
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(io.Discard, far) }()
	s := stream.New(near)
	frame := make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.TryWrite(frame); err != nil {
			b.Fatal(err)
		}
	}
	near.Close()
	<-done
}
