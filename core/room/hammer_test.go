package room

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/disk"
	"parley/core/transport/stream"
	"parley/core/wire"
)

var hammerSeed = flag.Uint64("hammer.seed", 0, "seed of the hammer test; 0 takes a new one")

const (
	hammerRooms     = 5
	hammerWriters   = 6
	hammerAppends   = 160 // by each writer
	hammerListeners = 24
)

// truth is what the journal said when it was asked to append.
type truth struct {
	mu    sync.Mutex
	more  *sync.Cond
	all   map[chat.RoomID][]journal.Position
	known map[place]chat.MessageID
	total int
	gone  []*listener // connections that have ended
}

// place is one seq of one epoch of a room.
type place struct {
	room  chat.RoomID
	epoch string
	seq   uint64
}

func (tr *truth) add(room chat.RoomID, r journal.Receipt) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.all[room] = append(tr.all[room], journal.Position{Epoch: r.Epoch, Seq: r.Seq, ID: r.ID})
	tr.known[place{room, r.Epoch, r.Seq}] = r.ID
	tr.total++
	tr.more.Broadcast()
}

// awaitTotal waits until that many entries were appended.
func (tr *truth) awaitTotal(n int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for tr.total < n {
		tr.more.Wait()
	}
}

func (tr *truth) pick(room chat.RoomID, rng *rand.Rand) *journal.Position {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	all := tr.all[room]
	if len(all) == 0 {
		return nil
	}
	if rng.IntN(2) == 0 { // one of the newest
		all = all[max(0, len(all)-10):]
	}
	p := all[rng.IntN(len(all))]
	return &p
}

// got is one event as a listener reads it.
type got struct {
	Type      wire.Type
	Room      chat.RoomID
	ID        string
	Epoch     string
	Seq       uint64
	Recovered bool
}

// listener is one connection: it reads what it is sent byte by byte, and
// fails at the first thing that no client may see.
type listener struct {
	hub     *Hub
	sink    *sink // what has arrived; for a TCP connection only the buffer
	conn    net.Conn
	reader  sync.WaitGroup
	peer    *Peer
	members map[chat.RoomID]*Member
	asks    int

	// Guarded by sink.mu.
	read   int // bytes of sink.got that were understood
	at     map[chat.RoomID]journal.Position
	since  map[string]*journal.Position // by the id of the join
	seen   map[place]chat.MessageID
	resets int
	trail  []string // the last events, for the error
	bad    error
}

func newListener(t *testing.T, h *Hub, rng *rand.Rand) *listener {
	l := &listener{hub: h, sink: newSink(-1), members: map[chat.RoomID]*Member{}, at: map[chat.RoomID]journal.Position{},
		since: map[string]*journal.Position{}, seen: map[place]chat.MessageID{}}
	var sock Socket = l.sink
	if rng.IntN(2) == 0 {
		sock = l.dial(t)
	}
	l.peer = h.NewPeer(sock, rng.IntN(2) == 0)
	return l
}

// dial puts a TCP connection with small buffers between the hub and the
// listener, whose reader stops while the sink has no room.
func (l *listener) dial(t *testing.T) Socket {
	ln, err := stream.Listen(t.Context(), "127.0.0.1:0", stream.Options{Tune: func(c *net.TCPConn) { _ = c.SetWriteBuffer(8 << 10) }})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = far.(*net.TCPConn).SetReadBuffer(16 << 10)
	if l.conn, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	l.reader.Go(func() {
		defer far.Close()
		buf := make([]byte, 4096)
		for {
			n, err := far.Read(buf)
			for b := buf[:n]; len(b) > 0; {
				k, err := l.sink.Write(b, time.Hour)
				if err != nil {
					return
				}
				b = b[k:]
			}
			if err != nil {
				return
			}
		}
	})
	return stream.New(l.conn)
}

// next cuts one frame off b; ok is false where it is not complete.
func next(b []byte, line bool) (text, rest []byte, ok bool, err error) {
	if line {
		for i, c := range b {
			if c == '\n' {
				return b[:i], b[i+1:], true, nil
			}
		}
		return nil, b, false, nil
	}
	if len(b) < 2 {
		return nil, b, false, nil
	}
	if b[0] != 0x81 && b[0] != 0x88 {
		return nil, b, false, fmt.Errorf("a frame begins with %#x", b[0])
	}
	n, head := int(b[1]), 2
	switch {
	case n == 126 && len(b) >= 4:
		n, head = int(binary.BigEndian.Uint16(b[2:])), 4
	case n >= 126 && len(b) >= 10:
		n, head = int(binary.BigEndian.Uint64(b[2:])), 10
	case n >= 126:
		return nil, b, false, nil
	}
	if len(b) < head+n {
		return nil, b, false, nil
	}
	if b[0] == 0x88 {
		return nil, b[head+n:], true, nil
	}
	return b[head : head+n], b[head+n:], true, nil
}

