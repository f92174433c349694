package room

import (
	"context"
	"log/slog"
	"sync"

	"parley/core/chat"
	"parley/core/journal"
)

// maxHints bounds the news of a room's reviews that wait to be told. Beyond it
// they are dropped, which they may be: who was not told asks.
const maxHints = 1024

// hints are news of reviews on their way from the journal, which must not
// wait, to the function that tells people, which may. Those of a room are told
// one after the other, in the order in which they came: nobody hears that a
// message was decided before they hear that it was held. Rooms do not wait for
// each other.
type hints struct {
	tell func(chat.RoomID, *journal.Review) // see Hub.OnReview; nil tells nobody

	mu      sync.Mutex
	waiting map[chat.RoomID][]*journal.Review // with an entry, a goroutine tells them
}

// OnReview makes the hub call f whenever a review of a loaded room is opened or
// decided, on this node or another: for each room from one goroutine at a
// time, in the order of the journal's deliveries. Call it before the hub is
// used.
func (h *Hub) OnReview(f func(chat.RoomID, *journal.Review)) { h.hints.tell = f }

// reviewed takes a review from the journal.
func (h *Hub) reviewed(room chat.RoomID, v *journal.Review) {
	t := &h.hints
	if t.tell == nil {
		return
	}
	t.mu.Lock()
	list, telling := t.waiting[room]
	if len(list) >= maxHints {
		t.mu.Unlock()
		h.stats.HintsDropped.Add(1)
		h.log.Warn("news of a review is dropped: too many wait to be told", slog.String("room", string(room)))
		return
	}
	if t.waiting == nil {
		t.waiting = make(map[chat.RoomID][]*journal.Review)
	}
	t.waiting[room] = append(list, v)
	t.mu.Unlock()
	if !telling {
		h.spawn(func(context.Context) { t.tellAll(room) }) // false when the hub stops: nobody is left to be told
	}
}

// tellAll tells what waits of a room until nothing does.
func (t *hints) tellAll(room chat.RoomID) {
	for {
		t.mu.Lock()
		list := t.waiting[room]
		if len(list) == 0 {
			delete(t.waiting, room)
			t.mu.Unlock()
			return
		}
		t.waiting[room] = list[1:]
		t.mu.Unlock()
		t.tell(room, list[0])
	}
}
