package room

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/state"
	"parley/core/wire"
)

// maxPending bounds entries that arrived ahead of their turn; beyond it they
// are dropped and read from the journal.
const maxPending = 1024

const (
	// ephemeralSlots is how many presence frames a room keeps for its pumps.
	// A member further behind skips them: presence is a hint.
	ephemeralSlots = 256
	// ephemeralPace is the least time between two passes for presence alone,
	// so that a storm of arrivals is a few writes to each member, and not one
	// for each arrival.
	ephemeralPace = 100 * time.Millisecond
	// ephemeralLife is when every member that keeps up has been passed.
	ephemeralLife = time.Second
)

// Room is one loaded room. Its methods may be called from any goroutine.
type Room struct {
	id     chat.RoomID
	hub    *Hub
	cancel func()        // ends the journal's watch; set once before ready
	ready  chan struct{} // closed when loaded or failed
	err    error         // why loading failed; read after ready
	local  []roomShard   // one a shard
	refs   atomic.Int32  // members in shard lists
	used   atomic.Int64  // Unix ms of the last use, for the sweep
	st     atomic.Pointer[state.Room]

	// withheld is the newest ephemeral frame that somebody is not sent, by its
	// number, as ephHead is.
	withheld atomic.Uint64

	cutting atomic.Int32 // len(cuts)
	telling atomic.Bool  // len(untold) > 0

	mu     sync.Mutex
	loaded bool
	ring   ring
	epoch  string
	// generation grows whenever the log was replaced under the same name;
	// members of an older one are sent a reset.
	generation uint32
	missed     bool // unborn, and somebody came who knew it by an epoch
	evicted    bool
	grown      uint64 // bytes ever pushed
	pending    map[uint64]early
	filling    bool                  // a backfill is under way
	doubted    bool                  // and must look again when done
	eph        []ephemeral           // the newest, up to ephHead
	ephHead    uint64                // how many there have ever been
	ephAt      time.Time             // when a pass was last asked for them at once
	spoke      map[chat.UserID]int64 // Unix ms of each user's last message
	cuts       map[chat.UserID]cut   // where people were put out lately
	untold     []Change              // not yet handed to Hub.onChange
	teller     bool                  // somebody is handing them on
}

// ephemeral is a frame without a place in the log.
type ephemeral struct {
	frame  wire.Frame
	except chat.UserID // who is not sent it; "" for nobody
}

// early is an entry that arrived ahead of its turn.
type early struct {
	epoch string
	entry *journal.Entry
}

// roomShard is the part of a room's members that one shard serves.
type roomShard struct {
	members []*Member     // owned by the shard's goroutine
	cache   [forms]cached // likewise; by wire.Form
	passed  time.Time     // likewise; when its turn was last
	queued  atomic.Bool
	later   atomic.Bool // in the shard's list of rooms that can wait
}

// ID returns the room's name.
func (r *Room) ID() chat.RoomID { return r.id }

// State returns the room's present state.
func (r *Room) State() *state.Room { return r.st.Load() }

// Position returns the newest position this node knows. It implements
// journal.Placed.
func (r *Room) Position() journal.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.positionLocked()
}

func (r *Room) positionLocked() journal.Position {
	p := journal.Position{Epoch: r.epoch, Seq: r.ring.head}
	if r.ring.holds(p.Seq) {
		p.ID = r.ring.at(p.Seq).id
	}
	return p
}

// Exists reports whether the room's log has, or ever had, entries.
func (r *Room) Exists() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ring.head > 0
}

// SinceSpoke returns how long ago the user's last message in this room was
// accepted or held, and false if it is not remembered.
func (r *Room) SinceSpoke(u chat.UserID, now time.Time) (time.Duration, bool) {
	r.mu.Lock()
	at, ok := r.spoke[u]
	r.mu.Unlock()
	if !ok {
		return 0, false
	}
	return max(0, now.Sub(time.UnixMilli(at))), true
}

