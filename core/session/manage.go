package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/ids"
	"parley/core/journal"
	"parley/core/room"
	"parley/core/state"
	"parley/core/wire"
)

// order is what a command that runs a room asks for: the question to the
// policy, and the entry that is appended when the answer is yes.
type order struct {
	in    *gate.Input
	entry journal.Entry
	// first, where set, is done once the policy has said yes, before the entry
	// is appended; again where that has to be done again.
	first func(ctx context.Context) error
}

// manage carries out a command that runs a room. Each is decided and made on
// what the one before has left: on this node such commands take turns in a
// room, and one that another node was quicker than is decided anew.
func (x *Session) manage(ctx context.Context, c *wire.Command, action string, plan func(o *order, st *state.Room, now time.Time) error) error {
	receipt, err := x.carryOut(ctx, c, action, plan)
	if err != nil {
		return x.unlessPosted(ctx, c, err)
	}
	return x.peer.Reply(wire.EncodeAck(c.ID, c.Room, &receipt))
}

func (x *Session) carryOut(ctx context.Context, c *wire.Command, action string, plan func(o *order, st *state.Room, now time.Time) error) (none journal.Receipt, err error) {
	reason, err := cleanReason(c.Reason)
	if err != nil {
		return none, err
	}
	r, err := x.existing(ctx, c.Room)
	if err != nil {
		return none, err
	}
	t := turn{room: r.ID()} // of nobody: no user has the empty name
	if err := x.srv.turns.take(ctx, t); err != nil {
		return none, lateError(err)
	}
	defer x.srv.turns.end(t)
	account := c.User != "" && x.srv.d.Auth.Known(ctx, c.User)
	receipt, err := x.srv.d.Hub.Change(ctx, r, []chat.UserID{x.who.User, c.User}, func(st *state.Room) (journal.Entry, error) {
		now := time.Now()
		o := order{in: x.about(action, r, now), entry: journal.Entry{ID: chat.MessageID(ids.New()), From: x.who.User, Time: now.UnixMilli(),
			Nonce: c.Nonce, Text: reason, Outcome: chat.Accepted}}
		if c.User != "" {
			x.aim(o.in, r, c.User, account, now)
		}
		if err := plan(&o, st, now); err != nil {
			return o.entry, err
		}
		if d := x.srv.d.Gate.Decide(ctx, o.in); !d.Allow {
			return o.entry, denied(d)
		}
		if o.first != nil {
			if err := o.first(ctx); err != nil {
				return o.entry, err
			}
		}
		return o.entry, nil
	})
	var refusal *chat.Error
	if err != nil && !errors.As(err, &refusal) {
		return none, storeError(fmt.Errorf("%s in room %s: %w", c.Type, r.ID(), err))
	}
	return receipt, err
}

// aim adds the facts about the person something is done to, who has an account
// or is a guest.
func (x *Session) aim(in *gate.Input, r *room.Room, u chat.UserID, account bool, now time.Time) {
	st := r.State()
	in.Target = gate.Target{Type: string(chat.ClassGuest), ID: string(u), Self: u == x.who.User, RoomRole: string(st.Role(u))}
	if account {
		in.Target.Type = string(chat.ClassUser)
	}
	_, in.Target.Banned = st.Ban(u, now)
	_, in.Target.Muted = st.Mute(u, now)
}

// configure changes a room's settings.
func (x *Session) configure(ctx context.Context, c *wire.Command) error {
	return x.manage(ctx, c, gate.RoomConfigure, func(o *order, st *state.Room, _ time.Time) error {
		set := st.Settings
		if c.Title != nil {
			title, err := cleanReason(*c.Title)
			if err != nil {
				return err
			}
			set.Title = title
		}
		if c.Mode != nil {
			set.Mode = state.Mode(*c.Mode)
		}
		if c.Visibility != nil {
			set.Visibility = state.Visibility(*c.Visibility)
		}
		if c.SlowModeS != nil {
			set.SlowModeS = *c.SlowModeS
		}
		return o.settings(st, set)
	})
}

// slowMode changes one of the settings.
func (x *Session) slowMode(ctx context.Context, c *wire.Command) error {
	return x.manage(ctx, c, gate.RoomConfigure, func(o *order, st *state.Room, _ time.Time) error {
		set := st.Settings
		set.SlowModeS = c.Seconds
		return o.settings(st, set)
	})
}

// settings makes the order one to replace the settings.
func (o *order) settings(st *state.Room, set state.Settings) error {
	if err := set.Validate(); err != nil {
		return chat.Errorf(chat.CodeBadRequest, "%s", err)
	}
	a, was := &o.in.Action, st.Settings
	a.Mode, a.Visibility, a.SlowModeS, a.Changes = string(set.Mode), string(set.Visibility), set.SlowModeS, []string{}
	for name, differs := range map[string]bool{"mode": set.Mode != was.Mode, "slow_mode": set.SlowModeS != was.SlowModeS,
		"title": set.Title != was.Title, "visibility": set.Visibility != was.Visibility} {
		if differs {
			a.Changes = append(a.Changes, name)
		}
	}
	slices.Sort(a.Changes)
	o.entry.Kind, o.entry.Changes = journal.KindSettings, []journal.Change{state.SetSettings(set)}
	return nil
}

// role gives a role in a room, or takes it away.
func (x *Session) role(ctx context.Context, c *wire.Command) error {
	return x.manage(ctx, c, gate.MemberRole, func(o *order, _ *state.Room, _ time.Time) error {
		role := c.Role
		if role == wire.NoRole {
			role = ""
		}
		o.in.Action.Role = role
		o.entry.Kind, o.entry.Changes = journal.KindRole, []journal.Change{state.SetRole(c.User, state.Role(role))}
		return nil
	})
}

// kick puts a person out of a room. The entry does it, on every node: see
// Server.changed.
func (x *Session) kick(ctx context.Context, c *wire.Command) error {
	return x.manage(ctx, c, gate.MemberKick, func(o *order, _ *state.Room, _ time.Time) error {
		o.entry.Kind, o.entry.Changes = journal.KindKick, []journal.Change{state.Kick(c.User)}
		return nil
	})
}

// restrain is ban, unban, mute and unmute.
func (x *Session) restrain(ctx context.Context, c *wire.Command) error {
	action, change := gate.MemberBan, state.SetBan
	if c.Type == wire.Mute || c.Type == wire.Unmute {
		action, change = gate.MemberMute, state.SetMute
	}
	return x.manage(ctx, c, action, func(o *order, _ *state.Room, now time.Time) error {
		o.entry.Kind = journal.KindBan
		if c.Type == wire.Unban || c.Type == wire.Unmute {
			o.in.Action.Lift = true
			o.entry.Changes = []journal.Change{change(c.User, nil)}
			return nil
		}
		o.in.Action.Seconds = c.Seconds
		b := state.Ban{Reason: o.entry.Text, By: x.who.User}
		if c.Seconds > 0 {
			b.Until = now.Add(time.Duration(c.Seconds) * time.Second).UnixMilli()
		}
		o.entry.Text = "" // the ban has it
		o.entry.Changes = []journal.Change{change(c.User, &b)}
		return nil
	})
}
