package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/state"
	"parley/sdk/abi"
)

// otherNodes is the other nodes: who is connected there, and what they are told.
type otherNodes struct {
	mu     sync.Mutex
	there  []chat.UserID
	away   error // Redis does not say
	asked  [][]chat.UserID
	wrote  []chat.RoomID
	called []chat.UserID
	last   []journal.Notice // of the last append

	erased   []chat.MessageID
	erasedOf []chat.UserID
}

func (e *otherNodes) Connected(_ context.Context, us []chat.UserID) (map[chat.UserID]bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, slices.Clone(us))
	out := map[chat.UserID]bool{}
	for _, u := range us {
		out[u] = slices.Contains(e.there, u)
	}
	return out, e.away
}

func (e *otherNodes) Wrote(r chat.RoomID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.wrote = append(e.wrote, r)
}

func (e *otherNodes) Call(u, _ chat.UserID, _ chat.RoomID, _ bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.called = append(e.called, u)
}

func (e *otherNodes) Erase(_ context.Context, _ chat.RoomID, ids []chat.MessageID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.erased = append(e.erased, ids...)
	return nil
}

func (e *otherNodes) EraseOf(_ context.Context, u chat.UserID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.erasedOf = append(e.erasedOf, u)
	return nil
}

// withOtherNodes is a world that tells absent people.
func withOtherNodes(t *testing.T) (*world, *otherNodes) {
	w := newWorld(t, func(s *setup) { s.cfg.NotifyAbsent = true })
	e := &otherNodes{}
	w.srv.d.Absent = e
	note := func(r journal.Request, _ journal.Receipt) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.last = r.Notify
	}
	w.store.appended.Store(&note)
	return w, e
}

// was makes a user known who is not here any more.
func (w *world) was(us ...chat.UserID) {
	for _, u := range us {
		w.user(u).end()
	}
}

func TestDirect(t *testing.T) {
	w, e := withOtherNodes(t)
	w.law()
	ann, bob, eve := w.user("ann"), w.user("bob"), w.user("eve", "moderator")
	checkError(t, ann.do(`{"type":"direct","user":"ann"}`), chat.CodeBadRequest)
	checkError(t, ann.do(`{"type":"direct","user":"nobody"}`), chat.CodeDenied)
	checkError(t, w.guest("gus").do(`{"type":"direct","user":"ann"}`), chat.CodeDenied)

	got := ann.do(`{"type":"direct","user":"bob"}`)
	id := DirectRoom("ann", "bob")
	if got.Type != "direct" || got.Room != string(id) || got.User != "bob" || !got.New || got.ID == "" {
		t.Fatalf("got %+v", got)
	}
	if !chat.ValidRoom(id) || id != DirectRoom("bob", "ann") || id == DirectRoom("an", "nbob") || id == DirectRoom("Ann", "bob") {
		t.Errorf("the name %s does not follow from the two names", id)
	}
	bob.await("that ann opened it", func(e event) bool { return e.Type == "direct" && e.Room == string(id) && e.User == "ann" && e.New })
	if again := bob.do(`{"type":"direct","user":"ann"}`); again.Room != string(id) || again.New {
		t.Errorf("from the other side: got %+v", again)
	}
	if !slices.Equal(e.called, []chat.UserID{"bob"}) {
		t.Errorf("other nodes were told of %v", e.called)
	}
	ann.join(string(id))
	bob.join(string(id))
	for _, frame := range []string{`{"type":"join","room":"` + string(id) + `"}`, `{"type":"send","room":"` + string(id) + `","text":"x"}`,
		`{"type":"history","room":"` + string(id) + `"}`, `{"type":"members","room":"` + string(id) + `"}`} {
		checkError(t, eve.do("%s", frame), chat.CodeDenied)
	}
	checkError(t, eve.do(`{"type":"join","room":"dm:made-up"}`), chat.CodeNoRoom)

	// Whoever steps down is out, and comes back by asking.
	if got := bob.do(`{"type":"role","room":"%s","user":"bob","role":"none"}`, id); got.Type != "ack" {
		t.Fatalf("stepping down: got %+v", got)
	}
	checkError(t, bob.do(`{"type":"history","room":"%s"}`, id), chat.CodeDenied)
	if back := bob.do(`{"type":"direct","user":"ann"}`); back.Type != "direct" || back.New {
		t.Errorf("coming back: got %+v", back)
	}
	if r := must(w.hub.Room(t.Context(), id)); r.State().Role("bob") != state.RoleMember || r.State().Role("ann") != state.RoleMember {
		t.Errorf("got roles %v", r.State().Roles())
	}
	w.store.failing(journal.ErrUnavailable)
	checkError(t, eve.do(`{"type":"direct","user":"ann"}`), chat.CodeUnavailable)
}

