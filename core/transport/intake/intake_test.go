package intake_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/transport/intake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that must happen.
const patience = 60 * time.Second

// parks says that this system parks connections.
const parks = runtime.GOOS == "linux"

// running returns an intake that runs until stop is called, or the test ends.
func running(t testing.TB, park bool) (in *intake.Intake, stop func()) {
	t.Helper()
	in, err := intake.New(park)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- in.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	})
	t.Cleanup(func() { stop(); in.Wait() })
	if in.Parks() { // Run has begun when it parks one
		c, far := serve(t, in)
		for end := time.Now().Add(patience); in.Parked() == 0; {
			if time.Now().After(end) {
				t.Fatal("nothing is parked")
			}
			say(t, far, "x")
			c.hears(t, "x")
		}
		far.Close()
		c.ends(t)
	}
	return in, stop
}

// pair returns both ends of a TCP connection.
func pair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	near, far = s.(*net.TCPConn), c.(*net.TCPConn)
	t.Cleanup(func() { near.Close(); far.Close() })
	_ = far.SetDeadline(time.Now().Add(patience))
	return near, far
}

// conn is a connection that notes the bytes it is sent.
type conn struct {
	intake.Reader
	tcp    *net.TCPConn
	in     *bufio.Reader
	got    chan []byte   // one element for each Run that had bytes
	done   chan struct{} // closed by Finish
	err    error         // why it ended; after done
	hold   atomic.Bool   // it is not to be parked
	asked  func()        // by Closed, where not nil
	closed atomic.Bool
	owned  atomic.Int32 // goroutines that carry out one of its methods
	fills  atomic.Int32 // calls of Fill that have begun
}

// serve starts a connection and returns its other end.
func serve(t testing.TB, in *intake.Intake) (*conn, *net.TCPConn) {
	t.Helper()
	near, far := pair(t)
	c := &conn{tcp: near, in: bufio.NewReaderSize(near, 16), got: make(chan []byte, 1), done: make(chan struct{})}
	c.start(t, in)
	return c, far
}

func (c *conn) start(t testing.TB, in *intake.Intake) {
	t.Helper()
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	in.Start(&c.Reader, c, raw)
}

// alone fails where two goroutines own the connection.
func (c *conn) alone() (leave func()) {
	if c.owned.Add(1) != 1 {
		panic("two goroutines own one connection")
	}
	return func() { c.owned.Add(-1) }
}

func (c *conn) Fill() {
	defer c.alone()()
	c.fills.Add(1)
	_, c.err = c.in.Peek(1)
}

func (c *conn) Over() bool { defer c.alone()(); return c.err != nil }

func (c *conn) Drained() bool {
	defer c.alone()()
	return c.in.Buffered() == 0 && !c.hold.Load()
}

func (c *conn) Closed() bool {
	if c.asked != nil {
		c.asked()
	}
	return c.closed.Load()
}

func (c *conn) Run() {
	defer c.alone()()
	if c.err == nil {
		b := make([]byte, c.in.Buffered())
		_, _ = io.ReadFull(c.in, b)
		c.got <- b
	}
}

func (c *conn) Finish() {
	defer c.alone()()
	_ = c.tcp.Close()
	close(c.done)
}

// cut ends the connection from this side, as a session does.
func (c *conn) cut() {
	c.closed.Store(true)
	_ = c.tcp.SetReadDeadline(time.Unix(1, 0))
	c.Wake()
}

func say(t testing.TB, far net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(far, text); err != nil {
		t.Fatal(err)
	}
}

// hears waits for text, in as many pieces as it comes.
func (c *conn) hears(t testing.TB, text string) {
	t.Helper()
	for got := ""; got != text; {
		select {
		case b := <-c.got:
			got += string(b)
		case <-time.After(patience):
			t.Fatalf("got %q, want %q", got, text)
		}
		if len(got) > len(text) {
			t.Fatalf("got %q, want %q", got, text)
		}
	}
}

