package presence

import (
	"context"
	"time"

	"parley/core/chat"
)

// Node names a process that shares rooms with this one.
type Node string

// Register is what one node says of one room: which users are connected to it
// there.
type Register struct {
	Version uint64        // of this register; one node's greater one is newer
	Count   int           // users
	Users   []chat.UserID // who they are, rising; nil above NameLimit
}

// named reports whether the register says who is meant.
func (g *Register) named() bool { return len(g.Users) == g.Count }

// Others are the nodes that share rooms with this one (package
// presence/redis). The methods are called under the Tracker's lock: they must
// not block and must not call the Tracker.
type Others interface {
	// Follow asks for the room's registers from now on: each reaches Put, and
	// Loaded says that all have. Following twice is following.
	Follow(id chat.RoomID)
	// Changed follows the room, and says that Local of it has changed.
	Changed(id chat.RoomID)
	// Typing says that a user connected here writes in the room.
	Typing(id chat.RoomID, u chat.UserID)
}

// Share makes the tracker one of a cluster's. Call it before anything else.
func (t *Tracker) Share(o Others) { t.others = o }

// away is what the other nodes say of a room.
type away struct {
	nodes   map[Node]Register   // the newest of each
	users   map[chat.UserID]int // on how many of them each user is
	only    int                 // of users, those without a connection here
	unnamed int                 // users of registers without names
	loaded  chan struct{}       // closed once all registers have been read
}

func newAway() *away {
	return &away{nodes: make(map[Node]Register), users: make(map[chat.UserID]int), loaded: make(chan struct{})}
}

func (a *away) whole() bool {
	select {
	case <-a.loaded:
		return true
	default:
		return false
	}
}

// loadWait bounds how long Members waits for what other nodes say.
const loadWait = time.Second

// await follows the room and waits until its registers are read.
func (t *Tracker) await(ctx context.Context, id chat.RoomID) {
	if t.others == nil {
		return
	}
	t.mu.Lock()
	a := t.rosterLocked(id).away
	t.others.Follow(id)
	t.mu.Unlock()
	if a.whole() {
		return
	}
	late := time.NewTimer(loadWait)
	defer late.Stop()
	select {
	case <-a.loaded:
	case <-late.C:
	case <-ctx.Done():
	}
}

// Local returns this node's register of the room, without a version.
func (t *Tracker) Local(id chat.RoomID) (g Register) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[id]
	if r == nil {
		return g
	}
	g.Count = len(r.conns)
	if g.Count > NameLimit {
		return g
	}
	g.Users = make([]chat.UserID, 0, g.Count)
	for u := range r.conns {
		g.Users = append(g.Users, u)
	}
	return g
}

// Put takes another node's register of a room that is followed, unless a newer
// one was taken before, and announces what it changes. Its Users must be
// distinct; they are kept.
func (t *Tracker) Put(id chat.RoomID, n Node, g Register) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[id]
	if r == nil || r.away == nil {
		return
	}
	old, known := r.away.nodes[n]
	if known && g.Version <= old.Version {
		return
	}
	r.away.nodes[n] = g
	t.turnLocked(id, r, &old, &g)
}

// Drop forgets a node's register of a room: its users have left with it.
func (t *Tracker) Drop(id chat.RoomID, n Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[id]
	if r == nil || r.away == nil {
		return
	}
	old, known := r.away.nodes[n]
	if !known {
		return
	}
	delete(r.away.nodes, n)
	t.turnLocked(id, r, &old, &Register{})
}

// Gone drops every register of a node that has died. Rooms are not held up by
// each other.
func (t *Tracker) Gone(n Node) (rooms []chat.RoomID) {
	t.mu.Lock()
	for id, r := range t.rooms {
		if r.away == nil {
			continue
		}
		if _, ok := r.away.nodes[n]; ok {
			rooms = append(rooms, id)
		}
	}
	t.mu.Unlock()
	for _, id := range rooms {
		t.Drop(id, n)
	}
	return rooms
}

// Nodes returns the version of each node's register of the room that counts
// somebody.
func (t *Tracker) Nodes(id chat.RoomID) map[Node]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[id]
	if r == nil || r.away == nil {
		return nil
	}
	out := make(map[Node]uint64, len(r.away.nodes))
	for n, g := range r.away.nodes {
		if g.Count > 0 {
			out[n] = g.Version
		}
	}
	return out
}

// Loaded says that the registers of a followed room have been read. Who is
// here already has been told a count without them, and is told the true one.
func (t *Tracker) Loaded(id chat.RoomID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[id]
	if r == nil || r.away == nil || r.away.whole() {
		return
	}
	close(r.away.loaded)
	if r.away.only+r.away.unnamed > 0 {
		t.announceCountLocked(id, r)
	}
}

// Forget ends the following of a room in which nobody is connected here, and
// reports whether it did. then is called with it, under the Tracker's lock.
func (t *Tracker) Forget(id chat.RoomID, then func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.rooms[id]; r != nil {
		if len(r.conns) > 0 {
			return false
		}
		if r.away != nil && !r.away.whole() {
			close(r.away.loaded) // nobody will load it any more
		}
		delete(t.rooms, id)
	}
	then()
	return true
}

// turnLocked replaces a register by a newer one in what is known of the room,
// and announces the difference: by name where both say who is meant.
func (t *Tracker) turnLocked(id chat.RoomID, r *roster, old, now *Register) {
	a, before := r.away, r.count()
	byName := a.whole() && old.named() && now.named()
	tell := func(event string, u chat.UserID) {
		if byName {
			t.announceLocked(id, r, event, u)
		}
	}
	stays := make(map[chat.UserID]struct{}, len(now.Users))
	for _, u := range now.Users {
		stays[u] = struct{}{}
	}
	had := make(map[chat.UserID]struct{}, len(old.Users))
	for _, u := range old.Users {
		had[u] = struct{}{}
		if _, ok := stays[u]; ok {
			continue
		}
		if a.users[u]--; a.users[u] > 0 {
			continue
		}
		delete(a.users, u)
		if r.conns[u] == 0 {
			a.only--
			tell("leave", u)
		}
	}
	if !old.named() {
		a.unnamed -= old.Count
	}
	if !now.named() {
		a.unnamed += now.Count
	}
	for _, u := range now.Users {
		if _, ok := had[u]; ok {
			continue
		}
		if a.users[u]++; a.users[u] == 1 && r.conns[u] == 0 {
			a.only++
			tell("join", u)
		}
	}
	if !byName && a.whole() && r.to != nil && r.count() != before {
		t.large[id] = struct{}{}
	}
}
