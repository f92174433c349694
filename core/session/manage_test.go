package session

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/journal"
	"parley/core/state"
)

// left waits until the client is told that it was put out of the room, after
// what it has been told so far.
func (c *caller) left(room string) event {
	c.w.t.Helper()
	return c.await("left "+room, func(e event) bool { return e.Type == "left" && e.Room == room && e.ID == "" })
}

// ok carries out a command that must be acked.
func (c *caller) ok(format string, args ...any) event {
	c.w.t.Helper()
	e := c.do(format, args...)
	if e.Type != "ack" || e.Seq == 0 || e.MessageID == "" || e.Outcome != "accepted" {
		c.w.t.Fatalf("%s: got %+v, want an ack", fmt.Sprintf(format, args...), e)
	}
	return e
}

// refused carries out a command that the policy must refuse with the code.
func (c *caller) refused(code, format string, args ...any) {
	c.w.t.Helper()
	e := c.do(format, args...)
	if e.Type != "error" || len(e.Reasons) != 1 || e.Reasons[0].Code != code {
		c.w.t.Errorf("%s: got %+v, want it refused as %s", fmt.Sprintf(format, args...), e, code)
	}
}

// court is a room "lobby" of mia's, who is in it, under the default policy.
func court(t *testing.T) (w *world, mia *caller) {
	w = newWorld(t, nil)
	w.law()
	mia = w.user("mia")
	if e := mia.do(`{"type":"join","room":"lobby"}`); e.Type != "joined" {
		t.Fatalf("got %+v", e)
	}
	return w, mia
}

func (w *world) lobby() *state.Room {
	w.t.Helper()
	return must(w.hub.Room(w.t.Context(), "lobby")).State()
}

// last returns the newest entry of the lobby.
func (w *world) last() journal.Entry {
	w.t.Helper()
	_, es, err := w.store.Journal.ReadBefore(w.t.Context(), "lobby", 0, 1)
	if err != nil || len(es) != 1 {
		w.t.Fatal(es, err)
	}
	return es[0]
}

func TestTheOwnerRunsARoom(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	ann := w.user("ann")
	defer ann.end()
	tests := []struct {
		command string
		kind    journal.Kind
		text    string
		check   func(*state.Room) bool
	}{
		{`"type":"configure","title":"The  Lobby","mode":"announce"`, "settings", "", func(r *state.Room) bool {
			return r.Settings == state.Settings{Title: "The  Lobby", Mode: "announce", Visibility: "public"}
		}},
		{`"type":"slow_mode","seconds":30`, "settings", "", func(r *state.Room) bool {
			return r.Settings == state.Settings{Title: "The  Lobby", Mode: "announce", Visibility: "public", SlowModeS: 30}
		}},
		{`"type":"configure","title":"","slow_mode_s":0,"mode":"open"`, "settings", "", func(r *state.Room) bool { return r.Settings == state.DefaultSettings() }},
		{`"type":"slow_mode"`, "settings", "", func(r *state.Room) bool { return r.Settings.SlowModeS == 0 }},
		{`"type":"role","user":"ann","role":"moderator","reason":"welcome"`, "role", "welcome", func(r *state.Room) bool { return r.Role("ann") == "moderator" }},
		{`"type":"role","user":"ann","role":"none"`, "role", "", func(r *state.Room) bool { return r.Role("ann") == "" }},
		{`"type":"mute","user":"ann","reason":"shh"`, "ban", "", func(r *state.Room) bool {
			b, on := r.Mute("ann", time.Now())
			return on && b == state.Ban{Reason: "shh", By: "mia"}
		}},
		{`"type":"unmute","user":"ann","reason":"go on"`, "ban", "go on", func(r *state.Room) bool { _, on := r.Mute("ann", time.Now()); return !on }},
		{`"type":"ban","user":"ann","seconds":60`, "ban", "", func(r *state.Room) bool {
			b, on := r.Ban("ann", time.Now())
			return on && b.By == "mia" && b.Until > time.Now().UnixMilli() && b.Until <= time.Now().Add(time.Minute).UnixMilli()
		}},
		{`"type":"unban","user":"ann"`, "ban", "", func(r *state.Room) bool { _, on := r.Ban("ann", time.Now()); return !on }},
		{`"type":"role","user":"ann","role":"member"`, "role", "", func(r *state.Room) bool { return r.Role("ann") == "member" }},
		{`"type":"kick","user":"ann","reason":"rest\na little"`, "kick", "rest a little", func(r *state.Room) bool { return r.Role("ann") == "" }},
	}
	for _, tc := range tests {
		ack := mia.ok(`{"room":"lobby",%s}`, tc.command)
		if !tc.check(w.lobby()) { // already, when the ack comes
			t.Errorf("%s: the room is %+v", tc.command, w.lobby())
		}
		e := w.last()
		if e.Seq != ack.Seq || string(e.ID) != ack.MessageID || e.Kind != tc.kind || e.From != "mia" || e.Text != tc.text || len(e.Changes) != 1 {
			t.Errorf("%s: recorded as %+v", tc.command, e)
		}
		again, err := state.Load(must(w.store.Info(t.Context(), "lobby")).State)
		if err != nil || !tc.check(again) {
			t.Errorf("%s: stored as %+v, %v", tc.command, again, err)
		}
		mia.await("the entry", func(e event) bool { return e.Type == string(tc.kind) && e.Seq == ack.Seq })
	}
}

