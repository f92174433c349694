package room

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/state"
	"parley/core/wire"
)

func TestLiveDeliveryInOrderAfterJoined(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.post("lobby", 3)
	a, b := newSink(-1), newSink(-1)
	w.join("lobby", a, nil)
	w.join("lobby", b, nil)
	w.post("lobby", 50)
	for _, s := range []*sink{a, b} {
		s.awaitSeq(t, 53)
		s.checkRun(t, 4, 53)
		if first := s.events(t)[0]; first.Type != "joined" || first.Seq != 3 || first.Recovered {
			t.Errorf("got %+v first, want joined at seq 3, not recovered", first)
		}
	}
}

func TestOnePeerInManyRoomsGetsEachRoomsLog(t *testing.T) {
	w := newWorld(t, nil, nil)
	s := newSink(-1)
	p := w.hub.NewPeer(s, true)
	const rooms, each = 5, 20
	for i := range rooms {
		id := chat.RoomID(fmt.Sprintf("room-%d", i))
		w.post(id, 1)
		w.joinPeer(id, p, nil)
	}
	for range each {
		for i := range rooms {
			w.post(chat.RoomID(fmt.Sprintf("room-%d", i)), 1)
		}
	}
	s.await(t, "all messages", func(s *sink) bool { return strings.Count(string(s.got), `"message"`) == rooms*each })
	next := map[string]uint64{}
	for _, e := range s.events(t) {
		if e.Type != "message" {
			continue
		}
		if next[e.Room] == 0 {
			next[e.Room] = 2
		}
		if e.Seq != next[e.Room] {
			t.Fatalf("room %s: got seq %d, want %d", e.Room, e.Seq, next[e.Room])
		}
		next[e.Room]++
	}
}

func TestResume(t *testing.T) {
	for _, tc := range []struct {
		name      string
		since     func(journal.Position) journal.Position
		recovered bool
		from      uint64
	}{
		{"from the ring", func(p journal.Position) journal.Position { p.Seq, p.ID = 98, "id-98"; return p }, true, 99},
		{"from the journal", func(p journal.Position) journal.Position { p.Seq, p.ID = 10, "id-10"; return p }, true, 11},
		{"from the start", func(p journal.Position) journal.Position { p.Seq, p.ID = 0, ""; return p }, true, 1},
		{"at the top", func(p journal.Position) journal.Position { return p }, true, 101},
		{"other epoch", func(p journal.Position) journal.Position { p.Epoch = "other"; return p }, false, 101},
		{"other id in the ring", func(p journal.Position) journal.Position { p.ID = "id-7"; return p }, false, 101},
		{"other id in the journal", func(p journal.Position) journal.Position { p.Seq, p.ID = 10, "id-7"; return p }, false, 101},
		{"above the top", func(p journal.Position) journal.Position { p.Seq = 200; return p }, false, 101},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, small, nil)
			w.post("lobby", 100)
			r := w.room("lobby")
			awaitHead(t, r, 100)
			since := tc.since(r.Position())
			s := newSink(-1)
			w.join("lobby", s, &since)
			w.post("lobby", 10)
			s.awaitSeq(t, 110)
			s.checkRun(t, tc.from, 110)
			if first := s.events(t)[0]; first.Recovered != tc.recovered {
				t.Errorf("got recovered %v, want %v", first.Recovered, tc.recovered)
			}
		})
	}
}

// awaitHead waits until the room shows seq.
func awaitHead(t *testing.T, r *Room, seq uint64) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); r.Position().Seq < seq; <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("room stands at %d, want %d", r.Position().Seq, seq)
		}
	}
}

func TestStalledMemberHurtsNobodyAndMissesNothing(t *testing.T) {
	w := newWorld(t, func(c *Config) { small(c); c.LagBytes, c.LagTime = 0, 0 }, nil)
	w.post("lobby", 1)
	fast, stalled := newSink(-1), newSink(300) // full in the middle of the second frame
	w.join("lobby", stalled, nil)
	w.join("lobby", fast, nil)
	w.post("lobby", 500)
	fast.awaitSeq(t, 501)
	fast.checkRun(t, 2, 501)
	stalled.open(-1)
	stalled.awaitSeq(t, 501)
	w.post("lobby", 20) // it is live again
	stalled.awaitSeq(t, 521)
	stalled.checkRun(t, 2, 521)
	if w.hub.Stats().CatchUps.Load() == 0 {
		t.Error("the stalled member never read from the journal, though the ring holds 8 of 500 entries")
	}
}

