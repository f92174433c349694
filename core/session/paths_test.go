package session

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/liveness"
	"parley/core/wire"
)

// wired is a sink whose kernel says what the test tells it to.
type wired struct {
	*sink
	e      liveness.Evidence
	err    error
	broken error // of every write
}

func (w *wired) TryWrite(p []byte) (int, error) {
	if w.broken != nil {
		return 0, w.broken
	}
	return w.sink.TryWrite(p)
}

func (w *wired) Write(p []byte, timeout time.Duration) (int, error) {
	if w.broken != nil {
		return 0, w.broken
	}
	return w.sink.Write(p, timeout)
}

func (w *wired) Evidence() (liveness.Evidence, error) { return w.e, w.err }

// greet says hello on a socket.
func greet(t *testing.T, w *world, s *wired, i int) *Session {
	t.Helper()
	x := w.srv.Start(Conn{Transport: "ws", Remote: local, Socket: s})
	if !x.Receive(x.Context(), fmt.Appendf(nil, `{"type":"hello","guest":"g%d","device":"app/%d"}`, i, i)) || !x.Greeted() {
		t.Fatalf("hello was refused: %q", s.taken())
	}
	return x
}

func TestWorstPathsComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		for i := range 30 {
			e := liveness.Evidence{Known: true, RTT: time.Duration(i*7%30) * 10 * time.Millisecond}
			x := greet(t, w, &wired{sink: newSink(), e: e}, i)
			defer x.End()
		}
		defer greet(t, w, &wired{sink: newSink(), err: errors.New("closed")}, 30).End()
		defer w.srv.Start(Conn{Transport: "ws", Remote: local, Socket: newSink()}).End() // has not said hello
		p := w.srv.WorstPaths()
		if p.Looked != 30 || len(p.Worst) != 10 {
			t.Fatalf("got %d looked at and %d named, want 30 and 10", p.Looked, len(p.Worst))
		}
		for i, c := range p.Worst {
			if c.RTTMS != float64(29-i)*10 || !strings.HasPrefix(c.Device, "app/") || c.Network != "loopback" || c.Transport != "ws" {
				t.Errorf("rank %d: got %+v, want a round trip of %d ms", i, c, (29-i)*10)
			}
		}
		greet(t, w, &wired{sink: newSink(), e: liveness.Evidence{Known: true, RTT: time.Second}}, 31).End()
		if again := w.srv.WorstPaths(); !again.At.Equal(p.At) {
			t.Error("it looked twice within a second")
		}
		time.Sleep(pathsAge)
		if again := w.srv.WorstPaths(); !again.At.After(p.At) || again.Looked != 30 {
			t.Errorf("got %d looked at, want a new look at the 30 that are left", again.Looked)
		}
	})
}

func TestPoorPathsAreLoggedWithinARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(s *setup) { s.wheel.Sweep, s.wheel.Mode = time.Minute, liveness.ModeKeepAlive })
		for i := range 40 {
			defer greet(t, w, &wired{sink: newSink(), e: liveness.Evidence{Known: true, RTT: time.Duration(i%2) * time.Second}}, i).End()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		log := w.log.text()
		if n := strings.Count(log, "connection on a poor path"); n != 20 {
			t.Errorf("got %d lines, want the 20 poor ones", n)
		}
		if !strings.Contains(log, "device=app/1 ") || !strings.Contains(log, "network=loopback") || strings.Contains(log, "device=app/2 tcp.") {
			t.Error("the log does not name clients and networks of poor paths alone")
		}
		for range 100 {
			w.srv.mayReport()
		}
		if w.srv.mayReport() {
			t.Error("the rate has no bound")
		}
	})
}

