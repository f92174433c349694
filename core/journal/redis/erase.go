package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	rds "parley/core/redis"
)

var (
	//go:embed rewrite.lua
	rewriteSource string
	//go:embed amend.lua
	amendSource string

	rewriteScript = rds.NewScript("journal rewrite", rewriteSource)
	amendScript   = rds.NewScript("journal amend", amendSource)
)

const (
	// rewriteEntries is how many entries one step copies: a few milliseconds in
	// which Redis does nothing else.
	rewriteEntries = 1000
	// rewriteLife is how long a copy outlives the node that made it, in ms.
	rewriteLife = 30_000
	// rewriteWait is the pause before looking again whether another node's copy
	// has ended.
	rewriteWait = 50 * time.Millisecond
)

// Erase implements journal.Journal. A stream keeps the bytes of an entry that
// was deleted until all around it are, so the stream is written anew, in steps
// between which appends go on. Erasing needs as much memory again as the room's
// log, for a moment. What was set aside of the room's lost epochs is deleted.
func (j *Journal) Erase(ctx context.Context, room chat.RoomID, er journal.Erasure) (int, error) {
	if err := j.begin(); err != nil {
		return 0, err
	}
	defer j.calls.Done()
	if err := checkRoom(room); err != nil {
		return 0, err
	}
	if err := er.Check(); err != nil {
		return 0, err
	}
	instead, ids, err := j.tombstones(ctx, room, &er)
	if err != nil {
		return 0, err
	}
	if err := j.rewrite(ctx, room, er.Epoch, instead); err != nil {
		return 0, err
	}
	return len(instead) / 2, j.eraseDecided(ctx, room, &er, ids)
}

// tombstones reads what is to be erased. It returns pairs of a stream id and the
// record to put there, and the ids of all entries that are named.
func (j *Journal) tombstones(ctx context.Context, room chat.RoomID, er *journal.Erasure) (instead []any, ids map[chat.MessageID]bool, err error) {
	ids = make(map[chat.MessageID]bool, len(er.Seqs))
	for _, seq := range er.Seqs {
		if seq == 0 {
			continue
		}
		epoch, es, err := j.read(ctx, room, "XRANGE", streamID(seq), streamID(seq), 1)
		if errors.Is(err, journal.ErrDamaged) { // what it held cannot be told
			j.log.Error("journal erases a damaged record whole", "room", room, "seq", seq, "error", err)
			instead = append(instead, streamID(seq), "")
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if epoch != er.Epoch {
			return nil, nil, fmt.Errorf("erase in %s: %w", room, journal.ErrOtherEpoch)
		}
		if len(es) == 0 {
			continue
		}
		ids[es[0].ID] = true
		if !es[0].Erase() {
			continue
		}
		rec, err := appendEntry(nil, &es[0])
		if err != nil {
			return nil, nil, fmt.Errorf("erase in %s: %w", room, err)
		}
		instead = append(instead, streamID(seq), rec)
	}
	return instead, ids, nil
}

// rewrite writes the room's stream anew. It is done where nothing is to be
// replaced too: what was set aside goes with it, and an earlier call may have
// ended half-way.
func (j *Journal) rewrite(ctx context.Context, room chat.RoomID, epoch string, instead []any) error {
	if len(instead) == 0 {
		return nil
	}
	prefix := j.roomPrefix(room)
	keys := []string{prefix + "log", prefix + "meta", prefix + "log:copy", prefix + "log:copying"}
	token, from := newEpoch(), streamID(0)
	for {
		args := append([]any{epoch, token, from, rewriteEntries, rewriteLife}, instead...)
		reply, err := j.client.Eval(ctx, rewriteScript, keys, args...)
		if err != nil {
			return fail("erase in "+string(room), err)
		}
		switch said, _ := reply.(string); said {
		case "done":
			return nil
		case "epoch":
			return fmt.Errorf("erase in %s: %w", room, journal.ErrOtherEpoch)
		case "busy", "lost":
			from = streamID(0)
			select {
			case <-time.After(rewriteWait):
			case <-ctx.Done():
				return ctx.Err()
			}
		default:
			if _, err := parseStreamID(said); err != nil {
				return fail("erase in "+string(room), err)
			}
			from = said
		}
	}
}

// eraseDecided takes the reasons out of decisions that the erasure concerns.
func (j *Journal) eraseDecided(ctx context.Context, room chat.RoomID, er *journal.Erasure, ids map[chat.MessageID]bool) error {
	what := "erase in " + string(room)
	key := j.roomPrefix(room) + "decided"
	reply, err := j.client.Do(ctx, "lrange", key, 0, -1)
	if err != nil {
		return fail(what, err)
	}
	records, err := texts(reply)
	if err != nil {
		return fail(what, err)
	}
	var pairs []any
	for _, rec := range records {
		r, err := decodeReview(rec)
		if err != nil || !er.Concerns(&r, ids) { // a damaged one is never shown and goes with its age
			continue
		}
		r.Entry.Reasons = nil
		anew, err := appendReview(nil, &r)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		pairs = append(pairs, rec, anew)
	}
	if len(pairs) == 0 {
		return nil
	}
	_, err = j.client.Eval(ctx, amendScript, []string{key}, pairs...)
	return fail(what, err)
}
