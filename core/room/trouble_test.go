package room

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/wire"
)

// troubled is the real journal with chosen faults: records that cannot be
// read, a past that retention took, deliveries that are lost.
type troubled struct {
	journal.Journal
	mu     sync.Mutex
	bad    map[uint64]bool // damaged seqs
	first  uint64          // entries below it are gone
	mute   bool            // deliveries are lost
	onInfo func()          // runs once, between reading Info and answering it
	reads  int
}

func (x *troubled) set(f func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f()
}

func (x *troubled) Read(ctx context.Context, room chat.RoomID, after uint64, limit int) (string, []journal.Entry, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.reads++
	if x.first > 0 {
		after = max(after, x.first-1)
	}
	epoch, es, err := x.Journal.Read(ctx, room, after, limit)
	for i := range es {
		if !x.bad[es[i].Seq] {
			continue
		}
		if i > 0 {
			return epoch, es[:i], nil
		}
		return epoch, nil, &journal.DamagedError{Room: room, Seq: es[0].Seq, Detail: "for the test"}
	}
	return epoch, es, err
}

func (x *troubled) Info(ctx context.Context, room chat.RoomID) (journal.Info, error) {
	info, err := x.Journal.Info(ctx, room)
	x.mu.Lock()
	hook := x.onInfo
	x.onInfo = nil
	x.mu.Unlock()
	if hook != nil {
		hook()
	}
	return info, err
}

func (x *troubled) Watch(ctx context.Context, room chat.RoomID, w journal.Watcher) (func(), error) {
	return x.Journal.Watch(ctx, room, muted{w, x})
}

type muted struct {
	journal.Watcher
	x *troubled
}

func (m muted) Appended(epoch string, e *journal.Entry) {
	m.x.mu.Lock()
	mute := m.x.mute
	m.x.mu.Unlock()
	if !mute {
		m.Watcher.Appended(epoch, e)
	}
}

func newTroubledWorld(t *testing.T, change func(*Config)) (*world, *troubled) {
	x := &troubled{bad: map[uint64]bool{}}
	return newWorld(t, change, func(j journal.Journal) journal.Journal { x.Journal = j; return x }), x
}

// noLag is a small ring without bounds on how far a member may fall behind.
func noLag(c *Config) { small(c); c.LagBytes, c.LagTime = 0, 0 }

// runs returns the messages' seqs in runs, cut at each joined and reset event,
// which say where the run begins.
func (s *sink) runs(t *testing.T) (out [][]uint64) {
	for _, e := range s.events(t) {
		switch e.Type {
		case "joined", "reset":
			out = append(out, []uint64{e.Seq})
		case "message":
			out[len(out)-1] = append(out[len(out)-1], e.Seq)
		}
	}
	return out
}

func (s *sink) checkRuns(t *testing.T, want string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := fmt.Sprint(s.runs(t)); got != want {
		t.Errorf("got runs %s, want %s", got, want)
	}
}

// A damaged entry costs that entry and a reset, nothing else: not the room,
// not what lies behind it.
func TestRoomGoesOnBehindDamagedEntries(t *testing.T) {
	w, x := newTroubledWorld(t, noLag)
	w.post("lobby", 2)
	r := w.room("lobby")
	awaitHead(t, r, 2)
	s := newSink(-1)
	w.join("lobby", s, nil)
	x.set(func() { x.mute = true; x.bad[4], x.bad[5] = true, true })
	w.post("lobby", 5) // 3..7, of which 4 and 5 cannot be read
	x.set(func() { x.mute = false })
	r.Doubt()
	s.awaitSeq(t, 7)
	w.post("lobby", 1)
	s.awaitSeq(t, 8)
	s.checkRuns(t, "[[2 3] [5 6 7 8]]")
	if got := r.Position().Seq; got != 8 {
		t.Errorf("got head %d, want 8", got)
	}
}

