package journal

import (
	"errors"
	"fmt"

	"parley/core/chat"
)

// Review is a message that waits for a moderator, or a record of what one
// decided. It has an id but no seq: it is not part of the room's log, no
// member is sent it, and folding the log does not know of it. Beside its log
// and its state a room has a queue of open reviews and a list of the last
// decisions, which change with Append alone.
type Review struct {
	// Entry is the message as it would be appended: with its author, its
	// author's nonce and its text. Seq is 0. Entry.ID is the id of the review,
	// and of the entry when it is approved. Outcome is chat.Held while the
	// review is open; then chat.Accepted, chat.Rejected or chat.Expired, Text is
	// empty and Reasons are what the author was told. Time is when it was held.
	Entry Entry
	// Appeal says that the message was denied and its author asked for this.
	Appeal bool
	// Record is the digest of the decision record that led here, in hex.
	Record string
	// By and Decided (Unix ms) say who decided and when; zero while open. Nobody
	// decided what has expired.
	By      chat.UserID
	Decided int64
}

// Open reports whether nobody has decided yet.
func (r *Review) Open() bool { return r.Decided == 0 }

// Waiting is an open review and the room it waits in.
type Waiting struct {
	Room   chat.RoomID
	Review Review
}

// Bounds of a room's reviews, the same in every implementation. They are
// counted in the step that adds one, so they hold exactly.
const (
	MaxReviews    = 100 // open ones; a further one is ErrQueueFull
	MaxOwnReviews = 10  // of them, of one author; a further one is ErrOwnQueueFull
	MaxDecided    = 200 // the newest decisions; older ones are forgotten
)

// Errors of an append that concerns a review.
var (
	// ErrQueueFull: the room has MaxReviews open reviews. Nothing was stored.
	ErrQueueFull = errors.New("journal: the review queue is full")
	// ErrOwnQueueFull: MaxOwnReviews of the room's open reviews are of this
	// author. Nothing was stored.
	ErrOwnQueueFull = errors.New("journal: the author has too many open reviews")
	// ErrNotOpen: no open review has that id; it was decided, or never was.
	// Nothing was stored.
	ErrNotOpen = errors.New("journal: no such open review")
)

// Act says what an append does besides, or instead of, storing an entry.
type Act uint8

// The acts of an append.
const (
	// ActAppend stores the entry. It is the ordinary append.
	ActAppend Act = iota
	// ActHold puts Request.Review in the queue; no entry is stored, and the
	// receipt has seq 0. Its nonce is looked up like any other, and remembered
	// for as long as the review is open, whatever the window and the epoch.
	ActHold
	// ActApprove stores the entry and closes the review of the same id, which
	// must be open. Should an entry with its nonce stand in the log already,
	// the review is closed and that entry's receipt is the answer, with Repeat:
	// nothing is stored a second time.
	ActApprove
	// ActReject closes the review, which must be open; no entry is stored. It
	// is what expires a review, too.
	ActReject
)

// Act returns what the request does, by its Review and the outcome of its
// entry.
func (r *Request) Act() Act {
	switch {
	case r.Review == nil:
		return ActAppend
	case r.Review.Open():
		return ActHold
	case r.Review.Entry.Outcome == chat.Rejected, r.Review.Entry.Outcome == chat.Expired:
		return ActReject
	}
	return ActApprove
}

// Check says what of a request does not fit together, which is a fault of the
// caller; every implementation calls it.
func (r *Request) Check() error {
	if len(r.Expect) > MaxChanges {
		return fmt.Errorf("%w: %d keys of the state are expected to have a value, at most %d are allowed", ErrTooLarge, len(r.Expect), MaxChanges)
	}
	if len(r.Notify) > MaxNotices {
		return fmt.Errorf("%w: it concerns %d people, at most %d are allowed", ErrTooLarge, len(r.Notify), MaxNotices)
	}
	act := r.Act()
	if act == ActAppend {
		return nil
	}
	e, in := &r.Entry, &r.Review.Entry
	switch {
	case e.ID == "" || e.ID != in.ID || e.From != in.From || e.Nonce != in.Nonce:
		return errors.New("journal: the entry and its review differ in id, author or nonce")
	case e.Nonce == "":
		return errors.New("journal: a review needs a nonce")
	case r.Create:
		return errors.New("journal: a review cannot create a room")
	case e.Outcome != in.Outcome:
		return fmt.Errorf("journal: the entry's outcome is %q and that of its review %q", e.Outcome, in.Outcome)
	case act == ActHold != (e.Outcome == chat.Held):
		return fmt.Errorf("journal: a review with outcome %q is not open", e.Outcome)
	case act != ActHold && in.Text != "":
		return errors.New("journal: a decided review keeps no text")
	case act != ActApprove && len(e.Changes) > 0:
		return errors.New("journal: changes need an entry")
	}
	return nil
}
