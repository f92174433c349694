package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/journal"
	"parley/core/moderation"
	"parley/core/room"
	"parley/core/wire"
	"parley/sdk/abi"
)

// send posts one message. See the package comment for its walk.
func (x *Session) send(ctx context.Context, c *wire.Command) error {
	receipt, err := x.post(ctx, c)
	if err != nil {
		return x.unlessPosted(ctx, c, err)
	}
	x.count(receipt)
	return x.peer.Reply(wire.EncodeAck(c.ID, c.Room, &receipt))
}

func (x *Session) count(r journal.Receipt) {
	if r.Repeat {
		x.srv.stats.Repeats.Add(1)
	} else {
		x.srv.stats.Sent.Add(1)
	}
}

// unlessPosted stands before every refusal of a send: if the nonce is known,
// the message was posted, and its receipt is the answer.
func (x *Session) unlessPosted(ctx context.Context, c *wire.Command, refusal error) error {
	if c.Type != wire.Send || c.Nonce == "" || !x.greeted.Load() || errors.Is(refusal, errTold) || errors.Is(refusal, room.ErrClosed) {
		return refusal
	}
	receipt, ok, err := x.srv.d.Journal.Lookup(ctx, c.Room, x.who.User, c.Nonce)
	if err != nil {
		return storeError(fmt.Errorf("look up nonce: %w", err))
	}
	if !ok {
		return refusal
	}
	x.count(receipt)
	return x.peer.Reply(wire.EncodeAck(c.ID, c.Room, &receipt))
}

// post carries a message through gate, plugins and journal.
func (x *Session) post(ctx context.Context, c *wire.Command) (journal.Receipt, error) {
	var none journal.Receipt
	text, err := moderation.Clean(c.Text, x.srv.cfg.TextBytes)
	if err != nil {
		return none, err
	}
	r, err := x.enterRoom(ctx, c.Room)
	if err != nil {
		return none, err
	}
	t := turn{x.who.User, r.ID()}
	waited := r.State().Settings.SlowModeS > 0
	if waited {
		if err := x.srv.turns.take(ctx, t); err != nil {
			return none, lateError(err)
		}
		defer x.srv.turns.end(t)
	}
	now := time.Now()
	in := x.about(gate.MessageSend, r, now)
	in.Context.TextBytes = len(text)
	d := x.srv.d.Gate.Decide(ctx, in)
	if !d.Allow {
		e := denied(d)
		if e.Code == chat.CodeSlowMode {
			e.Retry = time.Duration(in.Context.SlowWaitS) * time.Second
		}
		return none, e
	}
	if s := d.Obligations.SlowModeS; s != nil && *s > 0 && !waited {
		if err := x.srv.turns.take(ctx, t); err != nil {
			return none, lateError(err)
		}
		defer x.srv.turns.end(t)
		now = time.Now()
	}
	if err := x.oblige(&d.Obligations, r, text, now); err != nil {
		return none, err
	}
	res, err := x.judge(ctx, r, text, d.Obligations.Plugins, now)
	if err != nil {
		return none, err
	}
	e := journal.Entry{ID: chat.MessageID(newID()), Kind: journal.KindMessage, From: x.who.User,
		Time: now.UnixMilli(), Nonce: c.Nonce, Text: res.Text, Outcome: chat.Accepted}
	if e.Nonce == "" {
		e.Nonce = string(e.ID) // nobody can resend it, and nothing else may have the same
	}
	if res.Verdict == abi.Redact {
		e.Outcome, e.Reasons = chat.Redacted, res.Reasons
	}
	receipt, err := r.Append(ctx, e, false)
	if err != nil {
		return none, storeError(fmt.Errorf("append to room %s: %w", c.Room, err))
	}
	return receipt, nil
}

// oblige refuses a message that an obligation of the decision does not allow.
func (x *Session) oblige(o *gate.Obligations, r *room.Room, text string, now time.Time) error {
	if o.TextBytes != nil && len(text) > *o.TextBytes {
		return chat.Errorf(chat.CodeTextTooLong, "the text has %d bytes; the rules of this server allow you %d here", len(text), *o.TextBytes)
	}
	if o.SlowModeS != nil {
		if wait := slowWait(x.who.User, r, *o.SlowModeS, now); wait > 0 {
			return &chat.Error{Code: chat.CodeSlowMode, Retry: wait,
				Text: fmt.Sprintf("one message every %d seconds is allowed here; wait %d more", *o.SlowModeS, int((wait+time.Second-1)/time.Second))}
		}
	}
	if o.RateLimit != nil {
		if wait := x.srv.limits.take(x.who.User, r.ID(), *o.RateLimit, now); wait > 0 {
			return &chat.Error{Code: chat.CodeRateLimited, Retry: wait,
				Text: fmt.Sprintf("%d messages in %d seconds are allowed here; wait %s", o.RateLimit.Count, o.RateLimit.PerS, wait.Round(time.Second))}
		}
	}
	return nil
}

// judge runs the plugins and turns a verdict against the message into an error.
func (x *Session) judge(ctx context.Context, r *room.Room, text string, only []string, now time.Time) (moderation.Result, error) {
	m := moderation.Message{Room: r.ID(), User: x.who.User, Roles: x.who.Roles, Kind: "message", Text: text, TimeMS: now.UnixMilli()}
	if role := r.State().Role(x.who.User); role != "" {
		m.Roles = append(append([]string(nil), m.Roles...), string(role))
	}
	m.Signals = x.srv.d.Signals.Observe(m.Room, m.User, text, now)
	res, err := x.srv.d.Stage.Judge(ctx, &m, only)
	if err != nil {
		if ctx.Err() != nil {
			return res, lateError(err)
		}
		return res, err
	}
	if res.Verdict == abi.Hold || res.Verdict == abi.Deny {
		return res, res.Refusal()
	}
	return res, nil
}

// lateError is what a client is told whose command's time ended before
// anything was stored.
func lateError(err error) *chat.Error {
	return &chat.Error{Code: chat.CodeOverloaded, Text: "the server could not judge this in time; send it again in a moment, with the same nonce", Retry: time.Second, Cause: err}
}

// storeError is what a client is told when the journal did not answer as
// hoped. The outcome of an append may be unknown: resending with the same
// nonce is always right.
func storeError(err error) *chat.Error {
	switch {
	case errors.Is(err, journal.ErrOverloaded):
		return &chat.Error{Code: chat.CodeOverloaded, Text: "the server cannot store more just now; send it again in a moment, with the same nonce", Retry: time.Second, Cause: err}
	case errors.Is(err, journal.ErrTooLarge):
		return &chat.Error{Code: chat.CodeTextTooLong, Text: "the message is too large to store; shorten it", Cause: err}
	}
	return &chat.Error{Code: chat.CodeUnavailable, Text: "the server cannot reach its store; send it again, with the same nonce", Retry: time.Second, Cause: err}
}
