package liveness

import (
	"context"
	"time"
)

// looksPerTick bounds what suspects cost in one tick; they take turns. One
// look is three system calls.
const looksPerTick = 4096

// Run turns the wheel until ctx ends. It must run once at a time.
func (w *Wheel) Run(ctx context.Context) error {
	if len(w.slots) == 0 {
		<-ctx.Done()
		return nil
	}
	w.mu.Lock()
	w.cursor = w.now() / int64(w.cfg.Tick) // time before Run is not lateness
	w.mu.Unlock()
	ticker := time.NewTicker(w.cfg.Tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			w.turnTo(w.now())
		}
	}
}

// turnTo does every step that is due.
func (w *Wheel) turnTo(now int64) {
	w.mu.Lock()
	w.noteLatenessLocked(now)
	tick := int64(w.cfg.Tick)
	target := now / tick
	// after a long pause each slot still passes once only
	w.cursor = max(w.cursor, target-int64(len(w.slots)))
	for w.cursor < target {
		w.cursor++
		w.passLocked(w.slotLocked(w.cursor), now)
		w.doubtLocked(w.slotLocked(w.cursor - int64(w.trail)))
	}
	w.suspectsLocked(now)
	w.mu.Unlock()
	w.examine()
	w.deliver()
}

// noteLatenessLocked sees whether this server itself stood still: whoever
// waits may have been answered and not been read, so their time begins again.
func (w *Wheel) noteLatenessLocked(now int64) {
	tick := int64(w.cfg.Tick)
	// at least one whole tick was missed, whatever the ticker's phase
	if lag := now - (w.cursor+1)*tick; lag > 2*tick {
		w.lastLate = now
		w.late.Add(1)
		w.excuse(ExcuseLate, uint64(len(w.trials)))
	}
}

func (w *Wheel) slotLocked(tick int64) *Beat {
	n := int64(len(w.slots))
	return &w.slots[((tick%n)+n)%n]
}

// passLocked pings and sweeps everyone in a slot. deliver notes the exact time
// of the ping again.
func (w *Wheel) passLocked(head *Beat, now int64) {
	for b := head.next; b != head; b = b.next {
		b.turns++
		if w.rounds > 0 && (b.turns+uint32(b.slot))%w.rounds == 0 { // neighbours take different rounds
			w.sweeps = append(w.sweeps, look{beat: b, peer: b.peer})
		}
		if w.cfg.Ping == 0 {
			continue
		}
		b.state = StateProbed
		b.again.Store(0)
		b.pinged.Store(now)
		w.probes = append(w.probes, probe{beat: b, peer: b.peer, seq: b.seq.Add(1)})
	}
}

// doubtLocked looks at everyone in a slot whose ping is Config.Pong old.
func (w *Wheel) doubtLocked(head *Beat) {
	for b := head.next; b != head; {
		next := b.next
		switch {
		case b.state != StateProbed:
		case b.answered() || !b.enforced.Load() || w.cfg.Mode == ModeKeepAlive:
			b.state = StateQuiet
		default:
			b.unlink()
			w.suspects.push(b)
			b.state = StateSuspect
			asked := b.pinged.Load()
			w.trials[b] = &trial{asked: asked, since: asked}
			if w.lastLate >= asked {
				w.excuse(ExcuseLate, 1)
			}
		}
		b = next
	}
}

// suspectsLocked sets free who has answered and lists whom to look at.
func (w *Wheel) suspectsLocked(now int64) {
	// who waits may have been answered and not been read
	late := w.cfg.Mode != ModePing && w.lastLate != 0 && !w.ladder.over(now-w.lastLate, w.ladder.pong)
	for b := w.suspects.next; b != &w.suspects; {
		next := b.next // b may be unlinked
		t := w.trials[b]
		switch {
		case b.answered():
			w.acquitLocked(b)
		case now-t.asked >= w.parole:
			w.acquitLocked(b)
		case !late && len(w.looks) < looksPerTick:
			w.looks = append(w.looks, look{b, b.peer, t})
		}
		b = next
	}
}

// acquitLocked puts a suspect back into its slot.
func (w *Wheel) acquitLocked(b *Beat) {
	delete(w.trials, b)
	b.unlink()
	w.slots[b.slot].push(b)
	b.state = StateQuiet
}

// examine gathers evidence without the lock and judges under it.
func (w *Wheel) examine() {
	for _, l := range w.looks {
		var e Evidence
		if w.cfg.Mode != ModePing {
			e, _ = l.peer.Look() // an error is no evidence
		}
		w.mu.Lock()
		if l.beat.state == StateSuspect && !l.beat.answered() {
			w.judgeLocked(l.beat, l.trial, &e)
		}
		w.mu.Unlock()
	}
	clear(w.looks) // keep the memory, not the connections
	w.looks = w.looks[:0]
}

// judgeLocked takes one step of the ladder with one suspect.
func (w *Wheel) judgeLocked(b *Beat, t *trial, e *Evidence) {
	now := w.now()
	t.since = max(t.since, w.lastLate)
	s := w.ladder.judge(t, now, b.heard.Load(), e)
	switch {
	case s.cause != "":
		v := Verdict{Cause: s.cause, Age: time.Duration(now - t.asked), Ping: b.seq.Load(), Pings: 1, Evidence: *e}
		if t.again != 0 {
			v.Pings, v.Ping = 2, v.Ping-1
		}
		w.dead = append(w.dead, verdict{b.peer, v})
		w.leaveLocked(b, StateDead)
		return
	case s.ask:
		b.again.Store(now)
		w.probes = append(w.probes, probe{b, b.peer, b.seq.Add(1), true})
	case s.excuse != "":
		w.excuse(s.excuse, 1)
	}
	b.unlink() // the others' turn
	w.suspects.push(b)
}

// deliver makes the calls that a step decided on.
func (w *Wheel) deliver() {
	for _, l := range w.sweeps { // before their pings, which would be seen in flight
		if e, err := l.peer.Look(); err == nil {
			w.swept.add(&e)
			l.peer.Swept(e)
		}
	}
	for _, p := range w.probes {
		if p.second {
			p.beat.again.Store(w.now())
		} else {
			p.beat.pinged.Store(w.now())
		}
		p.peer.Ping(p.seq)
	}
	for _, v := range w.dead {
		w.convict(v.Cause)
		v.peer.Dead(v.Verdict)
	}
	w.pings.Add(uint64(len(w.probes)))
	clear(w.probes)
	clear(w.dead)
	clear(w.sweeps)
	w.probes, w.dead, w.sweeps = w.probes[:0], w.dead[:0], w.sweeps[:0]
}

// answered reports whether a ping of this round has its pong.
func (b *Beat) answered() bool { return b.ponged.Load() >= b.pinged.Load() }

// init makes b a list of its own.
func (b *Beat) init() { b.next, b.prev = b, b }

// push puts b at the end of the list that begins at head.
func (head *Beat) push(b *Beat) {
	b.prev, b.next = head.prev, head
	head.prev.next = b
	head.prev = b
}

// unlink takes b out of its list.
func (b *Beat) unlink() {
	b.prev.next, b.next.prev = b.next, b.prev
	b.init()
}
