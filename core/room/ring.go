package room

import (
	"parley/core/chat"
	"parley/core/wire"
)

// slot is one encoded entry of the ring.
type slot struct {
	frame wire.Frame
	small []byte // the frame deflated, once a member has asked for it
	id    chat.MessageID
	end   uint64 // Room.grown after this entry
}

// ring holds the newest entries of one room, contiguous in seq. It is guarded
// by Room.mu. It grows by doubling to its bound, so that a room nobody talks
// in costs nothing, and then forgets the oldest, also when the frames it
// holds exceed maxBytes.
type ring struct {
	slots    []slot // a power of two long, indexed by seq
	first    uint64 // oldest seq held; head+1 when empty
	head     uint64 // newest seq; 0 when the log is empty
	bytes    int
	maxSlots int
	maxBytes int
}

func (r *ring) at(seq uint64) *slot { return &r.slots[seq&uint64(len(r.slots)-1)] }

// holds reports whether seq is in the ring.
func (r *ring) holds(seq uint64) bool { return seq >= r.first && seq <= r.head }

// restart empties the ring so that head+1 is the next entry.
func (r *ring) restart(head uint64) {
	clear(r.slots)
	r.head, r.first, r.bytes = head, head+1, 0
}

// push adds the entry head+1.
func (r *ring) push(s slot) {
	n := int(r.head + 1 - r.first)
	if n == len(r.slots) {
		if n < r.maxSlots {
			r.grow()
		} else {
			r.drop()
		}
	}
	r.head++
	*r.at(r.head) = s
	r.bytes += s.frame.Len()
	for r.bytes > r.maxBytes && r.first < r.head {
		r.drop()
	}
}

// bytesAt returns the entry's frame in the form. It is deflated once, for
// everyone who takes it so, and under Room.mu: one entry's worth of work that
// nobody does twice.
func (r *ring) bytesAt(seq uint64, form wire.Form) []byte {
	s := r.at(seq)
	if form != wire.FormDeflate {
		return s.frame.Bytes(form)
	}
	if s.small == nil {
		s.small = s.frame.Deflate()
		r.bytes += len(s.small)
	}
	return s.small
}

// erase puts tombstones in the places of the entries it holds. Their lengths in
// slot.end stay what they were: they bound a lag, and nothing else.
func (r *ring) erase(seqs []uint64) {
	for _, seq := range seqs {
		if !r.holds(seq) {
			continue
		}
		s := r.at(seq)
		r.bytes -= s.frame.Len() + len(s.small)
		s.frame, s.small = wire.EraseEntry(s.frame), nil
		r.bytes += s.frame.Len()
	}
}

func (r *ring) drop() {
	s := r.at(r.first)
	r.bytes -= s.frame.Len() + len(s.small)
	*s = slot{}
	r.first++
}

func (r *ring) grow() {
	old := *r
	r.slots = make([]slot, max(8, 2*len(old.slots)))
	for seq := old.first; seq <= old.head; seq++ {
		*r.at(seq) = *old.at(seq)
	}
}
