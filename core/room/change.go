package room

import (
	"context"
	"errors"
	"fmt"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/state"
)

// maxChanges is how often Change begins anew. Each time somebody else's change
// went through, so only a room that many change at once gets there.
const maxChanges = 8

// Change appends an entry that make has made from the room's state, and makes
// it anew if that state was changed in between, here or on another node: as far
// as it concerns the settings and the given users' roles, bans and mutes. What
// make returns is so decided on what it is stored upon. It returns as Record
// does; the error is journal.ErrChanged, with nothing stored, where others were
// quicker each time. make must not change what it is given.
func (h *Hub) Change(ctx context.Context, r *Room, users []chat.UserID, make func(*state.Room) (journal.Entry, error)) (journal.Receipt, error) {
	st := r.State()
	basis := st.Basis(users...)
	for n := 1; ; n++ {
		e, err := make(st)
		if err != nil {
			return journal.Receipt{}, err
		}
		var receipt journal.Receipt
		if err = journal.ErrChanged; r.State() == st { // make may have looked at the room as well
			receipt, err = h.record(ctx, r, journal.Request{Room: r.id, Entry: e, Known: r.Position(), Expect: basis})
		}
		if !errors.Is(err, journal.ErrChanged) || n == maxChanges {
			return receipt, err
		}
		h.stats.Conflicts.Add(1)
		if st, basis, err = h.renew(ctx, r, users); err != nil {
			return receipt, err
		}
	}
}

// renew brings the room up to what the journal holds, and returns its state
// and the basis as it is stored. The state may be newer than the basis: then
// what is made from it is refused once more.
func (h *Hub) renew(ctx context.Context, r *Room, users []chat.UserID) (*state.Room, []journal.Change, error) {
	info, err := h.journal.Info(ctx, r.id)
	if err != nil {
		return nil, nil, fmt.Errorf("read room %s: %w", r.id, err)
	}
	if at := r.Position(); at.Epoch != info.Top.Epoch || at.Seq < info.Top.Seq {
		if err := r.fillOnce(ctx); err != nil {
			return nil, nil, err
		}
	}
	return r.State(), state.StoredBasis(info.State, users...), nil
}
