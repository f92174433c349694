package session

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/ids"
	"parley/core/journal"
	"parley/core/room"
	"parley/core/state"
	"parley/core/wire"
)

// A direct is the room of two people: private, with both of them as members and
// a name that follows from theirs, so whoever of the two comes first opens the
// same room. No other command makes a room of such a name. Who is not one of the
// two is kept out by the policy.

// directPrefix begins the names of directs.
const directPrefix = "dm:"

// DirectRoom returns the name of the room of two people. Names count as they are
// written, as they do among a room's roles.
func DirectRoom(a, b chat.UserID) chat.RoomID {
	names := []string{string(a), string(b)}
	slices.Sort(names)
	sum := sha256.Sum256([]byte(names[0] + "\x00" + names[1]))
	return chat.RoomID(directPrefix + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:20])))
}

func isDirect(id chat.RoomID) bool { return strings.HasPrefix(string(id), directPrefix) }

// partner returns the other person of a direct, "" where there is none.
func partner(r *room.Room, u chat.UserID) chat.UserID {
	if !isDirect(r.ID()) {
		return ""
	}
	roles := r.State().Roles()
	if len(roles) > 2 {
		return ""
	}
	for other := range roles {
		if other != u && r.ID() == DirectRoom(u, other) {
			return other
		}
	}
	return ""
}

// directCost makes opening rooms for two as dear as five other commands: each
// may leave a room behind.
func directCost(*wire.Command) float64 { return 5 }

// direct opens the room of the client and another person.
func (x *Session) direct(ctx context.Context, c *wire.Command) error {
	if c.User == x.who.User {
		return chat.Errorf(chat.CodeBadRequest, "that is your own name; a direct room is for two")
	}
	r, err := x.srv.d.Hub.Room(ctx, DirectRoom(x.who.User, c.User))
	if err != nil {
		return err
	}
	t := turn{room: r.ID()}
	if err := x.srv.turns.take(ctx, t); err != nil {
		return lateError(err)
	}
	defer x.srv.turns.end(t)
	now := time.Now()
	in := x.about(gate.DirectOpen, r, now)
	in.Resource.Visibility = string(state.Private) // also before it is there
	x.aim(in, r, c.User, x.srv.d.Auth.Known(ctx, c.User), now)
	if d := x.srv.d.Gate.Decide(ctx, in); !d.Allow {
		return denied(d)
	}
	made, err := x.pair(ctx, r, c.User, now)
	if err != nil {
		return err
	}
	if made {
		x.srv.call(c.User, x.who.User, r.ID(), true)
	}
	return x.peer.Reply(wire.Encode(wire.DirectEvent{Type: wire.Direct, ID: c.ID, Room: r.ID(), User: c.User, New: made}))
}

// pair makes the direct where it does not exist, and gives back the role of
// whoever of the two has left it.
func (x *Session) pair(ctx context.Context, r *room.Room, other chat.UserID, now time.Time) (made bool, err error) {
	both := []chat.UserID{x.who.User, other}
	e := journal.Entry{ID: chat.MessageID(ids.New()), Kind: journal.KindSettings, From: x.who.User, Time: now.UnixMilli()}
	if !r.Exists() {
		set := state.DefaultSettings()
		set.Visibility = state.Private
		e.Changes = []journal.Change{state.SetSettings(set), state.SetRole(both[0], state.RoleMember), state.SetRole(both[1], state.RoleMember)}
		_, err := x.srv.d.Hub.Record(ctx, r, e, true)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, journal.ErrExists) {
			return false, storeError(fmt.Errorf("open a direct room: %w", err))
		}
	}
	if st := r.State(); st.Role(both[0]) != "" && st.Role(both[1]) != "" {
		return false, nil
	}
	_, err = x.srv.d.Hub.Change(ctx, r, both, func(st *state.Room) (journal.Entry, error) {
		back := e
		back.Kind, back.Changes = journal.KindRole, nil
		for _, u := range both {
			if st.Role(u) == "" {
				back.Changes = append(back.Changes, state.SetRole(u, state.RoleMember))
			}
		}
		return back, nil
	})
	if err != nil {
		return false, storeError(fmt.Errorf("open a direct room again: %w", err))
	}
	return false, nil
}

// call tells a person's connections that are not in the direct of it: those to
// this node, and through Absent those to others.
func (s *Server) call(u, from chat.UserID, id chat.RoomID, made bool) {
	s.Called(u, from, id, made)
	if s.d.Absent != nil {
		s.d.Absent.Call(u, from, id, made)
	}
}

// Called tells those of a person's connections to this node that are not in the
// direct that from has opened it, or has written there. Any goroutine may call
// it.
func (s *Server) Called(u, from chat.UserID, id chat.RoomID, made bool) {
	if !s.connected(u) {
		return
	}
	f := wire.Encode(wire.DirectEvent{Type: wire.Direct, Room: id, User: from, New: made})
	for _, x := range s.sessionsOf(u) {
		if x.peer.Member(id) == nil {
			_ = x.peer.Tell(f)
		}
	}
}

// connected reports whether a user has a connection to this node.
func (s *Server) connected(u chat.UserID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.users[u] > 0
}
