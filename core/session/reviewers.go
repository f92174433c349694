package session

import (
	"sync"

	"parley/core/chat"
	"parley/core/room"
	"parley/core/wire"
)

// sessionsOf returns the sessions of a user who has said hello. It looks
// through all of them, which reviews are rare enough for.
func (s *Server) sessionsOf(u chat.UserID) (xs []*Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for x := range s.open {
		if x.greeted.Load() && x.who.User == u {
			xs = append(xs, x)
		}
	}
	return xs
}

// reviewers are the sessions that look at a room's queue. A session is in it
// for rooms it is a member of only, which bounds it.
type reviewers struct {
	mu sync.Mutex
	m  map[chat.RoomID]map[*Session]struct{}
}

func (rs *reviewers) add(id chat.RoomID, x *Session) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.m == nil {
		rs.m = make(map[chat.RoomID]map[*Session]struct{})
	}
	if rs.m[id] == nil {
		rs.m[id] = make(map[*Session]struct{})
	}
	rs.m[id][x] = struct{}{}
}

func (rs *reviewers) remove(id chat.RoomID, x *Session) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	delete(rs.m[id], x)
	if len(rs.m[id]) == 0 {
		delete(rs.m, id)
	}
}

func (rs *reviewers) of(id chat.RoomID) (xs []*Session) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for x := range rs.m[id] {
		xs = append(xs, x)
	}
	return xs
}

// maxNews bounds the decisions an author's connection keeps back; further ones
// are not told, which is allowed of hints.
const maxNews = 64

// news keeps decisions about the messages of a connection's user back while one
// of them is on its way to the queue: a quick moderator's answer must not reach
// the author before the ack that says held. Any goroutine may tell.
type news struct {
	mu      sync.Mutex
	holding bool
	waiting []wire.Frame
}

// hold begins to keep back. The session's own goroutine calls it, and release
// once the answer is on its way.
func (n *news) hold() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.holding = true
}

func (n *news) release(p *room.Peer) {
	if !n.holding { // nobody else writes it
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.waiting {
		_ = p.Tell(f) // an error ends the peer, which is what its reader sees
	}
	n.holding, n.waiting = false, nil
}

func (n *news) tell(p *room.Peer, f wire.Frame) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !n.holding:
		_ = p.Tell(f)
	case len(n.waiting) < maxNews:
		n.waiting = append(n.waiting, f)
	}
}
