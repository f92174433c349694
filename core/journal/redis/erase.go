package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"

	"parley/core/chat"
	"parley/core/journal"
	rds "parley/core/redis"
)

var (
	//go:embed want.lua
	wantSource string
	//go:embed amend.lua
	amendSource string

	wantScript  = rds.NewScript("journal want erased", wantSource)
	amendScript = rds.NewScript("journal amend", amendSource)
)

const (
	// surveyEntries is how many entries are looked at, and listed, at a time.
	surveyEntries = 64
	// decidedEntries is of how many entries the decisions are read together.
	decidedEntries = 4096
	// wantedLife is how long what is to be erased stays listed when the node
	// that listed it has died, in ms. The next copy of the room finishes it.
	wantedLife = 3_600_000
)

// Erase implements journal.Journal. A stream keeps the bytes of an entry that
// was deleted until all around it are, so the stream is written anew (copy.go).
// What is to be erased is listed first, and one copy takes all that is listed in
// the room, by whichever node.
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
	seqs := slices.Compact(slices.Sorted(slices.Values(er.Seqs)))
	if len(seqs) == 0 {
		return 0, j.eraseDecided(ctx, room, &er, nil)
	}
	erased := 0
	for first := true; ; first = false {
		n, listed, err := j.wantAll(ctx, room, &er, seqs)
		if err != nil {
			return 0, err
		}
		if first {
			erased = n
		}
		if len(listed) == 0 {
			return erased, nil
		}
		if err := j.awaitErased(ctx, room, er.Epoch, listed); err != nil {
			return 0, err
		}
		// That it is not listed any more may be because a server that has taken
		// another's place never heard of it: so the entries are looked at again.
		seqs = listed
	}
}

// wantAll lists those entries that hold something to be erased, and takes the
// reasons out of decisions about any of them. It returns how many nobody had
// listed, and which hold something, in the memory of seqs.
func (j *Journal) wantAll(ctx context.Context, room chat.RoomID, er *journal.Erasure, seqs []uint64) (n int, listed []uint64, err error) {
	ids, listed := make(map[chat.MessageID]bool), seqs[:0]
	for from := 0; from < len(seqs); from += surveyEntries {
		to := min(from+surveyEntries, len(seqs))
		some, wanted, err := j.want(ctx, room, er, seqs[from:to], ids)
		if err != nil {
			return 0, nil, err
		}
		n, listed = n+some, append(listed, wanted...)
		if to == len(seqs) || len(ids) >= decidedEntries {
			if err := j.eraseDecided(ctx, room, er, ids); err != nil {
				return 0, nil, err
			}
			clear(ids)
		}
	}
	return n, listed, nil
}

// want does so for a few entries, and adds their ids.
func (j *Journal) want(ctx context.Context, room chat.RoomID, er *journal.Erasure, seqs []uint64, ids map[chat.MessageID]bool) (n int, wanted []uint64, err error) {
	what := "erase in " + string(room)
	records, err := j.recordsAt(ctx, room, seqs)
	if err != nil {
		return 0, nil, fail(what, err)
	}
	args := []any{er.Epoch, wantedLife}
	for i, rec := range records {
		if rec == "" {
			continue // retention has taken it
		}
		e, err := decodeEntry(rec, seqs[i])
		if err == nil {
			ids[e.ID] = true
		}
		if err != nil || e.Erasable() {
			wanted = append(wanted, seqs[i])
			args = append(args, seqs[i], rec[max(0, len(rec)-4):])
		}
	}
	// Also where nothing is wanted: the epoch is checked.
	prefix := j.roomPrefix(room)
	reply, err := j.client.Eval(ctx, wantScript, []string{prefix + "log", prefix + "meta", j.wantedKey(room, er.Epoch)}, args...)
	if err != nil {
		return 0, nil, fail(what, err)
	}
	if reply == "epoch" {
		return 0, nil, fmt.Errorf("%s: %w", what, journal.ErrOtherEpoch)
	}
	listed, ok := reply.(int64)
	if !ok {
		return 0, nil, fail(what, fmt.Errorf("redis answered %T", reply))
	}
	return int(listed), wanted, nil
}

// wantedKey lists the seqs of an epoch that are to be erased. What is listed of
// an epoch that was left is not followed: its seqs may be of other entries now.
func (j *Journal) wantedKey(room chat.RoomID, epoch string) string {
	return j.roomPrefix(room) + "log:wanted:" + knownEpoch(epoch)
}

// recordsAt reads records as they are stored, "" for those that are not there.
func (j *Journal) recordsAt(ctx context.Context, room chat.RoomID, seqs []uint64) ([]string, error) {
	key := j.roomPrefix(room) + "log"
	cmds := make([]rds.Command, len(seqs))
	for i, seq := range seqs {
		cmds[i].Args = []any{"xrange", key, streamID(seq), streamID(seq)}
	}
	records := make([]string, len(seqs))
	for i, r := range j.client.Pipeline(ctx, cmds) {
		if r.Err != nil {
			return nil, r.Err
		}
		list, _ := r.Value.([]any)
		if len(list) == 0 {
			continue
		}
		pair, _ := list[0].([]any)
		if len(pair) != 2 {
			return nil, fmt.Errorf("redis answered %T for an entry", list[0])
		}
		fields, err := texts(pair[1])
		if err != nil {
			return nil, err
		}
		if len(fields) < 2 {
			return nil, errors.New("redis answered an entry without a record")
		}
		records[i] = fields[1]
	}
	return records, nil
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
