package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/gate"
	"parley/core/ids"
	"parley/core/journal"
	"parley/core/room"
	"parley/core/state"
	"parley/core/wire"
)

// Erasing is done in this order: the evidence of this node, the list that the
// other nodes erase theirs by, what was put aside for absent people, the store,
// and then the entry that tells of it. What fails on the way is done by doing all
// of it again, and nobody is told of something that has not happened.

// eraseCost is a second's worth of commands by default. Anybody may erase what
// they wrote, and with Redis the room's log is written anew for it (docs/keeping.md).
func eraseCost(*wire.Command) float64 { return 20 }

// erase takes the text out of one entry, for its author or a moderator.
func (x *Session) erase(ctx context.Context, c *wire.Command) error {
	return x.manage(ctx, c, gate.MessageRedact, func(o *order, _ *state.Room, now time.Time) error {
		r, err := x.existing(ctx, c.Room)
		if err != nil {
			return err
		}
		epoch, e, err := x.srv.entryAt(ctx, r, c.Seq)
		if err != nil {
			return x.unlessStranger(ctx, c.Room, o.in, err)
		}
		x.aim(o.in, r, e.From, x.srv.d.Auth.Known(ctx, e.From), now)
		o.in.Message = e.ID
		o.entry.Kind, o.entry.Erases = journal.KindErase, []uint64{c.Seq}
		o.first = func(ctx context.Context) error {
			_, err := x.srv.forget(ctx, r, journal.Erasure{Epoch: epoch, Seqs: o.entry.Erases}, []chat.MessageID{e.ID})
			return err
		}
		return nil
	})
}

// unlessStranger is what a client is told of an entry that cannot be erased.
// Whoever is not in the room, and may erase nothing of it, is told that instead:
// else how far a private room has come could be found out by asking.
func (x *Session) unlessStranger(ctx context.Context, id chat.RoomID, in *gate.Input, err error) error {
	if x.peer.Member(id) != nil {
		return err
	}
	if d := x.srv.d.Gate.Decide(ctx, in); !d.Allow {
		return denied(d)
	}
	return err
}

// entryAt reads an entry that can be erased, or has been.
func (s *Server) entryAt(ctx context.Context, r *room.Room, seq uint64) (epoch string, e journal.Entry, err error) {
	epoch, es, err := s.d.Journal.Read(ctx, r.ID(), seq-1, 1)
	switch {
	case err != nil && !errors.Is(err, journal.ErrDamaged):
		return "", e, storeError(fmt.Errorf("read entry %d of room %s: %w", seq, r.ID(), err))
	case err != nil || len(es) == 0 || es[0].Seq != seq:
		return "", e, chat.Errorf(chat.CodeBadRequest, "this room holds no entry %d, or not any more", seq)
	case es[0].Outcome != chat.Erased && !es[0].Erasable():
		return "", e, chat.Errorf(chat.CodeBadRequest, "entry %d of this room holds no text; nothing to erase", seq)
	}
	return epoch, es[0], nil
}

// forget takes what was written out of this node's evidence and out of the store.
func (s *Server) forget(ctx context.Context, r *room.Room, er journal.Erasure, ids []chat.MessageID) (int, error) {
	if s.d.Evidence != nil && len(ids) > 0 {
		if _, err := s.d.Evidence.EraseMessages(ids); err != nil {
			return 0, &chat.Error{Code: chat.CodeUnavailable, Text: "the evidence about this cannot be erased at present; nothing was erased, try again", Retry: time.Second, Cause: err}
		}
	}
	if err := s.spread(ctx, ids, ""); err != nil {
		return 0, storeError(fmt.Errorf("erase in room %s: %w", r.ID(), err))
	}
	if s.d.Absent != nil && len(ids) > 0 {
		if err := s.d.Absent.Erase(ctx, r.ID(), ids); err != nil {
			return 0, storeError(fmt.Errorf("erase in room %s: %w", r.ID(), err))
		}
	}
	n, err := s.d.Journal.Erase(ctx, r.ID(), er)
	switch {
	case errors.Is(err, journal.ErrOtherEpoch):
		return n, &chat.Error{Code: chat.CodeUnavailable, Text: "the room's log was replaced meanwhile; look at it again", Cause: err}
	case err != nil:
		return n, storeError(fmt.Errorf("erase in room %s: %w", r.ID(), err))
	}
	return n, nil
}