func TestSlowConsumerIsClosed(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Config)
	}{
		{"by bytes", func(c *Config) { small(c); c.LagBytes, c.LagTime = 4096, 0 }},
		{"by time", func(c *Config) { small(c); c.LagBytes, c.LagTime = 0, time.Millisecond }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, tc.change, nil)
			w.post("lobby", 1)
			s := newSink(300)
			p, _ := w.join("lobby", s, nil)
			w.post("lobby", 100)
			s.await(t, "the end", func(s *sink) bool { return s.cut })
			if code, reason, ok := p.Closed(); !ok || code != wire.CloseSlow || reason != "slow_consumer" {
				t.Errorf("got close %d %q %v, want %d slow_consumer", code, reason, ok, wire.CloseSlow)
			}
			if got := w.hub.Stats().SlowClosed.Load(); got != 1 {
				t.Errorf("got %d slow consumers counted, want 1", got)
			}
			p.Detach()
		})
	}
}

func TestLeaveEndsDelivery(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.post("lobby", 1)
	stays, leaves := newSink(-1), newSink(-1)
	w.join("lobby", stays, nil)
	p, m := w.join("lobby", leaves, nil)
	w.post("lobby", 1)
	leaves.awaitSeq(t, 2)
	m.Leave()
	m.Leave()
	if err := p.Reply(wire.Encode(wire.LeftEvent{Type: wire.Left, Room: "lobby"})); err != nil {
		t.Fatal(err)
	}
	w.post("lobby", 5)
	stays.awaitSeq(t, 7)
	leaves.checkRun(t, 2, 2)
	if rooms := p.Detach(); len(rooms) != 0 {
		t.Errorf("got %d rooms from Detach after leaving, want none", len(rooms))
	}
}

func TestReplyBehindFullSocketKeepsOrder(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.LagBytes, c.LagTime = 0, 0; c.ReplyBytes = 200 }, nil)
	s := newSink(10)
	p := w.hub.NewPeer(s, true)
	done := make(chan error, 1)
	go func() { // the reader: it must wait rather than pile up
		var err error
		for i := range 50 {
			if err = p.Reply(wire.Encode(wire.PingEvent{Type: wire.Pong, TS: int64(i + 1)})); err != nil {
				break
			}
		}
		done <- err
	}()
	s.await(t, "a full socket", func(s *sink) bool { return s.room == 0 })
	s.open(-1)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s.await(t, "the last pong", func(s *sink) bool { return bytes.Contains(s.got, []byte(`"ts":50}`)) })
	if got := len(s.events(t)); got != 50 {
		t.Errorf("got %d pongs, want 50", got)
	}
	p.Close(wire.CloseRestart, "going_away", time.Second)
	p.Close(wire.CloseAbuse, "a later reason must not count", 0)
	s.await(t, "shutdown", func(s *sink) bool { return s.ended })
	last := s.events(t)[50]
	if last.Type != "close" || last.Code != 1012 {
		t.Errorf("got %+v last, want close 1012", last)
	}
	if err := p.Reply(wire.Encode(wire.PingEvent{Type: wire.Pong})); err == nil {
		t.Error("a reply after close succeeded")
	}
}

func TestPresenceFramesReachThoseWhoKeepUp(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.post("lobby", 1)
	s := newSink(-1)
	w.join("lobby", s, nil)
	r := w.room("lobby")
	for range 3 * ephemeralSlots { // more than are kept: some may be skipped, none repeated
		r.Announce(wire.Encode(wire.PresenceEvent{Type: wire.Presence, Room: "lobby", Event: "join", User: "bob", Count: 2}), "")
	}
	r.Announce(wire.Encode(wire.PresenceEvent{Type: wire.Presence, Room: "lobby", Event: "leave", User: "bob", Count: 1}), "")
	s.await(t, "the newest presence", func(s *sink) bool { return bytes.Contains(s.got, []byte(`"leave"`)) })
	w.post("lobby", 1)
	s.awaitSeq(t, 2)
	if n := strings.Count(string(s.got), `"join"`); n > 3*ephemeralSlots {
		t.Errorf("got %d joins, at most %d were sent", n, 3*ephemeralSlots)
	}
}

