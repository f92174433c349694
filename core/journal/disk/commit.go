package disk

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"parley/core/chat"
	"parley/core/journal"

	bolterrors "go.etcd.io/bbolt/errors"
)

// committer is the one goroutine that writes. It owns everything in it.
type committer struct {
	j     *Journal
	spare []*pending // the list that the queue gets in exchange
	pace  pace

	// The commit under way.
	now      int64 // Unix ms
	works    map[chat.RoomID]*work
	order    []*work                // in order of first use
	free     []*work                // for reuse
	staged   map[nonceHash]*pending // nonces of entries staged in this commit
	remember []nonceHash            // the same, in order; the first gets number next
	forget   []forgotten            // receipts deleted in this commit
	openings []opening              // reviews opened and closed in this commit
	arena    []byte                 // values that bbolt holds until the end of the commit
	key      []byte                 // scratch

	next uint64 // number of the next receipt

	garbage   bool            // there may be generations to delete
	importing map[string]bool // generations that are being put in, by prefix; they are garbage should the process end
	sweepAt   chat.RoomID     // maintenance goes on behind this room
	nextSweep time.Time
	failures  int // writes that failed in a row
	relapses  int // commits that failed since the last that did not
	nextProbe time.Time
	doubtful  []doubt // rooms whose last commit failed
}

// work is one room in the commit under way.
type work struct {
	room     chat.RoomID
	h        head // as it will be
	old      head // as published
	appended int
	changed  bool // the span has to be written
	lineage  bool // the lineage as well
	dirty    bool // something else was staged, and the commit has to be made
}

// forgotten is a receipt that leaves the window.
type forgotten struct {
	hash   nonceHash
	number uint64
}

func newCommitter(j *Journal) *committer {
	return &committer{
		j:       j,
		works:   map[chat.RoomID]*work{},
		staged:  map[nonceHash]*pending{},
		garbage: true, importing: map[string]bool{},
	}
}

// run commits until the queue is closed and empty.
func (c *committer) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	c.nextSweep = time.Now().Add(sweepEvery)
	for {
		ps, closed, wait := c.take()
		if len(ps) > 0 {
			c.commit(ps)
			c.pace.ended(len(ps))
			clear(ps)
			c.spare = ps
		}
		worked, due := c.chores(time.Now())
		switch {
		case len(ps) > 0 || worked:
			continue
		case closed:
			return
		}
		timer.Reset(min(wait, due))
		select {
		case <-c.j.queue.wake:
		case <-timer.C:
		}
	}
}

// chores does what is due besides appends, or says how long until something
// is.
func (c *committer) chores(now time.Time) (worked bool, due time.Duration) {
	switch {
	case c.failures > 0 && now.Before(c.nextProbe):
		return false, c.nextProbe.Sub(now)
	case c.failures > 0:
		c.probe()
	case c.j.damage.waiting():
		c.record()
	case now.Before(c.nextSweep):
		return false, c.nextSweep.Sub(now)
	default:
		c.maintain()
		c.nextSweep = time.Now().Add(sweepEvery)
	}
	return true, 0
}

// take returns what there is to commit now, or how long to wait for more.
func (c *committer) take() (ps []*pending, closed bool, wait time.Duration) {
	q := &c.j.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.ps)
	if n == 0 {
		return nil, q.closed, sweepEvery
	}
	if !q.closed {
		if wait, q.target = c.pace.wait(c.j.cfg.CommitWindow, n); wait > 0 {
			return nil, false, wait
		}
	}
	ps = q.swapLocked(c.spare)
	c.spare = nil
	return ps, q.closed, 0
}

// commit makes one transaction of ps and answers each.
func (c *committer) commit(ps []*pending) {
	if fault := c.j.queue.broken(); fault != nil { // since they were queued
		c.refuse(ps, fault)
		return
	}
	err := c.transact(func(b *buckets) (bool, error) { return c.stageAll(b, ps) })
	var page *pageError
	switch {
	case err == nil:
		c.relapses = 0
		c.publish()
		c.answer(ps)
	case errors.As(err, &page) && len(ps) > 1:
		// One room's damaged page must not fail the others.
		for _, p := range ps {
			c.commit([]*pending{p})
		}
	case errors.As(err, &page):
		c.j.log.Error("journal cannot append to a room: the file has a damaged page", "room", ps[0].req.Room, "error", err)
		c.j.pub.endRound()
		c.refuse(ps, err)
	default:
		c.refuse(ps, c.failed(err))
	}
}

// transact runs fn in a write transaction and commits it if fn changed
// anything. It returns when the commit is durable or has failed.
func (c *committer) transact(fn func(b *buckets) (changed bool, err error)) (err error) {
	c.reset()
	tx, err := c.j.db.Begin(true)
	if err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			err = &pageError{p}
		}
		if err != nil {
			// Nothing to undo if Commit already did.
			if e := tx.Rollback(); e != nil && !errors.Is(e, bolterrors.ErrTxClosed) {
				err = errors.Join(err, e)
			}
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	changed, err := fn(&buckets{tx: tx})
	if err != nil {
		return err
	}
	if !changed {
		return tx.Rollback()
	}
	c.j.counts.commits.Add(1)
	return tx.Commit()
}

