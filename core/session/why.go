package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/moderation"
	"parley/core/room"
	"parley/core/state"
	"parley/core/wire"
)

// The command why answers what keeps a person from posting. It makes the checks
// of a send, in their order, by ways that leave no trace: rates are looked at and
// not taken, the policy and the plugins rehearse. Whoever asks about themselves
// is told no more than a send would tell; who may review the room's messages may
// ask about anybody there, and is told which rule and which version it was.

// maxRehearsals is how many texts the plugins rehearse at a time: each takes
// instances of its own, and so memory.
const maxRehearsals = 4

// whyCost is more than a send's: the policy is asked several times, and a plugin
// makes an instance for one text.
func whyCost(c *wire.Command) float64 {
	if c.Text != "" {
		return 5
	}
	return 2
}

// subject is whom the question is about.
type subject struct {
	user               chat.UserID
	class              chat.Class
	roles              []string
	transport, network string
	raw                gate.Raw
	x                  *Session // their connection; nil where there is none here
}

func (x *Session) subject() subject {
	return subject{x.who.User, x.who.Class, x.roles(), x.transport, x.network, gate.Raw{Remote: x.remote, Since: x.who.Since}, x}
}

// subjectOf is a user as this node knows them: by their connection, one in the
// room before any other.
func (s *Server) subjectOf(ctx context.Context, u chat.UserID, r *room.Room) subject {
	xs := s.sessionsOf(u)
	if len(xs) > 0 {
		best := xs[0]
		for _, x := range xs {
			if x.peer.Member(r.ID()) != nil {
				best = x
				break
			}
		}
		return best.subject()
	}
	who := subject{user: u, class: chat.ClassGuest}
	if s.d.Auth.Known(ctx, u) {
		who.class = chat.ClassUser
	}
	return who
}

// about begins the input of a decision about the subject in a room.
func (w *subject) about(action string, r *room.Room, now time.Time) *gate.Input {
	in := &gate.Input{
		Subject: gate.Subject{Type: string(w.class), ID: string(w.user), Roles: w.roles},
		Action:  gate.Action{Name: action, Changes: []string{}},
		Context: gate.Context{Transport: w.transport, Network: w.network, Periods: []string{}, Networks: []string{}},
		Raw:     w.raw,
	}
	if in.Subject.Roles == nil {
		in.Subject.Roles = []string{}
	}
	locate(in, r, w.user, now)
	return in
}

// why answers the command.
func (x *Session) why(ctx context.Context, c *wire.Command) error {
	who, full := x.subject(), false
	var r *room.Room
	var err error
	if c.User == "" || c.User == x.who.User {
		if r, err = x.srv.d.Hub.Room(ctx, c.Room); err != nil {
			return err
		}
		full = x.srv.d.Gate.Rehearse(ctx, x.about(gate.ModerateReview, r, time.Now())).Allow
	} else {
		if r, err = x.existing(ctx, c.Room); err != nil {
			return err
		}
		if d := x.mayReview(ctx, r); !d.Allow {
			return denied(d)
		}
		who, full = x.srv.subjectOf(ctx, c.User, r), true
	}
	ev, err := x.srv.inquire(ctx, r, who, x, c.Text, full)
	if err != nil {
		return err
	}
	ev.ID = c.ID
	return x.peer.Reply(wire.Encode(ev))
}

// Why answers an operator: what keeps the user from posting in the room, in full.
// text may be empty. Errors are *chat.Error where a client would be told.
func (s *Server) Why(ctx context.Context, id chat.RoomID, u chat.UserID, text string) (wire.WhyEvent, error) {
	r, err := s.d.Hub.Room(ctx, id)
	if err != nil {
		return wire.WhyEvent{}, err
	}
	if !r.Exists() {
		return wire.WhyEvent{}, chat.Errorf(chat.CodeNoRoom, "there is no room %s", id)
	}
	return s.inquire(ctx, r, s.subjectOf(ctx, u, r), nil, text, true)
}

// inquiry is an answer in the making.
type inquiry struct {
	srv  *Server
	room *room.Room
	who  subject
	by   *Session // who asks, whose lock is held; nil for an operator
	now  time.Time
	full bool // for a moderator
	ev   wire.WhyEvent
}

func (s *Server) inquire(ctx context.Context, r *room.Room, who subject, by *Session, text string, full bool) (wire.WhyEvent, error) {
	q := &inquiry{srv: s, room: r, who: who, by: by, now: time.Now(), full: full}
	q.ev = wire.WhyEvent{Type: wire.Why, Room: r.ID(), User: who.user, May: true, Blocks: []wire.WhyBlock{}}
	if who.x == nil {
		q.ev.Note = fmt.Sprintf("%s is not connected to this node; taken for a %s without global roles, coming from nowhere", who.user, who.class)
	}
	q.checkRate()
	text, bytes := q.checkText(text)
	d, open, err := q.askPolicy(ctx, bytes)
	if err == nil && open {
		q.checkObligations(&d.Obligations, bytes)
		if text != "" {
			err = q.askPlugins(ctx, text, d.Obligations.Plugins)
		}
	}
	if err != nil {
		return wire.WhyEvent{}, err
	}
	if !q.ev.May {
		q.ev.Outcome = ""
	}
	return q.ev, nil
}

// block notes what stands in the way.
func (q *inquiry) block(b wire.WhyBlock) {
	q.ev.May = false
	q.ev.Blocks = append(q.ev.Blocks, b)
}

// refuse notes the error that a send would get.
func (q *inquiry) refuse(by string, e *chat.Error, change string) {
	b := wire.WhyBlock{By: by, Code: string(e.Code), Text: e.Text, Change: change}
	if e.Retry > 0 {
		b.UntilTS = q.until(e.Retry)
	}
	q.block(b)
}