// ends waits for Finish.
func (c *conn) ends(t testing.TB) {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		t.Fatal("the connection does not end")
	}
}

// awaitParked waits until n connections are parked.
func awaitParked(t testing.TB, in *intake.Intake, n int) {
	t.Helper()
	if !in.Parks() {
		return
	}
	for end := time.Now().Add(patience); in.Parked() != n; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("got %d connections parked, want %d", in.Parked(), n)
		}
	}
}

// both runs a test with parking and without.
func both(t *testing.T, f func(t *testing.T, in *intake.Intake, stop func())) {
	for name, park := range map[string]bool{"goroutines": false, "parked": true} {
		t.Run(name, func(t *testing.T) {
			in, stop := running(t, park)
			if got, want := in.Parks(), park && parks; got != want {
				t.Errorf("Parks: got %v, want %v", got, want)
			}
			f(t, in, stop)
			if got := in.Parked(); got != 0 {
				t.Errorf("at the end: got %d parked, want none", got)
			}
		})
	}
}

func TestBytesWake(t *testing.T) {
	both(t, func(t *testing.T, in *intake.Intake, _ func()) {
		c, far := serve(t, in)
		for _, text := range []string{"a", "longer than the reader's buffer is", "b"} {
			say(t, far, text)
			c.hears(t, text)
			awaitParked(t, in, 1)
		}
		far.Close()
		c.ends(t)
	})
}

func TestTheOtherEndsEndWakes(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn){
		"close":      func(far *net.TCPConn) { far.Close() },
		"half close": func(far *net.TCPConn) { _ = far.CloseWrite() },
		"reset":      func(far *net.TCPConn) { _ = far.SetLinger(0); far.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, in *intake.Intake, _ func()) {
				c, far := serve(t, in)
				say(t, far, "x")
				c.hears(t, "x")
				awaitParked(t, in, 1)
				end(far)
				c.ends(t)
			})
		})
	}
}

// A deadline does not reach a parked connection; Wake has it wait where one
// does, and it is called for the connection's end only once.
func TestWake(t *testing.T) {
	both(t, func(t *testing.T, in *intake.Intake, _ func()) {
		c, far := serve(t, in)
		say(t, far, "x")
		c.hears(t, "x")
		awaitParked(t, in, 1)
		c.cut()
		c.ends(t)
		c.Wake() // too late, which is harmless
	})
}

func TestWakeMayComeAtAnyTime(t *testing.T) {
	both(t, func(t *testing.T, in *intake.Intake, _ func()) {
		near, far := pair(t)
		c := &conn{tcp: near, in: bufio.NewReaderSize(near, 16), got: make(chan []byte), done: make(chan struct{})}
		c.Wake() // before Start
		c.start(t, in)
		c.Wake() // while it waits as a goroutine
		say(t, far, "x")
		c.Wake()         // perhaps while its worker is held up
		c.hears(t, "x")  // who is let go now
		say(t, far, "y") // and it goes on
		c.hears(t, "y")
		awaitParked(t, in, 1)
		c.Wake() // it waits as a goroutine now
		awaitParked(t, in, 0)
		say(t, far, "z")
		c.hears(t, "z")
		awaitParked(t, in, 1) // until it is drained again
		far.Close()
		c.ends(t)
	})
}

