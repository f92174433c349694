package room

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"parley/core/journal"
	"parley/core/wire"
)

// lagCheck is how often a waiting drainer looks at the bounds.
const lagCheck = time.Second

// drain serves a parked peer until it has caught up or is closed: first the
// rest of what was begun, then waiting answers, then each room from the ring
// or, behind it, from the journal.
func (p *Peer) drain(ctx context.Context) {
	moved := time.Now()
	for ctx.Err() == nil {
		buf, behind, done := p.nextToDrain()
		if done {
			return
		}
		if behind != nil {
			if err := p.catchUp(ctx, behind); err != nil {
				return
			}
			moved = time.Now() // time spent reading is not the client's
			continue
		}
		n, err := p.sock.Write(buf, lagCheck)
		p.hub.stats.Bytes.Add(uint64(n))
		if n > 0 {
			moved = time.Now()
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			p.mu.Lock()
			p.abortLocked(wire.CloseInternal, "write: "+err.Error())
			p.mu.Unlock()
			return
		}
		if why := p.tooSlow(n, time.Since(moved)); why != "" {
			p.closeSlow(why)
			return
		}
	}
	p.mu.Lock()
	p.abortLocked(wire.CloseRestart, "shutting down")
	p.mu.Unlock()
}

// nextToDrain returns what to write next, or a member that must read from the
// journal, or done when the peer has caught up and is no longer parked.
func (p *Peer) nextToDrain() (buf []byte, behind *Member, done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, true
	}
	if len(p.tail) == 0 && len(p.ctl) > 0 {
		p.tail, p.ctl = p.ctl, nil
		if p.waiting != nil {
			p.waiting.Broadcast()
		}
	}
	if len(p.tail) > 0 {
		return p.tail, nil, false
	}
	var arena []byte
	for _, m := range p.members {
		o := m.room.collect(m, p.line, &arena)
		if o.behind {
			behind = m
			continue
		}
		p.tail = append(p.tail, o.data...)
		m.next, m.eph, m.gen = o.next, o.eph, o.gen
	}
	if len(p.tail) > 0 {
		return p.tail, nil, false
	}
	if behind != nil {
		return nil, behind, false
	}
	p.tail, p.parked = nil, false
	return nil, nil, true
}

// tooSlow takes n bytes off the tail and says which bound the peer has
// passed, if any.
func (p *Peer) tooSlow(n int, still time.Duration) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ""
	}
	p.tail = p.tail[n:]
	if limit := p.hub.cfg.LagTime; limit > 0 && still >= limit {
		return fmt.Sprintf("took no byte for %s", limit)
	}
	if limit := p.hub.cfg.LagBytes; limit > 0 {
		var lag int64
		for _, m := range p.members {
			lag += m.lagLocked()
		}
		if lag > limit {
			return fmt.Sprintf("%d bytes behind, %d allowed", lag, limit)
		}
	}
	return ""
}

// catchUp reads the member's next entries from the journal into the tail. No
// lock is held while the journal is read.
func (p *Peer) catchUp(ctx context.Context, m *Member) error {
	p.mu.Lock()
	next, gen := m.next, m.gen
	p.mu.Unlock()
	r := m.room
	r.mu.Lock()
	epoch := r.epoch
	r.mu.Unlock()
	p.hub.stats.CatchUps.Add(1)
	got, es, err := r.hub.journal.Read(ctx, r.id, next-1, readBatch)
	if err != nil && !errors.Is(err, journal.ErrDamaged) {
		if ctx.Err() == nil {
			p.hub.log.Warn("member cannot catch up from the journal; closing it to resume later", slog.String("room", string(r.id)), slog.Any("error", err))
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.abortLocked(wire.CloseInternal, "the room's log cannot be read at present")
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || m.gone || m.gen != gen || m.next != next {
		return nil
	}
	if err != nil || got != epoch || len(es) == 0 || es[0].Seq != next {
		// Retention, damage or another epoch took what the member was owed:
		// an older generation makes the next look send a reset.
		m.gen = gen - 1
		return nil
	}
	for i := range es {
		if es[i].Seq != m.next {
			break
		}
		p.tail = append(p.tail, bytesOf(wire.EncodeEntry(r.id, &es[i]), p.line)...)
		m.next++
	}
	return nil
}