// A frame that is not for somebody's connections reaches all others, also where
// one pass serves both, and those who are left out get what follows.
func TestFramesThatAreNotForSomebody(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.post("lobby", 1)
	users := []chat.UserID{"ann", "bob", "ann", "zoe"}
	sinks := make([]*sink, len(users))
	for i, u := range users {
		sinks[i] = newSink(-1)
		p := w.hub.NewPeer(sinks[i], true)
		p.Name(u)
		w.joinPeer("lobby", p, nil)
	}
	r := w.room("lobby")
	for i := range 20 {
		by := []chat.UserID{"ann", "bob"}[i%2]
		r.Announce(wire.Encode(wire.TypingEvent{Type: wire.Typing, Room: "lobby", User: by}), by)
		if i%5 == 4 {
			w.post("lobby", 1)
		}
	}
	r.Announce(wire.Encode(wire.PresenceEvent{Type: wire.Presence, Room: "lobby", Event: "leave", User: "eve", Count: 4}), "")
	for i, s := range sinks {
		s.await(t, "what is for everybody", func(s *sink) bool { return bytes.Contains(s.got, []byte(`"leave"`)) })
		s.awaitSeq(t, 5)
		for _, by := range []chat.UserID{"ann", "bob"} {
			want := 10
			if by == users[i] {
				want = 0
			}
			s.mu.Lock()
			got := bytes.Count(s.got, fmt.Appendf(nil, `"typing","room":"lobby","user":%q`, by))
			s.mu.Unlock()
			if got != want {
				t.Errorf("connection %d of %s was told %d times that %s writes, want %d", i, users[i], got, by, want)
			}
		}
	}
}

// What was collected without a frame that is not for the member is marked: it
// must not be what others at its place are sent.
func TestCollectMarksWhatWasLeftOut(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.post("lobby", 1)
	r := w.room("lobby")
	members := make(map[chat.UserID]*Member)
	for _, u := range []chat.UserID{"ann", "bob"} {
		p := w.hub.NewPeer(newSink(-1), true)
		p.Name(u)
		members[u] = w.joinPeer("lobby", p, nil)
	}
	for _, m := range members {
		m.peer.mu.Lock() // no pass moves it meanwhile
		defer m.peer.mu.Unlock()
	}
	r.Announce(wire.Encode(wire.TypingEvent{Type: wire.Typing, Room: "lobby", User: "bob"}), "bob")
	for u, m := range members {
		o := r.collect(m, wire.FormLine, new([]byte))
		if out := u == "bob"; o.alone != out || (len(o.data) == 0) != out {
			t.Errorf("%s: got %q, alone %t; want nothing but for the writer", u, o.data, o.alone)
		}
	}
}

func TestStateFollowsTheLog(t *testing.T) {
	w := newWorld(t, nil, nil)
	r := w.room("lobby")
	if r.Exists() {
		t.Error("a room without entries exists")
	}
	set := state.Settings{Title: "Lobby", Mode: state.ModeAnnounce, Visibility: state.Public}
	e := journal.Entry{ID: "s1", Kind: journal.KindSettings, From: "ann", Nonce: "s1",
		Changes: []journal.Change{state.SetSettings(set), state.SetRole("ann", state.RoleOwner)}}
	if _, err := w.hub.Record(t.Context(), r, e, true); err != nil {
		t.Fatal(err)
	}
	if got := r.State().Settings; got != set {
		t.Errorf("got settings %+v, want %+v", got, set)
	}
	if got := r.State().Role("ann"); got != state.RoleOwner {
		t.Errorf("got role %q, want owner", got)
	}
	if _, err := w.hub.Record(t.Context(), r, e, true); err != nil && err != journal.ErrExists {
		t.Errorf("creating twice: got %v, want ErrExists or the first receipt", err)
	}
}

