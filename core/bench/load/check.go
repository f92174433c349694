package load

import (
	"bytes"
	"slices"
)

// Faults is what went wrong with deliveries. Each field counts over all
// members; a run without a fault has only zeros.
type Faults struct {
	Lost      uint64 `json:"lost"`      // acknowledged, never received by a member
	Duplicate uint64 `json:"duplicate"` // received twice by a member
	Late      uint64 `json:"late"`      // received after a later one of the same publisher
	Holes     uint64 `json:"holes"`     // seqs of the room that a member did not see in their place
	Differ    uint64 `json:"differ"`    // received with other bytes than another member got for this seq
	Foreign   uint64 `json:"foreign"`   // a message in the room that this run did not send, or a changed one
	Resets    uint64 `json:"resets"`    // the server said that what follows does not continue what was before
}

// add sums.
func (f *Faults) add(o Faults) {
	f.Lost += o.Lost
	f.Duplicate += o.Duplicate
	f.Late += o.Late
	f.Holes += o.Holes
	f.Differ += o.Differ
	f.Foreign += o.Foreign
	f.Resets += o.Resets
}

// None reports whether nothing went wrong.
func (f Faults) None() bool { return f == Faults{} }

// maxMissing bounds the numbers remembered as missing, per member and
// publisher. Beyond it a late message counts as a duplicate: wrong either way.
const maxMissing = 4096

// stream is what one member has heard of one publisher.
type stream struct {
	top     uint64   // highest number received
	heard   uint64   // distinct numbers received
	missing []uint64 // below top and not received, rising
}

// take counts message n in, and reports whether it was heard for the first time.
func (s *stream) take(n uint64, f *Faults) (first bool) {
	switch {
	case n == s.top+1:
		s.top = n
		s.heard++
	case n > s.top:
		for m := s.top + 1; m < n && len(s.missing) < maxMissing; m++ {
			s.missing = append(s.missing, m)
		}
		s.top = n
		s.heard++
	default:
		if i, ok := slices.BinarySearch(s.missing, n); ok {
			s.missing = slices.Delete(s.missing, i, i+1)
			s.heard++
			f.Late++
			return true
		}
		f.Duplicate++
		return false
	}
	return true
}

// membership is one connection's view of its room.
type membership struct {
	next    uint64 // the seq that must come next; 0 before joined
	streams []stream
}

// seq takes the seq of an entry.
func (v *membership) seq(seq uint64, f *Faults) {
	switch {
	case seq == v.next || v.next == 0:
	case seq > v.next:
		f.Holes += seq - v.next
	default:
		f.Holes++ // one that went back; the streams say what it is
		return
	}
	v.next = seq + 1
}

// heard takes a publisher's message, and reports whether it is the first time.
func (v *membership) heard(m stamp, f *Faults) (first bool) {
	for len(v.streams) <= m.pub {
		v.streams = append(v.streams, stream{})
	}
	return v.streams[m.pub].take(m.n, f)
}

// lost compares what was heard with what was acknowledged, by publisher.
func (v *membership) lost(acked []uint64) (n uint64) {
	for pub, want := range acked {
		var got uint64
		if pub < len(v.streams) {
			got = v.streams[pub].heard
		}
		if want > got {
			n += want - got
		}
	}
	return n
}

// roomLog remembers a room's newest events as the first member got them: the
// others' must be the same, byte for byte, and need not be parsed again.
type roomLog struct {
	name string
	ring []entry
}

type entry struct {
	seq   uint64
	event []byte
	stamp
	place *flight // nil: no loop waits for its arrival
}

// known reports whether event is what was seen for seq.
func (r *roomLog) known(seq uint64, event []byte) (*entry, bool) {
	e := &r.ring[seq%uint64(len(r.ring))]
	return e, e.seq == seq && seq != 0 && bytes.Equal(e.event, event)
}

// learn keeps a parsed event, and reports whether it differs from what another
// member got for the same seq.
func (r *roomLog) learn(m message, event []byte) (differs bool) {
	e := &r.ring[m.seq%uint64(len(r.ring))]
	if e.seq == m.seq {
		return !bytes.Equal(e.event, event)
	}
	if m.seq > e.seq { // an older one is somebody's late reading
		e.seq, e.stamp, e.place = m.seq, m.stamp, m.place
		e.event = append(e.event[:0], event...)
	}
	return false
}
