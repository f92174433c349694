package room

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"parley/core/chat"
	"parley/core/ids"
	"parley/core/journal"
	"parley/core/state"
)

// putBack is what people read of the entry that restore appends.
const putBack = "the store had lost this room; its settings, roles, bans and mutes are as they were"

// restore puts back what the room was, where the store has lost it altogether,
// before the room takes over what the store holds by now: else one that was
// private would be open to everybody, and who was banned could come back. Of the
// nodes that know the room one does; what others have done meanwhile under its
// name gives way.
func (r *Room) restore(ctx context.Context, was *state.Room) error {
	for range maxChanges {
		info, err := r.hub.journal.Info(ctx, r.id)
		if err != nil {
			return fmt.Errorf("read room %s: %w", r.id, err)
		}
		changes, expect, err := was.Restore(info.State)
		if err != nil {
			return fmt.Errorf("load room %s: %w", r.id, err)
		}
		for len(changes) > 0 && err == nil {
			n := min(len(changes), journal.MaxChanges)
			e := journal.Entry{ID: chat.MessageID(ids.New()), Kind: journal.KindSettings, From: chat.ServerUser,
				Time: time.Now().UnixMilli(), Text: putBack, Changes: changes[:n]}
			var receipt journal.Receipt
			receipt, err = r.hub.journal.Append(ctx, journal.Request{Room: r.id, Entry: e, Known: info.Top, Expect: expect[:n]})
			info.Top = journal.Position{Epoch: receipt.Epoch, Seq: receipt.Seq, ID: receipt.ID}
			if changes, expect = changes[n:], expect[n:]; err == nil && len(changes) == 0 {
				r.hub.stats.Restores.Add(1)
				r.hub.log.Warn("the store had lost a room; its settings, roles and bans were put back", slog.String("room", string(r.id)))
			}
		}
		if !errors.Is(err, journal.ErrChanged) {
			return err
		}
	}
	return fmt.Errorf("put back room %s: others keep changing it: %w", r.id, journal.ErrUnavailable)
}
