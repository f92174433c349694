package room

import (
	"context"
	"sync"
	"time"

	"parley/core/wire"
)

// shard is one pump: the only goroutine that touches the member lists of its
// peers' rooms, and the one that moves their cursors while they keep up.
type shard struct {
	hub    *Hub
	index  int
	wakeC  chan struct{} // capacity 1
	laterC chan struct{} // capacity 1: later is no longer empty

	mu    sync.Mutex
	rooms []*Room // rooms with news for this shard
	later []*Room // rooms whose news can wait until the shard's slow timer
	ops   []op

	// Owned by run.
	passNo  uint64
	last    time.Time     // end of the last pass
	took    time.Duration // by it
	waiting []*Room       // rooms with news whose turn has not come
	due     time.Time     // when the first of them has its turn; zero = none
	ready   []*Room       // reused: rooms of one pass
	peers   []*Peer
	arena   []byte  // frames joined for one room
	joint   []byte  // and for several rooms of one peer
	fresh   []*Room // rooms of those who joined in this pass
	spareR  []*Room
	spareOp []op
}

// op adds or removes a member.
type op struct {
	member *Member
	join   bool
}

func newShard(h *Hub, i int) *shard {
	return &shard{hub: h, index: i, wakeC: make(chan struct{}, 1), laterC: make(chan struct{}, 1)}
}

func (s *shard) enqueue(r *Room) {
	s.mu.Lock()
	s.rooms = append(s.rooms, r)
	s.mu.Unlock()
	s.wake()
}

// enqueueLater queues the room for a pass within ephemeralPace.
func (s *shard) enqueueLater(r *Room) {
	s.mu.Lock()
	s.later = append(s.later, r)
	first := len(s.later) == 1
	s.mu.Unlock()
	if first {
		select {
		case s.laterC <- struct{}{}:
		default:
		}
	}
}

// dueLater queues the rooms that have waited.
func (s *shard) dueLater() {
	s.mu.Lock()
	rooms := s.later
	s.later = nil
	s.mu.Unlock()
	for _, r := range rooms {
		local := &r.local[s.index]
		local.later.Store(false)
		if !local.queued.Swap(true) {
			s.enqueue(r)
		}
	}
}

func (s *shard) post(o op) {
	s.mu.Lock()
	s.ops = append(s.ops, o)
	s.mu.Unlock()
	s.wake()
}

func (s *shard) wake() {
	select {
	case s.wakeC <- struct{}{}:
	default:
	}
}

// gather is the least time between two passes of a shard: under load it makes
// one pass of many rooms' news.
const gather = time.Millisecond

// run passes whenever there is news: at once when the shard has been idle. A
// room that was passed less than its pace ago waits its turn, so that what it
// says meanwhile is one write a member; a quiet room never waits for a busy
// one.
func (s *shard) run(ctx context.Context) {
	wait, slow := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	defer wait.Stop()
	defer slow.Stop()
	for {
		select {
		case <-s.wakeC:
		case <-wait.C: // a room's turn has come
		case <-s.laterC:
			slow.Reset(ephemeralPace)
			continue
		case <-slow.C:
			s.dueLater()
			continue
		case <-ctx.Done():
			return
		}
		if s.hub.cfg.Pace > 0 && !s.rest(ctx, wait) {
			return
		}
		s.pass(time.Now())
		if !s.due.IsZero() {
			wait.Reset(time.Until(s.due))
		}
	}
}

