package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/ids"
	"parley/core/journal"
	"parley/core/room"
	"parley/core/state"
	"parley/core/wire"
)

// join joins each room of the command and answers for each: joined, or an
// error that names the room.
func (x *Session) join(ctx context.Context, c *wire.Command) error {
	for _, j := range c.Rooms {
		one := wire.Command{Type: c.Type, ID: c.ID, Room: j.Room}
		if err := x.joinOne(ctx, &one, j.Since); err != nil {
			x.fail(&one, err)
			if x.Closed() {
				return errTold
			}
		}
	}
	return nil
}

func (x *Session) joinOne(ctx context.Context, c *wire.Command, since *journal.Position) error {
	m := x.peer.Member(c.Room)
	if limit := x.srv.cfg.RoomsPerConnection; limit > 0 && m == nil && x.peer.Rooms() >= limit {
		return chat.Errorf(chat.CodeTooManyRooms, "this connection has joined %d rooms, as many as are allowed; leave one first", limit)
	}
	here := false // counted as present
	if m != nil { // joining again begins again, at since; an error means that one is not in the room
		here = m.Leave()
	}
	err := x.follow(ctx, c, since, &here)
	if err != nil && here {
		x.srv.d.Presence.Leave(c.Room, x.who.User)
	}
	return err
}

// follow makes the connection a member of the room. here says whether it
// counts as present there, and is kept true to that, on errors too.
func (x *Session) follow(ctx context.Context, c *wire.Command, since *journal.Position, here *bool) error {
	r, err := x.enterRoom(ctx, c.Room)
	if err != nil {
		return err
	}
	a, err := x.admit(ctx, r)
	if err != nil {
		return err
	}
	if since != nil && !x.mayReplay(ctx, r, since.Seq, &a.decision) {
		since = nil
	}
	present := x.srv.d.Presence
	m, err := x.srv.d.Hub.Join(ctx, c.Room, x.peer, since, func(r *room.Room, info room.JoinInfo) (wire.Frame, error) {
		// From here on what puts the client out finds the membership; up to
		// here it may have missed it.
		if !a.stands(x, r) {
			again, err := x.admit(ctx, r)
			if err != nil {
				return wire.Frame{}, err
			}
			a = again
		}
		set, role := r.State().Settings, r.State().Role(x.who.User)
		count := present.Join(c.Room, x.who.User, r)
		if *here { // for the second time
			present.Leave(c.Room, x.who.User)
		}
		*here = true
		ev := wire.JoinedEvent{
			Type: wire.Joined, ID: c.ID, Room: c.Room, Epoch: info.Position.Epoch, Seq: info.Position.Seq, LastID: info.Position.ID,
			Recovered: info.Recovered, Title: set.Title, Mode: string(set.Mode), SlowModeS: set.SlowModeS, Role: string(role), Count: count,
		}
		if set.Visibility == state.Private {
			ev.Visibility = string(state.Private)
		}
		return wire.Encode(ev), nil
	})
	if err == nil && !a.stands(x, m.Room()) {
		x.reask(m)
	}
	return err
}

// mayReplay reports whether the client may have the entries after seq. Whoever
// can name an entry by its id has been given it, and is owed what follows;
// seq 0 names none and asks for the room's whole past, which history.read
// decides about.
func (x *Session) mayReplay(ctx context.Context, r *room.Room, seq uint64, join *gate.Decision) bool {
	top := r.Position().Seq
	if seq >= top {
		return true
	}
	if seq < readFloor(join.Obligations.History, top) {
		return false
	}
	if seq > 0 {
		return true
	}
	d := x.srv.d.Gate.Decide(ctx, x.about(gate.HistoryRead, r, time.Now()))
	return d.Allow && readFloor(d.Obligations.History, top) == 0
}

// readFloor returns the seq of the newest entry that an obligation history
// keeps from the reader of a log that ends at top.
func readFloor(history *int, top uint64) uint64 {
	if history == nil || top <= uint64(max(0, *history)) {
		return 0
	}
	return top - uint64(max(0, *history))
}

