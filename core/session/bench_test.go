package session

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/evidence"
	evidencedisk "parley/core/evidence/disk"
	"parley/core/journal"
	"parley/sdk/abi"
)

// void is a Socket that takes everything and keeps nothing.
type void struct{}

func (void) TryWrite(p []byte) (int, error)               { return len(p), nil }
func (void) Write(p []byte, _ time.Duration) (int, error) { return len(p), nil }
func (void) Shutdown()                                    {}
func (void) Abort()                                       {}

// quick is a journal that stores nothing, so that a benchmark shows what the
// session costs and not the disk. Everything but appends is the real one's.
type quick struct {
	journal.Journal
	mu       sync.Mutex
	seq      uint64
	watchers []journal.Watcher
}

func (q *quick) Watch(_ context.Context, _ chat.RoomID, w journal.Watcher) (func(), error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.watchers = append(q.watchers, w)
	return func() {}, nil
}

func (q *quick) Append(_ context.Context, r journal.Request) (journal.Receipt, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.seq++
	e := r.Entry
	e.Seq = q.seq
	for _, w := range q.watchers {
		w.Appended("epoch", &e)
	}
	return journal.Receipt{Epoch: "epoch", Seq: e.Seq, ID: e.ID, Outcome: e.Outcome}, nil
}

// greeted returns a session that has said hello and joined the lobby.
func greeted(b *testing.B, w *world, name string) *Session {
	b.Helper()
	x := w.srv.Start(Conn{Transport: "ws", Remote: local, Socket: void{}})
	for _, frame := range []string{fmt.Sprintf(`{"type":"hello","guest":%q}`, name), `{"type":"join","room":"lobby"}`} {
		if !x.Receive(x.Context(), []byte(frame)) {
			b.Fatal("the session was closed")
		}
	}
	return x
}

// BenchmarkSend is a message's walk from the frame to the ack: decode, rate,
// cleaning, gate, an empty plugin stage, append, encode.
func BenchmarkSend(b *testing.B) {
	for _, real := range []bool{false, true} {
		name := map[bool]string{false: "no store", true: "bbolt"}[real]
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, nil)
			if !real {
				w.store.Journal = &quick{Journal: w.store.Journal}
			}
			x := greeted(b, w, "ann")
			defer x.End()
			frame := []byte(`{"type":"send","id":"12","room":"lobby","nonce":"6f1c4d0e-0b55-4f0e-9f3e-0a4c8a6f2f11","text":"has anyone seen the minutes of the last meeting?"}`)
			at := len(`{"type":"send","id":"12","room":"lobby","nonce":"`)
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				n++
				copy(frame[at:at+8], fmt.Appendf(nil, "%08x", n))
				x.Receive(x.Context(), frame)
			}
			if sent := w.srv.Stats().Sent.Load(); sent != uint64(n) {
				b.Fatalf("got %d sent, want %d", sent, n)
			}
		})
	}
}

// BenchmarkSendJudged is the same with two plugins, and with the record of
// their decisions, which a keeper writes to its store meanwhile.
func BenchmarkSendJudged(b *testing.B) {
	for _, recorded := range []bool{false, true} {
		name := map[bool]string{false: "not recorded", true: "recorded"}[recorded]
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, nil)
			w.store.Journal = &quick{Journal: w.store.Journal}
			w.judge(says("bouncer", "damn", abi.Deny), says("careful", "darn", abi.Hold))
			if recorded {
				store := must(evidencedisk.Open(evidencedisk.Config{Path: filepath.Join(b.TempDir(), "evidence.db"), MaxBytes: 64 << 20}, w.srv.d.Log))
				cfg := evidence.Defaults()
				cfg.NoteBytes = 64 << 20 // one client in a loop is faster than any number of people
				keeper := must(evidence.New(cfg, store, w.srv.d.Log))
				ctx, stop := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				wg.Go(func() { _ = keeper.Run(ctx) })
				defer func() {
					stop()
					wg.Wait()
					s := keeper.Stats()
					b.ReportMetric(float64(s.NotesDropped)/float64(s.Noted+s.NotesDropped), "lost")
					_ = store.Close()
				}()
				w.srv.d.Evidence = keeper
			}
			x := greeted(b, w, "ann")
			defer x.End()
			frame := []byte(`{"type":"send","id":"12","room":"lobby","nonce":"6f1c4d0e-0b55-4f0e-9f3e-0a4c8a6f2f11","text":"has anyone seen the minutes of the last meeting?"}`)
			at := len(`{"type":"send","id":"12","room":"lobby","nonce":"`)
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				n++
				copy(frame[at:at+8], fmt.Appendf(nil, "%08x", n))
				x.Receive(x.Context(), frame)
			}
			if sent := w.srv.Stats().Sent.Load(); sent != uint64(n) {
				b.Fatalf("got %d sent, want %d", sent, n)
			}
		})
	}
}

// BenchmarkSendParallel is many clients in one room of the embedded store,
// where commits are shared.
func BenchmarkSendParallel(b *testing.B) {
	w := newWorld(b, nil)
	var clients, n atomic.Uint64
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		x := greeted(b, w, fmt.Sprint("user-", clients.Add(1)))
		defer x.End()
		for pb.Next() {
			x.Receive(x.Context(), fmt.Appendf(nil, `{"type":"send","room":"lobby","nonce":"n%d","text":"has anyone seen the minutes of the last meeting?"}`, n.Add(1)))
		}
	})
}

func BenchmarkPing(b *testing.B) {
	w := newWorld(b, nil)
	x := greeted(b, w, "ann")
	defer x.End()
	frame := []byte(`{"type":"ping","id":"9","ts":1764000000123}`)
	b.ReportAllocs()
	for b.Loop() {
		x.Receive(x.Context(), frame)
	}
}

func BenchmarkRateLimit(b *testing.B) {
	l, now := newLimiter(), time.Now()
	k := limitKey{user: "ann", room: "lobby"}
	k.rate.Count, k.rate.PerS = 5, 10
	b.ReportAllocs()
	for b.Loop() {
		l.take(k.user, k.room, k.rate, now)
	}
}
