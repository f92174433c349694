package session

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/gate"
	"parley/core/ids"
	"parley/core/journal"
	"parley/core/moderation"
	"parley/core/room"
	"parley/core/wire"
	"parley/sdk/abi"
)

// send posts one message. See the package comment for its walk.
func (x *Session) send(ctx context.Context, c *wire.Command) error {
	defer x.news.release(x.peer)
	began := time.Now()
	defer func() { x.srv.stats.Answers.Time(time.Since(began)) }()
	receipt, err := x.post(ctx, c)
	if err != nil {
		return x.unlessPosted(ctx, c, err)
	}
	return x.acknowledge(c, &receipt)
}

// acknowledge answers with the receipt of a send.
func (x *Session) acknowledge(c *wire.Command, r *journal.Receipt) error {
	x.count(*r)
	return x.peer.Reply(wire.EncodeAck(c.ID, c.Room, r))
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
	case wire.Send, wire.Configure, wire.SlowMode, wire.Role, wire.Kick, wire.Ban, wire.Unban, wire.Mute, wire.Unmute, wire.Erase:
		return true
	}
	return false
}

// unlessPosted stands before every refusal of a command that appends: if the
// nonce is known, that was done, and its receipt is the answer. A store that
// has just not answered is not asked a second time: that refuses nothing, since
// the outcome is open, and it would double the wait.
func (x *Session) unlessPosted(ctx context.Context, c *wire.Command, refusal error) error {
	if c.Nonce == "" || !appends(c.Type) || !x.greeted.Load() || errors.Is(refusal, errTold) || errors.Is(refusal, room.ErrClosed) ||
		errors.Is(refusal, journal.ErrUnavailable) {
		return refusal
	}
	receipt, ok, err := x.srv.d.Journal.Lookup(ctx, c.Room, x.who.User, c.Nonce)
	if err != nil {
		return storeError(fmt.Errorf("look up nonce: %w", err))
	}
	if !ok {
		return refusal
	}
	return x.acknowledge(c, &receipt)
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
	f := floor{turns: x.srv.turns, turn: turn{x.who.User, r.ID()}}
	defer f.end()
	id := chat.MessageID(ids.New()) // before the policy is asked: the decision is found by it
	d, now, err := x.speak(ctx, r, &f, id, len(text))
	if err != nil {
		return none, err
	}
	e := journal.Entry{ID: id, Kind: journal.KindMessage, From: x.who.User,
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
		x.news.hold()
		return x.srv.hold(ctx, r, e, false, j.record)
	case abi.Deny:
		return none, x.refusal(r, e, &j)
	}
	receipt, err := x.srv.tell(ctx, r, &e, func(notify []journal.Notice) (journal.Receipt, error) { return r.Post(ctx, e, notify) })
	if err != nil {
		return none, storeError(fmt.Errorf("append to room %s: %w", c.Room, err))
	}
	return receipt, nil
}

// floor is a user's turn to speak in a room, where there are turns. Its end is
// due when the message is in the store.
type floor struct {
	turns *turns
	turn  turn
	taken bool
}

func (f *floor) take(ctx context.Context) error {
	if f.taken {
		return nil
	}
	if err := f.turns.take(ctx, f.turn); err != nil {
		return lateError(err)
	}
	f.taken = true
	return nil
}

func (f *floor) end() {
	if f.taken {
		f.turns.end(f.turn)
	}
}

// speak asks whether the client may say the message id, of that many bytes, in
// the room, by the policy, slow mode and rates, and counts it. It returns the decision and
// the moment it speaks of. f is ended by the caller, on an error too.
func (x *Session) speak(ctx context.Context, r *room.Room, f *floor, id chat.MessageID, bytes int) (gate.Decision, time.Time, error) {
	if r.State().Settings.SlowModeS > 0 {
		if err := f.take(ctx); err != nil {
			return gate.Decision{}, time.Time{}, err
		}
	}
	now := time.Now()
	in := x.about(gate.MessageSend, r, now)
	in.Context.TextBytes, in.Message = bytes, id
	d := x.srv.d.Gate.Decide(ctx, in)
	if !d.Allow {
		e := denied(d)
		if e.Code == chat.CodeSlowMode {
			e.Retry = time.Duration(in.Context.SlowWaitS) * time.Second
		}
		return d, now, e
	}
	if s := d.Obligations.SlowModeS; s != nil && *s > 0 && !f.taken {
		if err := f.take(ctx); err != nil {
			return d, now, err
		}
		now = time.Now()
	}
	return d, now, x.oblige(&d.Obligations, r, bytes, now)
}

