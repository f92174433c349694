package disk_test

import (
	"fmt"
	"path/filepath"
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
	cfg := disk.Defaults()
	cfg.Path = filepath.Join(b.TempDir(), "journal.db")
	return open(b, cfg)
}

func benchRequest(room chat.RoomID, n uint64) journal.Request {
	return journal.Request{Room: room, Entry: journal.Entry{
		ID: chat.MessageID(fmt.Sprintf("01932f3a-0000-7000-8000-%012x", n)), Kind: journal.KindMessage,
		From: "ann", Time: 1732000000123, Nonce: fmt.Sprintf("nonce-%d", n), Text: benchText, Outcome: chat.Accepted,
	}}
}

// BenchmarkAppend appends durably. Requests are made ahead, so that the
// allocations counted are the journal's.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ writers, rooms int }{{1, 1}, {64, 1}, {64, 64}, {64, 500}} {
		b.Run(fmt.Sprintf("writers=%d/rooms=%d", c.writers, c.rooms), func(b *testing.B) {
			j := benchJournal(b)
			reqs := make([]journal.Request, 1<<16)
			for i := range reqs {
				reqs[i] = benchRequest(chat.RoomID(fmt.Sprintf("room-%d", i%c.rooms)), uint64(i))
			}
			if b.N > len(reqs) { // a nonce must not come twice
				for i := len(reqs); i < b.N; i++ {
					reqs = append(reqs, benchRequest(chat.RoomID(fmt.Sprintf("room-%d", i%c.rooms)), uint64(i)))
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			var next atomic.Int64
			var wg sync.WaitGroup
			for range c.writers {
				wg.Go(func() {
					for {
						i := int(next.Add(1)) - 1
						if i >= b.N {
							return
						}
						if _, err := j.Append(b.Context(), reqs[i]); err != nil {
							b.Errorf("append: %v", err)
							return
						}
					}
				})
			}
			wg.Wait()
			s := j.Stats()
			b.ReportMetric(float64(s.Appended)/float64(s.Commits), "appends/commit")
		})
	}
}