func TestWhatMustNotBeParked(t *testing.T) {
	in, _ := running(t, true)
	t.Run("no descriptor", func(t *testing.T) {
		near, far := pair(t)
		c := &conn{tcp: near, in: bufio.NewReaderSize(near, 16), got: make(chan []byte), done: make(chan struct{})}
		in.Start(&c.Reader, c, nil)
		say(t, far, "x")
		c.hears(t, "x")
		far.Close()
		c.ends(t)
	})
	t.Run("something buffered", func(t *testing.T) {
		c, far := serve(t, in)
		c.hold.Store(true)
		for _, text := range []string{"x", "y"} {
			say(t, far, text)
			c.hears(t, text)
		}
		c.hold.Store(false)
		say(t, far, "z")
		c.hears(t, "z")
		awaitParked(t, in, 1)
		far.Close()
		c.ends(t)
	})
	t.Run("woken while it is parked", func(t *testing.T) {
		near, far := pair(t)
		c := &conn{tcp: near, in: bufio.NewReaderSize(near, 16), got: make(chan []byte), done: make(chan struct{})}
		c.asked = c.Wake
		c.start(t, in)
		for i, text := range []string{"x", "y"} {
			say(t, far, text)
			c.hears(t, text)
			for end := time.Now().Add(patience); c.fills.Load() < int32(i+2); runtime.Gosched() { // it waits by itself again
				if time.Now().After(end) {
					t.Fatal("it is parked, although it was woken")
				}
			}
			if in.Parked() != 0 {
				t.Error("it counts as parked, although it was woken")
			}
		}
		far.Close()
		c.ends(t)
	})
	t.Run("cut while it is parked", func(t *testing.T) { // by somebody who did not see it
		for range 50 {
			near, far := pair(t)
			c := &conn{tcp: near, in: bufio.NewReaderSize(near, 16), got: make(chan []byte), done: make(chan struct{})}
			c.asked = func() { _ = near.SetReadDeadline(time.Unix(1, 0)); c.Wake() }
			c.start(t, in)
			say(t, far, "x")
			c.hears(t, "x")
			c.ends(t)
		}
	})
	t.Run("its descriptor is closed", func(t *testing.T) {
		near, far := pair(t)
		c := &conn{tcp: near, in: bufio.NewReaderSize(near, 16), got: make(chan []byte), done: make(chan struct{})}
		c.start(t, in)
		say(t, far, "x") // its worker waits to hand this over
		near.Close()
		select {
		case <-c.got:
		case <-c.done: // it had not been read yet
		}
		c.ends(t)
	})
	t.Run("closed before", func(t *testing.T) { // its Wake came when it was not parked
		c, far := serve(t, in)
		_ = c.tcp.SetReadDeadline(time.Now().Add(time.Hour))
		c.closed.Store(true)
		c.Wake()
		say(t, far, "x")
		c.hears(t, "x")
		_ = c.tcp.SetReadDeadline(time.Unix(1, 0))
		c.ends(t)
	})
}

// Nothing is parked that nobody would wake.
func TestOnlyARunningIntakeParks(t *testing.T) {
	in, err := intake.New(true)
	if err != nil {
		t.Fatal(err)
	}
	c, far := serve(t, in)
	for _, text := range []string{"x", "y"} {
		say(t, far, text)
		c.hears(t, text)
	}
	far.Close()
	c.ends(t)
	in.Wait()
	if err := in.Run(t.Context()); err != nil { // after Wait there is nothing to do
		t.Errorf("Run: got %v, want nil", err)
	}
}

// After Run connections wait as goroutines, those that were parked too.
func TestTheEndOfRunWakesEveryone(t *testing.T) {
	both(t, func(t *testing.T, in *intake.Intake, stop func()) {
		const many = 50
		var conns []*conn
		var fars []*net.TCPConn
		for range many {
			c, far := serve(t, in)
			say(t, far, "x")
			c.hears(t, "x")
			conns, fars = append(conns, c), append(fars, far)
		}
		awaitParked(t, in, many)
		stop()
		awaitParked(t, in, 0)
		for i, far := range fars {
			say(t, far, "y")
			conns[i].hears(t, "y")
			say(t, far, "z") // it has not been parked again
			conns[i].hears(t, "z")
			if in.Parked() != 0 {
				t.Fatal("a connection is parked, which nobody would wake")
			}
		}
		for i, far := range fars {
			far.Close()
			conns[i].ends(t)
		}
		in.Wait()
	})
}

