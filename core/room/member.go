package room

import (
	"context"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/wire"
)

// Member is one connection's place in one room's log.
type Member struct {
	room *Room
	peer *Peer
	slot int // index in the shard's list; owned by the shard, -1 outside

	born    uint64 // the room's top when it joined, in generation bornGen; never changed
	bornGen uint32

	// Guarded by peer.mu.
	next uint64 // the seq it is owed next
	gen  uint32 // the room's generation that next belongs to
	gone bool
	eph  uint64 // newest ephemeral frame it was sent
	mark uint64 // Room.grown up to which it was owed nothing, when that was known last
	past uint64 // the room's top when it joined: entries up to it are not in mark
}

// Room returns the member's room.
func (m *Member) Room() *Room { return m.room }

// JoinInfo is what a join found.
type JoinInfo struct {
	Position  journal.Position // the room's top
	Recovered bool             // the entries after since follow without a gap
	Asked     bool             // since was given
}

func (r *Room) join(ctx context.Context, p *Peer, since *journal.Position, joined func(*Room, JoinInfo) (wire.Frame, error)) (*Member, error) {
	if since != nil && r.ahead(since) { // another node may have shown it
		if err := r.fillOnce(ctx); err != nil {
			return nil, unavailable(err)
		}
	}
	known := since != nil && r.provable(ctx, since)
	r.mu.Lock()
	if r.evicted {
		r.mu.Unlock()
		return nil, errEvicted
	}
	r.refs.Add(1)
	info := JoinInfo{Position: r.positionLocked(), Asked: since != nil}
	m := &Member{room: r, peer: p, slot: -1, gen: r.generation, next: r.ring.head + 1, eph: r.ephHead, mark: r.grown, past: r.ring.head,
		born: r.ring.head, bornGen: r.generation}
	if known && since.Epoch == r.epoch && since.Seq <= r.ring.head {
		info.Recovered = true
		m.next = since.Seq + 1
	}
	r.missed = r.missed || r.unbornLocked() && since != nil && since.Epoch != ""
	r.mu.Unlock()

	reply, err := joined(r, info)
	if err == nil {
		err = p.admit(m, reply)
	}
	if err != nil {
		r.refs.Add(-1)
		return nil, err
	}
	p.shard.post(op{member: m, join: true})
	return m, nil
}

// ahead reports whether since lies beyond what this node has seen.
func (r *Room) ahead(since *journal.Position) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return since.Epoch != r.epoch || since.Seq > r.ring.head
}

// provable reports whether the log still holds exactly the entry that since
// names, so that what follows it follows without a gap.
func (r *Room) provable(ctx context.Context, since *journal.Position) bool {
	r.mu.Lock()
	epoch, whole := r.epoch, r.ring.first <= 1
	held := r.ring.holds(since.Seq)
	var id chat.MessageID
	if held {
		id = r.ring.at(since.Seq).id
	}
	r.mu.Unlock()
	switch {
	case since.Epoch != epoch:
		return false
	case since.Seq == 0 && whole:
		return true
	case since.Seq == 0:
		got, es, err := r.hub.journal.Read(ctx, r.id, 0, 1)
		return err == nil && got == epoch && len(es) == 1 && es[0].Seq == 1
	case held:
		return id == since.ID
	}
	got, es, err := r.hub.journal.Read(ctx, r.id, since.Seq-1, 1)
	return err == nil && got == epoch && len(es) == 1 && es[0].Seq == since.Seq && es[0].ID == since.ID
}

// Leave ends the membership: no frame of the room follows. It may be called
// twice, and from several goroutines; one call reports true.
func (m *Member) Leave() (ended bool) {
	m.peer.mu.Lock()
	gone := m.gone
	m.gone = true
	m.peer.forgetLocked(m)
	m.peer.mu.Unlock()
	if !gone {
		m.peer.shard.post(op{member: m})
	}
	return !gone
}

// owed is what a member is to be sent.
type owed struct {
	data []byte
	next uint64
	eph  uint64
	// behind says that next lies before the ring: the journal has it.
	behind bool
	// reset says that the log was replaced: data is the reset event.
	reset bool
	gen   uint32
	mark  uint64 // Room.grown at next
	more  bool   // the byte bound was reached before the head
	alone bool   // something that others are sent was left out
}

// take moves the member past what was collected. The caller holds peer.mu.
func (m *Member) take(o *owed) {
	if !o.behind {
		m.next, m.eph, m.gen, m.mark = o.next, o.eph, o.gen, o.mark
	}
	if o.reset { // seqs begin anew
		m.past = 0
	}
}

// batchBytes bounds what one pass writes to one member of one room.
const batchBytes = 256 << 10

// collect gathers what is owed from next and eph on, appending to *arena
// where it is more than one frame. It takes Room.mu.
func (r *Room) collect(m *Member, form wire.Form, arena *[]byte) owed {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := owed{next: m.next, eph: m.eph, gen: r.generation, mark: r.grown}
	if m.gen != r.generation {
		p := r.positionLocked()
		f := wire.Encode(wire.ResetEvent{Type: wire.Reset, Room: r.id, Epoch: p.Epoch, Seq: p.Seq, LastID: p.ID})
		o.data, o.next, o.eph, o.reset = f.Bytes(form), p.Seq+1, r.ephHead, true
		return o
	}
	head := r.ring.head
	if m.next > head && m.eph == r.ephHead {
		return o
	}
	if m.next <= head && m.next < r.ring.first {
		o.behind = true
		return o
	}
	if m.next == head && m.eph == r.ephHead { // the common case: nothing to join together
		o.data, o.next = r.ring.bytesAt(head, form), head+1
		return o
	}
	start := len(*arena)
	for o.next <= head {
		b := r.ring.bytesAt(o.next, form)
		if n := len(*arena) - start; n > 0 && n+len(b) > batchBytes {
			o.more = true
			break
		}
		*arena = append(*arena, b...)
		o.mark = r.ring.at(o.next).end
		o.next++
	}
	held := uint64(len(r.eph))
	for _, e := range r.eph[held-min(held, r.ephHead-o.eph):] {
		if e.except != "" && e.except == m.peer.user {
			o.alone = true
			continue
		}
		*arena = append(*arena, e.frame.Bytes(form)...)
	}
	o.eph = r.ephHead
	o.data = (*arena)[start:len(*arena):len(*arena)]
	return o
}

// withholds reports whether one of the ephemeral frames that the member is owed
// is not for it. The caller holds peer.mu.
func (r *Room) withholds(m *Member) bool {
	if m.eph >= r.withheld.Load() { // nearly always
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	held := uint64(len(r.eph))
	for _, e := range r.eph[held-min(held, r.ephHead-m.eph):] {
		if e.except != "" && e.except == m.peer.user {
			return true
		}
	}
	return false
}

// lagLocked returns how many bytes of the room's log the member is behind.
// The caller holds peer.mu.
func (m *Member) lagLocked() int64 {
	r := m.room
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case m.next > r.ring.head:
		return 0
	case r.ring.holds(m.next):
		s := r.ring.at(m.next)
		return int64(r.grown - s.end + uint64(s.frame.Len()))
	}
	return int64(r.grown - m.mark)
}