// reasonErased is the code of the reason that the author of a held message is
// told when it was erased.
const reasonErased = "erased"

// Erased counts what was erased.
type Erased struct {
	Entries int `json:"entries"` // that held something
	Rooms   int `json:"rooms"`   // in which something was erased
	Reviews int `json:"reviews"` // held messages that were rejected
}

func (e *Erased) add(more Erased) {
	e.Entries, e.Rooms, e.Reviews = e.Entries+more.Entries, e.Rooms+more.Rooms, e.Reviews+more.Reviews
}

// EraseEntries erases entries of the room in the name of by, who may, and
// records it. Entries that the room does not hold are passed over. Errors are
// *chat.Error.
func (s *Server) EraseEntries(ctx context.Context, r *room.Room, seqs []uint64, by chat.UserID, reason string) (int, error) {
	reason, err := cleanReason(reason)
	if err != nil {
		return 0, err
	}
	var ids []chat.MessageID
	var held []uint64
	epoch := ""
	for _, seq := range seqs {
		at, e, err := s.entryAt(ctx, r, seq)
		var ce *chat.Error
		if errors.As(err, &ce) && ce.Code == chat.CodeBadRequest {
			continue
		}
		if err != nil {
			return 0, err
		}
		if epoch != "" && at != epoch {
			return 0, &chat.Error{Code: chat.CodeUnavailable, Text: "the room's log was replaced meanwhile; look at it again"}
		}
		epoch = at
		held, ids = append(held, seq), append(ids, e.ID)
	}
	if len(held) == 0 {
		return 0, nil
	}
	return s.eraseAll(ctx, r, journal.Erasure{Epoch: epoch, Seqs: held}, ids, by, reason)
}

func (s *Server) eraseAll(ctx context.Context, r *room.Room, er journal.Erasure, ids []chat.MessageID, by chat.UserID, reason string) (int, error) {
	n, err := s.forget(ctx, r, er, ids)
	if err != nil || len(er.Seqs) == 0 {
		return n, err
	}
	return n, s.recordErasure(ctx, r, er.Seqs, by, reason)
}

// recordErasure appends the entry that tells everybody what was erased.
func (s *Server) recordErasure(ctx context.Context, r *room.Room, seqs []uint64, by chat.UserID, reason string) error {
	id := ids.New()
	e := journal.Entry{ID: chat.MessageID(id), Kind: journal.KindErase, From: by, Time: time.Now().UnixMilli(),
		Nonce: id, Text: reason, Outcome: chat.Accepted, Erases: seqs}
	if _, err := s.d.Hub.Record(ctx, r, e, false); err != nil {
		return storeError(fmt.Errorf("record an erasure in room %s: %w", r.ID(), err))
	}
	return nil
}

// eraseBatch is how many entries one entry of a user's erasure names.
const eraseBatch = 256

// EraseUser erases everything the user wrote that the store holds, in every room,
// rejects what of theirs waits for a moderator, and erases this node's evidence
// about them. Their name stays where it was. After an error some is erased: do
// it again. It takes as long as reading every room's log does.
func (s *Server) EraseUser(ctx context.Context, u, by chat.UserID, reason string) (done Erased, err error) {
	reason, err = cleanReason(reason)
	if err != nil {
		return done, err
	}
	s.appeals.forget(u)
	if s.d.Evidence != nil {
		if _, err := s.d.Evidence.Erase(evidence.Selection{User: u}); err != nil {
			return done, fmt.Errorf("erase the evidence about %s: %w", u, err)
		}
	}
	if err := s.spread(ctx, nil, u); err != nil {
		return done, err
	}
	if s.d.Absent != nil {
		if err := s.d.Absent.EraseOf(ctx, u); err != nil {
			return done, fmt.Errorf("erase what %s wrote to absent people: %w", u, err)
		}
	}
	for after := chat.RoomID(""); ; {
		ids, err := s.d.Journal.Rooms(ctx, after, 100)
		if err != nil {
			return done, fmt.Errorf("list the rooms: %w", err)
		}
		if len(ids) == 0 {
			return done, nil
		}
		for _, id := range ids {
			x := userErasure{s: s, id: id, user: u, by: by, reason: reason}
			err := x.run(ctx)
			done.add(x.done)
			if err != nil {
				return done, fmt.Errorf("erase in room %s: %w", id, err)
			}
		}
		after = ids[len(ids)-1]
	}
}