func TestRankDecidesWhoDoesWhatToWhom(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	max, ann, eve, guest := w.user("max"), w.user("ann"), w.user("eve", "moderator"), w.guest("guest")
	for _, c := range []*caller{max, ann, eve, guest} {
		defer c.end()
	}
	mia.ok(`{"type":"role","room":"lobby","user":"max","role":"moderator"}`)
	for _, command := range []string{"kick", "ban", "mute", "unban", "unmute"} {
		max.refused("outranked", `{"type":%q,"room":"lobby","user":"mia"}`, command)
		max.refused("yourself", `{"type":%q,"room":"lobby","user":"max"}`, command)
		ann.refused("moderators_manage", `{"type":%q,"room":"lobby","user":"guest"}`, command)
		guest.refused("moderators_manage", `{"type":%q,"room":"lobby","user":"ann"}`, command)
		max.ok(`{"type":%q,"room":"lobby","user":"somebody"}`, command)
	}
	max.refused("outranked", `{"type":"role","room":"lobby","user":"ann","role":"moderator"}`)
	max.ok(`{"type":"role","room":"lobby","user":"ann","role":"member"}`)
	mia.refused("needs_account", `{"type":"role","room":"lobby","user":"guest","role":"member"}`)
	mia.refused("needs_account", `{"type":"role","room":"lobby","user":"never-seen","role":"owner"}`)
	max.refused("owners_manage", `{"type":"configure","room":"lobby","visibility":"private"}`)
	max.refused("owners_manage", `{"type":"configure","room":"lobby","mode":"archived"}`)
	max.ok(`{"type":"configure","room":"lobby","mode":"read-only","visibility":"public"}`) // names it, and changes it not
	ann.refused("moderators_manage", `{"type":"slow_mode","room":"lobby","seconds":5}`)
	eve.ok(`{"type":"kick","room":"lobby","user":"mia"}`) // of the whole server
	if role := w.lobby().Role("mia"); role != "" {
		t.Errorf("mia was kicked and still is %s", role)
	}
	mia.refused("moderators_manage", `{"type":"unmute","room":"lobby","user":"ann"}`)
	checkError(t, eve.do(`{"type":"kick","room":"nowhere","user":"ann"}`), chat.CodeNoRoom)
}

