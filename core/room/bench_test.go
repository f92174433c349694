package room

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"parley/core/journal"
	"parley/core/journal/disk"
)

// hole is a Socket that takes everything: what is measured is the pump, not
// the kernel.
type hole struct{ bytes, writes int }

func (h *hole) TryWrite(p []byte) (int, error) {
	h.bytes += len(p)
	h.writes++
	return len(p), nil
}
func (h *hole) Write(p []byte, _ time.Duration) (int, error) { return h.TryWrite(p) }
func (h *hole) Shutdown()                                    {}
func (h *hole) Abort()                                       {}

// BenchmarkFanOut moves one entry to every member of a room: ns and allocs
// are for one entry and all its deliveries.
func BenchmarkFanOut(b *testing.B) {
	for _, members := range []int{10, 1000} {
		for _, batch := range []int{1, 16} {
			b.Run(fmt.Sprintf("members=%d/batch=%d", members, batch), func(b *testing.B) { fanOut(b, members, batch) })
		}
	}
}

func fanOut(b *testing.B, members, batch int) {
	dc := disk.Defaults()
	dc.Path = filepath.Join(b.TempDir(), "parley.db")
	log := slog.New(slog.DiscardHandler)
	j, err := disk.Open(dc, log)
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	cfg := Defaults()
	cfg.Shards, cfg.Pace = 1, 0
	hub, err := New(cfg, j, log)
	if err != nil {
		b.Fatal(err)
	}
	// The pump is driven by hand, so that a pass is a pass.
	r, err := hub.Room(context.Background(), "lobby")
	if err != nil {
		b.Fatal(err)
	}
	for range members {
		if _, err := hub.Join(context.Background(), "lobby", hub.NewPeer(&hole{}, false), nil, joinedFrame); err != nil {
			b.Fatal(err)
		}
	}
	s := hub.shards[0]
	s.pass(time.Now())
	var seq uint64
	e := message(1)
	e.Text = string(make([]byte, 0, 120)) + "an ordinary message of about one hundred and twenty bytes, as people write them when they talk to each other in a room"
	b.ReportAllocs()
	for b.Loop() {
		for range batch {
			seq++
			next := e
			next.Seq = seq
			r.Appended("e", &next)
		}
		s.pass(time.Now())
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*members*batch), "ns/delivery")
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	wg.Go(func() { _ = hub.Run(ctx) })
	stop()
	wg.Wait()
}

var _ journal.Watcher = (*Room)(nil)
