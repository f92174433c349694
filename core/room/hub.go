package room

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/state"
	"parley/core/wire"
)

// Stats counts what the hub did; every field only grows.
type Stats struct {
	Passes     atomic.Uint64 // passes of all shards
	Writes     atomic.Uint64 // writes by pumps
	Bytes      atomic.Uint64 // bytes taken by sockets, from pumps and drainers
	Parked     atomic.Uint64 // times a socket was full
	SlowClosed atomic.Uint64 // peers closed as slow_consumer
	Backfills  atomic.Uint64 // times a room asked the journal for missed entries
	Resets     atomic.Uint64 // times a room's log was replaced
	Restores   atomic.Uint64 // rooms that the store had lost, and whose state was put back
	CatchUps   atomic.Uint64 // reads of the journal for members behind the ring
	Conflicts  atomic.Uint64 // changes of a room decided anew, because another came in between

	HintsDropped atomic.Uint64 // news of reviews that nobody was told
}

// Hub holds the loaded rooms and the shards that serve their members.
type Hub struct {
	cfg      Config
	journal  journal.Journal
	log      *slog.Logger
	shards   []*shard
	stats    Stats
	ctx      context.Context // ends when Run is asked to stop
	stop     context.CancelFunc
	nextID   atomic.Uint32 // spreads peers over shards
	hints    hints
	filling  chan struct{}       // holds a token for each room that reads from the journal to catch up
	onChange func(*Room, Change) // see OnChange

	mu     sync.Mutex
	rooms  map[chat.RoomID]*Room
	sifted time.Time // when names that are no rooms had to make way last
	closed bool
	tasks  sync.WaitGroup // drainers and backfills; Add only while !closed
}

// New returns a hub on the journal. It starts nothing; see Run.
func New(cfg Config, j journal.Journal, log *slog.Logger) (*Hub, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Shards == 0 {
		cfg.Shards = runtime.GOMAXPROCS(0)
	}
	n := 8
	for n < cfg.RingEntries {
		n *= 2
	}
	cfg.RingEntries = n
	h := &Hub{cfg: cfg, journal: j, log: log, rooms: make(map[chat.RoomID]*Room), filling: make(chan struct{}, maxFills)}
	h.ctx, h.stop = context.WithCancel(context.Background())
	for i := range cfg.Shards {
		h.shards = append(h.shards, newShard(h, i))
	}
	return h, nil
}

// Run runs the pumps until ctx ends, then closes what is left of the peers'
// work and waits for every goroutine the hub started.
func (h *Hub) Run(ctx context.Context) error {
	var pumps sync.WaitGroup
	for _, s := range h.shards {
		pumps.Go(func() { s.run(ctx) })
	}
	h.sweepUntil(ctx)
	pumps.Wait()
	h.mu.Lock()
	h.closed = true
	rooms := h.rooms
	h.rooms = nil
	h.mu.Unlock()
	h.stop()
	h.tasks.Wait()
	for _, r := range rooms {
		<-r.ready
		if r.cancel != nil {
			r.cancel()
		}
	}
	return nil
}

// Stats returns the hub's counters, live.
func (h *Hub) Stats() *Stats { return &h.stats }

// Loaded returns how many rooms are in memory.
func (h *Hub) Loaded() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.rooms)
}

// spawn runs f in a goroutine that Run waits for; false when the hub stops.
func (h *Hub) spawn(f func(ctx context.Context)) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.tasks.Go(func() { f(h.ctx) })
	return true
}

// errEvicted says that the room left memory between lookup and join.
var errEvicted = errors.New("room: evicted")

// Room returns the room, loading it from the journal if it is not in memory.
// A room without entries is returned too (see Room.Exists); it is forgotten
// when idle. Errors are *chat.Error: overloaded, unavailable.
func (h *Hub) Room(ctx context.Context, id chat.RoomID) (*Room, error) {
	now := time.Now()
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, &chat.Error{Code: chat.CodeGoingAway, Text: "the server is shutting down; reconnect", Retry: -1}
	}
	r, ok := h.rooms[id]
	if ok {
		r.touch(now)
		h.mu.Unlock()
		select {
		case <-r.ready:
		case <-ctx.Done():
			return nil, unavailable(ctx.Err())
		}
		if r.err != nil {
			return nil, unavailable(r.err)
		}
		return r, nil
	}
	if h.cfg.MaxRooms > 0 && len(h.rooms) >= h.cfg.MaxRooms {
		for _, r := range h.siftLocked(now) {
			defer r.cancel()
		}
	}
	if h.cfg.MaxRooms > 0 && len(h.rooms) >= h.cfg.MaxRooms {
		h.mu.Unlock()
		return nil, &chat.Error{Code: chat.CodeOverloaded, Text: "the server holds as many rooms as it may; try again later", Retry: 5 * time.Second}
	}
	r = &Room{id: id, hub: h, ready: make(chan struct{}), local: make([]roomShard, len(h.shards))}
	r.ring = ring{first: 1, maxSlots: h.cfg.RingEntries, maxBytes: h.cfg.RingBytes}
	r.st.Store(state.Empty())
	r.touch(now)
	h.rooms[id] = r
	h.mu.Unlock()

	r.err = r.load(ctx)
	if r.err != nil {
		h.mu.Lock()
		if h.rooms[id] == r {
			delete(h.rooms, id)
		}
		h.mu.Unlock()
	}
	close(r.ready)
	if r.err != nil {
		return nil, unavailable(r.err)
	}
	r.mu.Lock()
	look := r.doubted || len(r.pending) > 0
	r.mu.Unlock()
	if look {
		h.backfill(r)
	}
	return r, nil
}

