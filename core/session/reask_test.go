package session

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/journal"
	"parley/core/state"
)

// TestAnotherPolicyPutsOutWithinASecond everybody who may not be there any
// more, of many, and nobody else.
func TestAnotherPolicyPutsOutWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		var all []*caller
		for i := range 300 {
			c := w.guest(fmt.Sprintf("guest-%d", i))
			c.all(`{"type":"join","rooms":[{"room":"lobby"},{"room":"news"}]}`)
			all = append(all, c)
		}
		strange := w.connect() // has not said hello
		mia := w.user("mia")
		mia.do(`{"type":"join","room":"lobby"}`)
		w.adopt(func(in *gate.Input) gate.Decision {
			if in.Action.Name == gate.RoomJoin && in.Resource.ID == "lobby" && in.Subject.Type == "guest" {
				d := no("members_only", "The lobby is for people with an account now.")
				d.ID = "decision-7"
				return d
			}
			return gate.Decision{Allow: true}
		})
		time.Sleep(time.Second)
		synctest.Wait()
		for _, c := range all {
			e := c.left("lobby")
			if e.Code != "denied" || e.Decision != "decision-7" || e.Text != "The lobby is for people with an account now." || len(e.Reasons) != 1 || e.Reasons[0].Code != "members_only" {
				t.Fatalf("got %+v", e)
			}
			if c.x.peer.Member("lobby") != nil || c.x.peer.Member("news") == nil {
				t.Fatal("a guest is still in the lobby, or was put out of the news")
			}
		}
		if mia.x.peer.Member("lobby") == nil || w.presence.Count("lobby") != 1 || w.presence.Count("news") != 300 {
			t.Errorf("got %d people in the lobby and %d in the news", w.presence.Count("lobby"), w.presence.Count("news"))
		}
		if n := w.srv.stats.PutOut.Load(); n != 300 {
			t.Errorf("counted %d put out, want 300", n)
		}
		for _, c := range append(all, mia, strange) {
			c.end()
		}
	})
}

// TestTwoChangesInARow: the second is not lost while the first is acted on.
func TestTwoChangesInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		var all []*caller
		for i := range 200 { // several parts
			c := w.guest(fmt.Sprintf("guest-%d", i))
			c.do(`{"type":"join","room":"lobby"}`)
			all = append(all, c)
		}
		w.adopt(nil)
		time.Sleep(reaskPause + reaskPause/2) // the first round is under way
		w.adopt(func(in *gate.Input) gate.Decision {
			if in.Action.Name == gate.RoomJoin {
				return gate.Decision{Failed: true}
			}
			return gate.Decision{Allow: true}
		})
		time.Sleep(time.Second)
		synctest.Wait()
		for _, c := range all {
			if e := c.left("lobby"); e.Code != "policy_error" {
				t.Fatalf("got %+v, want policy_error", e)
			}
			c.end()
		}
	})
}

// TestWhatARoomBecomesIsAskedAbout: people leave a room that is not for them
// any more.
func TestWhatARoomBecomesIsAskedAbout(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	ann, bob := w.user("ann"), w.guest("bob")
	defer ann.end()
	defer bob.end()
	mia.ok(`{"type":"role","room":"lobby","user":"ann","role":"member"}`)
	ann.do(`{"type":"join","room":"lobby"}`)
	bob.do(`{"type":"join","room":"lobby"}`)
	mia.ok(`{"type":"configure","room":"lobby","visibility":"private"}`)
	if e := bob.left("lobby"); e.Code != "denied" || len(e.Reasons) != 1 || e.Reasons[0].Code != "private_room" {
		t.Errorf("bob: got %+v, want private_room", e)
	}
	if ann.x.peer.Member("lobby") == nil || mia.x.peer.Member("lobby") == nil {
		t.Error("somebody with a role is out")
	}
	mia.ok(`{"type":"role","room":"lobby","user":"ann","role":"none"}`)
	if e := ann.left("lobby"); e.Code != "denied" || e.Reasons[0].Code != "private_room" {
		t.Errorf("ann: got %+v, want private_room", e)
	}
}

