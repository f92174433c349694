package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	rds "parley/core/redis"
)

var (
	//go:embed copy.lua
	copySource string
	//go:embed unlock.lua
	unlockSource string

	copyScript   = rds.NewScript("journal copy", copySource)
	unlockScript = rds.NewScript("journal end a copy", unlockSource)
)

const (
	// copyEntries and copyBytes bound a slice: two milliseconds or so in which
	// Redis does nothing else.
	copyEntries = 1000
	copyBytes   = 256 << 10
	// copyLife is how long a copy outlives the node that made it, in ms.
	copyLife = 10_000
	// copyRest bounds the pause between two slices, in which others have the
	// server. It is as long as the slice took.
	copyRest = 20 * time.Millisecond
	// copyWait is the pause before looking again whether another node's copy has
	// ended.
	copyWait = 50 * time.Millisecond
	// awaited is how many seqs are asked for at a time.
	awaited = 1024
)

// turns lets one goroutine of this node at a time copy a room, so that those
// who wait do not ask Redis over and over.
type turns struct {
	mu    sync.Mutex
	rooms map[chat.RoomID]*turn
}

type turn struct {
	slot  chan struct{}
	users int // guarded by turns.mu
}

// take waits for the room's turn; done gives it up.
func (ts *turns) take(ctx context.Context, room chat.RoomID) (done func(), err error) {
	ts.mu.Lock()
	t := ts.rooms[room]
	if t == nil {
		if ts.rooms == nil {
			ts.rooms = make(map[chat.RoomID]*turn)
		}
		t = &turn{slot: make(chan struct{}, 1)}
		ts.rooms[room] = t
	}
	t.users++
	ts.mu.Unlock()
	leave := func() {
		ts.mu.Lock()
		defer ts.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(ts.rooms, room)
		}
	}
	select {
	case t.slot <- struct{}{}:
		return func() { <-t.slot; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// awaitErased returns when none of the seqs is listed any more, and copies the
// log where nobody else does.
func (j *Journal) awaitErased(ctx context.Context, room chat.RoomID, epoch string, seqs []uint64) error {
	if len(seqs) == 0 {
		return nil
	}
	done, err := j.turns.take(ctx, room)
	if err != nil {
		return err
	}
	defer done()
	for len(seqs) > 0 {
		some := seqs[:min(awaited, len(seqs))]
		left, err := j.stillWanted(ctx, room, epoch, some)
		if err != nil {
			return fail("erase in "+string(room), err)
		}
		if !left {
			seqs = seqs[len(some):]
			continue
		}
		if err := j.copyLog(ctx, room, epoch); errors.Is(err, errOthersCopy) {
			select {
			case <-time.After(copyWait/2 + rand.N(copyWait)):
			case <-ctx.Done():
				return ctx.Err()
			}
		} else if err != nil {
			return err
		}
	}
	return nil
}

// stillWanted reports whether any of the seqs is listed.
func (j *Journal) stillWanted(ctx context.Context, room chat.RoomID, epoch string, seqs []uint64) (bool, error) {
	args := make([]any, 0, 2+len(seqs))
	args = append(args, "zmscore", j.wantedKey(room, epoch))
	for _, seq := range seqs {
		args = append(args, seq)
	}
	reply, err := j.client.Do(ctx, args...)
	if err != nil {
		return false, err
	}
	list, ok := reply.([]any)
	if !ok || len(list) != len(seqs) {
		return false, fmt.Errorf("redis answered %T, want %d scores", reply, len(seqs))
	}
	for _, v := range list {
		if v != nil {
			return true, nil
		}
	}
	return false, nil
}

// errOthersCopy says that another node copies the room, or has taken over.
var errOthersCopy = errors.New("another node copies the log")

// copyLog writes the room's stream anew, with tombstones for all that is listed
// when the copy comes to it, and takes that off the list.
func (j *Journal) copyLog(ctx context.Context, room chat.RoomID, epoch string) (err error) {
	what, prefix, token := "erase in "+string(room), j.roomPrefix(room), newEpoch()
	keys := []string{prefix + "log", prefix + "meta", prefix + "log:copy", prefix + "log:copying"}
	at, said, err := j.copySlice(ctx, keys, epoch, token, "", nil)
	if err != nil || said != "at" {
		return j.copyEnded(what, said, err)
	}
	defer func() { // with a deadline of its own, which the client sets
		_, e := j.client.Eval(context.WithoutCancel(ctx), unlockScript, []string{keys[3], keys[2]}, token)
		if e != nil {
			j.log.Warn("a copy of a room's log stays until its time is over", "room", room, "error", e)
		}
	}()
	var erased []uint64 // taken off the list at the end
	for {
		began := time.Now()
		seqs, instead, err := j.tombstones(ctx, room, epoch, at)
		if err != nil {
			return fail(what, err)
		}
		next, said, err := j.copySlice(ctx, keys, epoch, token, strconv.FormatUint(at, 10), instead)
		if err != nil || said != "at" && said != "done" {
			return j.copyEnded(what, said, err)
		}
		for _, seq := range seqs {
			if said == "done" || seq < next {
				erased = append(erased, seq)
			}
		}
		if said == "done" {
			return fail(what, j.unwant(ctx, j.wantedKey(room, epoch), erased))
		}
		at = next
		select {
		case <-time.After(min(time.Since(began), copyRest)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// copyEnded is why a copy was given up.
func (j *Journal) copyEnded(what, said string, err error) error {
	switch {
	case err != nil:
		return fail(what, err)
	case said == "busy" || said == "lost":
		return errOthersCopy
	case said == "epoch":
		return fmt.Errorf("%s: %w", what, journal.ErrOtherEpoch)
	}
	return fail(what, fmt.Errorf("redis answered %.20q to a copy", said))
}

// copySlice runs copy.lua. The word is "at" with the seq to go on with, or
// another that the script has.
func (j *Journal) copySlice(ctx context.Context, keys []string, epoch, token, at string, instead []any) (next uint64, word string, err error) {
	args := append([]any{epoch, token, copyLife, at, copyEntries, copyBytes}, instead...)
	reply, err := j.client.Eval(ctx, copyScript, keys, args...)
	if err != nil {
		return 0, "", err
	}
	s, _ := reply.(string)
	word, digits, _ := strings.Cut(s, " ")
	if word == "at" {
		next, err = strconv.ParseUint(digits, 10, 64)
	}
	return next, word, err
}

// tombstones reads what is listed of the slice that begins at a seq. It returns
// the seqs, and pairs of seq and record to put there: as many as fit into one
// slice.
func (j *Journal) tombstones(ctx context.Context, room chat.RoomID, epoch string, at uint64) (seqs []uint64, instead []any, err error) {
	reply, err := j.client.Do(ctx, "zrangebyscore", j.wantedKey(room, epoch), at, at+copyEntries-1)
	if err != nil {
		return nil, nil, err
	}
	names, err := texts(reply)
	if err != nil {
		return nil, nil, err
	}
	all := make([]uint64, len(names))
	for i, name := range names {
		if all[i], err = strconv.ParseUint(name, 10, 64); err != nil {
			return nil, nil, fmt.Errorf("read what is to be erased: %w", err)
		}
	}
	size := 0
	for len(all) > 0 && size < maxStageBytes {
		some := all[:min(surveyEntries, len(all))]
		all = all[len(some):]
		records, err := j.recordsAt(ctx, room, some)
		if err != nil {
			return nil, nil, err
		}
		for i, rec := range records {
			seqs = append(seqs, some[i])
			if rec == "" {
				continue
			}
			anew, changed, err := j.tombstone(room, some[i], rec)
			if err != nil {
				return nil, nil, err
			}
			if changed {
				instead = append(instead, some[i], anew)
				size += len(anew)
			}
		}
	}
	return seqs, instead, nil
}

// tombstone is the record to put in place of another: "" for one that cannot be
// read, for what it holds cannot be told.
func (j *Journal) tombstone(room chat.RoomID, seq uint64, rec string) (anew []byte, changed bool, err error) {
	e, err := decodeEntry(rec, seq)
	if err != nil {
		j.log.Error("journal erases a damaged record whole", "room", room, "seq", seq, "error", err)
		return nil, true, nil
	}
	if !e.Erase() {
		return nil, false, nil
	}
	anew, err = appendEntry(nil, &e)
	return anew, true, err
}

// unwant takes seqs off the list.
func (j *Journal) unwant(ctx context.Context, key string, seqs []uint64) error {
	var cmds []rds.Command
	for len(seqs) > 0 {
		n := min(awaited, len(seqs))
		args := append(make([]any, 0, 2+n), "zrem", key)
		for _, seq := range seqs[:n] {
			args = append(args, seq)
		}
		cmds, seqs = append(cmds, rds.Command{Args: args}), seqs[n:]
	}
	for _, r := range j.client.Pipeline(ctx, cmds) {
		if r.Err != nil {
			return r.Err
		}
	}
	return nil
}
