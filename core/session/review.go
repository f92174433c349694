package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/journal"
	"parley/core/moderation"
	"parley/core/room"
	"parley/core/wire"
)

// hold puts the message e in the room's review queue.
func (s *Server) hold(ctx context.Context, r *room.Room, e journal.Entry, appeal bool, record string) (journal.Receipt, error) {
	e.Outcome = chat.Held
	receipt, err := r.Review(ctx, e, &journal.Review{Entry: e, Appeal: appeal, Record: record}, nil)
	var full *chat.Error
	switch {
	case err == nil:
		return receipt, nil
	case errors.Is(err, journal.ErrOwnQueueFull):
		full = queueFull(journal.MaxOwnReviews, 0)
	case errors.Is(err, journal.ErrQueueFull):
		full = queueFull(0, journal.MaxReviews)
	}
	if full != nil {
		full.Reasons = e.Reasons
		return receipt, full
	}
	return receipt, storeError(fmt.Errorf("hold a message in room %s: %w", r.ID(), err))
}

// queueFull is the error of one more message to review, nil where there is room.
func queueFull(own, all int) *chat.Error {
	full := &chat.Error{Code: chat.CodeQueueFull, Retry: time.Minute}
	switch {
	case own >= journal.MaxOwnReviews:
		full.Text = fmt.Sprintf("%d of your messages wait for a moderator here, as many as may; wait until some are decided", journal.MaxOwnReviews)
	case all >= journal.MaxReviews:
		full.Text = fmt.Sprintf("%d messages wait for a moderator in this room, as many as may; try again once some are decided", journal.MaxReviews)
	default:
		return nil
	}
	return full
}

// reasonRejected is the code of a moderator's reason, and moderatorSource its
// source: authors are not told which moderator it was.
const (
	reasonRejected  = "rejected"
	reasonExpired   = "expired"
	reasonAppeal    = "appeal"
	moderatorSource = "moderator"
	authorSource    = "author"
	limitsSource    = "limits"
)

// DecideReview approves or rejects an open review of the room, in the name of
// by, who may. It returns the review as it is decided, and the receipt of its
// entry. Deciding again what the same person decided in the same way answers
// as the first time, without the receipt. Errors are *chat.Error.
func (s *Server) DecideReview(ctx context.Context, r *room.Room, id chat.MessageID, approve bool, reason string, by chat.UserID) (journal.Review, journal.Receipt, error) {
	outcome := chat.Rejected
	if approve {
		outcome = chat.Accepted
	}
	reason, err := cleanReason(reason)
	if err != nil {
		return journal.Review{}, journal.Receipt{}, err
	}
	for range 2 { // the second time finds who was quicker
		open, decided, err := s.d.Journal.Reviews(ctx, r.ID())
		if err != nil {
			return journal.Review{}, journal.Receipt{}, storeError(fmt.Errorf("read the reviews of room %s: %w", r.ID(), err))
		}
		v := findReview(open, id)
		if v == nil {
			v = findReview(decided, id)
			if v != nil && v.By == by && v.Entry.Outcome == outcome {
				return *v, journal.Receipt{}, nil
			}
			return journal.Review{}, journal.Receipt{}, notOpen(id, v)
		}
		var why []chat.Reason
		if !approve {
			why = []chat.Reason{{Code: reasonRejected, Text: reason, Source: moderatorSource}}
		}
		done, receipt, err := s.settle(ctx, r, v, outcome, why, by)
		if errors.Is(err, journal.ErrNotOpen) {
			continue
		}
		if err != nil {
			return journal.Review{}, journal.Receipt{}, storeError(fmt.Errorf("decide a review in room %s: %w", r.ID(), err))
		}
		return done, receipt, nil
	}
	return journal.Review{}, journal.Receipt{}, notOpen(id, nil)
}

// settle appends the decision about v; why is what the author is told of it.
func (s *Server) settle(ctx context.Context, r *room.Room, v *journal.Review, outcome chat.Outcome, why []chat.Reason, by chat.UserID) (journal.Review, journal.Receipt, error) {
	e := v.Entry
	// The entry is as old as its place in the log: retention goes by time.
	e.Time, e.Outcome, e.Reasons = time.Now().UnixMilli(), outcome, why
	if outcome != chat.Accepted {
		e.Text = ""
	}
	done := *v
	done.Entry.Text, done.Entry.Outcome, done.Entry.Reasons = "", outcome, e.Reasons
	done.By, done.Decided = by, e.Time
	post := func(notify []journal.Notice) (journal.Receipt, error) { return r.Review(ctx, e, &done, notify) }
	var receipt journal.Receipt
	var err error
	if outcome == chat.Accepted {
		receipt, err = s.tell(ctx, r, &e, post)
	} else {
		receipt, err = post(nil)
	}
	if err != nil {
		return journal.Review{}, receipt, err
	}
	switch outcome {
	case chat.Rejected:
		s.stats.Rejected.Add(1)
	case chat.Expired:
		s.stats.Expired.Add(1)
	default:
		s.stats.Approved.Add(1)
	}
	return done, receipt, nil
}