// maxKeptArena bounds the memory kept from one commit to the next.
const maxKeptArena = 1 << 20

// reset forgets the last commit.
func (c *committer) reset() {
	c.now = time.Now().UnixMilli()
	c.free = append(c.free, c.order...)
	c.order = c.order[:0]
	c.remember, c.forget = c.remember[:0], c.forget[:0]
	clear(c.openings)
	c.openings = c.openings[:0]
	if c.arena = c.arena[:0]; cap(c.arena) > maxKeptArena {
		c.arena = nil
	}
	clear(c.works)
	clear(c.staged)
}

func (c *committer) stageAll(b *buckets, ps []*pending) (changed bool, err error) {
	// Sequential keys fill pages well; keys of many rooms split them.
	b.nonces().FillPercent, b.entries().FillPercent = 0.95, 0.8
	// Before anything is staged: what a reader of the last commit may still
	// read must not go in this one.
	if changed, err = c.sweep(b, 2*len(ps)+16); err != nil {
		return false, err
	}
	for _, p := range ps {
		if err := c.stage(b, p); err != nil {
			return false, err
		}
	}
	if n, err := c.recordDamage(b); err != nil {
		return false, err
	} else if n > 0 {
		changed = true
	}
	for _, w := range c.order {
		changed = changed || w.dirty
		if w.appended > 0 {
			if err := c.retain(b, w, 2*w.appended+8); err != nil {
				return false, err
			}
		}
	}
	wrote, err := c.writeHeads(b)
	return changed || wrote, err
}

// workOn returns the room's place in this commit, reading its head if it is
// not in memory.
func (c *committer) workOn(b *buckets, room chat.RoomID) (*work, error) {
	if w := c.works[room]; w != nil {
		return w, nil
	}
	h, ok := c.j.pub.head(room)
	repaired := false
	if !ok {
		var err error
		if h, err = loadHead(b, room, head{}); errors.Is(err, errHead) {
			h, repaired, err = rebuildHead(b, room), true, nil
			c.j.log.Error("journal rebuilt the damaged head of a room", "room", room, "top", h.top, "epoch", h.epoch)
			c.j.damage.note(room, h.gen, 0, errHead)
		} else if err != nil {
			return nil, err
		}
		c.j.pub.mu.Lock() // before the commit, so that readers are capped
		seen := h
		c.j.pub.heads[room] = &seen
		c.j.pub.mu.Unlock()
	}
	var w *work
	if n := len(c.free); n > 0 {
		w, c.free = c.free[n-1], c.free[:n-1]
	} else {
		w = &work{}
	}
	*w = work{room: room, h: h, old: h, changed: repaired, lineage: repaired}
	c.works[room] = w
	c.order = append(c.order, w)
	return w, nil
}

// stage puts one append into the transaction, or decides what else it gets.
func (c *committer) stage(b *buckets, p *pending) error {
	p.receipt, p.err, p.added, p.decided, p.doubt, p.twin = journal.Receipt{}, nil, false, false, false, nil
	if p.abandoned.Load() {
		return nil
	}
	w, err := c.workOn(b, p.req.Room)
	if err != nil {
		return err
	}
	if p.repair { // by what is in memory, if workOn found that
		w.changed, w.lineage = w.h.gen > 0, w.h.gen > 0
		return nil
	}
	if p.do != nil {
		return p.do(c, b, w, p)
	}
	if w.h.gen == 0 || w.h.lost(p.req.Known) {
		if err := c.newEpoch(b, w, p.req.Known); err != nil {
			return err
		}
	}
	e, act := &p.req.Entry, p.req.Act()
	// What decides a review replaces the receipt its author has.
	if e.Nonce != "" && (act == journal.ActAppend || act == journal.ActHold) {
		if first := c.staged[p.hash]; first != nil && first.gen == w.h.gen {
			p.twin = first
			return nil
		}
		number, held, ok := c.j.pub.known(p.hash)
		if ok {
			if r, ok := c.j.receiptAt(b, number, p.req.Room, e.From, e.Nonce, w.h, c.now); ok {
				p.receipt = r
				return nil
			}
		}
		if held != nil || len(c.openings) > 0 {
			if r, ok := c.heldFor(b, p, held, w.h); ok {
				p.receipt = r
				return nil
			}
		}
	}
	if p.req.Create && w.h.top > 0 {
		p.err = journal.ErrExists
		return nil
	}
	if !c.expected(b, p) {
		p.err = journal.ErrChanged
		return nil
	}
	if act != journal.ActAppend {
		return c.stageReview(b, w, p, act)
	}
	return c.put(b, w, p)
}

