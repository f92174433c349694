package session

import (
	"context"
	"time"

	"parley/core/gate"
	"parley/core/wire"
)

// typing tells the room that the user writes. It is for members, whom the policy
// lets write or not; nothing answers it, and what comes too often is swallowed
// (presence.Tracker).
func (x *Session) typing(ctx context.Context, c *wire.Command) error {
	m := x.peer.Member(c.Room)
	if m == nil {
		return notMember(c.Room)
	}
	if d := x.srv.d.Gate.Decide(ctx, x.about(gate.Typing, m.Room(), time.Now())); !d.Allow {
		return denied(d)
	}
	x.srv.d.Presence.Typing(c.Room, x.who.User)
	return nil
}
