package session

import (
	"context"
	"slices"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/wire"
)

// hello proves who the client is. A refused token ends the connection, since
// sending it again cannot help; a taken name does not.
func (x *Session) hello(ctx context.Context, c *wire.Command) error {
	s := x.srv
	var secret string
	var release func()
	if c.Guest != nil {
		name, resume, free, err := s.d.Auth.Guest(*c.Guest, c.Secret, func() { x.close(wire.CloseUnauthorized, "a registered user has claimed this name") })
		if err != nil {
			return err
		}
		x.who, secret, release = chat.Identity{User: name, Class: chat.ClassGuest}, resume, free
	} else {
		who, err := s.d.Auth.Token(c.Token)
		if err != nil {
			x.fail(c, err)
			x.close(wire.CloseUnauthorized, "token refused")
			return errTold
		}
		slices.Sort(who.Roles)
		who.Roles = slices.Compact(who.Roles)
		x.who = who
	}
	if err := x.enter(ctx, c, release); err != nil {
		return err
	}
	x.release, x.device, x.id = release, c.Device, newID()
	x.greeted.Store(true)
	welcome := wire.WelcomeEvent{
		Type: wire.Welcome, ID: c.ID, Protocol: 1,
		User: x.who.User, Class: x.who.Class, Roles: x.who.Roles, Session: x.id, Secret: secret,
		HeartbeatMS: s.cfg.Heartbeat.Milliseconds(), ReconnectJitterMS: s.cfg.ReconnectJitter.Milliseconds(),
		Limits: wire.Limits{FrameBytes: s.cfg.FrameBytes, TextBytes: s.cfg.TextBytes, CommandsPerSecond: s.cfg.CommandsPerSecond,
			RoomsPerConnection: s.cfg.RoomsPerConnection, HistoryEntries: s.cfg.HistoryEntries},
	}
	if err := x.peer.Reply(wire.Encode(welcome)); err != nil {
		return err
	}
	x.watch()
	return nil
}

// enter asks the policy about the connection and counts it for its user.
func (x *Session) enter(ctx context.Context, c *wire.Command, release func()) error {
	s := x.srv
	refuse := func(err *chat.Error, code wire.CloseCode) error {
		if release != nil {
			release()
		}
		x.fail(c, err)
		x.close(code, string(err.Code))
		return errTold
	}
	in := x.question(gate.Connect)
	in.Resource = gate.Resource{Type: "server", Exists: true}
	if d := s.d.Gate.Decide(ctx, in); !d.Allow {
		return refuse(denied(d), wire.CloseDenied)
	}
	s.mu.Lock()
	n := s.users[x.who.User]
	full := s.cfg.ConnectionsPerUser > 0 && n >= s.cfg.ConnectionsPerUser
	if !full {
		s.users[x.who.User] = n + 1
	}
	s.mu.Unlock()
	if full {
		return refuse(&chat.Error{Code: chat.CodeTooManyConns, Text: "you have as many connections as are allowed; close one first", Retry: 10 * time.Second}, wire.CloseTooMany)
	}
	return nil
}

// ping answers the client's own ping.
func (x *Session) ping(_ context.Context, c *wire.Command) error {
	return x.peer.Reply(wire.Encode(wire.PingEvent{Type: wire.Pong, ID: c.ID, TS: c.TS}))
}
