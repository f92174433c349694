package stream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"parley/core/transport/transporttest"
)

const patience = transporttest.Patience

// secured returns both ends of a TLS connection over TCP with small buffers.
func secured(t testing.TB, version uint16) (near Socket, nearTLS, far *tls.Conn) {
	t.Helper()
	authority := transporttest.NewAuthority(t)
	ln, err := Listen(t.Context(), "127.0.0.1:0", Options{
		Tune: func(c *net.TCPConn) { _ = c.SetWriteBuffer(32 << 10) },
		TLS:  &tls.Config{Certificates: []tls.Certificate{authority.Pair()}, MaxVersion: version, DynamicRecordSizingDisabled: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var dialing sync.WaitGroup
	dialing.Go(func() {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		_ = c.(*net.TCPConn).SetReadBuffer(32 << 10)
		far = tls.Client(c, authority.Client())
		if err := far.Handshake(); err != nil {
			t.Error(err)
		}
	})
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := Handshake(t.Context(), c, time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	dialing.Wait()
	if t.Failed() {
		t.FailNow()
	}
	_ = far.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close(); far.Close() })
	return New(c), c.(*tls.Conn), far
}

// send writes p as a Peer does: what was not taken is offered again, by
// Write while it waits and by TryWrite now and then.
func send(s Socket, p []byte, r *rand.Rand) (parked int, err error) {
	n, err := s.TryWrite(p)
	if err != nil {
		return 0, err
	}
	for n < len(p) {
		parked++
		var k int
		if r.IntN(4) == 0 {
			k, err = s.TryWrite(p[n:])
		} else {
			k, err = s.Write(p[n:], time.Duration(1+r.IntN(3))*time.Millisecond)
		}
		n += k
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return parked, err
		}
	}
	return parked, nil
}

// TestSealedKeepsEveryByteInOrder writes frames of all sizes to a reader that
// takes them in pieces of all sizes, more slowly than they come.
func TestSealedKeepsEveryByteInOrder(t *testing.T) {
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		for seed := range uint64(4) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s, _, far := secured(t, version)
				r := rand.New(rand.NewPCG(seed, 7))
				sizes := []int{2, 3, 130, 1000, pieceBytes - 1, pieceBytes, pieceBytes + 1, 100_000}
				var want []byte
				var frames [][]byte
				for len(want) < 1<<20 {
					f := make([]byte, 2+r.IntN(sizes[r.IntN(len(sizes))]))
					for i := range f {
						f[i] = byte(r.Uint32())
					}
					frames = append(frames, f)
					want = append(want, f...)
				}
				var reading sync.WaitGroup
				var got []byte
				reading.Go(func() {
					r := rand.New(rand.NewPCG(seed, 8))
					for len(got) < len(want) {
						b := make([]byte, 1+r.IntN(3000))
						n, err := far.Read(b)
						got = append(got, b[:n]...)
						if err != nil {
							t.Errorf("after %d of %d bytes: %v", len(got), len(want), err)
							return
						}
					}
				})
				parked := 0
				for _, f := range frames {
					k, err := send(s, f, r)
					if err != nil {
						t.Fatal(err)
					}
					parked += k
				}
				reading.Wait()
				if !bytes.Equal(got, want) {
					t.Errorf("got %d bytes that differ from the %d sent", len(got), len(want))
				}
				if parked == 0 {
					t.Error("the socket was never full")
				}
			})
		}
	}
}

// jam writes to s until it takes no more and returns what it took, and the
// rest that must be offered next.
func jam(t *testing.T, s Socket) (took int, rest []byte) {
	t.Helper()
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	for {
		n, err := s.TryWrite(chunk)
		if err != nil {
			t.Fatal(err)
		}
		took += n
		if n < len(chunk) {
			return took, chunk[n:]
		}
	}
}

func TestSealedEvidenceIsOfTheCiphertext(t *testing.T) {
	near, _, _ := secured(t, tls.VersionTLS13)
	if e, err := near.Evidence(); runtime.GOOS == "linux" && (err != nil || !e.Known || e.Acked == 0) {
		t.Errorf("got %+v, %v, want the kernel's", e, err)
	}
}

func TestSealedIsFullAndStaysBounded(t *testing.T) {
	s, _, far := secured(t, tls.VersionTLS13)
	took, rest := jam(t, s)
	for range 3 {
		if n, err := s.TryWrite(rest); n != 0 || err != nil {
			t.Errorf("full: got %d, %v, want 0 and no error", n, err)
		}
		if n, err := s.Write(rest, time.Millisecond); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("full: got %d, %v, want the deadline", n, err)
		}
	}
	if n := s.(*sealed).below.pending(); n == 0 || n > spillBytes {
		t.Errorf("got %d bytes of ciphertext waiting, want up to %d", n, spillBytes)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		if _, err := io.CopyN(io.Discard, far, int64(took+len(rest))); err != nil {
			t.Error(err)
		}
	})
	if _, err := send(s, rest, rand.New(rand.NewPCG(1, 1))); err != nil {
		t.Error(err)
	}
	reading.Wait()
	if n := s.(*sealed).below.pending(); n != 0 {
		t.Errorf("got %d bytes waiting, want none", n)
	}
}

