package room

import (
	"context"
	"sync/atomic"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

// emptied is a journal that, while it is told to, answers as one whose store
// has lost everything and has not begun anew.
type emptied struct {
	journal.Journal
	empty atomic.Bool
	known atomic.Pointer[journal.Position] // of the last append
}

func (j *emptied) Append(ctx context.Context, r journal.Request) (journal.Receipt, error) {
	j.known.Store(&r.Known)
	return j.Journal.Append(ctx, r)
}

func (j *emptied) Read(ctx context.Context, room chat.RoomID, after uint64, limit int) (string, []journal.Entry, error) {
	if j.empty.Load() {
		return "", []journal.Entry{}, nil
	}
	return j.Journal.Read(ctx, room, after, limit)
}

func (j *emptied) ReadBefore(ctx context.Context, room chat.RoomID, before uint64, limit int) (string, []journal.Entry, error) {
	if j.empty.Load() {
		return "", []journal.Entry{}, nil
	}
	return j.Journal.ReadBefore(ctx, room, before, limit)
}

func (j *emptied) Info(ctx context.Context, room chat.RoomID) (journal.Info, error) {
	if j.empty.Load() {
		return journal.Info{}, nil
	}
	return j.Journal.Info(ctx, room)
}

// TestAnEmptyStoreIsNotTakenOver looks at a store that has lost everything
// before anybody has appended to it. The room must keep what it knows, for its
// next append is what tells the store and the other nodes.
func TestAnEmptyStoreIsNotTakenOver(t *testing.T) {
	var j *emptied
	w := newWorld(t, nil, func(to journal.Journal) journal.Journal { j = &emptied{Journal: to}; return j })
	last := w.post("lobby", 3)
	r := w.room("lobby")
	awaitHead(t, r, 3)
	s := newSink(-1)
	w.join("lobby", s, nil)

	j.empty.Store(true)
	for range 2 { // by the entry at the head, and past it
		if err := r.fillOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if at := r.Position(); at.Epoch != last.Epoch || at.Seq != 3 {
		t.Errorf("the room stands at %+v, want seq 3 of epoch %s", at, last.Epoch)
	}
	j.empty.Store(false)
	w.post("lobby", 1)
	if known := j.known.Load(); known.Epoch != last.Epoch || known.Seq != 3 {
		t.Errorf("the append knew %+v, want seq 3 of epoch %s", known, last.Epoch)
	}
	s.awaitSeq(t, 4)
	for _, e := range s.events(t) {
		if e.Type == "reset" {
			t.Errorf("the member was reset to seq %d of epoch %q", e.Seq, e.Epoch)
		}
	}
}

// TestWhoKnewTheRoomIsToldOfItsNewEpoch joins with a position of a log that the
// store has lost, before there is another one.
func TestWhoKnewTheRoomIsToldOfItsNewEpoch(t *testing.T) {
	w := newWorld(t, nil, nil)
	knew, fresh := newSink(-1), newSink(-1)
	w.join("lobby", knew, &journal.Position{Epoch: "lost", Seq: 7, ID: "id-7"})
	rec := w.post("lobby", 2)
	knew.await(t, "a reset to the new epoch", func(s *sink) bool {
		for _, e := range s.events(t) {
			if e.Type == "reset" && e.Epoch == rec.Epoch {
				return true
			}
		}
		return false
	})
	w.post("lobby", 1)
	knew.awaitSeq(t, 3)

	w.join("hall", fresh, nil)
	w.post("hall", 2)
	fresh.awaitSeq(t, 2)
	fresh.checkRun(t, 1, 2)
	for _, e := range fresh.events(t) {
		if e.Type == "reset" {
			t.Error("who has joined a new room was reset")
		}
	}
}