// Appended implements journal.Watcher.
func (r *Room) Appended(epoch string, e *journal.Entry) {
	r.mu.Lock()
	fill := r.acceptLocked(epoch, e)
	pushed := r.drainPendingLocked()
	r.mu.Unlock()
	if fill {
		r.hub.backfill(r)
	}
	if pushed {
		r.wake()
	}
}

// Reviewed implements journal.Watcher.
func (r *Room) Reviewed(v *journal.Review) {
	if v.Open() && v.Entry.Kind == journal.KindMessage {
		r.mu.Lock()
		r.rememberLocked(v.Entry.From, v.Entry.Time)
		r.mu.Unlock()
	}
	r.hub.reviewed(r.id, v)
}

// Doubt implements journal.Watcher.
func (r *Room) Doubt() { r.hub.backfill(r) }

// acceptLocked keeps the entry for its turn and reports whether the journal
// must be asked for what lies between.
func (r *Room) acceptLocked(epoch string, e *journal.Entry) (fill bool) {
	if r.loaded && epoch == r.epoch && e.Seq <= r.ring.head {
		// A repeat, unless the ring holds another entry at that seq: then the
		// store has forgotten and begun again, which only the journal can tell.
		return r.ring.holds(e.Seq) && r.ring.at(e.Seq).id != e.ID
	}
	if len(r.pending) >= maxPending {
		return true
	}
	if r.pending == nil {
		r.pending = make(map[uint64]early)
	}
	r.pending[e.Seq] = early{epoch, e}
	return r.loaded && (epoch != r.epoch && !r.unbornLocked() || e.Seq != r.ring.head+1)
}

// unbornLocked reports whether the log has never had an entry.
func (r *Room) unbornLocked() bool { return r.ring.head == 0 && r.epoch == "" }

// bornLocked gives an unborn room its first epoch. Whoever knew it by another,
// which the store has lost, was told that it has none, and is reset to it.
func (r *Room) bornLocked(epoch string) {
	if !r.unbornLocked() || epoch == "" {
		return
	}
	r.epoch = epoch
	if r.missed {
		r.missed = false
		r.generation++
	}
}

// drainPendingLocked pushes what has become contiguous.
func (r *Room) drainPendingLocked() (pushed bool) {
	if !r.loaded {
		return false
	}
	for len(r.pending) > 0 {
		p, ok := r.pending[r.ring.head+1]
		if !ok {
			break
		}
		r.bornLocked(p.epoch)
		if p.epoch != r.epoch {
			break
		}
		delete(r.pending, r.ring.head+1)
		r.pushLocked(p.entry)
		pushed = true
	}
	return pushed
}

// putLocked encodes one entry and puts it in the ring.
func (r *Room) putLocked(e *journal.Entry) {
	f := wire.EncodeEntry(r.id, e)
	r.grown += uint64(f.Len())
	r.ring.push(slot{frame: f, id: e.ID, end: r.grown})
	switch e.Kind {
	case journal.KindMessage:
		r.rememberLocked(e.From, e.Time)
	case journal.KindErase:
		r.ring.erase(e.Erases)
	}
}

// pushLocked puts one entry in the ring and folds its changes.
func (r *Room) pushLocked(e *journal.Entry) {
	r.putLocked(e)
	if len(e.Changes) > 0 {
		next, err := r.st.Load().Apply(e.Changes)
		if err != nil {
			r.hub.log.Error("entry's state change cannot be read; room keeps its state", slog.String("room", string(r.id)), slog.Uint64("seq", e.Seq), slog.Any("error", err))
		}
		r.st.Store(next)
		r.noteLocked(e)
	}
}

// maxSpoke bounds remembered speakers; the oldest half is forgotten.
const maxSpoke = 4096

