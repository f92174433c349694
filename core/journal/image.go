package journal

import (
	"context"
	"errors"
	"fmt"

	"parley/core/chat"
)

// Import is a room on its way into a store. Entries are put first, in rising
// order; nobody sees any before Commit, and nobody ever does after Abort or a
// crash. One goroutine uses it; it ends with Commit or Abort.
type Import interface {
	// Put adds entries, seqs dense and rising from the first one on.
	Put(ctx context.Context, es []Entry) error
	// Commit puts the room in place, in one atomic step, and returns where its
	// log stands. Watchers of the room are told to doubt what they have. The
	// nonces that the room knew count no more, but for those of open reviews.
	Commit(ctx context.Context, img Image) (Position, error)
	// Abort drops what was put. It may be called after Commit and then does
	// nothing.
	Abort(ctx context.Context) error
}

// Image is what a room is besides its entries.
type Image struct {
	// Epoch is that of the entries; "" opens a new one, so that whoever knows
	// the room is told to reset.
	Epoch string
	// Past are further epochs whose positions count as behind; the room's own
	// present and past ones are added.
	Past []string
	// Top names the newest entry, which may be gone by retention: then nothing
	// was put. Top.Epoch is ignored.
	Top Position
	// Fresh demands that the store has no such room; else ErrExists.
	Fresh   bool
	State   map[string][]byte
	Open    []Review
	Decided []Review // the newest first
}

// Span checks that entries continue one another and remembers how far they got.
// Implementations of Import keep one.
type Span struct {
	First, Last uint64
	LastID      chat.MessageID
}

// Add takes the next entries.
func (s *Span) Add(es []Entry) error {
	for i := range es {
		e := &es[i]
		switch {
		case e.Seq == 0 || s.Last != 0 && e.Seq != s.Last+1:
			return fmt.Errorf("journal: import of entry %d after %d: they are not dense", e.Seq, s.Last)
		case s.First == 0:
			s.First = e.Seq
		}
		s.Last, s.LastID = e.Seq, e.ID
	}
	return nil
}

// Check says what of the image does not fit the entries that were put.
func (img *Image) Check(s Span) error {
	switch {
	case s.Last != 0 && (s.Last != img.Top.Seq || s.LastID != img.Top.ID):
		return fmt.Errorf("journal: import ends with entry %d (%s), the image with %d (%s)", s.Last, s.LastID, img.Top.Seq, img.Top.ID)
	case len(img.Open) > MaxReviews || len(img.Decided) > MaxDecided:
		return fmt.Errorf("%w: an import with %d open reviews and %d decided, at most %d and %d are allowed",
			ErrTooLarge, len(img.Open), len(img.Decided), MaxReviews, MaxDecided)
	}
	for i := range img.Open {
		if r := &img.Open[i]; !r.Open() || r.Entry.ID == "" || r.Entry.Nonce == "" {
			return errors.New("journal: import of a review as open that is not")
		}
	}
	for i := range img.Decided {
		if r := &img.Decided[i]; r.Open() || r.Entry.ID == "" {
			return errors.New("journal: import of a review as decided that is not")
		}
	}
	for key, value := range img.State {
		if len(key) > MaxChangeKey || len(value) > MaxChangeValue {
			return fmt.Errorf("%w: import of the state key %.40q with %d bytes", ErrTooLarge, key, len(value))
		}
	}
	return nil
}