// TestABanActsOnEveryConnectionAtOnce: they are told why, hear nothing more,
// and can neither come back, nor read, nor write, until it is lifted.
func TestABanActsOnEveryConnectionAtOnce(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	bobs := []*caller{w.user("bob"), w.user("bob"), w.user("bob")}
	for i, b := range bobs {
		defer b.end()
		b.do(`{"type":"join","room":"elsewhere"}`)
		if i < 2 {
			b.do(`{"type":"join","room":"lobby"}`)
		}
	}
	at := mia.ok(`{"type":"ban","room":"lobby","user":"bob","seconds":3600,"reason":"spam"}`).Seq
	for _, b := range bobs[:2] {
		e := b.left("lobby")
		if e.Code != "banned" || e.Text != "spam" || e.By != "mia" || time.Until(time.UnixMilli(e.UntilTS)) < 59*time.Minute {
			t.Errorf("got %+v, want a ban for an hour by mia", e)
		}
	}
	if n := w.presence.Count("lobby"); n != 1 {
		t.Errorf("got %d people in the lobby, want mia alone", n)
	}
	mia.ok(`{"type":"send","room":"lobby","text":"he is gone"}`)
	mia.await("her own message", func(e event) bool { return e.Text == "he is gone" })
	for _, b := range bobs {
		for _, command := range []string{`"join"`, `"history"`, `"members"`, `"send","text":"hi"`} {
			b.refused("banned", `{"room":"lobby","type":%s}`, command)
		}
		b.do(`{"type":"ping"}`)
		for _, e := range b.events() {
			if e.Room == "lobby" && e.Seq > at {
				t.Errorf("bob heard %+v after his ban at %d", e, at)
			}
		}
		if b.x.peer.Member("elsewhere") == nil {
			t.Error("bob left another room too")
		}
	}
	mia.ok(`{"type":"unban","room":"lobby","user":"bob"}`)
	if e := bobs[0].do(`{"type":"join","room":"lobby"}`); e.Type != "joined" {
		t.Errorf("after the ban: got %+v, want joined", e)
	}
	if n := w.srv.stats.PutOut.Load(); n != 2 {
		t.Errorf("counted %d put out, want 2", n)
	}
}

func TestAKickedPersonMayComeBackWhereTheyMayBe(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	bob := w.user("bob")
	defer bob.end()
	bob.do(`{"type":"join","room":"lobby"}`)
	mia.ok(`{"type":"kick","room":"lobby","user":"bob"}`)
	if e := bob.left("lobby"); e.Code != "kicked" || e.Text == "" || e.By != "mia" {
		t.Errorf("got %+v", e)
	}
	if e := bob.do(`{"type":"join","room":"lobby"}`); e.Type != "joined" {
		t.Fatalf("into a public room: got %+v, want joined", e)
	}
	text := mia.ok(`{"type":"send","room":"lobby","text":"welcome back"}`)
	bob.await("what follows", func(e event) bool { return e.Type == "message" && e.Seq == text.Seq })

	mia.ok(`{"type":"role","room":"lobby","user":"bob","role":"member"}`)
	mia.ok(`{"type":"configure","room":"lobby","visibility":"private"}`)
	bob.taken()
	mia.ok(`{"type":"kick","room":"lobby","user":"bob"}`)
	bob.left("lobby")
	bob.refused("private_room", `{"type":"join","room":"lobby"}`)
}

// TestTimedBansAndMutesEndByThemselves in no real time.
func TestTimedBansAndMutesEndByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, mia := court(t)
		bob := w.guest("bob")
		bob.do(`{"type":"join","room":"lobby"}`)
		mia.ok(`{"type":"mute","room":"lobby","user":"bob","seconds":60}`)
		bob.refused("muted", `{"type":"send","room":"lobby","text":"hi"}`)
		if bob.x.peer.Member("lobby") == nil {
			t.Error("a mute puts people out")
		}
		time.Sleep(time.Minute)
		bob.ok(`{"type":"send","room":"lobby","text":"hi"}`)
		mia.ok(`{"type":"ban","room":"lobby","user":"bob","seconds":60}`)
		synctest.Wait()
		bob.left("lobby")
		time.Sleep(time.Minute - time.Millisecond)
		bob.refused("banned", `{"type":"join","room":"lobby"}`)
		time.Sleep(time.Millisecond)
		if e := bob.do(`{"type":"join","room":"lobby"}`); e.Type != "joined" {
			t.Errorf("got %+v, want joined", e)
		}
		bob.end()
		mia.end()
	})
}

