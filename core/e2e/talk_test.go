package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/wire"
)

// TestTwoClientsTalk is the main job over both transports at once: join, talk,
// read history, see who is here, leave.
func TestTwoClientsTalk(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil)
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann", Device: "e2e"})
	bob := visit(t, client.Options{URL: n.TCPURL(), Guest: "bob"})
	if w := ann.Welcome(); w.User != "ann" || w.Class != chat.ClassGuest || w.Secret == "" || w.Protocol != 1 {
		t.Fatalf("welcome: got %+v", w)
	}
	before := ann.enters("lobby")
	bob.enters("lobby")
	first(ann, "that bob came", func(e *wire.PresenceEvent) bool { return e.Event == "join" && e.User == "bob" && e.Count == 2 })

	hi, nonceHi := ann.says("lobby", "hi bob")
	if got := bob.hears(nonceHi); got.From != "ann" || got.Text != "hi bob" || got.Seq != hi.Seq || got.ID != hi.MessageID {
		t.Errorf("bob heard %+v, want what ann's ack says: %+v", got, hi)
	}
	back, nonceBack := bob.says("lobby", "hi ann ☕")
	if got := ann.hears(nonceBack); got.From != "bob" || got.Text != "hi ann ☕" || got.Seq != back.Seq {
		t.Errorf("ann heard %+v, want seq %d", got, back.Seq)
	}
	ann.hears(nonceHi) // one's own message comes like anyone's
	if hi.Seq != before.Seq+1 || back.Seq != hi.Seq+1 || hi.Epoch != before.Epoch {
		t.Errorf("seqs after %d: got %d and %d, want the next two", before.Seq, hi.Seq, back.Seq)
	}

	h, err := bob.History(within(t), "lobby", 0, 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Entries) != 2 || h.Entries[0].ID != hi.MessageID || h.Entries[1].ID != back.MessageID || !h.More {
		t.Errorf("history of 2: got %+v, want the two messages and more before", h)
	}
	after, err := bob.History(within(t), "lobby", 0, hi.Seq, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(after.Entries) != 1 || after.Entries[0].Seq != back.Seq || after.More {
		t.Errorf("history after %d: got %+v, want seq %d alone", hi.Seq, after, back.Seq)
	}
	oldest, err := bob.Oldest(within(t), "lobby", 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(oldest.Entries) != 1 || oldest.Entries[0].Seq != 1 || !oldest.More {
		t.Errorf("the oldest entry: got %+v, want seq 1 and more", oldest)
	}
	m, err := ann.Members(within(t), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	if want := []chat.UserID{"ann", "bob"}; m.Count != 2 || !slices.Equal(m.Users, want) {
		t.Errorf("members: got %d %v, want 2 %v", m.Count, m.Users, want)
	}
	if err := bob.Ping(within(t)); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := bob.Leave(within(t), "lobby"); err != nil {
		t.Fatal(err)
	}
	first(ann, "that bob left", func(e *wire.PresenceEvent) bool { return e.Event == "leave" && e.User == "bob" && e.Count == 1 })
	_ = bob.Close()

	if got := n.Metric("parley_messages_total"); got < 2 {
		t.Errorf("parley_messages_total: got %v, want at least 2", got)
	}
	if code, body := n.Get("/healthz"); code != 200 {
		t.Errorf("healthz: got %d %s", code, body)
	}
	n.Logs("ready in ")
	n.Stop()
}

// TestAResendIsPostedOnce sends one nonce twice on one connection, and again
// on another after the first is gone.
func TestAResendIsPostedOnce(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil)
	opt := client.Options{URL: n.TCPURL(), Guest: "ann"}
	ann := visit(t, opt)
	one, err := ann.Send(within(t), "lobby", "n1", "once")
	if err != nil {
		t.Fatal(err)
	}
	opt.Secret = ann.Welcome().Secret
	again := func(v *visitor) {
		t.Helper()
		got, err := v.Send(within(t), "lobby", "n1", "once")
		if err != nil {
			t.Fatal(err)
		}
		if !got.Repeat || got.Seq != one.Seq || got.MessageID != one.MessageID {
			t.Errorf("resend: got %+v, want the first answer as a repeat: %+v", got, one)
		}
	}
	again(ann)
	ann.Cut()
	again(visit(t, opt))
	other := visit(t, client.Options{URL: n.WSURL(), Guest: "bob"})
	got, err := other.Send(within(t), "lobby", "n1", "mine")
	if err != nil || got.Repeat || got.Seq == one.Seq {
		t.Errorf("the same nonce of another user: got %+v, %v; want a message of its own", got, err)
	}
	n.Stop()
}

// TestACutConnectionResumesWithoutAGap cuts a client off while others talk and
// checks that it gets exactly what it missed, over both transports.
func TestACutConnectionResumesWithoutAGap(t *testing.T) {
	t.Parallel()
	n := startNode(t, unlimited(nil))
	for i, name := range []string{"ws", "tcp"} {
		t.Run(name, func(t *testing.T) {
			room := chat.RoomID("room-" + name)
			talker := visit(t, client.Options{URL: n.WSURL()})
			opt := client.Options{URL: n.URL(i), Guest: "walker-" + name}
			walker := visit(t, opt)
			walker.enters(room)
			_, nonce := talker.says(room, "before")
			walker.hears(nonce)
			at, _ := walker.Position(room)
			walker.Cut()

			var missed []uint64
			for k := range 300 { // more than one answer of history holds
				ack, _ := talker.says(room, fmt.Sprintf("missed %d", k))
				missed = append(missed, ack.Seq)
			}
			opt.Secret = walker.Welcome().Secret
			walker = visit(t, opt)
			if u := walker.Welcome().User; u != chat.UserID("walker-"+name) {
				t.Errorf("came back as %q", u)
			}
			j, err := walker.Join(within(t), room, &at)
			if err != nil {
				t.Fatal(err)
			}
			if !j.Recovered {
				t.Fatalf("join since %+v: got %+v, want it recovered", at, j)
			}
			_, live := talker.says(room, "live")
			last := walker.hears(live)
			var got []uint64
			for _, ev := range walker.got() {
				if e, ok := ev.(*wire.EntryEvent); ok {
					got = append(got, e.Seq)
				}
			}
			if want := append(missed, last.Seq); !slices.Equal(got, want) {
				t.Errorf("after the resume came seqs %v, want %v", got, want)
			}

			stranger := at
			stranger.Epoch = "another"
			j, err = walker.Join(within(t), room, &stranger)
			if err != nil || j.Recovered {
				t.Errorf("join since another epoch: got %+v, %v; want recovered false", j, err)
			}
		})
	}
	n.Stop()
}

// TestAnnouncementsRefusesAGuest checks that the refused sender is told which
// rule said no, that a moderator may write, and that the guest reads it.
func TestAnnouncementsRefusesAGuest(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil)
	guest := visit(t, client.Options{URL: n.WSURL(), Guest: "guest"})
	guest.enters("announcements")
	_, err := guest.Send(within(t), "announcements", client.NewNonce(), "me too")
	said := refusal(t, err)
	if said.Code != chat.CodeDenied || len(said.Reasons) != 1 || said.Reasons[0].Code != "moderators_write" ||
		said.Reasons[0].Text == "" || said.Reasons[0].Source != "policy" || said.Retry != 0 {
		t.Errorf("refusal: got %+v, want denied with the reason moderators_write of the policy", said)
	}
	pass, code := n.Platform("token", "--user", "mia", "--role", "moderator")
	if code != 0 {
		t.Fatalf("platform token: exit code %d: %s", code, pass)
	}
	mod := visit(t, client.Options{URL: n.TCPURL(), Token: pass})
	if w := mod.Welcome(); w.User != "mia" || w.Class != chat.ClassUser || !slices.Equal(w.Roles, []string{"moderator"}) {
		t.Errorf("welcome of the moderator: got %+v", w)
	}
	_, nonce := mod.says("announcements", "the shop opens at nine")
	guest.hears(nonce)
	n.Stop()
}

