// Package presence knows who is in which room at present. Presence is never
// in a room's log: it has no seq, is announced to those who keep up, and is
// forgotten with the connection.
//
// Up to NameLimit members are announced by name; in larger rooms, where every
// arrival would be a message to thousands, only the count is announced, at
// most once a second.
package presence

import (
	"context"
	"slices"
	"sync"
	"time"

	"parley/core/chat"
	"parley/core/wire"
)

// NameLimit is how many members a room may have and still be told who they
// are.
const NameLimit = 200

// countEvery is how often a large room's count is announced at most.
const countEvery = time.Second

// Announcer sends an ephemeral frame to a room's members. Announce must not
// block and must not call the Tracker.
type Announcer interface{ Announce(wire.Frame) }

// Tracker counts each user's connections in each room. Its methods may be
// called from any goroutine.
type Tracker struct {
	mu    sync.Mutex
	rooms map[chat.RoomID]*roster
	large map[chat.RoomID]struct{} // rooms whose count is to be announced
}

type roster struct {
	conns map[chat.UserID]int
	to    Announcer
}

// New returns an empty tracker. Run announces the counts of large rooms.
func New() *Tracker {
	return &Tracker{rooms: make(map[chat.RoomID]*roster), large: make(map[chat.RoomID]struct{})}
}

// Join adds one connection of the user and announces the user if it is the
// first. It returns how many users are in the room.
func (t *Tracker) Join(id chat.RoomID, u chat.UserID, to Announcer) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[id]
	if r == nil {
		r = &roster{conns: make(map[chat.UserID]int)}
		t.rooms[id] = r
	}
	r.to = to
	r.conns[u]++
	if r.conns[u] == 1 {
		t.announceLocked(id, r, "join", u)
	}
	return len(r.conns)
}

// Leave takes one connection of the user away and announces the user's
// leaving if it was the last.
func (t *Tracker) Leave(id chat.RoomID, u chat.UserID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[id]
	if r == nil || r.conns[u] == 0 {
		return
	}
	if r.conns[u]--; r.conns[u] > 0 {
		return
	}
	delete(r.conns, u)
	if len(r.conns) == 0 {
		delete(t.rooms, id)
		delete(t.large, id)
		return
	}
	t.announceLocked(id, r, "leave", u)
}

func (t *Tracker) announceLocked(id chat.RoomID, r *roster, event string, u chat.UserID) {
	if len(r.conns) > NameLimit {
		t.large[id] = struct{}{}
		return
	}
	r.to.Announce(wire.Encode(wire.PresenceEvent{Type: wire.Presence, Room: id, Event: event, User: u, Count: len(r.conns)}))
}

// Members returns how many users are in the room and, up to NameLimit, who
// they are, sorted.
func (t *Tracker) Members(id chat.RoomID) (count int, users []chat.UserID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[id]
	if r == nil {
		return 0, nil
	}
	if len(r.conns) > NameLimit {
		return len(r.conns), nil
	}
	users = make([]chat.UserID, 0, len(r.conns))
	for u := range r.conns {
		users = append(users, u)
	}
	slices.Sort(users)
	return len(users), users
}

// Count returns how many users are in the room.
func (t *Tracker) Count(id chat.RoomID) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.rooms[id]; r != nil {
		return len(r.conns)
	}
	return 0
}

// Run announces the counts of large rooms until ctx ends.
func (t *Tracker) Run(ctx context.Context) error {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			t.announceCounts()
		case <-ctx.Done():
			return nil
		}
	}
}

func (t *Tracker) announceCounts() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.large {
		r := t.rooms[id]
		r.to.Announce(wire.Encode(wire.PresenceEvent{Type: wire.Presence, Room: id, Event: "count", Count: len(r.conns)}))
	}
	clear(t.large)
}