// rest waits until the last pass is gather ago; false when ctx has ended.
func (s *shard) rest(ctx context.Context, t *time.Timer) bool {
	d := gather - time.Since(s.last)
	if d <= 0 {
		return true
	}
	t.Reset(d)
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pace returns how long a room waits after a pass: twice as long while the
// shard writes half of the time, where fewer and larger writes help everybody.
func (s *shard) pace() time.Duration {
	if s.took > s.hub.cfg.Pace/2 {
		return 2 * s.hub.cfg.Pace
	}
	return s.hub.cfg.Pace
}

// arenaKeep is the largest arena kept between passes.
const arenaKeep = 1 << 20

// pass moves the members of every room whose turn it is to the head.
func (s *shard) pass(now time.Time) {
	s.mu.Lock()
	news, ops := s.rooms, s.ops
	s.rooms, s.ops = s.spareR[:0], s.spareOp[:0]
	s.mu.Unlock()

	s.passNo++
	s.hub.stats.Passes.Add(1)
	s.arena = s.arena[:0]
	for _, o := range ops {
		s.apply(o)
	}
	rooms := s.turn(news, now)
	for _, r := range rooms {
		local := &r.local[s.index]
		local.passed = now
		local.queued.Store(false) // before looking at the head, so that later news queues again
		local.cache = [forms]cached{}
		for _, m := range local.members {
			s.owe(m)
		}
	}
	for _, p := range s.peers {
		p.flush(s)
		clear(p.owed)
		p.owed = p.owed[:0]
	}
	s.forget(rooms)
	s.forget(s.fresh)
	clear(s.fresh)
	s.fresh = s.fresh[:0]
	clear(rooms)
	clear(news)
	clear(ops)
	clear(s.peers)
	s.spareR, s.spareOp, s.peers, s.ready = news[:0], ops[:0], s.peers[:0], rooms[:0]
	if cap(s.arena) > arenaKeep {
		s.arena = nil
	}
	if cap(s.joint) > arenaKeep {
		s.joint = nil
	}
	s.last = time.Now()
	s.took = s.last.Sub(now)
}

// turn returns the rooms, of those with news and those that wait, whose turn
// it is, and notes when that of the next will be.
func (s *shard) turn(news []*Room, now time.Time) (ready []*Room) {
	ready, pace := s.ready, s.pace()
	waiting := s.waiting[:0]
	s.due = time.Time{}
	look := func(r *Room) {
		at := r.local[s.index].passed.Add(pace)
		if !at.After(now) {
			ready = append(ready, r)
			return
		}
		waiting = append(waiting, r)
		if s.due.IsZero() || at.Before(s.due) {
			s.due = at
		}
	}
	for _, r := range s.waiting {
		look(r)
	}
	for _, r := range news {
		look(r)
	}
	clear(s.waiting[min(len(waiting), len(s.waiting)):])
	s.waiting = waiting
	return ready
}

// forget empties the rooms' caches, whose bytes live no longer than a pass.
func (s *shard) forget(rooms []*Room) {
	for _, r := range rooms {
		r.local[s.index].cache = [forms]cached{}
	}
}

// owe notes that the member's peer is to be looked at in this pass.
func (s *shard) owe(m *Member) {
	p := m.peer
	if p.pass != s.passNo {
		p.pass = s.passNo
		s.peers = append(s.peers, p)
	}
	p.owed = append(p.owed, m)
}

func (s *shard) apply(o op) {
	m := o.member
	local := &m.room.local[s.index]
	if o.join {
		m.peer.mu.Lock()
		gone := m.gone
		m.peer.mu.Unlock()
		if gone {
			m.room.refs.Add(-1)
			return
		}
		m.slot = len(local.members)
		local.members = append(local.members, m)
		s.fresh = append(s.fresh, m.room)
		s.owe(m) // what was appended since the join
		return
	}
	if m.slot < 0 {
		return
	}
	end := len(local.members) - 1
	last := local.members[end]
	local.members[m.slot] = last
	last.slot = m.slot
	local.members[end] = nil
	local.members = local.members[:end]
	m.slot = -1
	m.room.touch(time.Now())
	m.room.refs.Add(-1)
}

// forms is how many wire.Form there are.
const forms = wire.FormDeflate + 1

// cached is what a pass collected last for a room and a framing: members
// that stand at the same place share it.
type cached struct {
	owed
	fromNext uint64
	fromEph  uint64
	fromGen  uint32
	valid    bool
}

// collect is Room.collect with the pass's cache, which holds what everybody is
// sent: who is not, is collected for alone.
func (s *shard) collect(m *Member, form wire.Form) owed {
	c := &m.room.local[s.index].cache[form]
	if m.room.withholds(m) {
		return m.room.collect(m, form, &s.arena)
	}
	if c.valid && c.fromNext == m.next && c.fromEph == m.eph && c.fromGen == m.gen {
		return c.owed
	}
	if len(s.arena) > arenaKeep {
		s.arena = nil // what was collected lives as long as it is cached; a pass for many places must not add up
	}
	o := m.room.collect(m, form, &s.arena)
	if !o.alone { // a frame that is not for it can have come since withholds
		*c = cached{owed: o, fromNext: m.next, fromEph: m.eph, fromGen: m.gen, valid: true}
	}
	return o
}