func (q *inquiry) until(wait time.Duration) int64 { return q.now.Add(wait).UnixMilli() }

// changeWait is what changes a wait.
const changeWait = "Wait until then, and send it again."

// checkRate looks at the connection's rate of commands. That of another person
// belongs to their reader, who is not waited for.
func (q *inquiry) checkRate() {
	x := q.who.x
	if x == nil {
		return
	}
	if x != q.by {
		if !x.busy.TryLock() {
			return
		}
		defer x.busy.Unlock()
	}
	if wait := x.rate.wait(q.now, 1); wait > 0 {
		q.refuse(wire.ByRateLimit, q.srv.tooFast(wait), changeWait)
	}
}

// checkText returns the text as it would be posted, "" where it cannot be or
// none was given, and the size that the policy is asked about: any message has a
// byte.
func (q *inquiry) checkText(text string) (clean string, bytes int) {
	if text == "" {
		return "", 1
	}
	clean, err := moderation.Clean(text, q.srv.cfg.TextBytes)
	var e *chat.Error
	if errors.As(err, &e) {
		change := "Write something that can be shown."
		if e.Code == chat.CodeTextTooLong {
			change = fmt.Sprintf("Shorten the message to %d bytes, or split it.", q.srv.cfg.TextBytes)
		}
		q.refuse(wire.ByText, e, change)
		return "", len(text)
	}
	return clean, len(clean)
}

// checkObligations looks at what the policy attaches to its yes.
func (q *inquiry) checkObligations(o *gate.Obligations, bytes int) {
	if o.TextBytes != nil && bytes > *o.TextBytes {
		q.refuse(wire.ByText, tooLong(bytes, *o.TextBytes), fmt.Sprintf("Shorten the message to %d bytes, or split it.", *o.TextBytes))
	}
	if o.SlowModeS != nil {
		if wait := slowWait(q.who.user, q.room, *o.SlowModeS, q.now); wait > 0 {
			q.refuse(wire.BySlowMode, tooSoon(*o.SlowModeS, wait), changeWait)
		}
	}
	if o.RateLimit == nil {
		return
	}
	wait := q.srv.limits.wait(q.who.user, q.room.ID(), *o.RateLimit, q.now)
	switch {
	case wait <= 0:
	case o.RateLimit.Count <= 0: // there is nothing to wait for
		q.block(wire.WhyBlock{By: wire.ByRateLimit, Code: string(chat.CodeRateLimited), Text: "the rules of this server allow no messages here", Change: changeRules})
	default:
		q.refuse(wire.ByRateLimit, tooMany(*o.RateLimit, wait), changeWait)
	}
}

// askPolicy asks whether the subject may write, and notes each reason why not.
// open says that but for time they may; d is the decision that then counts.
func (q *inquiry) askPolicy(ctx context.Context, bytes int) (d gate.Decision, open bool, err error) {
	if !q.room.Exists() {
		in := q.who.about(gate.RoomCreate, q.room, q.now)
		if open, d, err = q.decide(ctx, in, wire.ByRoom); !open || err != nil {
			return d, false, err
		}
	}
	in := q.who.about(gate.MessageSend, q.room, q.now)
	in.Context.TextBytes = bytes
	if !q.room.Exists() { // as it would be once a send has made it
		in.Resource.Exists = true
		if q.who.class == chat.ClassUser {
			in.Subject.RoomRole = string(state.RoleOwner)
		}
	}
	open, d, err = q.decide(ctx, in, wire.ByPolicy)
	if open || err != nil || in.Context.SlowWaitS == 0 {
		return d, open, err
	}
	rested := *in
	rested.Context.SlowWaitS = 0
	d = q.srv.d.Gate.Rehearse(ctx, &rested)
	return d, d.Allow, nil
}

// decide asks one question and notes the refusals.
func (q *inquiry) decide(ctx context.Context, in *gate.Input, by string) (allow bool, d gate.Decision, err error) {
	var rules []gate.Rule
	if q.full {
		d, rules = q.srv.d.Gate.Refusers(ctx, in)
	}
	if !q.full || d.Failed { // what is let through though it failed, Rehearse knows
		d = q.srv.d.Gate.Rehearse(ctx, in)
	}
	if ctx.Err() != nil {
		return false, d, lateError(ctx.Err())
	}
	if q.full {
		q.ev.Revision = d.Revision
	}
	if d.Allow {
		return true, d, nil
	}
	said := denied(d)
	if d.Failed {
		q.refuse(wire.ByPolicy, &chat.Error{Code: said.Code, Text: said.Text}, "An operator has to mend the rules; try again later.")
		return false, d, nil
	}
	ifs := q.whatIfs(ctx, in, &d)
	reasons := d.Reasons
	if len(reasons) == 0 {
		reasons = []chat.Reason{{Code: string(said.Code), Text: said.Text, Source: "policy"}}
	}
	for i, reason := range reasons {
		b := wire.WhyBlock{By: by, Code: reason.Code, Text: reason.Text, Source: reason.Source}
		if by == wire.ByRoom {
			b.Code = string(chat.CodeNoRoom)
		} else if reason.Code == string(chat.CodeSlowMode) {
			b.By = wire.BySlowMode
		}
		if b.Text == "" {
			b.Text = "the rules of this server do not allow this"
		}
		b.Change, b.UntilTS = changeOf(ifs, reason.Code)
		if i < len(rules) && rules[i] != (gate.Rule{}) {
			b.Rule = new(wire.WhyRule(rules[i]))
		}
		q.block(b)
	}
	return false, d, nil
}

// has reports whether a decision gives a reason of that code.
func has(d *gate.Decision, code string) bool {
	return slices.ContainsFunc(d.Reasons, func(r chat.Reason) bool { return r.Code == code })
}
