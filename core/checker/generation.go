package checker

// A generation is what one epoch of a room holds. Within it the order is dense
// and the same for all; a store that has lost entries must begin another.

// follow notes that a client was taken from one epoch to another.
func (r *room) follow(from, to string) {
	if r.followed[from] == nil {
		r.followed[from] = make(map[string]bool)
	}
	r.followed[from][to] = true
}

// later returns the epochs that came after one, as far as clients were taken
// from one to the next.
func (r *room) later(epoch string) map[string]bool {
	all := make(map[string]bool)
	for todo := []string{epoch}; len(todo) > 0; todo = todo[1:] {
		for next := range r.followed[todo[0]] {
			if !all[next] && next != epoch {
				all[next] = true
				todo = append(todo, next)
			}
		}
	}
	return all
}

// generations counts a room's epochs and what the earlier ones lost, which may
// only be a tail.
func (c *checker) generations(r *room) {
	r.epochs[r.final.Epoch] = true
	c.report.Generations += len(r.epochs)
	if n := len(r.epochs); n > 1+c.run.Losses && c.run.Losses > 0 {
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
