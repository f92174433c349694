package redis

import (
	"context"
	"fmt"
	"time"

	"parley/core/absent"
	"parley/core/chat"
)

const (
	// erasedFor is how long it is known that a message was erased: far longer than
	// a carrier has a parcel in hand.
	erasedFor = 10 * time.Minute
	// eraseIDs bounds the messages of one call, and scanEntries the entries of a
	// stream that are looked at together.
	eraseIDs    = 256
	scanEntries = 500
)

// Erase takes the texts of a room's messages away, wherever they wait. That
// somebody is to be told stays; an attempt to deliver that begins later has no
// text.
func (c *Carrier) Erase(ctx context.Context, room chat.RoomID, ids []chat.MessageID) error {
	if err := c.eraseTexts(ctx, ids); err != nil {
		return err
	}
	set := make(map[chat.MessageID]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return c.strip(ctx, room, func(id chat.MessageID, _ chat.UserID) bool { return set[id] })
}

// EraseOf does the same for everything that somebody has written until now.
func (c *Carrier) EraseOf(ctx context.Context, user chat.UserID) error {
	if err := c.eraseMarked(ctx, []any{"u " + string(user)}); err != nil {
		return err
	}
	q := Queue{client: c.client, keys: c.keys}
	for _, stream := range []string{c.keys.Stream, c.keys.Dead} {
		for after := ""; ; {
			letters, err := q.page(ctx, stream, after, scanEntries)
			if err != nil {
				return fmt.Errorf("erase what %s wrote to absent people: %w", user, err)
			}
			if len(letters) == 0 {
				break
			}
			var ids []chat.MessageID
			for i := range letters {
				if e := &letters[i].Entry; e.From == user && e.Texted {
					ids = append(ids, e.ID)
				}
			}
			if err := c.eraseTexts(ctx, ids); err != nil {
				return err
			}
			after = letters[len(letters)-1].ID
		}
	}
	return eachOutbox(ctx, c.client, c.keys, func(room chat.RoomID) error {
		return c.strip(ctx, room, func(_ chat.MessageID, from chat.UserID) bool { return from == user })
	})
}

func (c *Carrier) eraseTexts(ctx context.Context, ids []chat.MessageID) error {
	for len(ids) > 0 {
		n := min(eraseIDs, len(ids))
		args := make([]any, n)
		for i, id := range ids[:n] {
			args[i] = "m " + string(id)
		}
		if err := c.eraseMarked(ctx, args); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

func (c *Carrier) eraseMarked(ctx context.Context, marks []any) error {
	_, err := c.client.Eval(ctx, eraseScript, []string{c.keys.Texts, c.keys.Uses, c.keys.Erased}, append([]any{erasedFor.Milliseconds()}, marks...)...)
	return wrap("erase texts for absent people", err)
}

// strip takes texts out of a room's outbox. What is carried away meanwhile has
// none where it arrives. It goes from the end to the beginning, counted from the
// end: parcels leave at the beginning, and what is added has its text or is seen twice.
func (c *Carrier) strip(ctx context.Context, room chat.RoomID, erased func(chat.MessageID, chat.UserID) bool) error {
	box := c.keys.Outbox(room)
	for to := -1; ; to -= carryParcels {
		reply, err := c.client.Do(ctx, "lrange", box, to-carryParcels+1, to)
		if err != nil {
			return fmt.Errorf("erase in the outbox of %s: %w", room, err)
		}
		parcels, err := texts(reply)
		if err != nil {
			return fmt.Errorf("erase in the outbox of %s: %w", room, err)
		}
		var pairs []any
		for _, p := range parcels {
			if anew, changed := absent.Strip(p, erased); changed {
				pairs = append(pairs, p, anew)
			}
		}
		if len(pairs) > 0 {
			if _, err := c.client.Eval(ctx, amendScript, []string{box}, pairs...); err != nil {
				return fmt.Errorf("erase in the outbox of %s: %w", room, err)
			}
		}
		if len(parcels) < carryParcels {
			return nil
		}
	}
}
