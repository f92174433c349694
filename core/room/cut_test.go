package room

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/state"
	"parley/core/wire"
)

// record appends an entry that changes the state.
func (w *world) record(id chat.RoomID, kind journal.Kind, changes ...journal.Change) uint64 {
	w.t.Helper()
	w.n++
	e := journal.Entry{ID: chat.MessageID(fmt.Sprintf("id-%d", w.n)), Kind: kind, From: "mia", Time: int64(w.n), Changes: changes}
	receipt, err := w.hub.Record(w.t.Context(), w.room(id), e, false)
	if err != nil {
		w.t.Fatal(err)
	}
	return receipt.Seq
}

func (w *world) ban(id chat.RoomID, u chat.UserID) uint64 {
	return w.record(id, journal.KindBan, state.SetBan(u, &state.Ban{Reason: "spam"}))
}

// guest makes a named peer a member of the room and of one that tells when the
// pump has passed it.
func (w *world) guest(u chat.UserID, id chat.RoomID, s *sink, since *journal.Position) (*Peer, *Member) {
	w.t.Helper()
	p := w.hub.NewPeer(s, true)
	p.Name(u)
	w.joinPeer("clock", p, nil)
	return p, w.joinPeer(id, p, since)
}

// tick returns when the sink has been passed: it shows a message of another
// room that was posted now.
func (w *world) tick(s *sink) {
	w.t.Helper()
	w.post("clock", 1)
	mark := fmt.Sprintf("message %d", w.n)
	s.await(w.t, mark, func(s *sink) bool {
		return slices.ContainsFunc(s.events(w.t), func(e event) bool { return e.Room == "clock" && e.Text == mark })
	})
}

// heard returns the seqs of the room's entries that the sink got.
func (w *world) heard(s *sink, id string) (seqs []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events(w.t) {
		if e.Room == id && slices.Contains([]string{"message", "ban", "kick", "role", "settings"}, e.Type) {
			seqs = append(seqs, e.Seq)
		}
	}
	return seqs
}

func upTo(n uint64) (seqs []uint64) {
	for seq := uint64(1); seq <= n; seq++ {
		seqs = append(seqs, seq)
	}
	return seqs
}

// TestNothingFollowsTheEntryThatPutsSomebodyOut: even where nobody has ended
// the membership yet.
func TestNothingFollowsTheEntryThatPutsSomebodyOut(t *testing.T) {
	for _, kind := range []string{"ban", "kick"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Shards = 1 }, nil)
			bob, ann := newSink(-1), newSink(-1)
			_, out := w.guest("bob", "lobby", bob, nil)
			_, stays := w.guest("ann", "lobby", ann, nil)
			w.post("lobby", 2)
			w.tick(bob)
			at := uint64(0)
			if kind == "ban" {
				at = w.ban("lobby", "bob")
			} else {
				at = w.record("lobby", journal.KindKick, state.Kick("bob"))
			}
			w.post("lobby", 3)
			w.room("lobby").Announce(wire.Encode(wire.PresenceEvent{Type: wire.Presence, Room: "lobby", Event: "join", User: "eve", Count: 3}), "")
			ann.awaitSeq(t, at+3)
			w.tick(bob)
			if got, want := w.heard(bob, "lobby"), upTo(at); !slices.Equal(got, want) {
				t.Errorf("bob: got %v, want %v", got, want)
			}
			if got, want := w.heard(ann, "lobby"), upTo(at+3); !slices.Equal(got, want) {
				t.Errorf("ann: got %v, want %v", got, want)
			}
			if !out.Out() || stays.Out() {
				t.Errorf("got out %v and %v, want bob out alone", out.Out(), stays.Out())
			}
			if !out.Leave() || out.Leave() {
				t.Error("a membership does not end exactly once")
			}
			again := w.joinPeer("lobby", out.peer, nil) // whether he may is not the room's to say
			w.post("lobby", 1)
			bob.awaitSeq(t, at+4)
			if again.Out() {
				t.Error("the old entry puts the new member out")
			}
		})
	}
}

// TestWhoIsBehindGetsTheLogUpToTheirBan: from the ring or from the journal,
// wherever the rest is.
func TestWhoIsBehindGetsTheLogUpToTheirBan(t *testing.T) {
	for _, tc := range []struct {
		name          string
		before, after int
	}{{"in the ring", 2, 2}, {"before the ring", 20, 20}, {"the ban in the ring", 20, 2}} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, small, nil)
			bob := newSink(0) // full from the beginning
			p := w.hub.NewPeer(bob, true)
			p.Name("bob")
			m := w.joinPeer("lobby", p, nil)
			w.post("lobby", tc.before)
			at := w.ban("lobby", "bob")
			w.post("lobby", tc.after)
			bob.open(-1)
			bob.awaitSeq(t, at)
			p2, _ := w.join("lobby", newSink(-1), nil)
			defer p2.Detach()
			w.joinPeer("clock", p, nil)
			w.tick(bob)
			if got, want := w.heard(bob, "lobby"), upTo(at); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if !m.Out() {
				t.Error("bob is not out")
			}
		})
	}
}

// TestAnOldBanDoesNotEndAReplay: who was banned, freed and has come back
// resumes over it.
func TestAnOldBanDoesNotEndAReplay(t *testing.T) {
	w := newWorld(t, small, nil)
	first := w.post("lobby", 1)
	w.ban("lobby", "bob")
	w.record("lobby", journal.KindBan, state.SetBan("bob", nil))
	last := w.post("lobby", 20)
	bob := newSink(-1)
	_, m := w.guest("bob", "lobby", bob, &journal.Position{Epoch: first.Epoch, Seq: 1, ID: first.ID})
	bob.awaitSeq(t, last.Seq)
	if got, want := w.heard(bob, "lobby"), upTo(last.Seq)[1:]; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if m.Out() {
		t.Error("bob is out")
	}
}

// TestChangesAreTold: once the room shows them, with what they do to people.
func TestChangesAreTold(t *testing.T) {
	w := newWorld(t, nil, nil)
	told := make(chan Change, 16)
	seen := make(chan bool, 16)
	w.hub.OnChange(func(r *Room, c Change) {
		_, banned := r.State().Ban("bob", time.Now())
		seen <- banned
		told <- c
	})
	w.post("lobby", 1)
	w.ban("lobby", "eve") // nobody is there to be told of
	w.guest("ann", "lobby", newSink(-1), nil)
	at := w.ban("lobby", "bob")
	if !<-seen {
		t.Error("told before the room shows it")
	}
	if c := <-told; c.Entry == nil || c.Entry.Seq != at || c.User != "bob" || !c.Out || c.Ban == nil || c.Ban.Reason != "spam" {
		t.Errorf("got %+v", c)
	}
	w.record("lobby", journal.KindSettings, state.SetSettings(state.DefaultSettings()))
	if c := <-told; c.Entry == nil || c.User != "" || c.Out {
		t.Errorf("got %+v, want one that concerns everybody", c)
	}
}

func TestAJoinThatIsRefusedAtTheLastMomentLeavesNothing(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.post("lobby", 1)
	p := w.hub.NewPeer(newSink(-1), true)
	no := errors.New("no")
	if _, err := w.hub.Join(context.Background(), "lobby", p, nil, func(*Room, JoinInfo) (wire.Frame, error) { return wire.Frame{}, no }); !errors.Is(err, no) {
		t.Errorf("got %v, want %v", err, no)
	}
	if n := w.room("lobby").refs.Load(); n != 0 || p.Rooms() != 0 {
		t.Errorf("got %d members and %d rooms, want none", n, p.Rooms())
	}
}