// What the room has delivered already needs no reset when its record is found
// damaged afterwards.
func TestDamageBehindTheHeadResetsNobody(t *testing.T) {
	w, x := newTroubledWorld(t, noLag)
	w.post("lobby", 3)
	r := w.room("lobby")
	awaitHead(t, r, 3)
	s := newSink(-1)
	w.join("lobby", s, nil)
	x.set(func() { x.bad[3], x.mute = true, true })
	w.post("lobby", 2)
	x.set(func() { x.mute = false })
	r.Doubt()
	s.awaitSeq(t, 5)
	s.checkRuns(t, "[[3 4 5]]")
	if got := w.hub.Stats().Resets.Load(); got != 0 {
		t.Errorf("got %d resets, want none", got)
	}
}

func TestMemberCatchesUpPastDamageAndRetention(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*troubled)
		want   string
	}{
		{"damage", func(x *troubled) { x.bad[10], x.bad[11] = true, true }, "[[40 3 4 5 6 7 8 9] [11 12 13"},
		{"retention", func(x *troubled) { x.first = 20 }, "[[40] [19 20 21"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, x := newTroubledWorld(t, noLag)
			w.post("lobby", 40)
			r := w.room("lobby")
			awaitHead(t, r, 40)
			s := newSink(0)
			w.join("lobby", s, &journal.Position{Epoch: r.Position().Epoch, Seq: 2, ID: "id-2"})
			x.set(func() { tc.change(x) })
			s.open(-1)
			s.awaitSeq(t, 40)
			s.mu.Lock()
			defer s.mu.Unlock()
			if got := fmt.Sprint(s.runs(t)); !strings.HasPrefix(got, tc.want) || !strings.HasSuffix(got, " 39 40]]") {
				t.Errorf("got runs %s, want %s ... 40]]", got, tc.want)
			}
		})
	}
}

// A read that is full after the one entry it began with is not the end.
func TestLargeEntriesAreBackfilled(t *testing.T) {
	w, x := newTroubledWorld(t, func(c *Config) { c.LagBytes, c.LagTime = 0, 0 })
	r := w.room("lobby")
	s := newSink(-1)
	x.set(func() { x.mute = true })
	for i := range 4 {
		e := message(i + 1)
		e.Text = strings.Repeat("x", 200<<10)
		if _, err := r.Append(t.Context(), e, false); err != nil {
			t.Fatal(err)
		}
	}
	x.set(func() { x.mute = false })
	w.join("lobby", s, nil)
	r.Doubt()
	s.awaitSeq(t, 4)
	s.checkRuns(t, "[[0 1 2 3 4]]")
}

// Two goroutines may find out about a new epoch at once; the slower one must
// not take the room back to what it saw.
func TestTakingOverTwiceDoesNotRewind(t *testing.T) {
	w, x := newTroubledWorld(t, noLag)
	w.post("lobby", 20)
	r := w.room("lobby")
	awaitHead(t, r, 20)
	s := newSink(-1)
	w.join("lobby", s, nil)
	x.set(func() { x.mute = true })
	rec := newEpoch(t, w, "lobby")
	x.set(func() {
		x.mute = false
		x.onInfo = func() { // the slower one has read Info: meanwhile
			if err := r.fillOnce(context.Background()); err != nil {
				t.Error(err)
			}
			w.post("lobby", 3)
		}
	})
	if err := r.fillOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.Position(); got.Seq != 24 || got.Epoch != rec.Epoch {
		t.Errorf("got position %+v, want seq 24 of epoch %s", got, rec.Epoch)
	}
	s.awaitSeq(t, 24)
	w.post("lobby", 1)
	s.awaitSeq(t, 25)
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := len(s.runs(t)); got != 2 {
		t.Errorf("got %v, want one reset", s.runs(t))
	}
}

