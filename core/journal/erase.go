package journal

import (
	"errors"
	"fmt"

	"parley/core/chat"
)

// Erasure names what Journal.Erase takes out of a room. Each entry becomes a
// tombstone: its seq, id, kind, author, time, nonce and changes stay, so that
// the order stays dense, positions stay good and a resend is answered as
// before; its text and reasons are gone and its outcome is chat.Erased. What is
// remembered of a review with an erased entry's id loses its reasons, which may
// quote the text.
type Erasure struct {
	// Epoch is what Seqs speak of; where the room has another one nothing is
	// done.
	Epoch string
	Seqs  []uint64 // at most MaxErasure
	// Author, when set, takes the reasons out of every decision about this
	// user's messages as well, of those that were never posted too.
	Author chat.UserID
}

// ErrOtherEpoch says that what was named is of another epoch than the room's.
var ErrOtherEpoch = errors.New("journal: the room's log is of another epoch by now")

// Check says what is wrong with the erasure; every implementation calls it.
func (e *Erasure) Check() error {
	if n := len(e.Seqs); n > MaxErasure {
		return fmt.Errorf("%w: %d entries to erase, at most %d are allowed at once", ErrTooLarge, n, MaxErasure)
	}
	return nil
}

// Erasable reports whether the entry holds something that a person wrote, or
// that quotes it. Room settings and bans are the room's state, which changes by
// new entries.
func (e *Entry) Erasable() bool {
	return e.Outcome != chat.Erased && e.Kind != KindErase && (e.Text != "" || len(e.Reasons) > 0)
}

// Erase makes the entry its own tombstone and reports whether it was not one
// before.
func (e *Entry) Erase() bool {
	if !e.Erasable() {
		return false
	}
	e.Text, e.Reasons, e.Outcome = "", nil, chat.Erased
	return true
}

// Concerns reports whether the erasure takes the reasons out of a decision
// about the message id of that author, given the ids of the entries it erases.
func (e *Erasure) Concerns(r *Review, ids map[chat.MessageID]bool) bool {
	return len(r.Entry.Reasons) > 0 && (ids[r.Entry.ID] || e.Author != "" && r.Entry.From == e.Author)
}

// Forgotten is an erasure as nodes that share a store list it for one another:
// what each keeps of the message, or of the user's messages up to At, goes.
type Forgotten struct {
	ID   chat.MessageID
	User chat.UserID
	At   int64 // Unix ms on the node that erased
}