func TestIdleRoomsAreForgottenAndComeBack(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.IdleTime = time.Millisecond }, nil)
	w.post("lobby", 5)
	r := w.room("lobby")
	awaitHead(t, r, 5)
	s := newSink(-1)
	p, _ := w.join("lobby", s, nil)
	w.hub.sweep(time.Now().Add(time.Hour))
	if w.hub.Loaded() != 1 {
		t.Fatal("a room with a member was forgotten")
	}
	if got := len(p.Detach()); got != 1 {
		t.Fatalf("got %d rooms from Detach, want 1", got)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); w.hub.Loaded() != 0; <-tick.C {
		w.hub.sweep(time.Now().Add(time.Hour))
		if time.Now().After(end) {
			t.Fatal("the idle room stays loaded")
		}
	}
	if _, err := r.join(t.Context(), w.hub.NewPeer(newSink(-1), true), nil, joinedFrame); err != errEvicted {
		t.Errorf("joining a forgotten room: got %v, want errEvicted", err)
	}
	again := newSink(-1)
	w.join("lobby", again, &journal.Position{Epoch: r.Position().Epoch, Seq: 2, ID: "id-2"})
	again.awaitSeq(t, 5)
	again.checkRun(t, 3, 5)
}

// Asking for names that are no rooms must not keep those who ask for a room
// from it.
func TestNamesThatAreNoRoomsMakeWay(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxRooms = 8 }, nil)
	awaitHead(t, w.room("lobby"), w.post("lobby", 1).Seq)
	s := newSink(-1)
	w.join("empty", s, nil) // somebody waits in it
	for i := range 6 {
		w.room(chat.RoomID(fmt.Sprint("made-up-", i)))
	}
	if got := w.hub.Loaded(); got != 8 {
		t.Fatalf("got %d rooms, want as many as there may be", got)
	}
	w.room("another")
	if got := w.hub.Loaded(); got != 3 {
		t.Errorf("got %d rooms, want lobby, empty and another", got)
	}
	for i := range 5 {
		w.room(chat.RoomID(fmt.Sprint("made-up-", i)))
	}
	w.hub.mu.Lock()
	w.hub.sifted = time.Now().Add(time.Hour) // as if just now, however slow this machine is
	w.hub.mu.Unlock()
	if _, err := w.hub.Room(t.Context(), "more"); err == nil {
		t.Error("it looked through all rooms again at once")
	}
	w.post("empty", 1)
	s.awaitSeq(t, 1)
}

func TestSpeakersAreRememberedWithinBounds(t *testing.T) {
	w := newWorld(t, nil, nil)
	r := w.room("lobby")
	now := time.UnixMilli(maxSpoke * 2)
	r.mu.Lock()
	for i := range maxSpoke + 1 {
		r.rememberLocked(chat.UserID(fmt.Sprint("u", i)), int64(i))
	}
	n := len(r.spoke)
	r.mu.Unlock()
	if n > maxSpoke {
		t.Errorf("got %d speakers remembered, at most %d may be", n, maxSpoke)
	}
	if _, ok := r.SinceSpoke(chat.UserID(fmt.Sprint("u", maxSpoke)), now); !ok {
		t.Error("the newest speaker was forgotten")
	}
	if _, ok := r.SinceSpoke("u0", now); ok {
		t.Error("the oldest speaker was kept")
	}
}

func TestCloseOfAParkedPeer(t *testing.T) {
	for _, tc := range []struct {
		name string
		room int
		said bool
	}{
		{"before a frame was begun says why", 0, true},
		{"inside a frame cuts the connection", 5, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.LagBytes, c.LagTime = 0, 0 }, nil)
			s := newSink(tc.room)
			p := w.hub.NewPeer(s, true)
			p.mu.Lock() // the drainer waits at this lock
			err := p.writeLocked([]byte("{\"type\":\"pong\"}\n"))
			parked, torn := p.parked, p.torn
			p.mu.Unlock()
			if err != nil || !parked || torn == tc.said {
				t.Fatalf("got %v, parked %v, torn %v; want parked, torn %v", err, parked, torn, !tc.said)
			}
			if tc.said {
				p.mu.Lock() // as if the drainer were reading from the journal
				p.tail, p.torn = nil, false
				p.mu.Unlock()
			}
			s.open(tc.room)
			p.Close(wire.CloseRestart, "going_away", time.Second)
			s.await(t, "the end", func(s *sink) bool { return s.ended || s.cut })
			if tc.said && s.cut {
				t.Error("the connection was cut though nothing was begun")
			}
			if !tc.said && !s.cut {
				t.Error("a close event went into the middle of a frame")
			}
		})
	}
}
