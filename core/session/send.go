package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/core/chat"
	"parley/core/evidence"
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
	switch {
	case r.Repeat:
		x.srv.stats.Repeats.Add(1)
	case r.Outcome == chat.Held:
		x.srv.stats.Held.Add(1)
	default:
		x.srv.stats.Sent.Add(1)
	}
}

// appends reports whether commands of the type append an entry, under the
// nonce that they may carry.
func appends(t wire.Type) bool {
	switch t {
	case wire.Send, wire.Configure, wire.SlowMode, wire.Role, wire.Kick, wire.Ban, wire.Unban, wire.Mute, wire.Unmute:
		return true
	}
	return false
}

// unlessPosted stands before every refusal of a command that appends: if the
// nonce is known, that was done, and its receipt is the answer.
func (x *Session) unlessPosted(ctx context.Context, c *wire.Command, refusal error) error {
	if c.Nonce == "" || !appends(c.Type) || !x.greeted.Load() || errors.Is(refusal, errTold) || errors.Is(refusal, room.ErrClosed) {
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
	in.Context.TextBytes, in.Message = len(text), chat.MessageID(newID())
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
	e := journal.Entry{ID: in.Message, Kind: journal.KindMessage, From: x.who.User,
		Time: now.UnixMilli(), Nonce: c.Nonce, Text: text, Outcome: chat.Accepted}
	if e.Nonce == "" {
		e.Nonce = string(e.ID) // nobody can resend it, and nothing else may have the same
	}
	j, err := x.judge(ctx, r, &e, &d)
	if err != nil {
		return none, err
	}
	switch e.Text = j.res.Text; j.res.Verdict {
	case abi.Redact:
		e.Outcome, e.Reasons = chat.Redacted, j.res.Reasons
	case abi.Hold:
		e.Reasons = j.res.Reasons
		return x.srv.hold(ctx, r, e, false, j.record)
	case abi.Deny:
		return none, x.refusal(r, e, &j)
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

// judged is what plugins said of a message.
type judged struct {
	res    moderation.Result
	record string // digest of the decision record, where there is one
}

// judge runs the plugins over the message e and keeps the evidence of it.
func (x *Session) judge(ctx context.Context, r *room.Room, e *journal.Entry, d *gate.Decision) (judged, error) {
	m := moderation.Message{Room: r.ID(), User: x.who.User, Roles: x.roles(), Kind: "message", Text: e.Text, TimeMS: e.Time}
	if role := r.State().Role(x.who.User); role != "" {
		m.Roles = append(append([]string(nil), m.Roles...), string(role))
	}
	m.Signals = x.srv.d.Signals.Observe(m.Room, m.User, e.Text, time.UnixMilli(e.Time))
	res, err := x.srv.d.Stage.Judge(ctx, &m, d.Obligations.Plugins)
	if err != nil && ctx.Err() != nil {
		return judged{}, lateError(err)
	}
	if err != nil || len(res.Records) == 0 {
		return judged{res: res}, err
	}
	keeper := x.srv.d.Evidence
	if keeper != nil {
		keeper.Judged()
	}
	if res.Verdict != abi.Hold && res.Verdict != abi.Deny && len(res.Input) == 0 {
		return judged{res: res}, nil
	}
	record := moderation.NewDecision(e.ID, &m, &res, d.Revision)
	if keeper != nil && len(res.Input) > 0 {
		keeper.Keep(evidence.Record{Decision: *record, Input: res.Input})
	}
	return judged{res, record.Digest()}, nil
}

// refusal is what the author of a denied message is told. What plugins said no
// to, and did not merely fail at, may be appealed.
func (x *Session) refusal(r *room.Room, e journal.Entry, j *judged) *chat.Error {
	err := j.res.Refusal()
	if !j.res.Failed {
		e.Reasons = j.res.Reasons
		now := time.Now()
		err.Appeal = x.srv.appeals.add(&denial{room: r.ID(), entry: e, record: j.record, until: now.Add(appealTime)}, now)
	}
	return err
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
