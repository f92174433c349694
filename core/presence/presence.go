// Package presence knows who is in which room at present. Presence is never
// in a room's log: it has no seq, is announced to those who keep up, and is
// forgotten with the connection.
//
// Up to NameLimit members are announced by name; in larger rooms, where every
// arrival would be a message to thousands, only the count is announced, at
// most once a second.
//
// On one node the Tracker is all there is. Where nodes share rooms, each says
// in a Register who is connected to it, and the Tracker joins the registers of
// the others with its own connections to one view (see cluster.go): somebody
// who is connected to two nodes is one member, and is announced as gone when
// the last connection anywhere has ended.
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

// Announcer sends an ephemeral frame to a room's members on this node, but not
// to the connections of except. Announce must not block and must not call the
// Tracker.
type Announcer interface {
	Announce(f wire.Frame, except chat.UserID)
}

// Tracker counts each user's connections in each room. Its methods may be
// called from any goroutine.
type Tracker struct {
	others Others // nil on a single node; set before use

	mu    sync.Mutex
	rooms map[chat.RoomID]*roster
	large map[chat.RoomID]struct{} // rooms whose count is to be announced
}

// roster is who is in a room.
type roster struct {
	conns map[chat.UserID]int       // connections to this node
	to    Announcer                 // of the last join; nil while nobody here is to be told
	away  *away                     // nil on a single node
	typed map[chat.UserID]time.Time // when it was announced last that they write
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
	r := t.rosterLocked(id)
	r.to = to
	r.conns[u]++
	if r.conns[u] == 1 {
		t.cameLocked(id, r, u)
	}
	return r.count()
}

// rosterLocked returns the room's roster, made where there is none.
func (t *Tracker) rosterLocked(id chat.RoomID) *roster {
	r := t.rooms[id]
	if r == nil {
		r = &roster{conns: make(map[chat.UserID]int)}
		if t.others != nil {
			r.away = newAway()
		}
		t.rooms[id] = r
	}
	return r
}

// cameLocked follows a user's first connection to this node.
func (t *Tracker) cameLocked(id chat.RoomID, r *roster, u chat.UserID) {
	if r.away != nil {
		t.others.Changed(id)
		if r.away.users[u] > 0 { // a member already
			r.away.only--
			return
		}
	}
	t.announceLocked(id, r, "join", u)
}

// Leave takes one connection of the user away and announces the user's
// leaving if it was the last anywhere.
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
	delete(r.typed, u)
	if len(r.conns) == 0 {
		r.to = nil
		delete(t.large, id)
	}
	if r.away != nil {
		t.others.Changed(id)
		if r.away.users[u] > 0 {
			r.away.only++
			return
		}
	} else if len(r.conns) == 0 {
		delete(t.rooms, id)
	}
	t.announceLocked(id, r, "leave", u)
}

// announceLocked tells those who are here of one user who came or went.
func (t *Tracker) announceLocked(id chat.RoomID, r *roster, event string, u chat.UserID) {
	if r.to == nil {
		return
	}
	count := r.count()
	if count > NameLimit {
		t.large[id] = struct{}{}
		return
	}
	r.to.Announce(wire.Encode(wire.PresenceEvent{Type: wire.Presence, Room: id, Event: event, User: u, Count: count}), "")
}

// count returns how many users are in the room, on all nodes.
func (r *roster) count() int {
	if r.away == nil {
		return len(r.conns)
	}
	return len(r.conns) + r.away.only + r.away.unnamed
}

// Members returns how many users are in the room and, up to NameLimit, who
// they are, sorted. Where this node does not follow the room yet, it waits for
// what the other nodes say, until ctx ends and for loadWait at most; then it
// answers what it knows.
func (t *Tracker) Members(ctx context.Context, id chat.RoomID) (count int, users []chat.UserID) {
	t.await(ctx, id)
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[id]
	if r == nil {
		return 0, nil
	}
	count = r.count()
	if count > NameLimit || count == 0 {
		return count, nil
	}
	users = make([]chat.UserID, 0, count)
	for u := range r.conns {
		users = append(users, u)
	}
	if r.away != nil {
		for u := range r.away.users {
			if r.conns[u] == 0 {
				users = append(users, u)
			}
		}
	}
	slices.Sort(users)
	return count, users
}

// Count returns how many users are in the room, as far as is known.
func (t *Tracker) Count(id chat.RoomID) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.rooms[id]; r != nil {
		return r.count()
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
		t.announceCountLocked(id, t.rooms[id])
	}
	clear(t.large)
}

func (t *Tracker) announceCountLocked(id chat.RoomID, r *roster) {
	if r.to != nil {
		r.to.Announce(wire.Encode(wire.PresenceEvent{Type: wire.Presence, Room: id, Event: "count", Count: r.count()}), "")
	}
}