func findReview(rs []journal.Review, id chat.MessageID) *journal.Review {
	for i := range rs {
		if rs[i].Entry.ID == id {
			return &rs[i]
		}
	}
	return nil
}

// notOpen says why a review cannot be decided; v is how it was, if known.
func notOpen(id chat.MessageID, v *journal.Review) *chat.Error {
	if v == nil {
		return chat.Errorf(chat.CodeNoReview, "no message with the id %.64q waits for review here; it may have been decided long ago", id)
	}
	was := "approved"
	switch v.Entry.Outcome {
	case chat.Expired:
		return chat.Errorf(chat.CodeNoReview, "this message has expired: nobody decided about it in time")
	case chat.Rejected:
		was = "rejected"
	}
	return chat.Errorf(chat.CodeNoReview, "%s has %s this message already", v.By, was)
}

// cleanReason makes a person's reason fit to be shown, in one line; it may be
// empty.
func cleanReason(s string) (string, error) {
	if strings.TrimSpace(s) == "" {
		return "", nil
	}
	s, err := moderation.Clean(s, wire.MaxReason)
	if err != nil {
		return "", err
	}
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(s), nil
}

// mayReview asks the policy whether the client decides about the room's
// reviews.
func (x *Session) mayReview(ctx context.Context, r *room.Room) gate.Decision {
	return x.srv.d.Gate.Decide(ctx, x.about(gate.ModerateReview, r, time.Now()))
}

// reviewBytes bounds the text in one answer to reviews.
const reviewBytes = 256 << 10

// reviews answers the queue to a moderator, and to everybody else what became
// of their own held messages. A moderator who is in the room is told of
// changes from then on.
func (x *Session) reviews(ctx context.Context, c *wire.Command) error {
	r, err := x.existing(ctx, c.Room)
	if err != nil {
		return err
	}
	all := x.mayReview(ctx, r).Allow
	if all && x.peer.Member(c.Room) != nil {
		if x.looking == nil {
			x.looking = make(map[chat.RoomID]struct{})
		}
		x.looking[c.Room] = struct{}{}
		x.srv.reviewers.add(c.Room, x)
	}
	open, decided, err := x.srv.d.Journal.Reviews(ctx, c.Room)
	if err != nil {
		return storeError(fmt.Errorf("read the reviews of room %s: %w", c.Room, err))
	}
	ev := wire.ReviewsEvent{Type: wire.Reviews, ID: c.ID, Room: c.Room, All: all, Open: []wire.ReviewItem{}}
	size := 0
	for i := range open {
		if !all && open[i].Entry.From != x.who.User {
			continue
		}
		if size += len(open[i].Entry.Text); size > reviewBytes && len(ev.Open) > 0 {
			ev.More = true
			break
		}
		ev.Open = append(ev.Open, wire.ItemOf(&open[i], all))
	}
	for i := range decided {
		if all || decided[i].Entry.From == x.who.User {
			ev.Decided = append(ev.Decided, wire.ItemOf(&decided[i], all))
		}
	}
	return x.peer.Reply(wire.Encode(ev))
}

// review approves or rejects a held message.
func (x *Session) review(ctx context.Context, c *wire.Command) error {
	r, err := x.existing(ctx, c.Room)
	if err != nil {
		return err
	}
	if d := x.mayReview(ctx, r); !d.Allow {
		return denied(d)
	}
	v, receipt, err := x.srv.DecideReview(ctx, r, c.ReviewID, c.Action == wire.Approve, c.Reason, x.who.User)
	if err != nil {
		return err
	}
	return x.peer.Reply(wire.Encode(wire.ReviewEvent{Type: wire.Review, ID: c.ID, Room: c.Room, ReviewItem: wire.ItemOf(&v, true), Seq: receipt.Seq}))
}

// reviewed hears of every review that is opened or decided in a loaded room,
// on any node, of a room's in their order. Authors are told of decisions,
// moderators who look at the queue of every change; the text is not part of it.
func (s *Server) reviewed(id chat.RoomID, v *journal.Review) {
	plain := *v
	plain.Entry.Text = ""
	if !v.Open() {
		f := wire.Encode(wire.ReviewEvent{Type: wire.Review, Room: id, ReviewItem: wire.ItemOf(&plain, false)})
		for _, x := range s.sessionsOf(v.Entry.From) {
			x.news.tell(x.peer, f)
		}
	}
	watching := s.reviewers.of(id)
	if len(watching) == 0 {
		return
	}
	r, err := s.d.Hub.Room(s.ctx, id)
	if err != nil {
		return // a hint that cannot be given is none
	}
	f := wire.Encode(wire.ReviewEvent{Type: wire.Review, Room: id, ReviewItem: wire.ItemOf(&plain, true)})
	for _, x := range watching {
		switch {
		case !v.Open() && x.who.User == v.Entry.From: // has been told
		case !x.mayReview(s.ctx, r).Allow: // any more
			s.reviewers.remove(id, x)
		default:
			_ = x.peer.Tell(f)
		}
	}
}