// put stages the entry, its changes and its receipt.
func (c *committer) put(b *buckets, w *work, p *pending) error {
	e := &p.req.Entry
	w.h.top++
	w.h.topID = e.ID
	w.appended++
	w.changed = true
	e.Seq, p.gen, p.added = w.h.top, w.h.gen, true
	p.receipt = journal.Receipt{Epoch: w.h.epoch, Seq: e.Seq, ID: e.ID, Outcome: e.Outcome, Reasons: e.Reasons}

	c.key = entryKey(c.key[:0], w.room, w.h.gen, e.Seq)
	p.rec = seal(c.key, p.rec[:p.body])
	if err := b.entries().Put(c.key, p.rec); err != nil {
		return err
	}
	for i := range e.Changes {
		ch := &e.Changes[i]
		c.key = stateKey(c.key[:0], w.room, ch.Key)
		if ch.Value == nil {
			if err := b.state().Delete(c.key); err != nil {
				return err
			}
			continue
		}
		rec := c.value(func(buf []byte) []byte { return append(append(buf, recordVersion), ch.Value...) })
		if err := b.state().Put(c.key, rec); err != nil {
			return err
		}
	}
	if e.Nonce == "" {
		return nil
	}
	c.staged[p.hash] = p
	return c.putReceipt(b, w, p)
}

// value builds a record in the arena and seals it for c.key. bbolt keeps the
// slice until the commit has ended; a growing arena leaves older slices where
// they are.
func (c *committer) value(build func(buf []byte) []byte) []byte {
	start := len(c.arena)
	c.arena = build(c.arena)
	// The sum must not cover what other records put before it.
	sealed := seal(c.key, c.arena[start:])
	c.arena = append(c.arena[:start], sealed...)
	return c.arena[start:len(c.arena):len(c.arena)]
}

// newEpoch makes w stand at the start of a new epoch.
func (c *committer) newEpoch(b *buckets, w *work, known journal.Position) error {
	if w.h.gen > 0 {
		c.j.log.Warn("journal opens a new epoch: a caller knows more of the room than is stored",
			"room", w.room, "epoch", w.h.epoch, "top", w.h.top, "known_epoch", known.Epoch, "known_seq", known.Seq)
		c.key = genPrefix(c.key[:0], w.room, w.h.gen)
		if err := b.garbage().Put(c.key, []byte{recordVersion}); err != nil {
			return err
		}
		c.garbage = true
	}
	w.h = w.h.next(known)
	w.changed, w.lineage = true, true
	return nil
}

// writeHeads puts what has changed of the heads.
func (c *committer) writeHeads(b *buckets) (wrote bool, err error) {
	for _, w := range c.order {
		if !w.changed {
			continue
		}
		wrote = true
		c.key = append(c.key[:0], w.room...)
		rec := c.value(func(buf []byte) []byte { return appendSpan(buf, &w.h) })
		if err := b.rooms().Put(c.key, rec); err != nil {
			return false, err
		}
		if !w.lineage {
			continue
		}
		rec = c.value(func(buf []byte) []byte { return appendLineage(buf, &w.h) })
		if err := b.epochs().Put(c.key, rec); err != nil {
			return false, err
		}
	}
	return wrote, nil
}

// publish shows the commit to readers. It runs after the sync.
func (c *committer) publish() {
	p := &c.j.pub
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range c.order {
		*p.heads[w.room] = w.h
	}
	c.publishNoncesLocked()
	c.publishReviewsLocked()
	for room := range p.heads { // in random order
		if len(p.heads) <= c.j.cfg.MaxCachedRooms {
			break
		}
		delete(p.heads, room) // the file says the same by now
	}
	p.endRoundLocked()
}

// answer tells the watchers, then the callers, in commit order.
func (c *committer) answer(ps []*pending) {
	for _, p := range ps {
		switch {
		case p.added || p.decided:
			if p.added {
				c.j.counts.appended.Add(1)
				c.j.watch.tell(p)
			}
			if p.decided {
				c.j.watch.tellReview(p)
			}
		case p.doubt:
			c.j.watch.doubt(p.req.Room)
		case p.twin != nil:
			p.receipt = p.twin.receipt
			p.receipt.Repeat = true
			c.j.counts.repeats.Add(1)
		case p.receipt.Repeat:
			c.j.counts.repeats.Add(1)
		case p.err != nil:
			c.j.counts.refused.Add(1)
		}
	}
	for _, p := range ps {
		p.done <- struct{}{}
	}
}

// refuse answers err to all.
func (c *committer) refuse(ps []*pending, err error) {
	for _, p := range ps {
		p.receipt, p.err = journal.Receipt{}, err
		p.done <- struct{}{}
	}
}

// roomsOf lists the rooms of the commit under way with their published heads.
func (c *committer) roomsOf() []doubt {
	ds := make([]doubt, 0, len(c.order))
	for _, w := range c.order {
		ds = append(ds, doubt{w.room, w.old})
	}
	return ds
}

func unavailable(what string, err error) error {
	return fmt.Errorf("%w: %s: %w", journal.ErrUnavailable, what, err)
}
