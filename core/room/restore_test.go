package room

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/ids"
	"parley/core/journal"
	"parley/core/state"
)

// meddled is a journal whose appends somebody else is quicker than.
type meddled struct {
	journal.Journal
	first atomic.Pointer[func(context.Context)] // done before the next append
	fails atomic.Int32                          // the append, counted from the next, that fails; 0: none
}

func (j *meddled) Append(ctx context.Context, r journal.Request) (journal.Receipt, error) {
	if first := j.first.Swap(nil); first != nil {
		(*first)(ctx)
	}
	if j.fails.Load() > 0 && j.fails.Add(-1) == 0 {
		return journal.Receipt{}, journal.ErrUnavailable
	}
	return j.Journal.Append(ctx, r)
}

func (j *meddled) Renew(ctx context.Context, room chat.RoomID, known journal.Position) error {
	return j.Journal.(journal.Renewer).Renew(ctx, room, known)
}

// A store that has lost a room gets back what the room was, whatever others have
// done meanwhile under its name.
func TestTheStateOfALostRoomIsPutBack(t *testing.T) {
	secret := state.Settings{Mode: state.ModeOpen, Visibility: state.Private, SlowModeS: 3}
	const bans = 100 // more than one entry holds
	squat := func(j journal.Journal) func(context.Context) error {
		return func(ctx context.Context) error {
			id := chat.MessageID(ids.New())
			_, err := j.Append(ctx, journal.Request{Room: "staff", Create: true, Entry: journal.Entry{ID: id, Kind: journal.KindSettings, From: "eve",
				Changes: []journal.Change{state.SetSettings(state.DefaultSettings()), state.SetRole("eve", state.RoleOwner), state.SetFirst(id)}}})
			return err
		}
	}
	for _, name := range []string{"nobody was there", "somebody was", "somebody goes on", "it fails halfway"} {
		t.Run(name, func(t *testing.T) {
			server, node := onRedis(t, time.Hour)
			j := &meddled{Journal: node}
			w := newWorld(t, nil, func(journal.Journal) journal.Journal { return j })
			r := w.room("staff")
			record := func(create bool, changes ...journal.Change) {
				t.Helper()
				e := journal.Entry{ID: chat.MessageID(ids.New()), Kind: journal.KindSettings, From: "ann", Changes: changes}
				if _, err := w.hub.Record(t.Context(), r, e, create); err != nil {
					t.Fatal(err)
				}
			}
			record(true, state.SetSettings(secret), state.SetRole("ann", state.RoleOwner))
			for i := 0; i < bans; i += 50 {
				var some []journal.Change
				for k := range 50 {
					some = append(some, state.SetBan(chat.UserID(fmt.Sprint("bad", i+k)), &state.Ban{Reason: "spam"}))
				}
				record(false, some...)
			}
			s := newSink(-1)
			w.join("staff", s, nil)
			before, first := w.room("staff").Position(), r.State().First
			if first == "" {
				t.Fatal("the room does not know its first entry")
			}

			server.Do("FLUSHALL")
			if name == "it fails halfway" {
				j.fails.Store(2)
			} else if name != "nobody was there" {
				if err := squat(node)(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if name == "somebody goes on" {
				quicker := func(ctx context.Context) {
					id := chat.MessageID(ids.New())
					if _, err := node.Append(ctx, journal.Request{Room: "staff", Entry: journal.Entry{ID: id, Kind: journal.KindRole, From: "eve",
						Changes: []journal.Change{state.SetRole("eve", ""), state.SetRole("mal", state.RoleOwner)}}}); err != nil {
						t.Error(err)
					}
				}
				j.first.Store(&quicker)
			}
			node.Doubt()
			s.await(t, "a reset", func(s *sink) bool { return bytes.Contains(s.got, []byte(`"type":"reset"`)) })
			info, err := node.Info(t.Context(), "staff")
			if err != nil {
				t.Fatal(err)
			}
			kept, err := state.Load(info.State)
			if err != nil {
				t.Fatal(err)
			}
			for what, st := range map[string]*state.Room{"the room": w.room("staff").State(), "the store": kept} {
				if st.Settings != secret || st.First != first || len(st.Bans()) != bans || fmt.Sprint(st.Roles()) != "map[ann:owner]" {
					t.Errorf("%s: got %+v of %s, %d bans, roles %v", what, st.Settings, st.First, len(st.Bans()), st.Roles())
				}
			}
			if at := w.room("staff").Position(); at.Epoch == before.Epoch || at.Seq != info.Top.Seq {
				t.Errorf("the room stands at %+v, want %+v", at, info.Top)
			}
			if n := w.hub.Stats().Restores.Load(); n != 1 {
				t.Errorf("%d rooms were counted, want 1", n)
			}
			w.post("staff", 1)
			s.await(t, "what is said next", func(s *sink) bool { return bytes.Contains(s.got, []byte("message 1")) })
		})
	}
}
