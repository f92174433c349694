package room

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/disk"
	"parley/core/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink is a Socket that keeps what it is given and takes at most a set number
// of bytes before it is full.
type sink struct {
	mu      sync.Mutex
	news    *sync.Cond
	got     []byte
	room    int // bytes it takes before it is full; <0: any number
	writes  int
	largest int  // write that was asked for
	ended   bool // Shutdown
	cut     bool // Abort
}

func newSink(room int) *sink {
	s := &sink{room: room}
	s.news = sync.NewCond(&s.mu)
	return s
}

func (s *sink) takeLocked(p []byte) int {
	s.largest = max(s.largest, len(p))
	n := len(p)
	if s.room >= 0 {
		n = min(n, s.room)
		s.room -= n
	}
	s.got = append(s.got, p[:n]...)
	s.news.Broadcast()
	return n
}

func (s *sink) TryWrite(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut {
		return 0, net.ErrClosed
	}
	s.writes++
	return s.takeLocked(p), nil
}

func (s *sink) Write(p []byte, timeout time.Duration) (int, error) {
	late := false
	timer := time.AfterFunc(timeout, func() { s.mark(&late) })
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.room == 0 && !s.cut {
		if late {
			return 0, os.ErrDeadlineExceeded
		}
		s.news.Wait()
	}
	if s.cut {
		return 0, net.ErrClosed
	}
	return s.takeLocked(p), nil
}

func (s *sink) Shutdown() { s.mark(&s.ended) }
func (s *sink) Abort()    { s.mark(&s.cut) }

func (s *sink) mark(flag *bool) {
	s.mu.Lock()
	*flag = true
	s.news.Broadcast()
	s.mu.Unlock()
}

func (s *sink) open(room int) {
	s.mu.Lock()
	s.room = room
	s.news.Broadcast()
	s.mu.Unlock()
}

// await waits until ok holds of the sink.
func (s *sink) await(t *testing.T, what string, ok func(*sink) bool) {
	t.Helper()
	late := false
	timer := time.AfterFunc(20*time.Second, func() { s.mark(&late) })
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !ok(s) {
		if late {
			t.Fatalf("waited in vain for %s; got %d bytes: %.300s", what, len(s.got), s.got)
		}
		s.news.Wait()
	}
}

// event is what the tests look at.
type event struct {
	Type      string
	Room      string
	Epoch     string
	Seq       uint64
	Text      string
	Event     string
	Recovered bool
	Code      int
}

func (s *sink) events(t *testing.T) (out []event) {
	t.Helper()
	for _, line := range strings.SplitAfter(string(s.got), "\n") {
		if !strings.HasSuffix(line, "\n") {
			continue // the rest of a frame that is on its way
		}
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("bad line %q: %v", line, err)
		}
		out = append(out, e)
	}
	return out
}

// seqs returns the seqs of the messages the sink got.
func (s *sink) seqs(t *testing.T) (out []uint64) {
	for _, e := range s.events(t) {
		if e.Type == "message" {
			out = append(out, e.Seq)
		}
	}
	return out
}

func (s *sink) awaitSeq(t *testing.T, seq uint64) {
	t.Helper()
	mark := fmt.Appendf(nil, `"seq":%d,"id"`, seq)
	s.await(t, string(mark), func(s *sink) bool { return bytes.Contains(s.got, mark) })
}

// checkRun fails unless the messages are from..to, each once, in order.
func (s *sink) checkRun(t *testing.T, from, to uint64) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.seqs(t)
	if len(got) != int(to-from+1) {
		t.Fatalf("got %d messages, want %d (%d..%d): %v", len(got), to-from+1, from, to, got)
	}
	for i, seq := range got {
		if seq != from+uint64(i) {
			t.Fatalf("message %d has seq %d, want %d", i, seq, from+uint64(i))
		}
	}
}

// world is a hub on a real embedded journal.
type world struct {
	t   *testing.T
	hub *Hub
	j   journal.Journal
	n   int
}

// newWorld runs a hub; wrap, where given, stands between it and the journal.
func newWorld(t *testing.T, change func(*Config), wrap func(journal.Journal) journal.Journal) *world {
	t.Helper()
	dc := disk.Defaults()
	dc.Path = filepath.Join(t.TempDir(), "parley.db")
	log := slog.New(slog.DiscardHandler)
	d, err := disk.Open(dc, log)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, j: d}
	if wrap != nil {
		w.j = wrap(d)
	}
	cfg := Defaults()
	cfg.Pace = 0
	if change != nil {
		change(&cfg)
	}
	if w.hub, err = New(cfg, w.j, log); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.hub.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) room(id chat.RoomID) *Room {
	w.t.Helper()
	r, err := w.hub.Room(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// post appends n messages to the room and returns the last receipt.
func (w *world) post(id chat.RoomID, n int) (last journal.Receipt) {
	w.t.Helper()
	r := w.room(id)
	for range n {
		w.n++
		var err error
		last, err = r.Append(w.t.Context(), message(w.n), false)
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return last
}

func message(n int) journal.Entry {
	return journal.Entry{ID: chat.MessageID(fmt.Sprintf("id-%d", n)), Kind: journal.KindMessage, From: "ann",
		Time: int64(n), Nonce: fmt.Sprintf("n%d", n), Text: fmt.Sprintf("message %d", n), Outcome: chat.Accepted}
}

// join makes a peer with the socket a member.
func (w *world) join(id chat.RoomID, s *sink, since *journal.Position) (*Peer, *Member) {
	w.t.Helper()
	p := w.hub.NewPeer(s, true)
	return p, w.joinPeer(id, p, since)
}

func (w *world) joinPeer(id chat.RoomID, p *Peer, since *journal.Position) *Member {
	w.t.Helper()
	m, err := w.hub.Join(w.t.Context(), id, p, since, joinedFrame)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func joinedFrame(r *Room, i JoinInfo) (wire.Frame, error) {
	return wire.Encode(wire.JoinedEvent{Type: wire.Joined, Room: r.ID(), Epoch: i.Position.Epoch, Seq: i.Position.Seq, LastID: i.Position.ID, Recovered: i.Recovered}), nil
}

func small(c *Config) { c.RingEntries = 8 }