func unavailable(err error) *chat.Error {
	return &chat.Error{Code: chat.CodeUnavailable, Text: "the room's log cannot be read at present; try again", Retry: time.Second, Cause: err}
}

// siftEvery bounds what looking through all rooms costs while there are as
// many as there may be.
const siftEvery = time.Second

// siftLocked takes the rooms out that are not there and have no members: a
// client asks for made-up names at no cost, and must not keep others from their
// rooms. The caller ends their watches. It does so once in siftEvery.
func (h *Hub) siftLocked(now time.Time) (out []*Room) {
	if now.Sub(h.sifted) < siftEvery {
		return nil
	}
	h.sifted = now
	for id, r := range h.rooms {
		select {
		case <-r.ready:
		default:
			continue
		}
		r.mu.Lock()
		if r.refs.Load() == 0 && r.ring.head == 0 {
			r.evicted = true
			delete(h.rooms, id)
			out = append(out, r)
		}
		r.mu.Unlock()
	}
	return out
}

// Join makes the peer a member of the room, after since if it is given.
// joined builds the reply, which reaches the peer before any entry does.
// An error of joined ends the join and is returned.
func (h *Hub) Join(ctx context.Context, id chat.RoomID, p *Peer, since *journal.Position, joined func(*Room, JoinInfo) (wire.Frame, error)) (*Member, error) {
	for range 4 {
		r, err := h.Room(ctx, id)
		if err != nil {
			return nil, err
		}
		m, err := r.join(ctx, p, since, joined)
		if !errors.Is(err, errEvicted) {
			return m, err
		}
	}
	return nil, unavailable(fmt.Errorf("room %s was evicted four times in a row", id))
}

// Record appends an entry to the room's log as Room.Append does, and returns
// when this node's room shows it; on journal.ErrExists, when it shows what
// another node has created.
func (h *Hub) Record(ctx context.Context, r *Room, e journal.Entry, create bool) (journal.Receipt, error) {
	if create {
		e.Changes = append(slices.Clip(e.Changes), state.SetFirst(e.ID))
	}
	return h.record(ctx, r, journal.Request{Room: r.id, Entry: e, Create: create, Known: r.Position()})
}

func (h *Hub) record(ctx context.Context, r *Room, req journal.Request) (journal.Receipt, error) {
	receipt, err := r.append(ctx, req)
	if errors.Is(err, journal.ErrExists) && !r.Exists() {
		if err := r.fillOnce(ctx); err != nil {
			return receipt, err
		}
	}
	if err == nil && !receipt.Repeat {
		e := req.Entry
		e.Seq, e.ID = receipt.Seq, receipt.ID
		r.Appended(receipt.Epoch, &e)
		if at := r.Position(); at.Epoch != receipt.Epoch || at.Seq < receipt.Seq { // something before it is still on its way
			err = r.fillOnce(ctx)
		}
	}
	return receipt, err
}

// sweepUntil forgets idle rooms until ctx ends.
func (h *Hub) sweepUntil(ctx context.Context) {
	every := max(h.cfg.IdleTime/2, time.Second)
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			h.sweep(now)
		case <-ctx.Done():
			return
		}
	}
}

func (h *Hub) sweep(now time.Time) {
	var idle []*Room
	h.mu.Lock()
	for id, r := range h.rooms {
		select {
		case <-r.ready:
		default:
			continue
		}
		r.mu.Lock()
		r.expireEphemeralLocked(now)
		r.forgetCutsLocked(now)
		r.mu.Unlock()
		if r.refs.Load() > 0 || now.UnixMilli()-r.used.Load() < h.cfg.IdleTime.Milliseconds() {
			continue
		}
		r.mu.Lock()
		if r.refs.Load() == 0 {
			r.evicted = true
			delete(h.rooms, id)
			idle = append(idle, r)
		}
		r.mu.Unlock()
	}
	h.mu.Unlock()
	for _, r := range idle {
		r.cancel()
	}
}
