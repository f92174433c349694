package room

import (
	"context"
	"slices"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/state"
	"parley/core/wire"
)

// A kick or a ban puts a person out of the room at its place in the log. The
// room notes that place under the lock it pushes the entry with, so a pump
// which sees a later entry sees the cut too: nobody is written anything behind
// the entry that put them out. Whoever made the hub (see OnChange) ends the
// membership and says why, a moment later.

// cutLife is how long a cut is remembered: until every membership from before
// it has been ended, and every join that was under way then has been answered.
const cutLife = time.Minute

// cut is where somebody was put out.
type cut struct {
	seq        uint64
	generation uint32
	at         time.Time
}

// Change tells that a room's state has changed.
type Change struct {
	// Entry made the change; nil where the state was read anew, and what led
	// there is not known. It must not be modified.
	Entry *journal.Entry
	// Effect is what the entry did to people; everybody is concerned where
	// Entry is nil.
	state.Effect
}

// OnChange makes the hub call f, in one goroutine for each room, whenever the state
// of a room with members has changed, by an entry of this node or another. The
// room shows the change by then. Call it before the hub is used.
func (h *Hub) OnChange(f func(*Room, Change)) { h.onChange = f }

// Name says whose connection it is, before it joins its first room.
func (p *Peer) Name(u chat.UserID) { p.user = u }

// noteLocked takes note of what an entry that has just been pushed does to
// people.
func (r *Room) noteLocked(e *journal.Entry) {
	now := time.Now()
	f, ok := state.EffectOf(e, now)
	if !ok || r.refs.Load() == 0 {
		return
	}
	if f.Out {
		r.forgetCutsLocked(now)
		if r.cuts == nil {
			r.cuts = make(map[chat.UserID]cut)
		}
		r.cuts[f.User] = cut{e.Seq, r.generation, now}
		r.cutting.Store(int32(len(r.cuts)))
	}
	r.changesLocked(Change{Entry: e, Effect: f})
}

// maxUntold bounds the changes that wait to be told of; beyond it they become
// one that concerns everybody.
const maxUntold = 256

func (r *Room) changesLocked(c Change) {
	if len(r.untold) >= maxUntold {
		r.untold = append(r.untold[:0], Change{})
	}
	r.untold = append(r.untold, c)
	r.telling.Store(true)
}

// renewedLocked takes note of a state that was read anew.
func (r *Room) renewedLocked() {
	if r.refs.Load() > 0 {
		r.changesLocked(Change{})
	}
}

func (r *Room) forgetCutsLocked(now time.Time) {
	for u, c := range r.cuts {
		if now.Sub(c.at) > cutLife {
			delete(r.cuts, u)
		}
	}
	r.cutting.Store(int32(len(r.cuts)))
}

// tell hands the changes on, one after the other: a room has one goroutine for
// it at most. The caller holds no lock.
func (r *Room) tell() {
	if !r.telling.Load() || r.hub.onChange == nil {
		return
	}
	r.mu.Lock()
	busy := r.teller
	r.teller = true
	r.mu.Unlock()
	if busy || r.hub.spawn(r.tellAll) {
		return
	}
	r.mu.Lock() // the hub stops, and nobody is told any more
	r.teller = false
	r.mu.Unlock()
}

func (r *Room) tellAll(context.Context) {
	for {
		r.mu.Lock()
		untold := r.untold
		r.untold = nil
		r.telling.Store(false)
		r.teller = len(untold) > 0
		r.mu.Unlock()
		if len(untold) == 0 {
			return
		}
		for _, c := range untold {
			r.hub.onChange(r, c)
		}
	}
}

// cutLocked returns up to which seq the member is owed entries, where it was
// put out. The caller holds Room.mu and peer.mu.
func (r *Room) cutLocked(m *Member) (end uint64, out bool) {
	c, ok := r.cuts[m.peer.user]
	if !ok || m.bornGen > c.generation || m.bornGen == c.generation && m.born >= c.seq {
		return 0, false // never, or before it came
	}
	if m.gen != c.generation { // its place is in another log
		return 0, true
	}
	return c.seq, true
}

// Out reports whether an entry that came after the member joined has put its
// user out of the room.
func (m *Member) Out() bool {
	if m.room.cutting.Load() == 0 {
		return false
	}
	m.peer.mu.Lock()
	defer m.peer.mu.Unlock()
	m.room.mu.Lock()
	defer m.room.mu.Unlock()
	_, out := m.room.cutLocked(m)
	return out
}

// clip takes from o, which was collected for the member, what lies behind the
// entry that put it out. The caller holds peer.mu.
func (m *Member) clip(o *owed, form wire.Form, arena *[]byte) {
	r := m.room
	if r.cutting.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	end, out := r.cutLocked(m)
	if !out || o.behind && m.next <= end {
		return
	}
	start := len(*arena)
	*o = owed{next: m.next, eph: m.eph, gen: m.gen, mark: m.mark}
	for o.next <= end && r.ring.holds(o.next) && len(*arena)-start < batchBytes {
		*arena = append(*arena, r.ring.bytesAt(o.next, form)...)
		o.mark = r.ring.at(o.next).end
		o.next++
	}
	o.data = (*arena)[start:len(*arena):len(*arena)]
	o.more = o.next <= end && r.ring.holds(o.next)
}

// puts reports whether the entry, read from the journal perhaps before the
// room has it, puts the member out. The caller holds peer.mu.
func (m *Member) puts(e *journal.Entry) bool {
	if m.gen == m.bornGen && e.Seq <= m.born {
		return false // it came back after that
	}
	f, ok := state.EffectOf(e, time.Now())
	return ok && f.Out && f.User == m.peer.user
}

// Memberships returns the peer's memberships at this moment.
func (p *Peer) Memberships() []*Member {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.members)
}
