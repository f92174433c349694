package wire

import (
	"github.com/go-json-experiment/json"
)

// EraseEntry makes the frame of an entry that of its tombstone: what EncodeEntry
// makes of the entry once it is erased. A frame that is no entry becomes an
// empty message rather than stay as it is.
func EraseEntry(f Frame) Frame {
	var ev EntryEvent
	if err := json.Unmarshal(f.JSON(), &ev); err != nil { // EncodeEntry and Encode make no such frame
		ev = EntryEvent{}
	}
	ev.Text, ev.Outcome, ev.Erased = "", "", true
	return Encode(ev)
}
