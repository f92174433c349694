package redis_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/redis"
	"parley/core/redis/redistest"
)

// BenchmarkAppend measures one message of 120 bytes with a nonce, to a server
// on the same machine that writes no file, by 1 and by 64 writers in 64 rooms.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			server := redistest.Start(b, redistest.Options{})
			j := benchNode(b, server.URL())
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					r := journal.Request{Room: chat.RoomID("room-" + strconv.Itoa(w)), Entry: journal.Entry{
						ID: "01890a5d-ac96-774b-bcce-b302099a8057", Kind: journal.KindMessage, From: "ann",
						Time: 1732000000123, Text: strings.Repeat("x", 120), Outcome: chat.Accepted,
					}}
					for n := left.Add(-1); n >= 0; n = left.Add(-1) {
						r.Entry.Nonce = strconv.FormatInt(n, 36)
						rc, err := j.Append(b.Context(), r)
						if err != nil {
							b.Error(err)
							return
						}
						r.Known = journal.Position{Epoch: rc.Epoch, Seq: rc.Seq, ID: rc.ID}
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkOpenAppend measures 3,000 messages a second over 500 rooms, each
// room's at random moments: what an append costs this process in CPU time, the
// sender's own timer included, and how long the slowest in a hundred takes.
func BenchmarkOpenAppend(b *testing.B) {
	const rooms, perSecond = 500, 3000
	server := redistest.Start(b, redistest.Options{})
	j := benchNode(b, server.URL())
	b.ReportAllocs()
	took := make([][]time.Duration, rooms)
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	before, began := cpuTime(b), time.Now()
	var wg sync.WaitGroup
	for i := range rooms {
		wg.Go(func() {
			r := journal.Request{Room: chat.RoomID("room-" + strconv.Itoa(i)), Entry: journal.Entry{
				ID: "01890a5d-ac96-774b-bcce-b302099a8057", Kind: journal.KindMessage, From: "ann",
				Time: 1732000000123, Text: strings.Repeat("x", 120), Outcome: chat.Accepted,
			}}
			due, at := time.Now(), time.NewTimer(0)
			<-at.C
			for n := left.Add(-1); n >= 0; n = left.Add(-1) {
				due = due.Add(time.Duration(rand.ExpFloat64() * float64(rooms*time.Second/perSecond)))
				at.Reset(time.Until(due))
				<-at.C
				r.Entry.Nonce = strconv.FormatInt(n, 36)
				rc, err := j.Append(b.Context(), r)
				if err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(due))
				r.Known = journal.Position{Epoch: rc.Epoch, Seq: rc.Seq, ID: rc.ID}
			}
		})
	}
	wg.Wait()
	used := cpuTime(b) - before
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-us/op")
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "op/s")
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
}

// cpuTime is what this process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRead measures the newest 50 entries of a room.
func BenchmarkRead(b *testing.B) {
	server := redistest.Start(b, redistest.Options{})
	j := benchNode(b, server.URL())
	for i := range 1000 {
		r := message("lobby", strconv.Itoa(i))
		r.Entry.Text = strings.Repeat("x", 120)
		if _, err := j.Append(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, es, err := j.ReadBefore(b.Context(), "lobby", 0, 50); err != nil || len(es) != 50 {
			b.Fatalf("got %d entries, %v", len(es), err)
		}
	}
}

func benchNode(b *testing.B, url string) *journalredis.Journal {
	b.Helper()
	cfg := redis.Defaults()
	cfg.URL = url
	c, err := redis.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	j, err := journalredis.New(journalredis.Defaults(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { j.Close(); c.Close() })
	return j
}

// BenchmarkMemory measures what a message of 120 bytes takes in the server's
// memory: in the room's log, and with the answer that its nonce keeps.
func BenchmarkMemory(b *testing.B) {
	for _, nonces := range []bool{false, true} {
		b.Run(fmt.Sprintf("nonces=%v", nonces), func(b *testing.B) {
			server := redistest.Start(b, redistest.Options{})
			j := benchNode(b, server.URL())
			used := func() (n int) {
				_, rest, _ := strings.Cut(server.Do("INFO", "memory"), "used_memory:")
				n, err := strconv.Atoi(strings.Fields(rest)[0])
				if err != nil {
					b.Fatal(err)
				}
				return n
			}
			r := journal.Request{Room: "lobby", Entry: journal.Entry{
				Kind: journal.KindMessage, From: "ann", Time: 1732000000123, Text: strings.Repeat("x", 120), Outcome: chat.Accepted,
			}}
			before := used()
			for i := range b.N {
				r.Entry.ID = chat.MessageID(fmt.Sprintf("01890a5d-ac96-774b-bcce-%012x", i))
				if nonces {
					r.Entry.Nonce = fmt.Sprintf("2b1d7c9e-0f3a-4e6b-9c8d-%012x", i)
				}
				if _, err := j.Append(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(used()-before)/float64(b.N), "B/entry")
		})
	}
}
