package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/journal"
	"parley/core/wire"
)

// history answers a page of the log: the entries before or after a seq, or
// the newest.
func (x *Session) history(ctx context.Context, c *wire.Command) error {
	r, err := x.existing(ctx, c.Room)
	if err != nil {
		return err
	}
	d := x.srv.d.Gate.Decide(ctx, x.about(gate.HistoryRead, r, time.Now()))
	if !d.Allow {
		return denied(d)
	}
	limit := x.srv.cfg.HistoryEntries
	if c.Limit > 0 {
		limit = min(limit, c.Limit)
	}
	ev, err := x.page(ctx, c, limit, readFloor(d.Obligations.History, r.Position().Seq))
	if err != nil {
		return err
	}
	return x.peer.Reply(wire.Encode(ev))
}

// page reads one page, and one entry more to know whether there is another.
// Entries at or below floor are not this client's to read.
func (x *Session) page(ctx context.Context, c *wire.Command, limit int, floor uint64) (*wire.HistoryEvent, error) {
	j := x.srv.d.Journal
	var epoch string
	var es []journal.Entry
	var err error
	forward := c.After != nil
	if forward {
		epoch, es, err = j.Read(ctx, c.Room, max(*c.After, floor), limit+1)
	} else {
		epoch, es, err = j.ReadBefore(ctx, c.Room, c.Before, limit+1)
	}
	if errors.Is(err, journal.ErrDamaged) {
		return nil, damagedError(err)
	}
	if err != nil {
		return nil, storeError(fmt.Errorf("read history of room %s: %w", c.Room, err))
	}
	for len(es) > 0 && es[0].Seq <= floor {
		es = es[1:]
	}
	more := len(es) > limit
	switch {
	case more && forward:
		es = es[:limit]
	case more:
		es = es[1:]
	}
	if forward && len(es) > 0 && !more { // a batch may end at its byte bound before the limit
		more = es[len(es)-1].Seq < x.top(ctx, c.Room)
	} else if !forward && len(es) > 0 && !more && es[0].Seq > 1 {
		more = es[0].Seq > floor+1 && x.first(ctx, c.Room) < es[0].Seq
	}
	ev := &wire.HistoryEvent{Type: wire.History, ID: c.ID, Room: c.Room, Epoch: epoch, More: more, Entries: make([]wire.EntryEvent, len(es))}
	for i := range es {
		ev.Entries[i] = wire.EventOf(c.Room, &es[i])
	}
	return ev, nil
}

// damagedError tells a reader how to read on beyond an entry that is lost.
func damagedError(err error) *chat.Error {
	e := &chat.Error{Code: chat.CodeUnavailable, Text: "part of this room's log is damaged and cannot be shown; the operators can see where", Cause: err}
	var at *journal.DamagedError
	if errors.As(err, &at) && at.Seq > 0 {
		e.Text = fmt.Sprintf("entry %d of this room is damaged and cannot be shown; ask for what lies before it or after it", at.Seq)
	}
	return e
}

func (x *Session) top(ctx context.Context, id chat.RoomID) uint64 {
	r, err := x.srv.d.Hub.Room(ctx, id)
	if err != nil {
		return 0
	}
	return r.Position().Seq
}

func (x *Session) first(ctx context.Context, id chat.RoomID) uint64 {
	info, err := x.srv.d.Journal.Info(ctx, id)
	if err != nil {
		return 0
	}
	return info.First
}
