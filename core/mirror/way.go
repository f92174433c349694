package mirror

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/chat"
	"parley/core/histogram"
	"parley/core/journal"
	journalredis "parley/core/journal/redis"
)

const (
	// burst is how many batches of a room are carried before others have their
	// turn.
	burst = 16
	// retryMin and retryMax bound the wait after an error.
	retryMin = 50 * time.Millisecond
	retryMax = time.Second
	// warnEvery bounds how often the log speaks of errors.
	warnEvery = 10 * time.Second
)

// way is one direction.
type way struct {
	// Set at construction.
	m        *Mirror
	from, to Side

	mu    sync.Mutex
	more  sync.Cond // on mu: ready has grown, or Run ends
	ready []*track
	rooms []*track

	lags    lags
	times   histogram.Histogram // the same, for metrics
	stored  atomic.Uint64
	skipped atomic.Uint64
	resumed atomic.Uint64
	gone    atomic.Uint64
	damaged atomic.Uint64
	failed  atomic.Uint64 // calls
	warned  atomic.Int64  // when the log last spoke of an error, Unix ns
}

func newWay(m *Mirror, from, to Side) *way {
	w := &way{m: m, from: from, to: to, times: histogram.Of(time.Millisecond)}
	w.more.L = &w.mu
	return w
}

// track is one room in one direction.
type track struct {
	// Set at construction.
	w    *way
	room chat.RoomID

	// at is how far the target has come in the source's log, as far as known.
	// Only the worker that has the track changes it.
	at      atomic.Pointer[journal.Position]
	unsure  atomic.Bool   // the target may have less than at: ask
	behind  atomic.Uint64 // entries of the source that were not carried when last looked at
	caught  atomic.Int64  // when it was last at the top, Unix ms
	goneLog bool          // the log has told of what retention dropped

	there string // epoch of the target's log when last looked at; owned by compare

	// Guarded by w.mu.
	queued  bool // in ready
	working bool // a worker has it
	again   bool // was poked meanwhile
}

func (w *way) track(room chat.RoomID) *track {
	t := &track{w: w, room: room}
	t.at.Store(&journal.Position{})
	t.caught.Store(time.Now().UnixMilli())
	w.mu.Lock()
	w.rooms = append(w.rooms, t)
	w.mu.Unlock()
	return t
}

// poke has the room looked at.
func (t *track) poke() {
	w := t.w
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case t.working:
		t.again = true
	case !t.queued:
		t.queued = true
		w.ready = append(w.ready, t)
		w.more.Signal()
	}
}

// take waits for a room that is to be looked at; nil when ctx has ended.
func (w *way) take(ctx context.Context) *track {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.ready) == 0 && ctx.Err() == nil {
		w.more.Wait()
	}
	if ctx.Err() != nil {
		return nil
	}
	t := w.ready[0]
	w.ready[0] = nil
	w.ready = w.ready[1:]
	t.queued, t.working, t.again = false, true, false
	return t
}

// give puts a room back.
func (w *way) give(t *track, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t.working = false
	if (more || t.again) && !t.queued {
		t.queued = true
		w.ready = append(w.ready, t)
		w.more.Signal()
	}
}

// work carries rooms until ctx ends.
func (w *way) work(ctx context.Context) {
	defer context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.more.Broadcast()
	})()
	wait := retryMin
	for {
		t := w.take(ctx)
		if t == nil {
			return
		}
		more, err := w.carry(ctx, t)
		switch {
		case err == nil:
			wait = retryMin
		case errors.Is(err, journalredis.ErrSameLog):
			w.m.fatal(err)
		case ctx.Err() == nil:
			t.unsure.Store(true) // the answer may be all that was lost
			w.complain(t.room, err)
			select {
			case <-time.After(wait/2 + rand.N(wait/2+1)):
			case <-ctx.Done():
			}
			wait = min(2*wait, retryMax)
		}
		w.give(t, more || err != nil)
	}
}

// carry takes what is new in a room to the other side, some batches of it, and
// reports whether there may be more.
func (w *way) carry(ctx context.Context, t *track) (more bool, err error) {
	for range burst {
		at := *t.at.Load()
		if t.unsure.Swap(false) && at.Epoch != "" {
			if at, err = w.to.Journal.Carried(ctx, t.room, at.Epoch); err != nil {
				return true, err
			}
			t.at.Store(&at)
			w.resumed.Add(1)
		}
		p, err := w.from.Journal.Parcel(ctx, t.room, at)
		switch {
		case err != nil:
			return true, err
		case p.Epoch == "": // no such room here
			return false, nil
		case p.Epoch != at.Epoch:
			t.at.Store(&journal.Position{Epoch: p.Epoch})
			t.unsure.Store(true)
			continue
		}
		t.behind.Store(p.Top - min(at.Seq, p.Top))
		if len(p.Entries) == 0 && !p.Lost() {
			t.caught.Store(time.Now().UnixMilli())
			return false, nil
		}
		now, stored, err := w.to.Journal.Accept(ctx, t.room, p)
		w.stored.Add(uint64(stored))
		if err != nil {
			return true, err
		}
		w.account(t, p, now, stored)
		t.at.Store(&now)
		if now.Seq >= p.Top {
			t.behind.Store(0)
			t.caught.Store(time.Now().UnixMilli())
		}
	}
	return true, nil
}

