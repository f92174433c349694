package session

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/journal"
	"parley/core/room"
	"parley/core/state"
)

// post makes n messages of "poster" in the room and returns the last ack.
func (w *world) post(id chat.RoomID, n int) (last event) {
	w.t.Helper()
	c := w.connect()
	defer c.end()
	c.do(`{"type":"hello","token":%q}`, w.token("poster", 3600e9))
	for i := range n {
		if last = c.do(`{"type":"send","room":%q,"text":"message %d"}`, id, i+1); last.Type != "ack" {
			w.t.Fatalf("post to %s: got %+v", id, last)
		}
	}
	return last
}

func TestJoinLeaveMembers(t *testing.T) {
	w := newWorld(t, nil)
	w.configure("lobby", state.Settings{Title: "The Lobby", Mode: state.ModeAnnounce, Visibility: state.Public, SlowModeS: 3})
	ann, bob := w.guest("ann"), w.guest("bob")
	defer bob.end()
	e := ann.do(`{"type":"join","room":"lobby"}`)
	if e.Type != "joined" || e.Seq != 1 || e.Epoch == "" || e.LastID == "" || e.Recovered || e.Title != "The Lobby" || e.Mode != "announce" || e.Count != 1 {
		t.Errorf("got %+v", e)
	}
	if e := bob.do(`{"type":"join","room":"lobby"}`); e.Count != 2 {
		t.Errorf("got count %d for the second, want 2", e.Count)
	}
	if e := ann.await("bob's arrival", func(e event) bool { return e.Type == "presence" && e.User == "bob" }); e.Event != "join" || e.Count != 2 {
		t.Errorf("got %+v", e)
	}
	if e := bob.do(`{"type":"members","room":"lobby"}`); e.Count != 2 || !slices.Equal(e.Users, []string{"ann", "bob"}) {
		t.Errorf("got %+v, want ann and bob", e)
	}
	if e := ann.do(`{"type":"leave","room":"lobby"}`); e.Type != "left" || e.Room != "lobby" {
		t.Errorf("got %+v, want left", e)
	}
	checkError(t, ann.do(`{"type":"leave","room":"lobby"}`), chat.CodeNotMember)
	if e := bob.await("ann's leaving", func(e event) bool { return e.Type == "presence" && e.Event == "leave" }); e.User != "ann" || e.Count != 1 {
		t.Errorf("got %+v", e)
	}
	ann.do(`{"type":"join","room":"lobby"}`)
	ann.end() // without a word
	if n := w.presence.Count("lobby"); n != 1 {
		t.Errorf("got %d members after the end, want bob alone", n)
	}
	checkError(t, bob.do(`{"type":"members","room":"nowhere"}`), chat.CodeNoRoom)
	w.rule(gate.MembersRead, no("secret", "who is here is a secret"))
	checkError(t, bob.do(`{"type":"members","room":"lobby"}`), chat.CodeDenied)
	bob.do(`{"type":"leave","room":"lobby"}`)
	w.allow(nil)
	if e := bob.do(`{"type":"members","room":"lobby"}`); e.Type != "members" || e.Count != 0 || e.Users != nil {
		t.Errorf("got %+v, want nobody", e)
	}
}

func TestJoinAnswersForEachRoom(t *testing.T) {
	w := newWorld(t, nil)
	w.allow(func(in *gate.Input) gate.Decision {
		switch {
		case in.Action.Name == gate.RoomJoin && in.Resource.ID == "secret":
			return no("private", "this room is private")
		case in.Action.Name == gate.RoomCreate && in.Resource.ID == "new":
			return no("closed", "no new rooms")
		case in.Action.Name == gate.RoomCreate && in.Resource.ID == "odd":
			return gate.Decision{Failed: true}
		}
		return gate.Decision{Allow: true}
	})
	c := w.guest("ann")
	defer c.end()
	es := c.all(`{"type":"join","rooms":[{"room":"a"},{"room":"secret"},{"room":"new"},{"room":"odd"},{"room":"b"}]}`)
	if len(es) != 5 {
		t.Fatalf("got %d answers, want 5: %+v", len(es), es)
	}
	for i, want := range []string{"joined", "denied", "no_room", "policy_error", "joined"} {
		got := es[i].Type
		if got == "error" {
			got = es[i].Code.(string)
		}
		if got != want || es[i].Room != []string{"a", "secret", "new", "odd", "b"}[i] {
			t.Errorf("room %d: got %+v, want %s", i, es[i], want)
		}
	}
}