func (r *Room) rememberLocked(u chat.UserID, at int64) {
	if r.spoke == nil {
		r.spoke = make(map[chat.UserID]int64)
	}
	r.spoke[u] = max(r.spoke[u], at) // news of what was held may be late
	if len(r.spoke) <= maxSpoke {
		return
	}
	times := make([]int64, 0, len(r.spoke))
	for _, t := range r.spoke {
		times = append(times, t)
	}
	slices.Sort(times)
	mid := times[len(times)/2]
	for u, t := range r.spoke {
		if t <= mid {
			delete(r.spoke, u)
		}
	}
}

// Append appends an entry to the room's log, after all this node has seen of
// it. create demands an empty log. Errors are those of journal.Append.
func (r *Room) Append(ctx context.Context, e journal.Entry, create bool) (journal.Receipt, error) {
	return r.append(ctx, journal.Request{Room: r.id, Entry: e, Create: create, Known: r.Position()})
}

// Post appends a message as Append does; notify names those whom it concerns and
// who are not there.
func (r *Room) Post(ctx context.Context, e journal.Entry, notify []journal.Notice) (journal.Receipt, error) {
	return r.append(ctx, journal.Request{Room: r.id, Entry: e, Known: r.Position(), Notify: notify})
}

func (r *Room) append(ctx context.Context, req journal.Request) (journal.Receipt, error) {
	receipt, err := r.hub.journal.Append(ctx, req)
	e := &req.Entry
	if err != nil || receipt.Repeat || e.Kind != journal.KindMessage {
		return receipt, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// A shared journal delivers later than it answers; slow mode must not wait
	// for it. A message that is held was said as well.
	if receipt.Seq > r.ring.head || e.Outcome == chat.Held {
		r.rememberLocked(e.From, e.Time)
	}
	return receipt, err
}

// Review appends what concerns a review of the room: see journal.Request. The
// entry of an approval reaches the room's members as any other does, and those
// of notify as that of Post.
func (r *Room) Review(ctx context.Context, e journal.Entry, v *journal.Review, notify []journal.Notice) (journal.Receipt, error) {
	return r.append(ctx, journal.Request{Room: r.id, Entry: e, Known: r.Position(), Review: v, Notify: notify})
}

// Announce sends an ephemeral frame to the members that keep up, but not to the
// connections of except: at once, or within ephemeralPace where others have
// just been sent.
func (r *Room) Announce(f wire.Frame, except chat.UserID) {
	now := time.Now()
	r.mu.Lock()
	r.expireEphemeralLocked(now)
	if len(r.eph) == ephemeralSlots {
		r.eph = append(r.eph[:0], r.eph[1:]...)
	}
	r.eph = append(r.eph, ephemeral{f, except})
	r.ephHead++
	if except != "" {
		r.withheld.Store(r.ephHead)
	}
	quiet := now.Sub(r.ephAt) >= ephemeralPace
	if quiet {
		r.ephAt = now
	}
	r.mu.Unlock()
	if quiet {
		r.wake()
	} else {
		r.wakeLater()
	}
}

func (r *Room) expireEphemeralLocked(now time.Time) {
	if now.Sub(r.ephAt) > ephemeralLife {
		r.eph = nil
	}
}

// wake queues the room at every shard that has members of it. The queued flag
// of an empty shard is cleared by its pass, which costs nothing else.
func (r *Room) wake() {
	r.tell()
	if r.refs.Load() == 0 {
		return
	}
	for i := range r.local {
		if !r.local[i].queued.Swap(true) {
			r.hub.shards[i].enqueue(r)
		}
	}
}

// wakeLater queues the room at every shard for a pass within ephemeralPace.
func (r *Room) wakeLater() {
	if r.refs.Load() == 0 {
		return
	}
	for i := range r.local {
		if !r.local[i].later.Swap(true) {
			r.hub.shards[i].enqueueLater(r)
		}
	}
}

func (r *Room) touch(now time.Time) { r.used.Store(now.UnixMilli()) }
