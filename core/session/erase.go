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
	"parley/core/room"
	"parley/core/state"
	"parley/core/wire"
)

// Erasing is done in this order: the evidence of this node, the list that the
// other nodes erase theirs by, the store, and then the entry that tells of it. What fails on the way is done by doing all of it
// again, and nobody is told of something that has not happened.

// eraseCost is a second's worth of commands by default. Anybody may erase what
// they wrote, and with Redis the room's log is written anew for it, which keeps
// its one thread busy for a part of a second in a room of 100,000 entries
// (go test ./core/journal/redis -run xxx -bench Erase).
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
	for _, id := range ids {
		if err := s.forgetEvidence(id); err != nil {
			return 0, &chat.Error{Code: chat.CodeUnavailable, Text: "the evidence about this cannot be erased at present; nothing was erased, try again", Retry: time.Second, Cause: err}
		}
	}
	if err := s.spread(ctx, ids, ""); err != nil {
		return 0, storeError(fmt.Errorf("erase in room %s: %w", r.ID(), err))
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

func (s *Server) forgetEvidence(id chat.MessageID) error {
	if s.d.Evidence == nil || id == "" {
		return nil
	}
	_, err := s.d.Evidence.Erase(evidence.Selection{ID: id})
	return err
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
	id := newID()
	e := journal.Entry{ID: chat.MessageID(id), Kind: journal.KindErase, From: by, Time: time.Now().UnixMilli(),
		Nonce: id, Text: reason, Outcome: chat.Accepted, Erases: er.Seqs}
	if _, err := s.d.Hub.Record(ctx, r, e, false); err != nil {
		return n, storeError(fmt.Errorf("record an erasure in room %s: %w", r.ID(), err))
	}
	return n, nil
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
	for after := chat.RoomID(""); ; {
		ids, err := s.d.Journal.Rooms(ctx, after, 100)
		if err != nil {
			return done, fmt.Errorf("list the rooms: %w", err)
		}
		if len(ids) == 0 {
			return done, nil
		}
		for _, id := range ids {
			if err := s.eraseUserIn(ctx, id, u, by, reason, &done); err != nil {
				return done, fmt.Errorf("erase in room %s: %w", id, err)
			}
		}
		after = ids[len(ids)-1]
	}
}

func (s *Server) eraseUserIn(ctx context.Context, id chat.RoomID, u, by chat.UserID, reason string, done *Erased) error {
	var r *room.Room // loaded only where there is something to do
	load := func() (err error) {
		if r == nil {
			r, err = s.d.Hub.Room(ctx, id)
		}
		return err
	}
	entries, reviews := 0, 0
	open, decided, err := s.d.Journal.Reviews(ctx, id)
	if err != nil {
		return err
	}
	for i := range open {
		if open[i].Entry.From != u {
			continue
		}
		if err := load(); err != nil {
			return err
		}
		why := []chat.Reason{{Code: reasonErased, Text: reason, Source: moderatorSource}}
		if _, _, err := s.settle(ctx, r, &open[i], chat.Rejected, why, by); err != nil && !errors.Is(err, journal.ErrNotOpen) {
			return err
		}
		reviews++
	}
	er := journal.Erasure{}
	flush := func() error {
		if err := load(); err != nil {
			return err
		}
		n, err := s.eraseAll(ctx, r, er, nil, by, reason) // the evidence has gone
		entries += n
		er = journal.Erasure{}
		return err
	}
	for after := uint64(0); ; {
		epoch, es, err := s.d.Journal.Read(ctx, id, after, 200)
		var damaged *journal.DamagedError
		if errors.As(err, &damaged) && damaged.Seq > after {
			after = damaged.Seq
			continue
		}
		if err != nil {
			return err
		}
		if len(es) == 0 {
			break
		}
		for i := range es {
			if e := &es[i]; e.From == u && e.Erasable() {
				er.Epoch, er.Seqs = epoch, append(er.Seqs, e.Seq)
			}
		}
		after = es[len(es)-1].Seq
		if len(er.Seqs) >= eraseBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	for i := range decided {
		if decided[i].Entry.From == u {
			er.Author = u
		}
	}
	if len(er.Seqs) > 0 || er.Author != "" || reviews > 0 {
		er.Author = u
		if err := flush(); err != nil {
			return err
		}
	}
	if entries+reviews > 0 {
		done.Rooms++
	}
	done.Entries += entries
	done.Reviews += reviews
	return nil
}