func TestRoomsOfAConnectionAreLimited(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.cfg.RoomsPerConnection = 2 })
	c := w.guest("ann")
	defer c.end()
	es := c.all(`{"type":"join","rooms":[{"room":"a"},{"room":"b"},{"room":"c"}]}`)
	if len(es) != 3 || es[0].Type != "joined" || es[1].Type != "joined" {
		t.Fatalf("got %+v", es)
	}
	checkError(t, es[2], chat.CodeTooManyRooms)
	if e := c.do(`{"type":"join","room":"a"}`); e.Type != "joined" {
		t.Errorf("joining again: got %+v, want joined", e)
	}
	c.do(`{"type":"leave","room":"b"}`)
	if e := c.do(`{"type":"join","room":"c"}`); e.Type != "joined" {
		t.Errorf("after leaving one: got %+v, want joined", e)
	}
}

func TestCreatorsWithAnAccountOwnTheRoom(t *testing.T) {
	w := newWorld(t, nil)
	guest, user := w.guest("ann"), w.user("mia")
	defer guest.end()
	defer user.end()
	guest.do(`{"type":"join","room":"free"}`)
	user.do(`{"type":"join","room":"owned"}`)
	for id, want := range map[chat.RoomID]map[chat.UserID]state.Role{"free": nil, "owned": {"mia": state.RoleOwner}} {
		r := must(w.hub.Room(t.Context(), id))
		if got := r.State().Roles(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got roles %v, want %v", id, got, want)
		}
	}
}

func TestResume(t *testing.T) {
	w := newWorld(t, nil)
	top := w.post("lobby", 9) // seqs 2 to 10
	_, es, err := w.store.Journal.Read(t.Context(), "lobby", 0, 20)
	if err != nil {
		t.Fatal(err)
	}
	at := func(seq uint64) string {
		return fmt.Sprintf(`{"epoch":%q,"seq":%d,"id":%q}`, top.Epoch, seq, es[seq-1].ID)
	}
	tests := []struct {
		name      string
		since     string
		join      *int // obligation history of room.join
		read      gate.Decision
		recovered bool
		from      uint64
	}{
		{"where it left", at(6), nil, gate.Decision{}, true, 7},
		{"at the top", at(10), nil, gate.Decision{}, true, 11},
		{"another epoch", `{"epoch":"other","seq":6,"id":"x"}`, nil, gate.Decision{}, false, 11},
		{"a guessed position", fmt.Sprintf(`{"epoch":%q,"seq":6,"id":"x"}`, top.Epoch), nil, gate.Decision{}, false, 11},
		{"beyond the top", fmt.Sprintf(`{"epoch":%q,"seq":60,"id":"x"}`, top.Epoch), nil, gate.Decision{}, false, 11},
		{"within what may be replayed", at(6), ptr(4), gate.Decision{}, true, 7},
		{"before what may be replayed", at(6), ptr(3), gate.Decision{}, false, 11},
		{"from the start", fmt.Sprintf(`{"epoch":%q,"seq":0}`, top.Epoch), nil, gate.Decision{Allow: true}, true, 1},
		{"from the start, where history may not be read", fmt.Sprintf(`{"epoch":%q,"seq":0}`, top.Epoch), nil, no("x", "y"), false, 11},
		{"from the start, where some of it may be read", fmt.Sprintf(`{"epoch":%q,"seq":0}`, top.Epoch), nil,
			gate.Decision{Allow: true, Obligations: gate.Obligations{History: ptr(9)}}, false, 11},
		{"from the start, where all of it may be read", fmt.Sprintf(`{"epoch":%q,"seq":0}`, top.Epoch), nil,
			gate.Decision{Allow: true, Obligations: gate.Obligations{History: ptr(10)}}, true, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.allow(func(in *gate.Input) gate.Decision {
				switch in.Action.Name {
				case gate.RoomJoin:
					return gate.Decision{Allow: true, Obligations: gate.Obligations{History: tt.join}}
				case gate.HistoryRead:
					return tt.read
				}
				return gate.Decision{Allow: true}
			})
			c := w.user("ann")
			defer c.end()
			e := c.do(`{"type":"join","room":"lobby","since":%s}`, tt.since)
			if e.Type != "joined" || e.Recovered != tt.recovered || e.Seq != 10 || e.LastID != top.MessageID {
				t.Fatalf("got %+v, want recovered %v at 10", e, tt.recovered)
			}
			if tt.from <= 10 {
				c.await("entry 10", func(e event) bool { return e.Seq == 10 && e.From == "poster" })
			}
			got := uint64(0)
			for _, e := range c.events() {
				if e.Type == "message" || e.Type == "settings" {
					if got == 0 {
						got = e.Seq
					}
				}
			}
			if tt.from > 10 && got != 0 || tt.from <= 10 && got != tt.from {
				t.Errorf("got entries from %d, want from %d", got, tt.from)
			}
		})
	}
}