// TestAResentCommandIsDoneOnce also when it would be refused by now.
func TestAResentCommandIsDoneOnce(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	max := w.user("max")
	defer max.end()
	mia.ok(`{"type":"role","room":"lobby","user":"max","role":"moderator"}`)
	const ban = `{"type":"ban","room":"lobby","user":"bob","nonce":"b1"}`
	first := max.ok(ban)
	again := max.do(ban)
	if !again.Repeat || again.Seq != first.Seq || again.MessageID != first.MessageID {
		t.Errorf("got %+v, want the first answer %+v again", again, first)
	}
	mia.ok(`{"type":"unban","room":"lobby","user":"bob"}`)
	mia.ok(`{"type":"role","room":"lobby","user":"max","role":"none"}`)
	if e := max.do(ban); !e.Repeat || e.Seq != first.Seq {
		t.Errorf("after losing the role: got %+v, want the first answer again", e)
	}
	max.refused("moderators_manage", `{"type":"ban","room":"lobby","user":"bob","nonce":"b2"}`)
	if _, banned := w.lobby().Ban("bob", time.Now()); banned {
		t.Error("the resend banned bob anew")
	}
}

func TestWhatTheStoreCannotRecordHasNotHappened(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	bob := w.guest("bob")
	defer bob.end()
	bob.do(`{"type":"join","room":"lobby"}`)
	w.store.failing(journal.ErrUnavailable)
	checkError(t, mia.do(`{"type":"ban","room":"lobby","user":"bob"}`), chat.CodeUnavailable)
	w.store.failing(nil)
	if _, banned := w.lobby().Ban("bob", time.Now()); banned || bob.x.peer.Member("lobby") == nil {
		t.Error("bob is banned or out")
	}
	w.rule(gate.MemberBan, gate.Decision{Failed: true})
	checkError(t, mia.do(`{"type":"ban","room":"lobby","user":"bob"}`), chat.CodePolicyError)
}

// TestThePolicyIsAskedWithEverything: the input of each command, field by field.
func TestThePolicyIsAskedWithEverything(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	ann := w.user("ann")
	defer ann.end()
	mia.ok(`{"type":"mute","room":"lobby","user":"ann"}`)
	mia.ok(`{"type":"ban","room":"lobby","user":"bob"}`)
	mia.ok(`{"type":"role","room":"lobby","user":"ann","role":"member"}`)
	annThere := gate.Target{Type: "user", ID: "ann", RoomRole: "member", Muted: true}
	for _, tc := range []struct {
		command string
		action  gate.Action
		target  gate.Target
	}{
		{`"type":"configure","title":"x","mode":"archived","visibility":"public"`, gate.Action{Name: "room.configure", Changes: []string{"mode", "title"}, Mode: "archived", Visibility: "public"}, gate.Target{}},
		{`"type":"slow_mode","seconds":7`, gate.Action{Name: "room.configure", Changes: []string{"slow_mode"}, Mode: "open", Visibility: "public", SlowModeS: 7}, gate.Target{}},
		{`"type":"slow_mode"`, gate.Action{Name: "room.configure", Changes: []string{}, Mode: "open", Visibility: "public"}, gate.Target{}},
		{`"type":"role","user":"ann","role":"owner"`, gate.Action{Name: "member.role", Role: "owner"}, annThere},
		{`"type":"role","user":"ann","role":"none"`, gate.Action{Name: "member.role"}, annThere},
		{`"type":"kick","user":"mia"`, gate.Action{Name: "member.kick"}, gate.Target{Type: "user", ID: "mia", Self: true, RoomRole: "owner"}},
		{`"type":"ban","user":"ann","seconds":9`, gate.Action{Name: "member.ban", Seconds: 9}, annThere},
		{`"type":"unban","user":"bob"`, gate.Action{Name: "member.ban", Lift: true}, gate.Target{Type: "guest", ID: "bob", Banned: true}},
		{`"type":"mute","user":"bob"`, gate.Action{Name: "member.mute"}, gate.Target{Type: "guest", ID: "bob", Banned: true}},
		{`"type":"unmute","user":"ann"`, gate.Action{Name: "member.mute", Lift: true}, annThere},
	} {
		var got *gate.Input
		w.allow(func(in *gate.Input) gate.Decision {
			got = in
			return no("no", "No.")
		})
		mia.refused("no", `{"room":"lobby",%s}`, tc.command)
		if fmt.Sprintf("%+v", got.Action) != fmt.Sprintf("%+v", tc.action) || got.Target != tc.target || got.Subject.RoomRole != "owner" || got.Resource.ID != "lobby" {
			t.Errorf("%s: got %+v, want %+v and %+v", tc.command, got, tc.action, tc.target)
		}
	}
}