// enterRoom returns the room, creating it where it does not exist and the
// policy lets this client create it.
func (x *Session) enterRoom(ctx context.Context, id chat.RoomID) (*room.Room, error) {
	r, err := x.srv.d.Hub.Room(ctx, id)
	if err != nil {
		return nil, err
	}
	if r.Exists() {
		return r, nil
	}
	if set, ok := x.srv.d.Rooms[id]; ok {
		return r, x.srv.CreateRoom(ctx, r, set, chat.ServerUser, "")
	}
	if isDirect(id) {
		return nil, chat.Errorf(chat.CodeNoRoom, "there is no room %s; the room of two people is opened by the command direct", id)
	}
	in := x.about(gate.RoomCreate, r, time.Now())
	d := x.srv.d.Gate.Decide(ctx, in)
	if !d.Allow {
		e := denied(d)
		if e.Code == chat.CodeDenied {
			e.Code = chat.CodeNoRoom
		}
		return nil, e
	}
	var owner chat.UserID
	if x.who.Class == chat.ClassUser { // a guest owns nothing
		owner = x.who.User
	}
	if err := x.srv.CreateRoom(ctx, r, begins(&d), x.who.User, owner); err != nil {
		return nil, err
	}
	return r, nil
}

// CreateRoom appends a room's first entry: its settings and, if owner is
// given, the owner's role. That the room exists by now is no error.
func (s *Server) CreateRoom(ctx context.Context, r *room.Room, set state.Settings, by, owner chat.UserID) error {
	changes := []journal.Change{state.SetSettings(set)}
	if owner != "" {
		changes = append(changes, state.SetRole(owner, state.RoleOwner))
	}
	_, err := s.d.Hub.Record(ctx, r, journal.Entry{ID: chat.MessageID(ids.New()), Kind: journal.KindSettings, From: by,
		Time: time.Now().UnixMilli(), Changes: changes}, true)
	if errors.Is(err, journal.ErrExists) {
		return nil
	}
	if err != nil {
		return storeError(fmt.Errorf("create room %s: %w", r.ID(), err))
	}
	return nil
}

// leave ends a membership.
func (x *Session) leave(_ context.Context, c *wire.Command) error {
	m := x.peer.Member(c.Room)
	if m == nil {
		return notMember(c.Room)
	}
	x.quit(c.Room, m)
	return x.peer.Reply(wire.Encode(wire.LeftEvent{Type: wire.Left, ID: c.ID, Room: c.Room}))
}

func notMember(id chat.RoomID) error {
	return chat.Errorf(chat.CodeNotMember, "this connection has not joined room %s", id)
}

func (x *Session) quit(id chat.RoomID, m *room.Member) {
	ended := m.Leave()
	if _, looks := x.looking[id]; looks {
		delete(x.looking, id)
		x.srv.reviewers.remove(id, x)
	}
	if ended { // and nobody was quicker
		x.srv.d.Presence.Leave(id, x.who.User)
	}
}

// members answers who is in the room.
func (x *Session) members(ctx context.Context, c *wire.Command) error {
	r, err := x.existing(ctx, c.Room)
	if err != nil {
		return err
	}
	if d := x.srv.d.Gate.Decide(ctx, x.about(gate.MembersRead, r, time.Now())); !d.Allow {
		return denied(d)
	}
	count, users := x.srv.d.Presence.Members(ctx, c.Room)
	return x.peer.Reply(wire.Encode(wire.MembersEvent{Type: wire.Members, ID: c.ID, Room: c.Room, Count: count, Users: users}))
}

func (x *Session) existing(ctx context.Context, id chat.RoomID) (*room.Room, error) {
	r, err := x.srv.d.Hub.Room(ctx, id)
	if err != nil {
		return nil, err
	}
	if !r.Exists() {
		return nil, chat.Errorf(chat.CodeNoRoom, "there is no room %s", id)
	}
	return r, nil
}