// TestWhoIsTold: the other person of a direct, and who is mentioned and may read
// the room, if they are connected nowhere.
func TestWhoIsTold(t *testing.T) {
	w, e := withOtherNodes(t)
	w.was("cat", "dan", "mia")
	w.user("bob") // here
	e.there = []chat.UserID{"mia"}
	ann := w.user("ann")
	ann.join("lobby")
	say := func(room, text string) []journal.Notice {
		t.Helper()
		if got := ann.do(`{"type":"send","room":"%s","text":"%s"}`, room, text); got.Type != "ack" {
			t.Fatalf("got %+v", got)
		}
		return e.last
	}
	mention := func(us ...chat.UserID) (ns []journal.Notice) {
		for _, u := range us {
			ns = append(ns, journal.Notice{User: u, Kind: journal.NoticeMention})
		}
		return ns
	}
	check := func(what string, got, want []journal.Notice) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	check("nobody", say("lobby", "hello"), nil)
	if len(e.asked) > 0 {
		t.Errorf("a message that concerns nobody asked for %v", e.asked)
	}
	check("a public room", say("lobby", "@cat @bob @mia @ann @stranger @dan"), mention("cat", "dan"))
	if want := []chat.UserID{"cat", "mia", "stranger", "dan"}; len(e.asked) != 1 || !slices.Equal(e.asked[0], want) {
		t.Errorf("asked for %v, want once for %v", e.asked, want)
	}
	if !slices.Equal(e.wrote, []chat.RoomID{"lobby"}) {
		t.Errorf("told of outboxes %v", e.wrote)
	}
	e.away = errors.New("redis is away")
	check("when nobody says who is there", say("lobby", "@cat"), mention("cat"))
	e.away = nil
	if got := ann.do(`{"type":"ban","room":"lobby","user":"dan"}`); got.Type != "ack" {
		t.Fatalf("got %+v", got)
	}
	check("banned", say("lobby", "@cat @dan"), mention("cat"))
	if got := ann.do(`{"type":"role","room":"lobby","user":"cat","role":"member"}`); got.Type != "ack" {
		t.Fatalf("got %+v", got)
	}
	if got := ann.do(`{"type":"configure","room":"lobby","visibility":"private"}`); got.Type != "ack" {
		t.Fatalf("got %+v", got)
	}
	w.was("kim")
	check("a private room", say("lobby", "@cat @kim"), mention("cat"))

	// What a plugin has masked mentions nobody; what was held does when it is
	// approved, and not when it is rejected.
	w.judge(says("hide", "@cat", abi.Redact))
	check("masked", say("lobby", "@cat"), nil)
	w.judge(says("hold", "wait", abi.Hold))
	held := ann.do(`{"type":"send","room":"lobby","text":"wait @cat"}`)
	check("held", e.last, nil)
	if got := ann.do(`{"type":"review","room":"lobby","review_id":"%s","action":"approve"}`, held.ReviewID); got.Type != "review" {
		t.Fatalf("got %+v", got)
	}
	check("approved", e.last, mention("cat"))
	held = ann.do(`{"type":"send","room":"lobby","text":"wait @cat"}`)
	ann.do(`{"type":"review","room":"lobby","review_id":"%s","action":"reject"}`, held.ReviewID)
	check("rejected", e.last, nil)
	w.judge()

	d := ann.do(`{"type":"direct","user":"cat"}`)
	check("a direct", say(d.Room, "@kim @cat hello"), []journal.Notice{{User: "cat", Kind: journal.NoticeDirect}})
	w.srv.cfg.NotifyAbsent = false
	check("switched off", say(d.Room, "hello"), nil)
}
