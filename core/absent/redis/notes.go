package redis

import (
	"context"
	"fmt"
	"log/slog"

	"parley/core/absent"
	"parley/core/chat"
)

// maxSeen bounds the outboxes' messages that are known again in the stream.
const maxSeen = 10_000

// EachNote calls f for everything that is on its way to absent people, and for
// the dead letters. What moves on meanwhile may come twice; nothing is left out
// but what is delivered.
func (c *Carrier) EachNote(ctx context.Context, f func(*absent.Note) error) error {
	// In the order in which things move, so that what was missed in one place
	// comes in a later one. A letter that is put back moves against it: the
	// letters come first, and once more those that died meanwhile.
	last, err := c.eachLetter(ctx, c.keys.Dead, "", nil, f)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	err = eachOutbox(ctx, c.client, c.keys, func(room chat.RoomID) error {
		return c.eachParcel(ctx, room, func(n *absent.Note) error {
			if seen[n.Key()] {
				return nil
			}
			if len(seen) < maxSeen {
				seen[n.Key()] = true
			}
			return f(n)
		})
	})
	if err != nil {
		return err
	}
	if _, err := c.eachLetter(ctx, c.keys.Stream, "", seen, f); err != nil {
		return err
	}
	_, err = c.eachLetter(ctx, c.keys.Dead, last, nil, f)
	return err
}

func (c *Carrier) eachParcel(ctx context.Context, room chat.RoomID, f func(*absent.Note) error) error {
	for to := -1; ; to -= carryParcels {
		reply, err := c.client.Do(ctx, "lrange", c.keys.Outbox(room), to-carryParcels+1, to)
		if err != nil {
			return fmt.Errorf("read the outbox of %s: %w", room, err)
		}
		parcels, err := texts(reply)
		if err != nil {
			return fmt.Errorf("read the outbox of %s: %w", room, err)
		}
		for _, p := range parcels {
			es, err := absent.Unpack(room, p)
			if err != nil {
				c.log.Error("a message for absent people cannot be read and is left out", slog.String("room", string(room)), slog.Any("error", err))
				continue
			}
			for i := range es {
				if err := f(&absent.Note{Entry: es[i]}); err != nil {
					return err
				}
			}
		}
		if len(parcels) < carryParcels {
			return nil
		}
	}
}

// eachLetter reads a stream behind an id, without those that were seen, and
// returns the last id.
func (c *Carrier) eachLetter(ctx context.Context, stream, after string, seen map[string]bool, f func(*absent.Note) error) (last string, err error) {
	q := Queue{client: c.client, keys: c.keys}
	for {
		page, err := q.page(ctx, stream, after, scanEntries)
		if err == nil {
			err = q.addTexts(ctx, page)
		}
		if err != nil {
			return after, fmt.Errorf("read messages for absent people: %w", err)
		}
		if len(page) == 0 {
			return after, nil
		}
		for i := range page {
			l := &page[i]
			n := absent.Note{Entry: l.Entry}
			switch {
			case l.Bad != "":
				c.log.Error("a message for absent people cannot be read and is left out", slog.String("id", l.ID), slog.String("error", l.Bad))
				continue
			case seen[n.Key()]:
				continue
			case stream == c.keys.Dead:
				n.Dead = &absent.Death{Reason: l.Reason, Tries: l.Tries, Died: l.Died}
			}
			if err := n.Check(); err != nil { // else nobody could read the archive
				c.log.Error("a message for absent people cannot be kept and is left out", slog.String("id", l.ID), slog.Any("error", err))
				continue
			}
			if err := f(&n); err != nil {
				return after, err
			}
		}
		after = page[len(page)-1].ID
	}
}

// PutNotes puts notes where they were, at the end: a few at a time, a batch of
// package archive.
func (c *Carrier) PutNotes(ctx context.Context, notes []absent.Note) error {
	var live, dead []absent.Note
	for _, n := range notes {
		if n.Dead == nil {
			live = append(live, n)
		} else {
			dead = append(dead, n)
		}
	}
	if err := c.putNotes(ctx, c.keys.Stream, c.cfg.MaxEntries, "dropped", absent.Fields, live); err != nil {
		return err
	}
	return c.putNotes(ctx, c.keys.Dead, MaxDead, "dead_dropped", absent.Fields+6, dead)
}

func (c *Carrier) putNotes(ctx context.Context, stream string, most int, count string, fields int, notes []absent.Note) error {
	if len(notes) == 0 {
		return nil
	}
	var messages, entries []any
	told := map[chat.MessageID]bool{}
	for i := range notes {
		n := &notes[i]
		if n.Text != "" && !told[n.ID] {
			told[n.ID] = true
			messages = append(messages, string(n.ID), string(n.From), n.Time, n.Text)
		}
		entries = n.AppendFields(entries)
		if n.Dead != nil {
			entries = append(entries, "reason", n.Dead.Reason, "tries", n.Dead.Tries, "died", n.Dead.Died.UnixMilli())
		}
	}
	args := append(append([]any{most, count, "0", fields, len(told)}, messages...), entries...)
	_, err := c.client.Eval(ctx, putScript, []string{stream, c.keys.Counts, c.keys.Texts, c.keys.Uses, c.keys.Erased}, args...)
	return wrap("put messages for absent people back", err)
}
