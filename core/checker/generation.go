package checker

import (
	"cmp"
	"math"
)

// A generation is what one epoch of a room holds. Within it the order is dense
// and the same for all; a store that has lost entries must begin another.

// hear notes that a client knew of an epoch at some time.
func (r *room) hear(epoch string, at int64) {
	if first, known := r.born[epoch]; !known || at < first {
		r.born[epoch] = at
	}
}

// older orders epochs by when they were first heard of.
func (r *room) older(a, b string) int {
	return cmp.Or(cmp.Compare(r.born[a], r.born[b]), cmp.Compare(a, b))
}

// generations counts a room's epochs and what the earlier ones lost, which may
// only be a tail.
func (c *checker) generations(r *room) {
	if _, known := r.born[r.final.Epoch]; !known {
		r.born[r.final.Epoch] = math.MaxInt64 // nobody was there any more
	}
	c.report.Generations += len(r.born)
	if n := len(r.born); n > 1+c.run.Losses && c.run.Losses > 0 {
		c.find(Violation{Fault: Splintered, Room: r.id, Epoch: r.final.Epoch},
			"room %s had %d generations, %d losses of the store explain at most %d", r.id, n, c.run.Losses, 1+c.run.Losses)
	}
	if c.run.Losses == 0 {
		return // then all of it is missed
	}
	survived := make(map[string]uint64) // by epoch, the highest seq that the history still holds
	for p, s := range r.at {
		if r.held[p.seq] == s.id {
			survived[p.epoch] = max(survived[p.epoch], p.seq)
		}
	}
	acked := make(map[place]bool)
	for _, m := range r.messages {
		if m.acked >= 0 {
			acked[place{m.ack.Epoch, m.ack.Seq}] = true
		}
	}
	for p, s := range r.at {
		if p.epoch == r.final.Epoch || r.held[p.seq] == s.id {
			continue
		}
		if p.seq < survived[p.epoch] && !c.run.Trimmed {
			c.find(Violation{Fault: Lost, Room: r.id, Epoch: p.epoch, Seq: p.seq, Nonce: s.nonce},
				"%s had id %s at seq %d of room %s (epoch %s, nonce %q), the history does not hold it, but what followed up to seq %d", s.client, s.id, p.seq, r.id, p.epoch, s.nonce, survived[p.epoch])
			continue
		}
		c.report.LostSeen++
		if acked[p] {
			c.report.LostAcked++
		}
	}
}