// understandLocked reads what has arrived since the last call.
func (l *listener) understandLocked() {
	for l.bad == nil {
		text, rest, ok, err := next(l.sink.got[l.read:], l.peer.Line())
		if err == nil && !ok {
			return
		}
		l.read = len(l.sink.got) - len(rest)
		if err == nil && text == nil { // close
			continue
		}
		var e got
		if err == nil {
			err = json.Unmarshal(text, &e)
		}
		if err == nil {
			err = l.followLocked(&e)
			l.trail = append(l.trail[max(0, len(l.trail)-40):], fmt.Sprintf("%s %s %s %d", e.Type, e.Room, e.ID, e.Seq))
		}
		if err != nil {
			l.bad = fmt.Errorf("%w, at %.200q; before it, from %T: %v", err, text, l.conn, l.trail)
		}
	}
}

// followLocked keeps the position as docs/delivery.md tells clients to.
func (l *listener) followLocked(e *got) error {
	at, in := l.at[e.Room]
	switch e.Type {
	case wire.Joined:
		since := l.since[e.ID]
		if in {
			return fmt.Errorf("joined twice")
		}
		at = journal.Position{Epoch: e.Epoch, Seq: e.Seq}
		if e.Recovered {
			if since == nil || since.Epoch != e.Epoch || since.Seq > e.Seq {
				return fmt.Errorf("recovered though asked for %+v", since)
			}
			at = *since
		}
	case wire.Left:
		delete(l.at, e.Room)
		return nil
	case wire.Close:
		return nil
	default:
		if !in {
			return fmt.Errorf("%s without being in the room", e.Type)
		}
	}
	switch e.Type {
	case wire.Reset:
		l.resets++
		at = journal.Position{Epoch: e.Epoch, Seq: e.Seq}
	case wire.Type(journal.KindMessage):
		if e.Seq != at.Seq+1 {
			return fmt.Errorf("got seq %d after %+v", e.Seq, at)
		}
		at.Seq = e.Seq
		l.seen[place{e.Room, at.Epoch, e.Seq}] = chat.MessageID(e.ID)
	}
	l.at[e.Room] = at
	return nil
}

// step does one thing that clients do.
func (l *listener) step(ctx context.Context, tr *truth, rng *rand.Rand) error {
	id := chat.RoomID(fmt.Sprint("room-", rng.IntN(hammerRooms)))
	switch m := l.members[id]; rng.IntN(6) {
	case 0, 1:
		if m != nil {
			return nil
		}
		var since *journal.Position
		if rng.IntN(4) > 0 {
			since = tr.pick(id, rng)
		}
		l.asks++
		ask := fmt.Sprint("join-", l.asks)
		l.sink.mu.Lock()
		l.since[ask] = since
		l.sink.mu.Unlock()
		m, err := l.hub.Join(ctx, id, l.peer, since, func(r *Room, i JoinInfo) (wire.Frame, error) {
			return wire.Encode(wire.JoinedEvent{Type: wire.Joined, ID: ask, Room: id, Epoch: i.Position.Epoch, Seq: i.Position.Seq, LastID: i.Position.ID, Recovered: i.Recovered}), nil
		})
		if err != nil {
			return fmt.Errorf("join: %w", err)
		}
		l.members[id] = m
	case 2:
		if m == nil {
			return nil
		}
		m.Leave()
		delete(l.members, id)
		return l.peer.Reply(wire.Encode(wire.LeftEvent{Type: wire.Left, Room: id}))
	case 3:
		l.sink.open(0)
	case 4:
		l.sink.open(1 + rng.IntN(3000))
	default:
		l.sink.open(-1)
	}
	return nil
}

// leave ends the connection in one of the ways connections end.
func (l *listener) leave(rng *rand.Rand) {
	switch rng.IntN(3) {
	case 0:
		l.peer.Close(wire.CloseRestart, "going_away", time.Second)
	case 1:
		l.peer.Abort()
	}
	l.peer.Detach()
	if l.conn != nil {
		_ = l.conn.Close()
	}
	l.sink.open(-1)
	l.reader.Wait()
	l.sink.Abort()
}

