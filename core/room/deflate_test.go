package room

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"parley/core/wire"
)

// An entry is compressed when the first member asks for it so, once, and what
// that takes is part of what the ring holds and gives back.
func TestAnEntryIsDeflatedOnce(t *testing.T) {
	r := ring{maxSlots: 8, maxBytes: 1 << 20, first: 1}
	entry := func(i int) wire.Frame {
		return wire.Encode(wire.ErrorEvent{Type: "error", Text: strings.Repeat(fmt.Sprint("entry ", i, " "), 100)})
	}
	for i := range 8 {
		r.push(slot{frame: entry(i)})
	}
	plain := r.bytes
	first := r.bytesAt(3, wire.FormDeflate)
	if again := r.bytesAt(3, wire.FormDeflate); &again[0] != &first[0] {
		t.Error("it was compressed again")
	}
	if len(first) >= r.at(3).frame.Len() || r.bytes != plain+len(first) {
		t.Errorf("got %d bytes for %d, and %d in the ring, want %d", len(first), r.at(3).frame.Len(), r.bytes, plain+len(first))
	}
	for form, want := range map[wire.Form][]byte{wire.FormWebSocket: r.at(3).frame.WebSocket(), wire.FormLine: r.at(3).frame.Line()} {
		if !bytes.Equal(r.bytesAt(3, form), want) {
			t.Errorf("form %d is another", form)
		}
	}
	for i := range 8 { // the old ones go
		r.push(slot{frame: entry(i)})
	}
	if r.bytes != plain {
		t.Errorf("got %d bytes in the ring, want %d", r.bytes, plain)
	}
}