// account counts what a parcel has brought.
func (w *way) account(t *track, p *journalredis.Parcel, now journal.Position, stored int) {
	ms := time.Now().UnixMilli()
	w.skipped.Add(uint64(max(0, reached(p, now)-stored)))
	for i := len(p.Entries) - 1; i >= 0 && stored > 0; i-- {
		if e := &p.Entries[i]; e.Seq <= now.Seq {
			w.lags.add(ms - e.Time)
			w.times.Time(time.Duration(ms-e.Time) * time.Millisecond)
			stored--
		}
	}
	if p.Lost() {
		w.m.log.Warn("a room has lost entries that were carried; it is carried anew from its beginning", "room", t.room, "from", w.from.Name, "epoch", p.Epoch, "top", p.Top)
	}
	if p.Gone > 0 && now.Seq > p.After {
		w.gone.Add(p.Gone)
		if !t.goneLog && p.After > 0 {
			w.m.log.Error("entries were dropped by retention before they were carried: the link was down for too long", "room", t.room, "from", w.from.Name, "after", p.After, "dropped", p.Gone)
		}
		t.goneLog = true
	} else {
		t.goneLog = false
	}
	if p.Damaged > 0 && now.Seq >= p.Last() {
		w.damaged.Add(uint64(p.Damaged))
		w.m.log.Error("damaged records were passed over", "room", t.room, "from", w.from.Name, "after", p.After, "records", p.Damaged)
	}
}

// reached is how many of a parcel's entries the target has come past.
func reached(p *journalredis.Parcel, now journal.Position) (n int) {
	for i := range p.Entries {
		if p.Entries[i].Seq <= now.Seq {
			n++
		}
	}
	return n
}

// complain logs an error, now and then.
func (w *way) complain(room chat.RoomID, err error) {
	w.failed.Add(1)
	now, last := time.Now().UnixNano(), w.warned.Load()
	if now-last > int64(warnEvery) && w.warned.CompareAndSwap(last, now) {
		w.m.log.Warn("mirror is held up, it goes on trying", "room", room, "from", w.from.Name, "to", w.to.Name, "error", err)
	}
}

// ear hears of a room at one side.
type ear struct {
	out *track // carries from this side; nil if nothing does
	in  *track // carries to this side
}

// Appended implements journal.Watcher.
func (e *ear) Appended(epoch string, _ *journal.Entry) {
	if e.out != nil {
		e.out.poke()
	}
}

// Reviewed implements journal.Watcher.
func (*ear) Reviewed(*journal.Review) {}

// Doubt implements journal.Watcher: this side may have come back with less
// than it had.
func (e *ear) Doubt() {
	if e.out != nil {
		e.out.poke()
	}
	if e.in != nil {
		e.in.unsure.Store(true)
		e.in.poke()
	}
}

// compare looks, every so often until ctx ends, whether rooms have more than was
// carried, and whether the target's log has begun anew: hints may be lost.
func (w *way) compare(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.m.cfg.CompareEvery/2 + rand.N(w.m.cfg.CompareEvery/2+1)):
		}
		w.mu.Lock()
		rooms := slices.Clone(w.rooms)
		w.mu.Unlock()
		for some := range slices.Chunk(rooms, pageRooms) {
			if err := w.compareSome(ctx, some); err != nil && ctx.Err() == nil {
				w.complain("", err)
				break
			}
		}
	}
}

func (w *way) compareSome(ctx context.Context, some []*track) error {
	names := make([]chat.RoomID, len(some))
	for i, t := range some {
		names[i] = t.room
	}
	asked := time.Now()
	here, err := w.from.Journal.Tops(ctx, names)
	if err != nil {
		return err
	}
	for i, t := range some { // before the target is asked, which may be what holds it up
		switch at := t.at.Load(); {
		case at.Epoch == here[i].Epoch && at.Seq == here[i].Seq:
			t.caught.Store(asked.UnixMilli())
		case at.Epoch == here[i].Epoch:
			t.behind.Store(here[i].Seq - min(at.Seq, here[i].Seq))
		}
	}
	there, err := w.to.Journal.Tops(ctx, names)
	if err != nil {
		return err
	}
	for i, t := range some {
		at := t.at.Load()
		begun := t.there != there[i].Epoch || there[i].Epoch == "" && here[i].Seq > 0
		if begun {
			t.there = there[i].Epoch
			t.unsure.Store(true)
		}
		if begun || at.Epoch != here[i].Epoch || at.Seq != here[i].Seq {
			t.poke()
		}
	}
	return nil
}
