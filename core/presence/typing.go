package presence

import (
	"time"

	"parley/core/chat"
	"parley/core/wire"
)

// typingEvery is how often it is announced at most that somebody writes in a
// room. A client shows it for 5 s, so that one announcement may be missed.
const typingEvery = 3 * time.Second

// Typing announces that a user who is connected here writes in the room, to
// everybody else in it. What comes within typingEvery of the last, or from a
// room above NameLimit, is swallowed.
func (t *Tracker) Typing(id chat.RoomID, u chat.UserID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[id]
	if r == nil || r.conns[u] == 0 {
		return
	}
	if t.typingLocked(id, r, u) && t.others != nil {
		t.others.Typing(id, u)
	}
}

// TypingElsewhere announces the same of a user of another node, if that node
// has said that the user is in the room.
func (t *Tracker) TypingElsewhere(id chat.RoomID, u chat.UserID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[id]
	if r == nil || r.away == nil || r.away.users[u] == 0 || r.to == nil {
		return
	}
	t.typingLocked(id, r, u)
}

func (t *Tracker) typingLocked(id chat.RoomID, r *roster, u chat.UserID) bool {
	if r.count() > NameLimit {
		return false
	}
	now := time.Now()
	if at, ok := r.typed[u]; ok && now.Sub(at) < typingEvery {
		return false
	}
	if len(r.typed) >= NameLimit { // members come and go
		for u, at := range r.typed {
			if now.Sub(at) >= typingEvery {
				delete(r.typed, u)
			}
		}
		if len(r.typed) >= NameLimit {
			return false
		}
	}
	if r.typed == nil {
		r.typed = make(map[chat.UserID]time.Time)
	}
	r.typed[u] = now
	r.to.Announce(wire.Encode(wire.TypingEvent{Type: wire.Typing, Room: id, User: u}), u)
	return true
}