// oblige refuses a message that an obligation of the decision does not allow.
func (x *Session) oblige(o *gate.Obligations, r *room.Room, bytes int, now time.Time) error {
	if o.TextBytes != nil && bytes > *o.TextBytes {
		return tooLong(bytes, *o.TextBytes)
	}
	if o.SlowModeS != nil {
		if wait := slowWait(x.who.User, r, *o.SlowModeS, now); wait > 0 {
			return tooSoon(*o.SlowModeS, wait)
		}
	}
	if o.RateLimit != nil {
		if wait := x.srv.limits.take(x.who.User, r.ID(), *o.RateLimit, now); wait > 0 {
			return tooMany(*o.RateLimit, wait)
		}
	}
	return nil
}

func tooLong(bytes, most int) *chat.Error {
	return chat.Errorf(chat.CodeTextTooLong, "the text has %d bytes; the rules of this server allow you %d here", bytes, most)
}

func tooSoon(seconds int, wait time.Duration) *chat.Error {
	return &chat.Error{Code: chat.CodeSlowMode, Retry: wait,
		Text: fmt.Sprintf("one message every %d seconds is allowed here; wait %d more", seconds, int((wait+time.Second-1)/time.Second))}
}

func tooMany(rate gate.RateLimit, wait time.Duration) *chat.Error {
	return &chat.Error{Code: chat.CodeRateLimited, Retry: wait,
		Text: fmt.Sprintf("%d messages in %d seconds are allowed here; wait %s", rate.Count, rate.PerS, wait.Round(time.Second))}
}

// judged is what plugins said of a message.
type judged struct {
	res    moderation.Result
	record string // digest of the decision record, where there is one
}

// judge runs the plugins over the message e and keeps the evidence of it.
func (x *Session) judge(ctx context.Context, r *room.Room, e *journal.Entry, d *gate.Decision) (judged, error) {
	m := spoken(r, x.who.User, x.roles(), e.Text, e.Time)
	m.Signals = x.srv.d.Signals.Observe(m.Room, m.User, e.Text, time.UnixMilli(e.Time))
	m.Signals.AccountAgeHours = ageHours(x.who.Since, time.UnixMilli(e.Time))
	res, err := x.srv.d.Stage.Judge(ctx, &m, d.Obligations.Plugins)
	if err != nil && ctx.Err() != nil {
		return judged{}, lateError(err)
	}
	keeper := x.srv.d.Evidence
	if err != nil || len(res.Records) == 0 {
		if err == nil && res.Idle > 0 && keeper != nil { // so that it can be said that none judged it
			keeper.Note(evidence.Note{ID: e.ID, Message: m, Result: res, Policy: d.Revision, Exempt: d.Obligations.Plugins != nil})
		}
		return judged{res: res}, err
	}
	if keeper != nil {
		keeper.Judged()
		keeper.Note(evidence.Note{ID: e.ID, Message: m, Result: res, Policy: d.Revision})
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

// ageHours is the age of an account in whole hours as plugins are told it: 0
// where it is not known, so 1 in the first hour.
func ageHours(since, now time.Time) uint32 {
	if since.IsZero() {
		return 0
	}
	return uint32(min(max(1, now.Sub(since)/time.Hour), math.MaxUint32))
}

// spoken is a user's message as plugins see it, without the signals.
func spoken(r *room.Room, u chat.UserID, roles []string, text string, ms int64) moderation.Message {
	m := moderation.Message{Room: r.ID(), User: u, Roles: roles, Kind: "message", Text: text, TimeMS: ms}
	if role := r.State().Role(u); role != "" {
		m.Roles = append(append([]string(nil), m.Roles...), string(role))
	}
	return m
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
	case errors.Is(err, journal.ErrChanged):
		return &chat.Error{Code: chat.CodeOverloaded, Text: "others change the room at this moment, and nothing was changed for you; send it again in a moment, with the same nonce", Retry: time.Second, Cause: err}
	case errors.Is(err, journal.ErrTooLarge):
		return &chat.Error{Code: chat.CodeTextTooLong, Text: "the message is too large to store; shorten it", Cause: err}
	}
	return &chat.Error{Code: chat.CodeUnavailable, Text: "the server cannot reach its store; send it again, with the same nonce", Retry: time.Second, Cause: err}
}
