package session

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/chat"
	"parley/core/gate"
)

func TestWelcomeOfAUser(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.cfg.CommandsPerSecond, s.cfg.CommandsBurst = 20, 40 })
	c := w.connect()
	defer c.end()
	e := c.do(`{"type":"hello","token":%q,"device":"bot/1.0"}`, w.token("mia", time.Hour, "moderator", "admin", "moderator"))
	if e.Type != "welcome" || e.User != "mia" || e.Class != "user" || e.Session == "" || e.Secret != "" || e.HeartbeatMS != 15000 {
		t.Errorf("got %+v", e)
	}
	if want := []string{"admin", "moderator"}; !slices.Equal(e.Roles, want) {
		t.Errorf("got roles %v, want %v", e.Roles, want)
	}
	for k, want := range map[string]int{"frame_bytes": 64 << 10, "text_bytes": 4096, "commands_per_second": 20, "rooms_per_connection": 200, "history_entries": 200} {
		if e.Limits[k] != want {
			t.Errorf("limit %s: got %d, want %d", k, e.Limits[k], want)
		}
	}
	if !strings.Contains(w.log.text(), "bot/1.0") {
		t.Error("the device is not in the log")
	}
}

func TestGuestsComeBackToTheirNames(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect()
	first := c.do(`{"type":"hello","guest":"ann"}`)
	if first.User != "ann" || first.Class != "guest" || first.Secret == "" || first.Roles != nil {
		t.Fatalf("got %+v", first)
	}
	other := w.connect()
	defer other.end()
	e := other.do(`{"type":"hello","guest":"ann"}`)
	checkError(t, e, chat.CodeNameTaken)
	if e.Retryable {
		t.Error("name_taken says that the same command may help")
	}
	if e := other.do(`{"type":"hello","guest":""}`); e.Type != "welcome" || e.User == "" || e.User == "ann" {
		t.Errorf("a guest without a wish: got %+v", e)
	}
	c.end()
	back := w.connect()
	defer back.end()
	if e := back.do(`{"type":"hello","guest":"ann","secret":%q}`, first.Secret); e.User != "ann" {
		t.Errorf("with the resume secret: got %+v, want ann", e)
	}
}

func TestRefusedHellosCloseWithTheirCode(t *testing.T) {
	hour := time.Hour
	tests := []struct {
		name      string
		setup     func(*setup)
		before    func(*world)
		hello     func(*world) string
		code      chat.Code
		close     int
		reconnect bool
	}{
		{"bad token", nil, nil, func(*world) string { return `"token":"x.y.z"` }, chat.CodeUnauthorized, 4001, false},
		{"expired token", nil, nil, func(w *world) string {
			tok := w.token("mia", time.Second)
			time.Sleep(time.Minute)
			return `"token":"` + tok + `"`
		}, chat.CodeUnauthorized, 4001, false},
		{"guests are off", func(s *setup) { s.guests = false }, nil, func(*world) string { return `"guest":"ann"` }, chat.CodeUnauthorized, 4001, false},
		{"policy refuses", nil, func(w *world) { w.rule(gate.Connect, no("closed_today", "come back tomorrow")) },
			func(*world) string { return `"guest":"ann"` }, chat.CodeDenied, 4003, false},
		{"policy fails", nil, func(w *world) {
			w.rule(gate.Connect, gate.Decision{Failed: true, Reasons: []chat.Reason{{Code: "policy_error"}}})
		}, func(*world) string { return `"guest":"ann"` }, chat.CodePolicyError, 4003, false},
		{"too many of this user", func(s *setup) { s.cfg.ConnectionsPerUser = 1 }, func(w *world) { w.user("mia") },
			func(w *world) string { return `"token":"` + w.token("mia", hour) + `"` }, chat.CodeTooManyConns, 4503, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tt.setup)
				if tt.before != nil {
					tt.before(w)
				}
				c := w.connect()
				e := c.do(`{"type":"hello",%s}`, tt.hello(w))
				checkError(t, e, tt.code)
				c.checkClosed(tt.close, tt.reconnect)
				c.end()
				if w.auth.guests != nil {
					if seated, _ := w.auth.guests.Len(); seated != 0 {
						t.Errorf("got %d guest names still held", seated)
					}
				}
				for x := range w.srv.open {
					x.End()
				}
				if len(w.srv.users) != 0 || w.srv.Open() != 0 {
					t.Errorf("got %d users and %d sessions left", len(w.srv.users), w.srv.Open())
				}
			})
		})
	}
}