// TestAnEntryOfAnotherNodeActsToo: as the admin API's and other nodes' do.
func TestAnEntryOfAnotherNodeActsToo(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	bob := w.guest("bob")
	defer bob.end()
	bob.do(`{"type":"join","room":"lobby"}`)
	e := journal.Entry{ID: "from-elsewhere", Kind: journal.KindBan, From: "admin", Time: 1, Changes: []journal.Change{state.SetBan("bob", &state.Ban{By: "admin"})}}
	if _, err := w.store.Journal.Append(t.Context(), journal.Request{Room: "lobby", Entry: e}); err != nil {
		t.Fatal(err)
	}
	if e := bob.left("lobby"); e.Code != "banned" || e.Text == "" || e.By != "admin" || e.UntilTS != 0 || e.Decision != "" {
		t.Errorf("got %+v", e)
	}
}

// TestAJoinThatIsOvertaken by what would have refused it is refused, or undone.
func TestAJoinThatIsOvertaken(t *testing.T) {
	for _, tc := range []struct {
		name string
		what func(w *world, bob *caller, mia *caller)
		code string
	}{
		{"by a ban", func(_ *world, _, mia *caller) { mia.ok(`{"type":"ban","room":"lobby","user":"bob"}`) }, "banned"},
		{"by a policy", func(w *world, _, _ *caller) {
			w.srv.rules.Add(1)
			w.rule(gate.RoomJoin, no("closed", "Closed."))
		}, "closed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, mia := court(t)
			defer mia.end()
			bob := w.guest("bob")
			defer bob.end()
			once, rules := false, *w.rules.Load()
			w.allow(func(in *gate.Input) gate.Decision {
				d := rules(in)
				if in.Action.Name == gate.RoomJoin && in.Subject.ID == "bob" && !once { // decided; now the world moves
					once = true
					w.allow(rules)
					tc.what(w, bob, mia)
				}
				return d
			})
			bob.refused(tc.code, `{"type":"join","room":"lobby"}`)
			if bob.x.peer.Member("lobby") != nil || w.presence.Count("lobby") != 1 {
				t.Error("bob is in the lobby, or counted there")
			}
		})
	}
}

// TestABanWhileTheJoinIsAnswered: the membership is not to be found yet when
// the ban's entry is acted on, and ends all the same.
func TestABanWhileTheJoinIsAnswered(t *testing.T) {
	for _, command := range []string{"ban", "kick"} {
		w, mia := court(t)
		bob := w.connect()
		bob.onWrite = func(b []byte) {
			if strings.Contains(string(b), `"type":"joined"`) {
				mia.ok(`{"type":%q,"room":"lobby","user":"bob"}`, command)
			}
		}
		bob.do(`{"type":"hello","guest":"bob"}`)
		if e := bob.do(`{"type":"join","room":"lobby"}`); e.Type != "joined" {
			t.Fatalf("%s: got %+v", command, e)
		}
		bob.left("lobby")
		text := mia.ok(`{"type":"send","room":"lobby","text":"gone?"}`)
		mia.await("her own message", func(e event) bool { return e.Type == "message" && e.Seq == text.Seq })
		if bob.x.peer.Member("lobby") != nil || w.presence.Count("lobby") != 1 {
			t.Errorf("%s: bob is in the lobby, or counted there", command)
		}
		for _, e := range bob.events() {
			if e.Type == "message" {
				t.Errorf("%s: bob heard %+v", command, e)
			}
		}
		bob.end()
		mia.end()
	}
}

// TestABanThatIsActedOnBeforeTheJoinIsThere: the join finds out by itself.
func TestABanThatIsActedOnBeforeTheJoinIsThere(t *testing.T) {
	for _, command := range []string{"ban", "kick"} {
		w, mia := court(t)
		eve, bob := w.guest("eve"), w.guest("bob")
		eve.do(`{"type":"join","room":"lobby"}`)
		asked, rules := 0, *w.rules.Load()
		w.allow(func(in *gate.Input) gate.Decision {
			d := rules(in)
			if in.Action.Name != gate.RoomJoin || in.Subject.ID != "bob" {
				return d
			}
			switch asked++; asked {
			case 1: // the room moves on, so that bob is asked about once more
				mia.ok(`{"type":"slow_mode","room":"lobby","seconds":1}`)
			case 2: // too late for this answer; and all who are there have been told when eve is
				mia.ok(`{"type":%q,"room":"lobby","user":"bob"}`, command)
				mia.ok(`{"type":"kick","room":"lobby","user":"eve"}`)
				eve.left("lobby")
			}
			return d
		})
		if e := bob.do(`{"type":"join","room":"lobby"}`); e.Type != "joined" {
			t.Fatalf("%s: got %+v", command, e)
		}
		if bob.x.peer.Member("lobby") != nil || w.presence.Count("lobby") != 1 {
			t.Errorf("%s: bob is in the lobby, or counted there", command)
		}
		if e := bob.left("lobby"); e.Code != map[string]string{"ban": "banned", "kick": "kicked"}[command] || e.Text == "" {
			t.Errorf("%s: got %+v", command, e)
		}
		for _, c := range []*caller{bob, eve, mia} {
			c.end()
		}
	}
}

func TestRefreshGoesOnWithTheNewToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		c := w.connect()
		begin := time.Now()
		if e := c.do(`{"type":"hello","token":%q}`, w.token("mia", time.Minute)); e.ExpiresTS != begin.Add(time.Minute).Unix()*1000 {
			t.Errorf("the welcome says %v, want in a minute", time.UnixMilli(e.ExpiresTS).Sub(begin))
		}
		c.do(`{"type":"join","room":"lobby"}`)
		time.Sleep(50 * time.Second)
		e := c.do(`{"type":"refresh","token":%q}`, w.token("mia", time.Minute, "moderator", "admin"))
		if e.Type != "refreshed" || strings.Join(e.Roles, " ") != "admin moderator" || e.ExpiresTS != time.Now().Add(time.Minute).Unix()*1000 {
			t.Errorf("got %+v", e)
		}
		time.Sleep(time.Minute) // past the first one's end
		synctest.Wait()
		if e := c.do(`{"type":"ping"}`); e.Type != "pong" || c.x.peer.Member("lobby") == nil {
			t.Errorf("after the first token's end: got %+v", e)
		}
		asked := ""
		w.allow(func(in *gate.Input) gate.Decision {
			asked = strings.Join(in.Subject.Roles, " ")
			return gate.Decision{Allow: true}
		})
		c.do(`{"type":"members","room":"lobby"}`)
		if asked != "admin moderator" {
			t.Errorf("the policy was told of the roles %q", asked)
		}
		time.Sleep(expiryLeeway + time.Second)
		synctest.Wait()
		c.checkClosed(4002, false)
		c.end()
	})
}

func TestRefreshIsForTheSameUser(t *testing.T) {
	w := newWorld(t, nil)
	mia, ann := w.user("mia"), w.guest("ann")
	defer mia.end()
	defer ann.end()
	checkError(t, mia.do(`{"type":"refresh","token":%q}`, w.token("max", time.Hour)), chat.CodeUnauthorized)
	checkError(t, mia.do(`{"type":"refresh","token":"x.y.z"}`), chat.CodeUnauthorized)
	checkError(t, ann.do(`{"type":"refresh","token":%q}`, w.token("max", time.Hour)), chat.CodeBadState)
	if e := mia.do(`{"type":"ping"}`); e.Type != "pong" {
		t.Errorf("after tokens that were refused: got %+v, want the connection to go on", e)
	}
	checkError(t, w.connect().do(`{"type":"refresh","token":"x"}`), chat.CodeBadState)
}

// TestARefreshIsAskedAbout: with fewer roles, rooms and even the connection may
// be lost.
func TestARefreshIsAskedAbout(t *testing.T) {
	w := newWorld(t, nil)
	mia := w.user("mia", "staff", "crew")
	w.allow(func(in *gate.Input) gate.Decision {
		roles := strings.Join(in.Subject.Roles, " ")
		if in.Action.Name == gate.RoomJoin && in.Resource.ID == "office" && !strings.Contains(roles, "staff") {
			return no("staff_only", "The office is for staff.")
		}
		if in.Action.Name == gate.Connect && roles == "" {
			return no("roles_only", "Nobody without a role.")
		}
		return gate.Decision{Allow: true}
	})
	mia.all(`{"type":"join","rooms":[{"room":"office"},{"room":"lobby"}]}`)
	if e := mia.do(`{"type":"refresh","token":%q}`, w.token("mia", time.Hour, "crew")); e.Type != "refreshed" {
		t.Fatalf("got %+v", e)
	}
	if e := mia.left("office"); e.Reasons[0].Code != "staff_only" || mia.x.peer.Member("lobby") == nil {
		t.Errorf("got %+v, want to be out of the office alone", e)
	}
	mia.refused("roles_only", `{"type":"refresh","token":%q}`, w.token("mia", time.Hour))
	mia.checkClosed(4003, false)
	mia.end()
	if n := w.presence.Count("lobby"); n != 0 {
		t.Errorf("got %d in the lobby, want nobody", n)
	}
}