func TestJoiningAgainBeginsAgain(t *testing.T) {
	w := newWorld(t, nil)
	w.post("lobby", 3)
	ann, bob := w.guest("ann"), w.guest("bob")
	defer ann.end()
	defer bob.end()
	bob.do(`{"type":"join","room":"lobby"}`)
	first := ann.do(`{"type":"join","room":"lobby"}`)
	_, es, _ := w.store.Journal.Read(t.Context(), "lobby", 0, 20)
	e := ann.do(`{"type":"join","room":"lobby","since":{"epoch":%q,"seq":2,"id":%q}}`, first.Epoch, es[1].ID)
	if !e.Recovered || e.Count != 2 {
		t.Errorf("got %+v, want recovered, 2 members", e)
	}
	ann.await("the last message again", func(e event) bool { return e.Type == "message" && e.Seq == 4 })
	bob.do(`{"type":"send","room":"lobby","text":"live"}`)
	ann.await("a live message", func(e event) bool { return e.Text == "live" })
	n := 0
	for _, e := range ann.events() {
		if e.Text == "live" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("got the live message %d times, want once", n)
	}
	for _, e := range bob.events() {
		if e.Type == "presence" && e.Event == "leave" {
			t.Errorf("joining again was announced as leaving: %+v", e)
		}
	}
	if n := w.presence.Count("lobby"); n != 2 {
		t.Errorf("got %d present, want 2", n)
	}
}

// An error for a room means that one is not in it (docs/delivery.md), also
// when one was before.
func TestAFailedJoinEndsAnEarlierOne(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*world)
		code   chat.Code
	}{
		{"denied", func(w *world) { w.rule(gate.RoomJoin, no("banned", "you are banned")) }, chat.CodeDenied},
		{"policy fails", func(w *world) { w.rule(gate.RoomJoin, gate.Decision{Failed: true}) }, chat.CodePolicyError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			ann, bob := w.guest("ann"), w.guest("bob")
			defer ann.end()
			defer bob.end()
			bob.do(`{"type":"join","room":"lobby"}`)
			ann.do(`{"type":"join","room":"lobby"}`)
			tt.change(w)
			checkError(t, ann.do(`{"type":"join","room":"lobby"}`), tt.code)
			if n := w.presence.Count("lobby"); n != 1 {
				t.Errorf("got %d present, want bob alone", n)
			}
			bob.do(`{"type":"send","room":"lobby","text":"secret"}`)
			bob.await("the message", func(e event) bool { return e.Text == "secret" })
			ann.do(`{"type":"ping"}`)
			for _, e := range ann.events() {
				if e.Text == "secret" {
					t.Error("ann still hears the room")
				}
			}
			checkError(t, ann.do(`{"type":"leave","room":"lobby"}`), chat.CodeNotMember)
		})
	}
}

func TestAClientThatIsGoneIsNotPresent(t *testing.T) {
	w := newWorld(t, nil)
	w.configure("lobby", state.DefaultSettings())
	c := w.guest("ann")
	c.set(func() { c.broken = true })
	if c.raw(`{"type":"join","rooms":[{"room":"lobby"},{"room":"other"}]}`) {
		t.Error("the session goes on though its connection is broken")
	}
	c.end()
	for _, id := range []chat.RoomID{"lobby", "other"} {
		if n := w.presence.Count(id); n != 0 {
			t.Errorf("%s: got %d present, want none", id, n)
		}
	}
	if strings.Contains(w.log.text(), "command failed") {
		t.Errorf("a broken connection is logged as a fault:\n%s", w.log.text())
	}
}