// userErasure is the erasure of what somebody wrote in one room.
type userErasure struct {
	s            *Server
	id           chat.RoomID
	room         *room.Room // loaded where there is something to do
	user, by     chat.UserID
	reason       string
	epoch        string
	full, hidden []uint64 // entries that hold something, and those that did; hidden ones nobody was told of
	done         Erased
}

func (x *userErasure) load(ctx context.Context) (err error) {
	if x.room == nil {
		x.room, err = x.s.d.Hub.Room(ctx, x.id)
	}
	return err
}

func (x *userErasure) run(ctx context.Context) error {
	open, decided, err := x.s.d.Journal.Reviews(ctx, x.id)
	if err != nil {
		return err
	}
	author := chat.UserID("")
	for i := range open {
		if open[i].Entry.From != x.user {
			continue
		}
		if err := x.load(ctx); err != nil {
			return err
		}
		why := []chat.Reason{{Code: reasonErased, Text: x.reason, Source: moderatorSource}}
		if _, _, err := x.s.settle(ctx, x.room, &open[i], chat.Rejected, why, x.by); err != nil && !errors.Is(err, journal.ErrNotOpen) {
			return err
		}
		x.done.Reviews, author = x.done.Reviews+1, x.user
	}
	for i := range decided {
		if decided[i].Entry.From == x.user {
			author = x.user
		}
	}
	for more, after := true, uint64(0); more; {
		if after, more, err = x.collect(ctx, after); err != nil {
			return err
		}
		if len(x.full)+len(x.hidden) > 0 {
			author = x.user
		}
		// All at once: it costs the store about as much as one.
		if !more && author != "" || len(x.full) == journal.MaxErasure {
			if err := x.flush(ctx, author); err != nil {
				return err
			}
		}
	}
	if x.done.Entries+x.done.Reviews > 0 {
		x.done.Rooms = 1
	}
	return nil
}

// collect reads the log behind a seq to its end, or to as many entries as one
// erasure takes. It holds their seqs alone.
func (x *userErasure) collect(ctx context.Context, after uint64) (at uint64, more bool, err error) {
	hidden := map[uint64]bool{}
	for {
		epoch, es, err := x.s.d.Journal.Read(ctx, x.id, after, 200)
		var damaged *journal.DamagedError
		switch {
		case errors.As(err, &damaged) && damaged.Seq > after:
			after = damaged.Seq
			continue
		case err != nil:
			return after, false, err
		case x.epoch != "" && epoch != x.epoch && len(es)+len(x.full)+len(hidden) > 0: // what was collected may be other entries now
			return after, false, fmt.Errorf("its log was replaced meanwhile: %w", journal.ErrOtherEpoch)
		}
		x.epoch = epoch
		for i := range es {
			e := &es[i]
			for _, seq := range e.Erases {
				delete(hidden, seq)
			}
			if e.From != x.user {
				continue
			}
			if e.Erasable() {
				x.full = append(x.full, e.Seq)
			} else if e.Outcome == chat.Erased && len(hidden) < journal.MaxErasure {
				hidden[e.Seq] = true
			}
			if after = e.Seq; len(x.full) == journal.MaxErasure {
				return after, true, nil
			}
		}
		if len(es) == 0 {
			// Erased by a call that ended before it could say so.
			x.hidden = slices.Sorted(maps.Keys(hidden))
			return after, false, nil
		}
		after = es[len(es)-1].Seq
	}
}

// flush erases what was collected, and records it.
func (x *userErasure) flush(ctx context.Context, author chat.UserID) error {
	if err := x.load(ctx); err != nil {
		return err
	}
	n, err := x.s.forget(ctx, x.room, journal.Erasure{Epoch: x.epoch, Seqs: x.full, Author: author}, nil) // the evidence has gone
	x.done.Entries += n
	if err != nil {
		return err
	}
	seqs := append(x.full, x.hidden...)
	x.full, x.hidden = nil, nil
	slices.Sort(seqs)
	for some := range slices.Chunk(seqs, eraseBatch) {
		if err := x.s.recordErasure(ctx, x.room, slices.Clone(some), x.by, x.reason); err != nil {
			return err
		}
	}
	return nil
}
