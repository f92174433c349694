package session

import (
	"slices"
	"sync"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/gate"
)

// TestTyping: members hear of it, the writer's own connections do not, and the
// policy decides whose.
func TestTyping(t *testing.T) {
	w := newWorld(t, nil)
	w.law()
	ann, phone, bob := w.user("ann"), w.user("ann"), w.guest("bob")
	checkError(t, ann.do(`{"type":"typing","room":"lobby"}`), chat.CodeNotMember)
	for _, c := range []*caller{ann, phone, bob} {
		c.join("lobby")
	}
	writes := func(c *caller) {
		t.Helper()
		if got := c.all(`{"type":"typing","room":"lobby"}`); slices.ContainsFunc(got, func(e event) bool { return e.Type == "error" || e.Type == "typing" }) {
			t.Errorf("typing was answered %+v, want nothing", got)
		}
	}
	writes(ann)
	bob.await("that ann writes", func(e event) bool { return e.Type == "typing" && e.Room == "lobby" && e.User == "ann" })
	writes(phone) // swallowed: it is the same person
	writes(bob)
	said := func(e event) bool { return e.Type == "message" && e.Text == "done" }
	ann.do(`{"type":"send","room":"lobby","nonce":"n1","text":"done"}`)
	for name, c := range map[string]*caller{"ann": ann, "her telephone": phone, "bob": bob} {
		c.await("the message", said) // which brings with it what waited
		var heard []string
		for _, e := range c.events() {
			if e.Type == "typing" {
				heard = append(heard, e.User)
			}
		}
		if want := map[bool][]string{true: {"ann"}, false: {"bob"}}[c == bob]; !slices.Equal(heard, want) {
			t.Errorf("%s heard that %v write, want %v", name, heard, want)
		}
	}
	w.rule(gate.Typing, no("muted", "You are muted in this room."))
	if e := bob.do(`{"type":"typing","room":"lobby"}`); e.Text != "You are muted in this room." {
		t.Errorf("got %+v", e)
	} else {
		checkError(t, e, chat.CodeDenied)
	}
}

// line notes who comes and goes.
type line struct {
	mu  sync.Mutex
	got []string
}

func (l *line) Online(u chat.UserID)  { l.note("+" + string(u)) }
func (l *line) Offline(u chat.UserID) { l.note("-" + string(u)) }

func (l *line) note(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, s)
}

// TestPeopleComeAndGo: once for each, however many connections.
func TestPeopleComeAndGo(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.cfg.ConnectionsPerUser = 2 })
	var l line
	w.srv.d.People = &l
	first, second := w.user("ann"), w.user("ann")
	third := w.connect()
	checkError(t, third.do(`{"type":"hello","token":%q}`, w.token("ann", time.Hour)), chat.CodeTooManyConns)
	third.end()
	w.connect().end() // nobody yet
	bob := w.guest("bob")
	first.end()
	second.end()
	again := w.user("ann")
	bob.end()
	again.end()
	if want := []string{"+ann", "+bob", "-ann", "+ann", "-bob", "-ann"}; !slices.Equal(l.got, want) {
		t.Errorf("got %q, want %q", l.got, want)
	}
}

// TestKnownElsewhere: who has been at another node may be given a role here.
func TestKnownElsewhere(t *testing.T) {
	w := newWorld(t, nil)
	w.law()
	w.auth.elsewhere = true
	mia := w.user("mia")
	mia.join("court") // hers
	if e := mia.do(`{"type":"role","room":"court","user":"zoe","role":"moderator"}`); e.Type != "ack" {
		t.Errorf("a role for somebody who is known elsewhere: got %+v", e)
	}
	checkError(t, mia.do(`{"type":"role","room":"court","user":"eve","role":"moderator"}`), chat.CodeDenied)
}