func TestConnectionsOfAUserAreCountedUntilTheyEnd(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.cfg.ConnectionsPerUser = 2 })
	a, b := w.user("mia"), w.user("mia")
	a.end()
	c := w.user("mia")
	b.end()
	c.end()
	if len(w.srv.users) != 0 {
		t.Errorf("got %v users left", w.srv.users)
	}
}

func TestATokenEndsWhileItsClientIsConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		c := w.connect()
		c.do(`{"type":"hello","token":%q}`, w.token("mia", time.Minute))
		c.do(`{"type":"join","room":"lobby"}`)
		quick := w.connect() // ends before its token does
		quick.do(`{"type":"hello","token":%q}`, w.token("bob", time.Minute))
		quick.end()
		time.Sleep(time.Minute + expiryLeeway - time.Second)
		if e := c.do(`{"type":"ping"}`); e.Type != "pong" {
			t.Fatalf("within the leeway: got %+v, want a pong", e)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		c.checkClosed(4002, false) // it only listens, and is told all the same
		checkError(t, c.await("why", func(e event) bool { return e.Type == "error" }), chat.CodeTokenExpired)
		c.end()
	})
}

func TestAnExpiredTokenIsNoticedByTheNextCommandToo(t *testing.T) {
	w := newWorld(t, nil)
	c := w.user("mia")
	defer c.end()
	c.x.proof.Store(&proof{expires: time.Now().Add(-time.Second)}) // as when the machine slept and the timer is late
	checkError(t, c.do(`{"type":"send","room":"lobby","nonce":"n1","text":"hi"}`), chat.CodeTokenExpired)
	c.checkClosed(4002, false)
	if w.store.lookups.Load() != 0 {
		t.Error("a nonce was looked up for somebody whose token had ended")
	}
}

func TestATokenUserTakesTheNameFromAGuest(t *testing.T) {
	w := newWorld(t, nil)
	guest := w.guest("mia")
	guest.do(`{"type":"join","room":"lobby"}`)
	mia := w.user("mia")
	defer mia.end()
	guest.checkClosed(4001, false)
	guest.end()
	if n := w.presence.Count("lobby"); n != 0 {
		t.Errorf("got %d members in the lobby, want none", n)
	}
	again := w.connect()
	defer again.end()
	checkError(t, again.do(`{"type":"hello","guest":"mia"}`), chat.CodeNameTaken)
}

func TestTheGateIsToldWhoAndWhere(t *testing.T) {
	w := newWorld(t, nil)
	var got []gate.Input
	w.allow(func(in *gate.Input) gate.Decision { got = append(got, *in); return gate.Decision{Allow: true} })
	c := w.user("mia", "moderator")
	defer c.end()
	c.do(`{"type":"send","room":"lobby","text":"four"}`)
	var actions []string
	for _, in := range got {
		actions = append(actions, in.Action.Name)
		if in.Subject.ID != "mia" || in.Subject.Type != "user" || !slices.Equal(in.Subject.Roles, []string{"moderator"}) ||
			in.Context.Transport != "tcp" || in.Context.Network != "loopback" {
			t.Errorf("%s: got subject %+v, context %+v", in.Action.Name, in.Subject, in.Context)
		}
	}
	if want := []string{gate.Connect, gate.RoomCreate, gate.MessageSend}; !slices.Equal(actions, want) {
		t.Fatalf("got questions %v, want %v", actions, want)
	}
	if r := got[1].Resource; r.Type != "room" || r.ID != "lobby" || r.Exists {
		t.Errorf("room.create: got %+v", r)
	}
	if r := got[2].Resource; !r.Exists || r.Mode != "open" || r.Visibility != "public" || got[2].Subject.RoomRole != "owner" || got[2].Context.TextBytes != 4 {
		t.Errorf("message.send: got %+v, role %q, %d bytes", r, got[2].Subject.RoomRole, got[2].Context.TextBytes)
	}
}
