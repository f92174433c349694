package session

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/ids"
	"parley/core/wire"
)

// expiryLeeway is the clock difference that core/auth forgives when it
// verifies a token: one that was just accepted must not end the connection.
const expiryLeeway = 30 * time.Second

// hello proves who the client is. A refused proof ends the connection, since
// the same proof cannot help; a taken name does not.
func (x *Session) hello(ctx context.Context, c *wire.Command) error {
	s := x.srv
	secret, err := x.prove(c)
	if err != nil {
		var e *chat.Error
		if errors.As(err, &e) && e.Code == chat.CodeUnauthorized {
			return x.refuse(c, e, wire.CloseUnauthorized)
		}
		return err
	}
	if e, code := x.enter(ctx); e != nil {
		return x.refuse(c, e, code)
	}
	x.device, x.id = c.Device, ids.New()
	x.peer.Name(x.who.User)
	x.renew(x.who)
	x.greeted.Store(true)
	s.d.Log.Debug("session began", slog.String("session", x.id), slog.String("user", string(x.who.User)),
		slog.String("transport", x.transport), slog.String("device", x.device))
	err = x.peer.Reply(wire.Encode(wire.WelcomeEvent{
		Type: wire.Welcome, ID: c.ID, Protocol: 1,
		User: x.who.User, Class: x.who.Class, Roles: x.who.Roles, Session: x.id, Secret: secret, ExpiresTS: expiresTS(x.proof.Load()),
		HeartbeatMS: s.cfg.Heartbeat.Milliseconds(), ReconnectJitterMS: s.cfg.ReconnectJitter.Milliseconds(),
		Limits: wire.Limits{FrameBytes: s.cfg.FrameBytes, TextBytes: s.cfg.TextBytes, CommandsPerSecond: s.cfg.CommandsPerSecond,
			RoomsPerConnection: s.cfg.RoomsPerConnection, HistoryEntries: s.cfg.HistoryEntries},
	}))
	x.watch()
	return err
}

// prove sets who the client is and, for a guest, how its name is given back:
// End does that, whatever becomes of the connection.
func (x *Session) prove(c *wire.Command) (secret string, err error) {
	if c.Guest != nil {
		name, resume, release, err := x.srv.d.Auth.Guest(*c.Guest, c.Secret, func() {
			x.close(wire.CloseUnauthorized, "a registered user has claimed this name")
		})
		if err != nil {
			return "", err
		}
		x.who, x.release = chat.Identity{User: name, Class: chat.ClassGuest}, release
		return resume, nil
	}
	x.who, err = x.verify(c.Token)
	return "", err
}

// verify returns whom a token speaks for.
func (x *Session) verify(token string) (chat.Identity, error) {
	who, err := x.srv.d.Auth.Token(token)
	if err != nil {
		return chat.Identity{}, err
	}
	who.Roles = slices.Compact(slices.Sorted(slices.Values(who.Roles)))
	if !who.Expires.IsZero() {
		who.Expires = who.Expires.Add(expiryLeeway)
	}
	return who, nil
}

// mayConnect asks the policy about the connection.
func (x *Session) mayConnect(ctx context.Context) *chat.Error {
	in := x.question(gate.Connect)
	in.Raw.Now = time.Now()
	in.Resource = gate.Resource{Type: "server", Exists: true}
	if d := x.srv.d.Gate.Decide(ctx, in); !d.Allow {
		return denied(d)
	}
	return nil
}

// enter asks the policy about the connection and counts it for its user.
func (x *Session) enter(ctx context.Context) (*chat.Error, wire.CloseCode) {
	if e := x.mayConnect(ctx); e != nil {
		return e, wire.CloseDenied
	}
	if !x.srv.countUser(x.who) {
		return &chat.Error{Code: chat.CodeTooManyConns, Text: "you have as many connections as are allowed; close one first", Retry: 10 * time.Second}, wire.CloseTooMany
	}
	return nil, 0
}

// countUser counts one more connection of the user unless there are too many.
func (s *Server) countUser(who chat.Identity) bool {
	u := who.User
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.ConnectionsPerUser > 0 && s.users[u] >= s.cfg.ConnectionsPerUser {
		return false
	}
	if s.users[u]++; s.users[u] == 1 && s.d.People != nil {
		s.d.People.Online(u)
	}
	return true
}

// forgetUserLocked takes one connection of the user away.
func (s *Server) forgetUserLocked(u chat.UserID) {
	if s.users[u]--; s.users[u] > 0 {
		return
	}
	delete(s.users, u)
	if s.d.People != nil {
		s.d.People.Offline(u)
	}
}

// refuse says why the connection ends, and ends it.
func (x *Session) refuse(c *wire.Command, e *chat.Error, code wire.CloseCode) error {
	x.fail(c, e)
	x.close(code, string(e.Code))
	return errTold
}

// ping answers the client's own ping.
func (x *Session) ping(_ context.Context, c *wire.Command) error {
	return x.peer.Reply(wire.Encode(wire.PingEvent{Type: wire.Pong, ID: c.ID, TS: c.TS}))
}