// check compares what arrived with what the journal said.
func (l *listener) check(t *testing.T, tr *truth) {
	l.sink.mu.Lock()
	defer l.sink.mu.Unlock()
	l.understandLocked()
	if l.bad != nil {
		t.Error(l.bad)
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for at, id := range l.seen {
		if want := tr.known[at]; id != want {
			t.Errorf("got %s as seq %d of room %s in epoch %s, want %s", id, at.seq, at.room, at.epoch, want)
		}
	}
}

// awaitEnd waits until the listener stands at the top of its rooms.
func (l *listener) awaitEnd(t *testing.T, tops map[chat.RoomID]journal.Position) {
	l.sink.open(-1)
	l.sink.await(t, "the end of every room", func(*sink) bool {
		l.understandLocked()
		if l.bad != nil {
			return true
		}
		for id := range l.members {
			if at := l.at[id]; at.Epoch != tops[id].Epoch || at.Seq != tops[id].Seq {
				return false
			}
		}
		return true
	})
}

// write appends, announces, loses the log and forgets idle rooms.
func hammerWrite(ctx context.Context, w *world, tr *truth, writer int, rng *rand.Rand) error {
	for i := range hammerAppends {
		id := chat.RoomID(fmt.Sprint("room-", rng.IntN(hammerRooms)))
		r, err := w.hub.Room(ctx, id)
		if err != nil {
			return err
		}
		e := message(writer*hammerAppends + i)
		for range rng.IntN(400) {
			e.Text += "x"
		}
		var rec journal.Receipt
		switch rng.IntN(60) {
		case 0: // the store has lost what was known
			top := r.Position()
			top.Seq += 1000
			rec, err = w.j.Append(ctx, journal.Request{Room: id, Entry: e, Known: top})
		case 1, 2, 3:
			w.hub.sweep(time.Now().Add(time.Hour))
			fallthrough
		case 4, 5, 6, 7, 8, 9:
			r.Announce(wire.Encode(wire.PresenceEvent{Type: wire.Presence, Room: id, Event: "join", User: "bob", Count: 2}), "")
			r.Doubt()
			fallthrough
		case 10, 11, 12, 13, 14:
			rec, err = w.hub.Record(ctx, r, e, false)
		default:
			rec, err = r.Append(ctx, e, false)
		}
		if err != nil {
			return err
		}
		tr.add(id, rec)
	}
	return nil
}

// hammerListen is one person: connections one after another, of which the last
// stays.
func hammerListen(ctx context.Context, t *testing.T, h *Hub, tr *truth, rng *rand.Rand) *listener {
	l := newListener(t, h, rng)
	for n := 0; ; {
		n += 1 + rng.IntN(2*hammerWriters*hammerAppends/60)
		if n > hammerWriters*hammerAppends {
			return l
		}
		tr.awaitTotal(n)
		if rng.IntN(12) == 0 {
			l.leave(rng)
			tr.mu.Lock()
			tr.gone = append(tr.gone, l) // an entry may arrive before its receipt is in tr: compared in the end
			tr.mu.Unlock()
			l = newListener(t, h, rng)
			continue
		}
		if err := l.step(ctx, tr, rng); err != nil {
			t.Error(err)
			return l
		}
	}
}

// TestHammer lets many connections come, go, stall and resume while entries,
// epochs and evictions go on, and reads every byte they are sent.
func TestHammer(t *testing.T) {
	seed := *hammerSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("run it again with -hammer.seed=%d", seed)
	w := hammerWorld(t)
	tr := &truth{all: map[chat.RoomID][]journal.Position{}, known: map[place]chat.MessageID{}}
	tr.more = sync.NewCond(&tr.mu)

	for i := range hammerRooms { // so that every joined reply names an epoch
		id := chat.RoomID(fmt.Sprint("room-", i))
		rec, err := w.hub.Record(t.Context(), w.room(id), message(-1-i), true)
		if err != nil {
			t.Fatal(err)
		}
		tr.add(id, rec)
	}

	var writers, people sync.WaitGroup
	for i := range hammerWriters {
		writers.Go(func() {
			if err := hammerWrite(t.Context(), w, tr, i, rand.New(rand.NewPCG(seed, uint64(i)))); err != nil {
				t.Error(err)
				tr.mu.Lock()
				tr.total += hammerAppends // let nobody wait for the rest
				tr.more.Broadcast()
				tr.mu.Unlock()
			}
		})
	}
	last := make([]*listener, hammerListeners)
	for i := range last {
		people.Go(func() {
			last[i] = hammerListen(t.Context(), t, w.hub, tr, rand.New(rand.NewPCG(seed, uint64(1000+i))))
		})
	}
	writers.Wait()
	people.Wait()
	tops := map[chat.RoomID]journal.Position{}
	for i := range hammerRooms {
		id := chat.RoomID(fmt.Sprint("room-", i))
		info, err := w.j.Info(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		tops[id] = info.Top
	}
	resets, rng := 0, rand.New(rand.NewPCG(seed, 5000))
	for _, l := range last {
		l.awaitEnd(t, tops)
		l.check(t, tr)
		resets += l.resets
		l.leave(rng)
	}
	for _, l := range tr.gone {
		l.check(t, tr)
	}
	st := w.hub.Stats()
	t.Logf("%d resets seen by those who stayed; parked %d, caught up %d, backfills %d, rooms replaced %d", resets,
		st.Parked.Load(), st.CatchUps.Load(), st.Backfills.Load(), st.Resets.Load())
	if st.Parked.Load() == 0 || st.CatchUps.Load() == 0 {
		t.Error("nobody was parked or caught up: the hammer misses what it is for")
	}
}

// hammerWorld is a hub with small rings on a journal that keeps little.
func hammerWorld(t *testing.T) *world {
	t.Helper()
	dc := disk.Defaults()
	dc.Path, dc.MaxEntries = filepath.Join(t.TempDir(), "parley.db"), 120
	log := slog.New(slog.DiscardHandler)
	d, err := disk.Open(dc, log)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Defaults()
	cfg.Pace, cfg.Shards, cfg.LagBytes, cfg.LagTime = 0, 3, 0, 0
	cfg.RingEntries, cfg.RingBytes = 16, 8<<10
	w := &world{t: t, j: d}
	if w.hub, err = New(cfg, d, log); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.hub.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}