func TestJoinWithoutTheStore(t *testing.T) {
	w := newWorld(t, nil)
	c := w.guest("ann")
	defer c.end()
	w.store.failing(journal.ErrUnavailable)
	e := c.do(`{"type":"join","room":"lobby"}`)
	checkError(t, e, chat.CodeUnavailable)
	if !e.Retryable {
		t.Error("not retryable")
	}
	w.store.failing(nil)
	if e := c.do(`{"type":"join","room":"lobby"}`); e.Type != "joined" {
		t.Errorf("got %+v, want joined", e)
	}
}

func TestRoomsAreLimitedInMemory(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.room.MaxRooms = 1 })
	c := w.guest("ann")
	defer c.end()
	c.do(`{"type":"join","room":"a"}`)
	for _, command := range []string{"join", "history", "members"} {
		checkError(t, c.do(`{"type":%q,"room":"b"}`, command), chat.CodeOverloaded)
	}
}

// elsewhere is the journal of a node that hears late of what others append.
type elsewhere struct{ journal.Journal }

type deaf struct{}

func (deaf) Appended(string, *journal.Entry) {}
func (deaf) Reviewed(*journal.Review)        {}
func (deaf) Doubt()                          {}

func (e elsewhere) Watch(ctx context.Context, id chat.RoomID, _ journal.Watcher) (func(), error) {
	return e.Journal.Watch(ctx, id, deaf{})
}

func TestARoomThatAnotherNodeMadeMeanwhileHasItsSettings(t *testing.T) {
	w := newWorld(t, nil)
	hub := must(room.New(room.Defaults(), elsewhere{w.store}, w.srv.d.Log))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- hub.Run(ctx) }()
	defer func() { stop(); <-done }()
	other := must(New(w.srv.cfg, Deps{Hub: hub, Journal: w.store, Gate: w, Log: w.srv.d.Log}))
	defer other.Close()

	r := must(hub.Room(t.Context(), "lobby"))
	want := state.Settings{Mode: state.ModeAnnounce, Visibility: state.Private}
	w.configure("lobby", want)
	if err := other.CreateRoom(t.Context(), r, state.DefaultSettings(), "ann", ""); err != nil {
		t.Fatal(err)
	}
	if got := r.State().Settings; got != want || !r.Exists() {
		t.Errorf("got settings %+v, exists %v, want %+v as the other node made it", got, r.Exists(), want)
	}
}

func TestSlowModeDoesNotWaitForTheJournalsNews(t *testing.T) {
	w := newWorld(t, nil)
	hub := must(room.New(room.Defaults(), elsewhere{w.store}, w.srv.d.Log))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- hub.Run(ctx) }()
	defer func() { stop(); <-done }()
	r := must(hub.Room(t.Context(), "lobby"))
	e := journal.Entry{ID: "id-1", Kind: journal.KindMessage, From: "ann", Time: 1000, Nonce: "n", Text: "hi", Outcome: chat.Accepted}
	if _, err := r.Append(t.Context(), e, false); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.SinceSpoke("ann", time.UnixMilli(2000)); !ok {
		t.Error("the room does not know that ann has spoken")
	}
}

// TestARoomOfTheOperatorBelongsToNobody enters a configured room that the store
// does not have: it is as configured, and not the newcomer's, whatever the
// policy says of new rooms.
func TestARoomOfTheOperatorBelongsToNobody(t *testing.T) {
	w := newWorld(t, nil)
	want := state.Settings{Title: "News", Mode: state.ModeAnnounce, Visibility: state.Public, SlowModeS: 7}
	w.srv.d.Rooms = map[chat.RoomID]state.Settings{"news": want}
	w.rule(gate.RoomCreate, no("closed", "no new rooms"))
	ann := w.user("ann")
	defer ann.end()
	if e := ann.do(`{"type":"join","room":"news"}`); e.Type != "joined" {
		t.Fatalf("join: got %+v", e)
	}
	r := must(w.hub.Room(t.Context(), "news"))
	if got := r.State(); got.Settings != want || got.Role("ann") != "" {
		t.Errorf("got %+v and role %q, want %+v and no role", got.Settings, got.Role("ann"), want)
	}
	checkError(t, ann.do(`{"type":"join","room":"other"}`), chat.CodeNoRoom)
}