// A rest that is not offered again would leave the stream in the middle of a
// record's bytes.
func TestSealedRefusesAnotherRest(t *testing.T) {
	s, _, _ := secured(t, tls.VersionTLS13)
	_, rest := jam(t, s)
	if n, err := s.TryWrite(rest[:1]); n != 0 || !errors.Is(err, errChanged) {
		t.Errorf("got %d, %v, want %v", n, err, errChanged)
	}
}

func TestSealedSaysGoodbye(t *testing.T) {
	s, near, far := secured(t, tls.VersionTLS13)
	if n, err := s.TryWrite([]byte("goodbye")); n != 7 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
	s.Shutdown()
	// io.EOF, not io.ErrUnexpectedEOF: close_notify has come
	if got, err := io.ReadAll(far); string(got) != "goodbye" || err != nil {
		t.Errorf("got %q, %v, want goodbye and the end", got, err)
	}
	if _, err := far.Write([]byte("you too")); err != nil {
		t.Errorf("the other side can answer no more: %v", err)
	}
	_ = far.CloseWrite()
	if got, err := io.ReadAll(near); string(got) != "you too" || err != nil {
		t.Errorf("got %q, %v, want the answer", got, err)
	}
	if n, err := s.TryWrite([]byte("more")); n != 0 || err == nil {
		t.Errorf("after Shutdown: got %d, %v, want an error", n, err)
	}
	s.Abort()
}

func TestSealedShutdownWakesAWriter(t *testing.T) {
	s, _, _ := secured(t, tls.VersionTLS13)
	_, rest := jam(t, s)
	wrote := make(chan error)
	go func() {
		for {
			n, err := s.Write(rest, patience)
			if err != nil {
				wrote <- err
				return
			}
			rest = rest[n:]
		}
	}()
	s.Shutdown()
	if err := <-wrote; err == nil {
		t.Error("got no error")
	}
}

// What TLS says by itself comes from the reading goroutine, while the drainer
// waits: it never waits itself, stays in order, and is bounded.
func TestSpillTakesWhatTLSSaysByItself(t *testing.T) {
	ln, err := Listen(t.Context(), "127.0.0.1:0", Options{Tune: func(c *net.TCPConn) { _ = c.SetWriteBuffer(8 << 10) }})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := &spill{Conn: c}
	defer s.Close()
	s.hold()
	sent := 0
	for s.pending() == 0 {
		if n, err := s.Write(make([]byte, 4096)); n != 4096 || err != nil {
			t.Fatal(n, err)
		}
		sent += 4096
	}
	draining := make(chan error)
	go func() {
		for s.pending() > 0 {
			if _, err := s.wait(patience); err != nil {
				draining <- err
				return
			}
		}
		draining <- nil
	}()
	for i := range 100 {
		if n, err := s.Write([]byte{byte(i)}); n != 1 || err != nil {
			t.Fatalf("answer %d: got %d, %v", i, n, err)
		}
	}
	if _, err := s.Write(make([]byte, spillBytes)); !errors.Is(err, errSpill) {
		t.Errorf("above the bound: got %v, want %v", err, errSpill)
	}
	_ = far.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.CopyN(io.Discard, far, int64(sent)); err != nil {
		t.Fatal(err)
	}
	answers := make([]byte, 100)
	if _, err := io.ReadFull(far, answers); err != nil {
		t.Fatal(err)
	}
	for i, b := range answers {
		if int(b) != i {
			t.Fatalf("answer %d came as number %d", b, i)
		}
	}
	if err := <-draining; err != nil {
		t.Error(err)
	}
}

func TestHandshakeEndsWithItsDeadlineAndItsContext(t *testing.T) {
	ln, err := Listen(t.Context(), "127.0.0.1:0", Options{TLS: &tls.Config{Certificates: []tls.Certificate{transporttest.NewAuthority(t).Pair()}}})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ended, end := context.WithCancel(t.Context())
	end()
	for name, try := range map[string]func(net.Conn) error{
		"deadline": func(c net.Conn) error { return Handshake(t.Context(), c, time.Now().Add(time.Millisecond)) },
		"context":  func(c net.Conn) error { return Handshake(ended, c, time.Time{}) },
	} {
		far, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if err := try(c); err == nil {
			t.Errorf("%s: got no error", name)
		}
		c.Close()
		far.Close()
	}
	ln.Close()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}

func BenchmarkSealedTryWrite(b *testing.B) {
	s, _, far := secured(b, tls.VersionTLS13)
	_ = far.SetDeadline(time.Time{})
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(io.Discard, far) })
	frame := make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		for n := 0; n < len(frame); {
			k, err := s.TryWrite(frame[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += k
		}
	}
	s.Abort()
	reading.Wait()
}
