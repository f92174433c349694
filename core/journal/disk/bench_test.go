package disk_test

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/disk"
)

// benchText is a chat message of ordinary length.
const benchText = "The quick brown fox jumps over the lazy dog, and then some more is said about it, a hundred and twenty bytes in all...."

func benchJournal(b *testing.B) *disk.Journal {
	return open(b, config(filepath.Join(b.TempDir(), "journal.db")))
}

// benchRequest is the n-th message to a room, with an id and a nonce of its
// own.
func benchRequest(room chat.RoomID, n uint64) journal.Request {
	return journal.Request{Room: room, Entry: journal.Entry{
		ID: chat.MessageID(fmt.Sprintf("01932f3a-0000-7000-8000-%012x", n)), Kind: journal.KindMessage,
		From: "ann", Time: 1732000000123, Nonce: fmt.Sprintf("nonce-%d", n), Text: benchText, Outcome: chat.Accepted,
	}}
}

// BenchmarkAppend appends durably, each writer one message after the other. Of
// the allocations, four are the request's.
func BenchmarkAppend(b *testing.B) {
	b.Run("writers=1", func(b *testing.B) {
		j := benchJournal(b)
		b.ReportAllocs()
		for n := uint64(0); b.Loop(); n++ {
			if _, err := j.Append(b.Context(), benchRequest("lobby", n)); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, rooms := range []uint64{1, 64, 500} {
		b.Run(fmt.Sprintf("writers=64/rooms=%d", rooms), func(b *testing.B) {
			j := benchJournal(b)
			names := make([]chat.RoomID, rooms)
			for i := range names {
				names[i] = chat.RoomID(fmt.Sprintf("room-%d", i))
			}
			var next atomic.Uint64
			b.SetParallelism(writersPerCPU(64))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					n := next.Add(1)
					if _, err := j.Append(b.Context(), benchRequest(names[n%rooms], n)); err != nil {
						b.Error(err)
						return
					}
				}
			})
			s := j.Stats()
			b.ReportMetric(float64(s.Appended)/float64(s.Commits), "appends/commit")
		})
	}
}

// BenchmarkLast50 reads the newest 50 entries of a room of 10,000.
func BenchmarkLast50(b *testing.B) {
	j := benchJournal(b)
	fillParallel(b, j, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, es, err := j.ReadBefore(b.Context(), "lobby", 0, 50); err != nil || len(es) != 50 {
			b.Fatalf("got %d entries, %v", len(es), err)
		}
	}
}

// BenchmarkLookup asks for a nonce that is new, as nearly every one is, and
// for one that is known.
func BenchmarkLookup(b *testing.B) {
	j := benchJournal(b)
	fillParallel(b, j, 10_000)
	for nonce, want := range map[string]bool{"new": false, "nonce-5000": true} {
		b.Run(fmt.Sprintf("known=%v", want), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok, err := j.Lookup(b.Context(), "lobby", "ann", nonce); ok != want || err != nil {
					b.Fatalf("got %v, %v", ok, err)
				}
			}
		})
	}
}

// writersPerCPU is the parallelism that makes b.RunParallel start n
// goroutines, or a few more.
func writersPerCPU(n int) int {
	cpus := runtime.GOMAXPROCS(0)
	return (n + cpus - 1) / cpus
}

// fillParallel appends n messages to room lobby from many goroutines.
func fillParallel(b *testing.B, j *disk.Journal, n uint64) {
	b.Helper()
	var next atomic.Uint64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := next.Add(1); i <= n; i = next.Add(1) {
				if _, err := j.Append(b.Context(), benchRequest("lobby", i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkErase measures erasures in a file of 500,000 entries of 120 bytes: one
// message, those of 64 people at once, and 5,000 of one person.
func BenchmarkErase(b *testing.B) {
	for _, tc := range []struct {
		name      string
		callers   int
		perCaller int
	}{{"1", 1, 1}, {"64 at once", 64, 1}, {"5000 of one", 1, 5000}} {
		b.Run(tc.name, func(b *testing.B) {
			j, epoch := bigRoom(b, 500_000)
			seq := uint64(0)
			for b.Loop() {
				var wg sync.WaitGroup
				for range tc.callers {
					var seqs []uint64
					for range tc.perCaller {
						seq += 7
						seqs = append(seqs, seq%500_000+1)
					}
					wg.Go(func() {
						if _, err := j.Erase(b.Context(), "lobby", journal.Erasure{Epoch: epoch, Seqs: seqs}); err != nil {
							b.Error(err)
						}
					})
				}
				wg.Wait()
			}
		})
	}
}

// bigRoom opens a journal with a lobby of n entries.
func bigRoom(b *testing.B, n int) (j *disk.Journal, epoch string) {
	b.Helper()
	cfg := config(filepath.Join(b.TempDir(), "journal.db"))
	cfg.MaxEntries = 0
	j, err := disk.Open(cfg, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = j.Close() })
	in, err := j.Import(b.Context(), "lobby")
	if err != nil {
		b.Fatal(err)
	}
	for seq := 1; seq <= n; seq += 1000 {
		var es []journal.Entry
		for i := range 1000 {
			e := journal.Entry{Seq: uint64(seq + i), Kind: journal.KindMessage, From: "ann", Time: 1732000000123, Text: strings.Repeat("x", 120), Outcome: chat.Accepted}
			e.ID = chat.MessageID(fmt.Sprintf("01890a5d-ac96-774b-bcce-%012x", e.Seq))
			es = append(es, e)
		}
		if err := in.Put(b.Context(), es); err != nil {
			b.Fatal(err)
		}
	}
	at, err := in.Commit(b.Context(), journal.Image{Top: journal.Position{Seq: uint64(n), ID: chat.MessageID(fmt.Sprintf("01890a5d-ac96-774b-bcce-%012x", n))}})
	if err != nil {
		b.Fatal(err)
	}
	return j, at.Epoch
}
