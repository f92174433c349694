package room

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

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
			if err := p.catchUp(ctx, behind); err != nil && ctx.Err() == nil {
				p.giveUp(behind, err)
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
// journal first, or done when the peer has caught up and is no longer parked.
// One round holds at most batchBytes and one batch more of the rooms in memory
// and one batch from the journal, so neither starves the other.
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
		p.torn = true
		return p.tail, nil, false
	}
	var arena []byte
	for range p.members {
		p.turn++ // so that a room with much to say does not keep the others waiting
		m := p.members[p.turn%len(p.members)]
		arena = arena[:0]
		o := m.room.collect(m, p.form, &arena)
		m.clip(&o, p.form, &arena)
		if o.behind {
			behind = m
			continue
		}
		p.tail = append(p.tail, o.data...)
		m.take(&o)
		if len(p.tail) >= batchBytes {
			break
		}
	}
	if behind != nil {
		return nil, behind, false
	}
	if len(p.tail) > 0 {
		p.torn = true
		return p.tail, nil, false
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
	p.torn = len(p.tail) > 0
	if limit := p.hub.cfg.LagTime; limit > 0 && still >= limit {
		return fmt.Sprintf("took no byte for %s", limit)
	}
	if limit := p.hub.cfg.LagBytes; limit > 0 {
		lag := int64(len(p.tail) + len(p.ctl)) // gathered, but not taken
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
	epoch, now := r.era()
	if now != gen { // the next look sends a reset
		return nil
	}
	p.hub.stats.CatchUps.Add(1)
	got, es, after, err := r.readPast(ctx, next-1)
	if err != nil {
		return err
	}
	lost := got != epoch || len(es) == 0 && after < next
	if lost { // the log was replaced; the room must know it before its members do
		if err := r.fillOnce(ctx); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || m.gone || m.gen != gen || m.next != next {
		return nil
	}
	if _, now := r.era(); lost || now != gen {
		m.gen = gen - 1 // so that the next look sends a reset, whatever became of the room
		return nil
	}
	begin := after + 1
	if len(es) > 0 {
		begin = es[0].Seq
	}
	if begin != next { // retention or damage took what the member was owed
		f := wire.Encode(wire.ResetEvent{Type: wire.Reset, Room: r.id, Epoch: epoch, Seq: begin - 1})
		p.tail = append(p.tail, f.Bytes(p.form)...)
		m.next = begin
	}
	for i := range es {
		if es[i].Seq != m.next {
			break
		}
		f := wire.EncodeEntry(r.id, &es[i])
		p.tail = append(p.tail, f.Bytes(p.form)...)
		m.next++
		if es[i].Seq > m.past {
			m.mark += uint64(f.Len())
		}
		if m.puts(&es[i]) {
			break
		}
	}
	return nil
}

// giveUp closes a peer whose member cannot be served from the journal.
func (p *Peer) giveUp(m *Member, err error) {
	p.hub.log.Warn("member cannot catch up from the journal; closing it to resume later", slog.String("room", string(m.room.id)), slog.Any("error", err))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.abortLocked(wire.CloseInternal, "the room's log cannot be read at present")
}
