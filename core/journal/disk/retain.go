package disk

import (
	"parley/core/journal"
	"parley/core/journal/codec"
)

// retain deletes at most budget of the room's oldest entries: those above
// MaxEntries and those older than MaxAge.
func (c *committer) retain(b *buckets, w *work, budget int) error {
	upTo := uint64(0) // the newest seq to delete
	if keep := uint64(c.j.cfg.MaxEntries); keep > 0 && w.h.top > keep {
		upTo = w.h.top - keep
	}
	if w.h.first+uint64(budget) <= upTo {
		upTo = w.h.first + uint64(budget) - 1
	} else if c.j.cfg.MaxAge > 0 {
		upTo = max(upTo, c.agedUpTo(b, w, budget))
	}
	if upTo < w.h.first {
		return nil
	}
	for ; w.h.first <= upTo; w.h.first++ {
		c.key = entryKey(c.key[:0], w.room, w.h.gen, w.h.first)
		if err := b.entries().Delete(c.key); err != nil {
			return err
		}
	}
	w.changed = true
	return nil
}

// agedUpTo returns the last of the next budget entries that is too old, or 0.
// What lies before an entry that is too old goes with it, damaged or not.
func (c *committer) agedUpTo(b *buckets, w *work, budget int) uint64 {
	cutoff := c.now - c.j.cfg.MaxAge.Milliseconds()
	aged := uint64(0)
	for seq := w.h.first; seq <= w.h.top && seq < w.h.first+uint64(budget); seq++ {
		c.key = entryKey(c.key[:0], w.room, w.h.gen, seq)
		body, err := unseal(c.key, b.entries().Get(c.key))
		if err != nil {
			continue
		}
		var e journal.Entry
		if codec.DecodeEntry(&e, seq, string(body)) != nil {
			continue
		}
		if e.Time >= cutoff {
			break
		}
		aged = seq
	}
	return aged
}
