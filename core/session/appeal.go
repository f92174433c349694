package session

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/wire"
)

// Bounds of the denied messages a node remembers so that they can be appealed.
const (
	appealTime  = 10 * time.Minute // to make up one's mind
	appealCount = 4096
	appealBytes = 4 << 20 // of their texts together
)

// denial is a message that plugins refused, as its author may appeal it.
type denial struct {
	room   chat.RoomID
	entry  journal.Entry
	record string // digest of the decision record
	until  time.Time
	// Guarded by the lock of appeals.
	used bool
}

// appeals remembers denials by their handles, the oldest first to go. They are
// in memory alone: an appeal goes to the node that refused, and a restart
// forgets them. Any goroutine may use it.
type appeals struct {
	mu    sync.Mutex
	m     map[string]*denial
	order []string
	bytes int
}

// add remembers d and returns its handle.
func (a *appeals) add(d *denial, now time.Time) string {
	handle := rand.Text()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.m == nil {
		a.m = make(map[string]*denial)
	}
	a.m[handle] = d
	a.order = append(a.order, handle)
	a.bytes += len(d.entry.Text)
	for len(a.order) > 1 {
		old := a.m[a.order[0]]
		if len(a.order) <= appealCount && a.bytes <= appealBytes && now.Before(old.until) {
			break
		}
		a.bytes -= len(old.entry.Text)
		delete(a.m, a.order[0])
		a.order = a.order[1:]
	}
	return handle
}

// forget drops what was denied to a user.
func (a *appeals) forget(u chat.UserID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.m {
		if d.entry.From == u {
			a.bytes -= len(d.entry.Text)
			d.entry.Text, d.used = "", true
		}
	}
}

// take gives the denial out, once, to its author. undo gives the appeal back
// where it could not be carried out.
func (a *appeals) take(handle string, room chat.RoomID, user chat.UserID, now time.Time) (d *denial, undo func(), err *chat.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d = a.m[handle]
	switch {
	case d == nil || d.room != room || d.entry.From != user || !now.Before(d.until):
		return nil, nil, chat.Errorf(chat.CodeNoAppeal, "there is nothing to appeal by that name: an appeal is good for %d minutes, on the connection's server, for the author; send the message again", int(appealTime.Minutes()))
	case d.used:
		return nil, nil, chat.Errorf(chat.CodeNoAppeal, "you have appealed this already; once is all there is")
	}
	d.used = true
	return d, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		d.used = false
	}, nil
}

// appeal puts a denied message in the review queue, where its author asks. It
// is a message like any other for the policy, slow mode and rates.
func (x *Session) appeal(ctx context.Context, c *wire.Command) error {
	reason, err := cleanReason(c.Reason)
	if err != nil {
		return err
	}
	r, err := x.existing(ctx, c.Room)
	if err != nil {
		return err
	}
	d, undo, refusal := x.srv.appeals.take(c.Appeal, c.Room, x.who.User, time.Now())
	if refusal != nil {
		return refusal
	}
	f := floor{turns: x.srv.turns, turn: turn{x.who.User, r.ID()}}
	defer f.end()
	_, now, err := x.speak(ctx, r, &f, d.entry.ID, len(d.entry.Text))
	if err != nil {
		undo()
		return err
	}
	e := d.entry
	e.Time = now.UnixMilli()
	if reason != "" {
		e.Reasons = append(append([]chat.Reason(nil), e.Reasons...), chat.Reason{Code: reasonAppeal, Text: reason, Source: authorSource})
	}
	x.news.hold()
	defer x.news.release(x.peer)
	receipt, err := x.srv.hold(ctx, r, e, true, d.record)
	if err != nil {
		undo()
		return err
	}
	if receipt.Repeat { // sent and refused twice under one nonce, and appealed twice
		return chat.Errorf(chat.CodeNoAppeal, "you have appealed this message already; its outcome is %s", receipt.Outcome)
	}
	x.srv.stats.Appeals.Add(1)
	return x.acknowledge(c, &receipt)
}