func TestHoldAndGoKeepWaitWaiting(t *testing.T) {
	in, _ := running(t, false)
	done, gate, waited := in.Hold(), make(chan struct{}), make(chan struct{})
	var ran, did atomic.Bool
	in.Go(func() { <-gate; ran.Store(true) })
	in.Do(task(func() { did.Store(true) }))
	if !did.Load() {
		t.Error("Do came back before its task was done")
	}
	go func() { in.Wait(); close(waited) }()
	close(gate)
	select {
	case <-waited:
		t.Error("Wait did not wait for what is held")
	default:
	}
	done()
	<-waited
	if !ran.Load() {
		t.Error("Wait did not wait for what Go runs")
	}
}

type task func()

func (f task) Run() { f() }

// Streams of numbers go through thousands of cycles of parking and waking, by
// bytes and by Wake, and no number is lost or comes out of order. conn panics
// where two goroutines own it at the same time.
func TestNothingIsLostOrReordered(t *testing.T) {
	both(t, func(t *testing.T, in *intake.Intake, _ func()) {
		const numbers = 3000
		var all sync.WaitGroup
		for i := range 4 {
			c, far := serve(t, in)
			gone := make(chan struct{})
			if i%2 == 0 {
				all.Go(func() { // at every moment there is
					for {
						select {
						case <-gone:
							return
						default:
							c.Wake()
							runtime.Gosched()
						}
					}
				})
			}
			all.Go(func() {
				defer close(gone)
				pour(t, c, far, numbers, rand.New(rand.NewPCG(uint64(i), 1)))
				far.Close()
				c.ends(t)
			})
		}
		all.Wait()
	})
}

// pour sends numbers, some together and some in halves, and wants them back in
// order. Most of the time it waits for what it has sent, so that the connection
// rests in between.
func pour(t *testing.T, c *conn, far net.Conn, numbers uint32, random *rand.Rand) {
	var out, back []byte
	sent, next := 0, uint32(0)
	for n := uint32(0); n < numbers; {
		for range 1 + random.IntN(3) {
			out = binary.BigEndian.AppendUint32(out, n)
			n++
		}
		k := len(out)
		if random.IntN(3) == 0 && n < numbers {
			k -= random.IntN(4)
		}
		if _, err := far.Write(out[:k]); err != nil {
			t.Error(err)
			return
		}
		sent, out = sent+k, out[k:]
		for rest := random.IntN(4) > 0 || n >= numbers; rest && int(next)*4+len(back) < sent; {
			select {
			case b := <-c.got:
				back = append(back, b...)
			case <-c.done:
				t.Errorf("ended after %d numbers: %v", next, c.err)
				return
			case <-time.After(patience):
				t.Errorf("number %d does not come", next)
				return
			}
			for ; len(back) >= 4; back = back[4:] {
				if got := binary.BigEndian.Uint32(back); got != next {
					t.Errorf("got number %d, want %d", got, next)
					return
				}
				next++
			}
		}
	}
}

// Connections are cut while they park, wake and read; each ends once.
func TestCutAtAnyTime(t *testing.T) {
	both(t, func(t *testing.T, in *intake.Intake, _ func()) {
		var all sync.WaitGroup
		for i := range 200 {
			c, far := serve(t, in)
			all.Go(func() {
				for range c.got { // until it has ended
				}
			})
			all.Go(func() {
				for range i % 7 {
					if _, err := far.Write([]byte("x")); err != nil {
						break
					}
				}
				switch i % 3 {
				case 0:
					c.cut()
				case 1: // as an abort does
					c.closed.Store(true)
					_ = c.tcp.Close()
					c.Wake()
				default:
					far.Close()
				}
				c.ends(t)
				close(c.got)
			})
		}
		all.Wait()
	})
}

// BenchmarkWake is one byte over loopback to a connection that rests.
func BenchmarkWake(b *testing.B) {
	for name, park := range map[string]bool{"goroutines": false, "parked": true} {
		b.Run(name, func(b *testing.B) {
			in, _ := running(b, park)
			c, far := serve(b, in)
			_ = far.SetDeadline(time.Time{})
			b.ReportAllocs()
			for b.Loop() {
				say(b, far, "x")
				<-c.got
			}
			far.Close()
			c.ends(b)
		})
	}
}