// TestABannedUserIsToldSo bans over the admin API and lifts the ban again.
func TestABannedUserIsToldSo(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil)
	bob := visit(t, client.Options{URL: n.WSURL(), Guest: "bob"})
	bob.says("lobby", "nice place")
	if code, body := n.Ask("PUT", "/v1/rooms/lobby/bans/bob", map[string]any{"reason": "spam"}); code/100 != 2 {
		t.Fatalf("ban: got status %d: %s", code, body)
	}
	_, err := bob.Send(within(t), "lobby", client.NewNonce(), "again")
	if said := refusal(t, err); said.Code != chat.CodeDenied || len(said.Reasons) == 0 || said.Reasons[0].Code != "banned" {
		t.Errorf("send while banned: got %+v, want denied with the reason banned", said)
	}
	if code, body := n.Ask("DELETE", "/v1/rooms/lobby/bans/bob", nil); code/100 != 2 {
		t.Fatalf("lift the ban: got status %d: %s", code, body)
	}
	bob.says("lobby", "thanks")

	h, err := bob.History(within(t), "lobby", 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	bans := 0
	for _, e := range h.Entries {
		if e.Type == "ban" {
			bans++
		}
	}
	if bans != 2 {
		b, _ := json.Marshal(h.Entries)
		t.Errorf("the log holds %d ban entries, want 2: %s", bans, b)
	}
	n.Stop()
}