// The journal is read for a member by its seq alone: a room that has moved on
// to another epoch in between must not lend it that epoch's entries.
func TestCatchUpDoesNotMixEpochs(t *testing.T) {
	w, _ := newTroubledWorld(t, noLag)
	w.post("lobby", 20)
	r := w.room("lobby")
	awaitHead(t, r, 20)
	newEpoch(t, w, "lobby")
	w.post("lobby", 30)
	if err := r.fillOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := w.hub.NewPeer(newSink(-1), true)
	m := &Member{room: r, peer: p, slot: -1, next: 5, gen: r.generation - 1}
	if err := p.catchUp(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if len(p.tail) > 0 || m.next != 5 {
		t.Errorf("a member of an older epoch was given %q", p.tail)
	}
}

func TestRecordShowsTheNewEpoch(t *testing.T) {
	w, x := newTroubledWorld(t, noLag)
	w.post("lobby", 20)
	r := w.room("lobby")
	awaitHead(t, r, 20)
	x.set(func() { x.mute = true })
	newEpoch(t, w, "lobby")
	rec, err := w.hub.Record(t.Context(), r, message(1000), false)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Position(); got.Epoch != rec.Epoch || got.Seq < rec.Seq {
		t.Errorf("got position %+v after recording %+v", got, rec)
	}
}

// Another node may have shown the client more than this one knows yet.
func TestResumeAheadOfThisNode(t *testing.T) {
	w, x := newTroubledWorld(t, nil)
	w.post("lobby", 5)
	r := w.room("lobby")
	awaitHead(t, r, 5)
	x.set(func() { x.mute = true })
	rec := w.post("lobby", 5)
	s := newSink(-1)
	w.join("lobby", s, &journal.Position{Epoch: rec.Epoch, Seq: rec.Seq, ID: rec.ID})
	x.set(func() { x.mute = false })
	w.post("lobby", 1)
	s.awaitSeq(t, 11)
	s.checkRun(t, 11, 11)
	if e := s.events(t)[0]; !e.Recovered || e.Seq != 10 {
		t.Errorf("got %+v, want recovered at 10", e)
	}
}

func TestResumeFromTheStartThatRetentionTook(t *testing.T) {
	w, x := newTroubledWorld(t, noLag)
	w.post("lobby", 1)
	r := w.room("lobby")
	awaitHead(t, r, 1)
	w.post("lobby", 39)
	awaitHead(t, r, 40)
	x.set(func() { x.first = 20 })
	s := newSink(-1)
	w.join("lobby", s, &journal.Position{Epoch: r.Position().Epoch})
	if e := s.events(t)[0]; e.Recovered {
		t.Errorf("got %+v, though the first entries are gone", e)
	}
}

func TestLeavingTwiceSparesTheNextMembership(t *testing.T) {
	w := newWorld(t, func(c *Config) { noLag(c) }, nil)
	w.post("lobby", 1)
	s := newSink(-1)
	p, m := w.join("lobby", s, nil)
	m.Leave()
	w.joinPeer("lobby", p, nil)
	m.Leave()
	if got := len(p.Detach()); got != 1 {
		t.Errorf("got %d rooms from Detach, want the one joined again", got)
	}
}

// What a connection in many rooms makes the server hold for it is bounded.
func TestBatchesOfManyRoomsAreBounded(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.LagBytes, c.LagTime = 0, 0 }, nil)
	const rooms, each = 12, 3
	s := newSink(1)
	p := w.hub.NewPeer(s, true) // full from the first joined on
	for i := range rooms {
		id := chat.RoomID(fmt.Sprint("room-", i))
		w.post(id, 1)
		r := w.room(id)
		awaitHead(t, r, 1)
		w.joinPeer(id, p, nil)
		for range each {
			w.n++
			e := message(w.n)
			e.Text = strings.Repeat("x", 60<<10)
			if _, err := r.Append(t.Context(), e, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.open(-1)
	s.await(t, "all messages", func(s *sink) bool { return bytes.Count(s.got, []byte(`"message"`)) == rooms*each })
	s.mu.Lock()
	defer s.mu.Unlock()
	if most := 2 * batchBytes; s.largest > most {
		t.Errorf("got a write of %d bytes, at most %d should wait for one connection", s.largest, most)
	}
}

// A connection that is always a little behind, but was given everything so
// far, lags by what it was not given yet.
func TestLagCountsWhatIsOwed(t *testing.T) {
	w := newWorld(t, noLag, nil)
	w.post("lobby", 1)
	r := w.room("lobby")
	awaitHead(t, r, 1)
	m := &Member{room: r, slot: -1, next: 2, gen: r.generation}
	for range 20 { // always behind, but given all there is each time
		w.post("lobby", 6)
		var arena []byte
		o := r.collect(m, wire.FormLine, &arena)
		m.take(&o)
	}
	r.mu.Lock()
	before := r.grown
	r.mu.Unlock()
	w.post("lobby", 20) // beyond the ring
	r.mu.Lock()
	want := int64(r.grown - before)
	r.mu.Unlock()
	if got := m.lagLocked(); got != want {
		t.Errorf("got a lag of %d bytes, want %d", got, want)
	}
}

// What one pass has gathered is overwritten by the next: a member that joins
// a quiet room must not be given what another room's member was.
func TestJoinersOfQuietRoomsGetTheirRoom(t *testing.T) {
	w := newWorld(t, nil, nil)
	for _, id := range []chat.RoomID{"a", "b"} {
		rec := w.post(id, 5)
		awaitHead(t, w.room(id), rec.Seq)
	}
	hub, err := New(Config{Shards: 1, RingEntries: 64, RingBytes: 1 << 20, ReplyBytes: 1 << 20}, w.j, w.hub.log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer func() { // ends what the hub holds
		stop()
		if err := hub.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	for i, id := range []chat.RoomID{"a", "b", "a"} { // the passes are driven by hand
		s := newSink(-1)
		r, err := hub.Room(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hub.Join(t.Context(), id, hub.NewPeer(s, true), &journal.Position{Epoch: r.Position().Epoch}, joinedFrame); err != nil {
			t.Fatal(err)
		}
		hub.shards[0].pass(time.Now())
		s.checkRun(t, 1, 5)
		for _, e := range s.events(t) {
			if e.Room != string(id) {
				t.Fatalf("joiner %d of room %s was given %+v", i, id, e)
			}
		}
	}
}

// What the journal gave a member counts as given: one that reads steadily, but
// further back than the ring reaches, lags by what it was not given yet and not
// by all that the room has grown meanwhile. The past that it asked for when it
// joined counts neither way.
func TestLagBehindTheRingCountsWhatIsOwed(t *testing.T) {
	for _, tt := range []struct {
		name                        string
		past, next, given, notGiven int // entries before joining, first that is owed, entries since: of the first batch, and behind it
	}{
		{"live", 10, 11, readBatch, 300},
		{"partly past", 30, 11, readBatch - 20, 300},
		{"past alone", 300, 1, 0, 300},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, noLag, nil)
			r := w.room("lobby")
			post := func(n int) (grown uint64) {
				if n > 0 {
					awaitHead(t, r, w.post("lobby", n).Seq)
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				return r.grown
			}
			joined := post(tt.past)
			p := w.hub.NewPeer(newSink(0), true)
			m := &Member{room: r, peer: p, slot: -1, next: uint64(tt.next), gen: r.generation, mark: joined, past: uint64(tt.past)}
			p.parked, p.members = true, []*Member{m} // its drainer is driven by hand
			want := int64(post(tt.given))
			want = int64(post(tt.notGiven)) - want
			if err := p.catchUp(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			if m.next != uint64(tt.next+readBatch) {
				t.Fatalf("got %d entries, want %d", int(m.next)-tt.next, readBatch)
			}
			if got := m.lagLocked(); got != want {
				t.Errorf("got a lag of %d bytes, want %d", got, want)
			}
		})
	}
}