// The kernel says that it gave up once: to who reads, or to who writes.
func TestKernelThatGivesUpIsNamed(t *testing.T) {
	for name, tell := range map[string]func(x *Session, s *wired){
		"to the reader": func(x *Session, _ *wired) { x.KernelGaveUp(); x.KernelGaveUp() },
		"to a write": func(x *Session, s *wired) {
			s.broken = os.NewSyscallError("write", syscall.ETIMEDOUT)
			_ = x.Peer().Control(wire.ControlPing(nil))
			x.KernelGaveUp()
		},
		// The reader was told and has not said so yet when a ping finds the socket broken.
		"to the reader, and a write comes between": func(x *Session, s *wired) {
			s.broken = os.NewSyscallError("write", syscall.EPIPE)
			_ = x.Peer().Control(wire.ControlPing(nil))
			x.KernelGaveUp()
		},
		"to the reader, and the drainer comes between": func(x *Session, s *wired) {
			s.broken = os.NewSyscallError("write", syscall.EPIPE)
			if _, err := (progress{s, x}).Write([]byte("x"), time.Second); err == nil {
				t.Error("got no error")
			}
			x.Close(wire.CloseInternal, "write")
			x.KernelGaveUp()
		},
		"to the drainer": func(x *Session, s *wired) {
			s.broken = os.NewSyscallError("write", syscall.ETIMEDOUT)
			if _, err := (progress{s, x}).Write([]byte("x"), time.Second); err == nil {
				t.Error("got no error")
			}
			x.Close(wire.CloseInternal, "write")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			s := &wired{sink: newSink()}
			x := greet(t, w, s, 1)
			tell(x, s)
			x.End()
			if n := w.wheel.Stats().Dead[liveness.CauseKernel]; n != 1 {
				t.Errorf("got %d counted, want 1", n)
			}
			checkCloses(t, w, wire.CloseNoPong, 1)
			if strings.Count(w.log.text(), "evidence=kernel_timeout") != 1 {
				t.Error("the log does not name the evidence once")
			}
		})
	}
}

// A connection that the server closed, or that the client has left, ends in a
// deadline or a broken write too.
func TestOwnEndsAreNotTheKernels(t *testing.T) {
	for name, end := range map[string]func(x *Session, s *wired){
		"closed, then silent": func(x *Session, _ *wired) { x.Close(wire.CloseSlow, "slow"); x.KernelGaveUp() },
		"closed while the drainer writes": func(x *Session, s *wired) {
			x.Close(wire.CloseSlow, "slow")
			s.broken = os.NewSyscallError("write", syscall.EPIPE)
			if _, err := (progress{s, x}).Write([]byte("x"), time.Second); err == nil {
				t.Error("got no error")
			}
			x.KernelGaveUp()
		},
		"left by the client": func(x *Session, s *wired) {
			s.broken = os.NewSyscallError("write", syscall.EPIPE)
			_ = x.Peer().Control(wire.ControlPing(nil))
			x.Close(wire.CloseNormal, "connection ended")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			s := &wired{sink: newSink()}
			x := greet(t, w, s, 1)
			end(x, s)
			x.End()
			if n := w.wheel.Stats().Dead[liveness.CauseKernel]; n != 0 {
				t.Errorf("got %d counted as the kernel's, want 0", n)
			}
		})
	}
}

func TestDeadPathIsNotWaitedFor(t *testing.T) {
	w := newWorld(t, nil)
	s := newSink()
	x := w.srv.Start(Conn{Transport: "ws", Remote: local, Socket: s})
	defer x.End()
	x.Receive(x.Context(), []byte(`{"type":"hello","guest":"ann"}`))
	beating{x}.Dead(liveness.Verdict{Cause: liveness.CausePathDead})
	beating{x}.Dead(liveness.Verdict{Cause: liveness.CauseFrozen})
	if code, _, closed := x.Peer().Closed(); !closed || code != wire.CloseNoPong || !s.cut {
		t.Errorf("got close %d %v, cut %v, want 4502 and the socket closed at once", code, closed, s.cut)
	}
	if strings.Count(w.log.text(), "went unanswered") != 1 {
		t.Error("want one verdict in the log")
	}
}