// TestKicksAndJoinsRace: whatever the order, nobody stays counted, or in the
// room unknown to it, and who is in it hears.
func TestKicksAndJoinsRace(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	var bobs []*caller
	for range 4 {
		bobs = append(bobs, w.user("bob"))
	}
	var racing sync.WaitGroup
	for _, b := range bobs {
		racing.Go(func() {
			for i := range 40 {
				b.raw(`{"type":"join","room":"lobby"}`)
				if i%5 == 0 {
					b.raw(`{"type":"leave","room":"lobby"}`)
				}
			}
		})
	}
	for i := range 20 {
		command := []string{`"kick"`, `"ban"`, `"unban"`}[i%3]
		mia.ok(`{"room":"lobby","user":"bob","type":%s}`, command)
	}
	racing.Wait()
	mia.ok(`{"room":"lobby","user":"bob","type":"unban"}`)
	for _, b := range bobs {
		b.taken()
		if e := b.do(`{"type":"join","room":"lobby"}`); e.Type != "joined" {
			t.Errorf("got %+v", e)
		}
	}
	text := mia.ok(`{"type":"send","room":"lobby","text":"still there?"}`)
	for _, b := range bobs {
		b.await("the message", func(e event) bool { return e.Seq == text.Seq || e.Type == "left" })
	}
	mia.ok(`{"room":"lobby","user":"bob","type":"ban"}`)
	for _, b := range bobs {
		b.left("lobby")
		b.end()
	}
	if _, users := w.presence.Members(t.Context(), "lobby"); !slices.Equal(users, []chat.UserID{"mia"}) {
		t.Errorf("got %v in the lobby, want mia alone", users)
	}
	if log := w.log.text(); strings.Contains(log, "level=ERROR") {
		t.Errorf("the log has errors:\n%s", log)
	}
}

func TestALongReasonIsRefusedAndABlankTitleIsNone(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	mia.ok(`{"type":"configure","room":"lobby","title":"x"}`)
	mia.ok(`{"type":"configure","room":"lobby","title":"  "}`)
	if title := w.lobby().Settings.Title; title != "" {
		t.Errorf("got title %q, want none", title)
	}
	checkError(t, mia.do(`{"type":"kick","room":"lobby","user":"bob","reason":%q}`, strings.Repeat("x", 501)), chat.CodeBadRequest)
	e := mia.do(`{"type":"configure","room":"lobby","title":%q}`, strings.Repeat("\uFDFA", 66)) // 198 bytes
	if e.Type != "ack" {
		t.Errorf("got %+v, want an ack", e)
	}
}
