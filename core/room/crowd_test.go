package room

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/disk"
)

// turnstile is a journal whose reads wait for the test, and are counted.
type turnstile struct {
	journal.Journal
	mu      sync.Mutex
	shut    bool
	waiting int
	most    int
	total   int
	opened  chan struct{}
}

func (j *turnstile) Read(ctx context.Context, room chat.RoomID, after uint64, limit int) (string, []journal.Entry, error) {
	j.mu.Lock()
	shut := j.shut
	if shut {
		j.waiting++
		j.total++
		j.most = max(j.most, j.waiting)
	}
	j.mu.Unlock()
	if shut {
		<-j.opened
		j.mu.Lock()
		j.waiting--
		j.mu.Unlock()
	}
	return j.Journal.Read(ctx, room, after, limit)
}

// When the link to a shared store is back every room has to look there. They do
// so a few at a time, and all of them.
func TestRoomsCatchUpAFewAtATime(t *testing.T) {
	const rooms = 4 * maxFills
	cfg := disk.Defaults()
	cfg.Path, cfg.CommitWindow = filepath.Join(t.TempDir(), "parley.db"), 0
	d, err := disk.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for i := range rooms {
		if _, err := d.Append(t.Context(), journal.Request{Room: chat.RoomID(fmt.Sprintf("room%d", i)),
			Entry: journal.Entry{ID: chat.MessageID(fmt.Sprintf("id%d", i)), Kind: journal.KindMessage, From: "ann"}}); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		j := &turnstile{Journal: d, opened: make(chan struct{})}
		h, err := New(Defaults(), j, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = h.Run(ctx) })
		defer running.Wait()
		defer stop()
		var all []*Room
		for i := range rooms {
			r, err := h.Room(ctx, chat.RoomID(fmt.Sprintf("room%d", i)))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
		}
		j.mu.Lock()
		j.shut = true
		j.mu.Unlock()
		for _, r := range all {
			r.Doubt()
		}
		synctest.Wait()
		j.mu.Lock()
		if j.waiting != maxFills {
			t.Errorf("%d rooms read at once, want %d", j.waiting, maxFills)
		}
		j.mu.Unlock()
		close(j.opened)
		synctest.Wait()
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.most > maxFills || j.total < rooms {
			t.Errorf("%d reads, at most %d at once, want %d rooms to read, %d at once", j.total, j.most, rooms, maxFills)
		}
	})
}
