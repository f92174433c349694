package session

import (
	"context"
	"slices"
	"time"

	"parley/core/gate"
	"parley/core/room"
	"parley/core/state"
	"parley/core/wire"
)

// Somebody who has joined a room is not in it for ever: the policy is asked
// again whenever what it has answered may have changed. Each answer comes from
// the decision cache as a rule.

// changing is a Gate whose answers may change without its inputs: Changed
// returns a channel that is closed when they may have changed since the call.
type changing interface{ Changed() <-chan struct{} }

// followPolicy asks again about everybody whenever the policy has changed, until
// ctx ends.
func (s *Server) followPolicy(ctx context.Context) error {
	g, ok := s.d.Gate.(changing)
	if !ok {
		<-ctx.Done()
		return nil
	}
	changed := g.Changed()
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
		changed = g.Changed() // first, so that a change during the round makes another
		s.rules.Add(1)
		s.reaskAll(ctx)
	}
}

// A round of asking everybody again is spread over reaskParts pauses, so that
// it does not hold up what else there is to do. Two rounds, for a change that
// comes while one is under way, fit into a second.
const (
	reaskParts = 8
	reaskPause = 50 * time.Millisecond
	reaskLeast = 64 // sessions of one part
)

func (s *Server) reaskAll(ctx context.Context) {
	all := s.sessions()
	pause := time.NewTicker(reaskPause)
	defer pause.Stop()
	for part := range slices.Chunk(all, max(reaskLeast, (len(all)+reaskParts-1)/reaskParts)) {
		for _, x := range part {
			if x.Greeted() {
				x.reaskRooms()
			}
		}
		if len(part) < reaskLeast || ctx.Err() != nil {
			return
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

// changed hears of every change of a loaded room's state, on any node.
func (s *Server) changed(r *room.Room, c room.Change) {
	xs := s.sessions()
	if c.User != "" {
		xs = s.sessionsOf(c.User)
	}
	for _, x := range xs {
		m := x.peer.Member(r.ID())
		switch {
		case m == nil || !x.Greeted():
		case c.Out && m.Out():
			x.putOut(m, outOf(c))
		default:
			x.reask(m)
		}
	}
}

// outOf is what somebody is told whom the change puts out of the room.
func outOf(c room.Change) wire.LeftEvent {
	if c.Ban != nil {
		return bannedBy(*c.Ban)
	}
	return wire.LeftEvent{Code: "kicked", Text: c.Entry.Text, By: c.Entry.From}
}

func bannedBy(b state.Ban) wire.LeftEvent {
	return wire.LeftEvent{Code: "banned", Text: b.Reason, By: b.By, UntilTS: b.Until}
}

// reaskRooms asks again about every room the client is in.
func (x *Session) reaskRooms() {
	for _, m := range x.peer.Memberships() {
		x.reask(m)
	}
}

// reask asks the policy again whether the client may be in the room, and puts
// it out if not. Any goroutine may call it.
func (x *Session) reask(m *room.Member) {
	if m.Out() { // by an entry that came while it was joining
		ev := wire.LeftEvent{Code: "kicked"}
		if b, on := m.Room().State().Ban(x.who.User, time.Now()); on {
			ev = bannedBy(b)
		}
		x.putOut(m, ev)
		return
	}
	d := x.srv.d.Gate.Decide(x.srv.ctx, x.about(gate.RoomJoin, m.Room(), time.Now()))
	if d.Allow || x.srv.ctx.Err() != nil { // a server that stops decides nothing any more
		return
	}
	e := denied(d)
	x.putOut(m, wire.LeftEvent{Code: string(e.Code), Text: e.Text, Reasons: e.Reasons, Decision: e.Decision})
}

// outTexts are the sentences for those who are given none.
var outTexts = map[string]string{"kicked": "A moderator has put you out of this room.", "banned": "You are banned from this room."}

// putOut ends a membership, once, and says why. Nothing of the room follows.
// Any goroutine may call it.
func (x *Session) putOut(m *room.Member, ev wire.LeftEvent) {
	if !m.Leave() {
		return
	}
	id := m.Room().ID()
	x.srv.reviewers.remove(id, x)
	x.srv.d.Presence.Leave(id, x.who.User)
	x.srv.stats.PutOut.Add(1)
	ev.Type, ev.Room = wire.Left, id
	if ev.Text == "" {
		ev.Text = outTexts[ev.Code]
	}
	_ = x.peer.Tell(wire.Encode(ev)) // an error ends the peer, which is what its reader sees
}

// admission is a yes to a join, and what it was given on.
type admission struct {
	rules    uint64
	state    any // the room's state, compared only
	decision gate.Decision
}

// admit asks whether the client may be in the room.
func (x *Session) admit(ctx context.Context, r *room.Room) (admission, error) {
	a := admission{rules: x.srv.rules.Load(), state: r.State()}
	a.decision = x.srv.d.Gate.Decide(ctx, x.about(gate.RoomJoin, r, time.Now()))
	if !a.decision.Allow {
		return a, denied(a.decision)
	}
	return a, nil
}

// stands reports whether what the yes was given on is still so.
func (a *admission) stands(x *Session, r *room.Room) bool {
	return a.state == any(r.State()) && a.rules == x.srv.rules.Load()
}
