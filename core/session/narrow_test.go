package session

import (
	"bytes"
	"encoding/binary"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/liveness"
	"parley/core/wire"
)

// narrow is a socket on a slow path to a client that reads: what is written
// lies in the kernel's buffer and leaves at a fixed rate. Like Linux it wakes a
// waiting writer once a third of the buffer is free.
type narrow struct {
	size, rate int // bytes, and bytes a second

	mu      sync.Mutex
	written []byte
	gone    float64 // bytes of written that the client has
	at      time.Time
	cut     bool
}

// queuedLocked brings the buffer up to now.
func (n *narrow) queuedLocked() int {
	now := time.Now()
	n.gone = min(n.gone+now.Sub(n.at).Seconds()*float64(n.rate), float64(len(n.written)))
	n.at = now
	return len(n.written) - int(n.gone)
}

func (n *narrow) TryWrite(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut {
		return 0, os.ErrClosed
	}
	took := min(len(p), max(n.size-n.queuedLocked(), 0))
	n.written = append(n.written, p[:took]...)
	return took, nil
}

func (n *narrow) Write(p []byte, timeout time.Duration) (int, error) {
	n.mu.Lock()
	over := n.queuedLocked() - n.size*2/3
	n.mu.Unlock()
	if wait := time.Duration(float64(over) / float64(n.rate) * float64(time.Second)); wait > 0 {
		time.Sleep(min(wait, timeout))
		if wait > timeout {
			return 0, os.ErrDeadlineExceeded
		}
	}
	return n.TryWrite(p)
}

func (n *narrow) Shutdown() {}
func (n *narrow) Abort() {
	n.mu.Lock()
	n.cut = true
	n.mu.Unlock()
}

func (n *narrow) Evidence() (liveness.Evidence, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := n.queuedLocked()
	flight := min(q, 8<<10)
	return liveness.Evidence{Known: true, Queued: q, NotSent: q - flight, Acked: uint64(n.gone), Unacked: (flight + 1399) / 1400,
		RTT: 300 * time.Millisecond, RTO: 500 * time.Millisecond}, nil
}

// has reports whether the client has been sent b by now.
func (n *narrow) has(b []byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.queuedLocked()
	return bytes.Contains(n.written[:int(n.gone)], b)
}

// A ping that still waits in this process, behind what the client is owed, is
// nothing the client could have answered.
func TestAPingThatDidNotLeaveIsNotHeldAgainstTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(s *setup) {
			s.wheel = liveness.Config{Ping: time.Minute, Pong: 3 * time.Second}
			s.room.LagBytes, s.room.LagTime = 0, 0
		})
		speaker := w.connect()
		defer speaker.end()
		speaker.do(`{"type":"hello","token":%q}`, w.token("speaker", time.Hour))
		var rec event
		for range 500 { // 2 MB: more than the client takes in the time
			rec = speaker.do(`{"type":"send","room":"lobby","text":%q}`, strings.Repeat("word ", 800))
		}
		n := &narrow{size: 150 << 10, rate: 10 << 10, at: time.Now()}
		x := w.srv.Start(Conn{Transport: "ws", Remote: local, Socket: n})
		defer x.End()
		x.Receive(x.Context(), []byte(`{"type":"hello","guest":"slow"}`))
		x.Receive(x.Context(), []byte(`{"type":"join","room":"lobby","since":{"epoch":"`+rec.Epoch+`","seq":0}}`))
		answered := uint32(0)
		for end := time.Now().Add(3 * time.Minute); time.Now().Before(end) && !x.Closed(); time.Sleep(100 * time.Millisecond) {
			ping := binary.BigEndian.AppendUint32(nil, answered+1)
			if n.has(wire.ControlPing(ping)) { // the client answers at once
				answered++
				x.Pong(ping)
			}
		}
		if code, reason, closed := x.Peer().Closed(); closed {
			t.Errorf("closed as %d %s: %s", code, reason, w.log.text())
		}
		if answered < 2 {
			t.Errorf("got %d pings, want one a minute", answered)
		}
	})
}
