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
)

// putBack is what people read of the entry that restore appends.
const putBack = "the store had lost this room; its settings, roles, bans and mutes are as they were"

// restore puts back what the room was, where the store, as info has it, has lost it
// altogether, and reports whether it did: else a room that was private would be
// open to everybody, and who was banned could come back. It is for before the room
// takes over what the store holds. Of the nodes that know the room one does so;
// what others have done meanwhile under its name gives way.
func (r *Room) restore(ctx context.Context, info journal.Info) (done bool, err error) {
	was := r.State()
	for range maxChanges {
		changes, expect, err := was.Restore(info.State, chat.MessageID(ids.New()))
		if err != nil {
			return false, fmt.Errorf("load room %s: %w", r.id, err)
		}
		if len(changes) == 0 {
			return done, nil
		}
		if err = r.appendChanges(ctx, info.Top, changes, expect); err == nil {
			r.hub.stats.Restores.Add(1)
			r.hub.log.Warn("the store had lost a room; its settings, roles, bans and mutes were put back", slog.String("room", string(r.id)))
			return true, nil
		}
		if !errors.Is(err, journal.ErrChanged) {
			return false, fmt.Errorf("put back room %s: %w", r.id, err)
		}
		done = true // by whoever was quicker, perhaps: the store is not as it was seen
		if info, err = r.hub.journal.Info(ctx, r.id); err != nil {
			return false, fmt.Errorf("read room %s: %w", r.id, err)
		}
	}
	return false, fmt.Errorf("put back room %s: others keep changing it: %w", r.id, journal.ErrUnavailable)
}

// appendChanges appends as many entries as the changes need.
func (r *Room) appendChanges(ctx context.Context, known journal.Position, changes, expect []journal.Change) error {
	for len(changes) > 0 {
		n := min(len(changes), journal.MaxChanges)
		e := journal.Entry{ID: chat.MessageID(ids.New()), Kind: journal.KindSettings, From: chat.ServerUser,
			Time: time.Now().UnixMilli(), Text: putBack, Changes: changes[:n]}
		receipt, err := r.hub.journal.Append(ctx, journal.Request{Room: r.id, Entry: e, Known: known, Expect: expect[:n]})
		if err != nil {
			return err
		}
		known = journal.Position{Epoch: receipt.Epoch, Seq: receipt.Seq, ID: receipt.ID}
		changes, expect = changes[n:], expect[n:]
	}
	return nil
}
