package room

import (
	"bytes"
	"testing"

	"parley/core/journal"
	"parley/core/wire"
)

// TestErasureEmptiesTheRing: what the ring holds of an erased entry is its
// tombstone, for whoever joins later, in every form.
func TestErasureEmptiesTheRing(t *testing.T) {
	w := newWorld(t, nil, nil)
	last := w.post("lobby", 5)
	r := w.room("lobby")
	s := newSink(-1)
	w.join("lobby", s, nil)
	r.mu.Lock()
	_ = r.ring.bytesAt(3, wire.FormDeflate) // made small before
	r.mu.Unlock()

	if n, err := w.j.Erase(t.Context(), "lobby", journal.Erasure{Epoch: last.Epoch, Seqs: []uint64{2, 3}}); err != nil || n != 2 {
		t.Fatalf("got %d, %v", n, err)
	}
	e := message(100)
	e.Kind, e.Text, e.Erases = journal.KindErase, "", []uint64{2, 3, 900}
	if _, err := w.hub.Record(t.Context(), r, e, false); err != nil {
		t.Fatal(err)
	}
	_, es, err := w.j.Read(t.Context(), "lobby", 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	size := 0
	for seq := uint64(1); seq <= 6; seq++ {
		slot := r.ring.at(seq)
		size += slot.frame.Len() + len(slot.small)
		if want := wire.EncodeEntry("lobby", &es[seq-1]); !bytes.Equal(slot.frame.JSON(), want.JSON()) {
			t.Errorf("entry %d: got %s, want %s", seq, slot.frame.JSON(), want.JSON())
		}
	}
	if size != r.ring.bytes {
		t.Errorf("the ring counts %d bytes and holds %d", r.ring.bytes, size)
	}
	r.mu.Unlock()
	s.awaitSeq(t, 6)
}
