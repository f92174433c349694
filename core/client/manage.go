package client

import (
	"context"

	"parley/core/chat"
	"parley/core/wire"
)

// Settings are changes of a room's settings; what is zero stays as it is.
type Settings struct {
	Title      *string // "" for none
	Mode       string
	Visibility string
	SlowModeS  *int // 0 is off
}

// Configure changes a room's settings. The ack of this and of the methods
// below says that the change is durable; with a nonce, sending it again after a
// lost connection does it once.
func (c *Conn) Configure(ctx context.Context, room chat.RoomID, nonce string, set Settings) (*wire.AckEvent, error) {
	cmd := wire.Command{Type: wire.Configure, Room: room, Nonce: nonce, Title: set.Title, SlowModeS: set.SlowModeS}
	if set.Mode != "" {
		cmd.Mode = &set.Mode
	}
	if set.Visibility != "" {
		cmd.Visibility = &set.Visibility
	}
	return ask[wire.AckEvent](ctx, c, cmd)
}

// SlowMode sets the seconds between two messages of one user; 0 is off.
func (c *Conn) SlowMode(ctx context.Context, room chat.RoomID, nonce string, seconds int) (*wire.AckEvent, error) {
	return ask[wire.AckEvent](ctx, c, wire.Command{Type: wire.SlowMode, Room: room, Nonce: nonce, Seconds: seconds})
}

// Role gives a role in a room ("owner", "moderator", "member"), or takes it
// away (wire.NoRole).
func (c *Conn) Role(ctx context.Context, room chat.RoomID, nonce string, user chat.UserID, role string) (*wire.AckEvent, error) {
	return ask[wire.AckEvent](ctx, c, wire.Command{Type: wire.Role, Room: room, Nonce: nonce, User: user, Role: role})
}

// Kick puts a person out of a room.
func (c *Conn) Kick(ctx context.Context, room chat.RoomID, nonce string, user chat.UserID, reason string) (*wire.AckEvent, error) {
	return c.person(ctx, wire.Kick, room, nonce, user, 0, reason)
}

// Ban puts a person out of a room and keeps them out, for good with 0 seconds.
func (c *Conn) Ban(ctx context.Context, room chat.RoomID, nonce string, user chat.UserID, seconds int, reason string) (*wire.AckEvent, error) {
	return c.person(ctx, wire.Ban, room, nonce, user, seconds, reason)
}

// Unban lifts a ban.
func (c *Conn) Unban(ctx context.Context, room chat.RoomID, nonce string, user chat.UserID) (*wire.AckEvent, error) {
	return c.person(ctx, wire.Unban, room, nonce, user, 0, "")
}

// Mute keeps a person from writing in a room, for good with 0 seconds.
func (c *Conn) Mute(ctx context.Context, room chat.RoomID, nonce string, user chat.UserID, seconds int, reason string) (*wire.AckEvent, error) {
	return c.person(ctx, wire.Mute, room, nonce, user, seconds, reason)
}

// Unmute lifts a mute.
func (c *Conn) Unmute(ctx context.Context, room chat.RoomID, nonce string, user chat.UserID) (*wire.AckEvent, error) {
	return c.person(ctx, wire.Unmute, room, nonce, user, 0, "")
}

// Erase takes the text out of an entry, for good.
func (c *Conn) Erase(ctx context.Context, room chat.RoomID, nonce string, seq uint64, reason string) (*wire.AckEvent, error) {
	return ask[wire.AckEvent](ctx, c, wire.Command{Type: wire.Erase, Room: room, Nonce: nonce, Seq: seq, Reason: reason})
}

func (c *Conn) person(ctx context.Context, what wire.Type, room chat.RoomID, nonce string, user chat.UserID, seconds int, reason string) (*wire.AckEvent, error) {
	return ask[wire.AckEvent](ctx, c, wire.Command{Type: what, Room: room, Nonce: nonce, User: user, Seconds: seconds, Reason: reason})
}

// Refresh puts a new token of the same user in the place of the connection's.
// A Resilient says hello with the token of its options all the same.
func (c *Conn) Refresh(ctx context.Context, token string) (*wire.RefreshedEvent, error) {
	return ask[wire.RefreshedEvent](ctx, c, wire.Command{Type: wire.Refresh, Token: token})
}

// Why asks what keeps a person from posting in the room: oneself with the empty
// name, another where one may review there. text may be empty; with it the
// plugins are asked as well.
func (c *Conn) Why(ctx context.Context, room chat.RoomID, user chat.UserID, text string) (*wire.WhyEvent, error) {
	return ask[wire.WhyEvent](ctx, c, wire.Command{Type: wire.Why, Room: room, User: user, Text: text})
}
