package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/codec"
	rds "parley/core/redis"
)

var (
	//go:embed stage.lua
	stageSource string
	//go:embed import.lua
	importSource string

	stageScript  = rds.NewScript("journal stage", stageSource)
	importScript = rds.NewScript("journal import", importSource)
)

// importLife is how long a stream that is being put in outlives the node that
// did so, in ms.
const importLife = 3_600_000

// maxStageBytes bounds one step of an import.
const maxStageBytes = 1 << 20

// incoming is a journal.Import: a stream of its own until it is committed.
type incoming struct {
	j       *Journal
	room    chat.RoomID
	stream  string
	span    journal.Span
	entries int
	closed  bool
}

// Import implements journal.Journal.
func (j *Journal) Import(ctx context.Context, room chat.RoomID) (journal.Import, error) {
	if err := checkRoom(room); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &incoming{j: j, room: room, stream: j.roomPrefix(room) + "import:" + newEpoch()}, nil
}

var errImported = errors.New("journal: the import has ended")

// Put implements journal.Import.
func (in *incoming) Put(ctx context.Context, es []journal.Entry) error {
	j := in.j
	if err := j.begin(); err != nil {
		return err
	}
	defer j.calls.Done()
	if in.closed {
		return errImported
	}
	if err := in.span.Add(es); err != nil {
		return err
	}
	what := "import " + string(in.room)
	for len(es) > 0 {
		args, size := []any{importLife}, 0
		n := 0
		for ; n < len(es) && size < maxStageBytes; n++ {
			rec, err := appendEntry(nil, &es[n])
			if err != nil {
				return fmt.Errorf("%s: entry %d: %w", what, es[n].Seq, err)
			}
			args = append(args, streamID(es[n].Seq), rec)
			size += len(rec)
		}
		if _, err := j.client.Eval(ctx, stageScript, []string{in.stream}, args...); err != nil {
			return fail(what, err)
		}
		in.entries += n
		es = es[n:]
	}
	return nil
}

// Commit implements journal.Import.
func (in *incoming) Commit(ctx context.Context, img journal.Image) (at journal.Position, err error) {
	j := in.j
	if err := j.begin(); err != nil {
		return at, err
	}
	defer j.calls.Done()
	if in.closed {
		return at, errImported
	}
	if err := img.Check(in.span); err != nil {
		return at, err
	}
	what := "import " + string(in.room)
	epoch := img.Epoch
	if epoch == "" {
		epoch = newEpoch()
	}
	if strings.ContainsAny(epoch, " \t\r\n\v\f") || len(epoch) > maxEpochBytes {
		return at, fmt.Errorf("%s: %.80q cannot be the name of an epoch", what, epoch)
	}
	prefix := j.roomPrefix(in.room)
	keys := []string{prefix + "log", prefix + "meta", prefix + "state", in.stream, prefix + "reviews", prefix + "authors", prefix + "decided"}
	reply, err := j.client.Do(ctx, "hvals", prefix+"reviews")
	if err != nil {
		return at, fail(what, err)
	}
	if keys, err = j.openNonces(keys, in.room, reply); err != nil {
		return at, fail(what, err)
	}
	args, err := in.image(epoch, &img)
	if err != nil {
		return at, err
	}
	// What spans rooms lists them before, and once more after: whoever met a name
	// of nothing in between has taken it off.
	if err := in.list(ctx, &img); err != nil {
		return at, fail(what, err)
	}
	reply, err = j.client.Eval(ctx, importScript, keys, args...)
	if err != nil {
		return at, fail(what, err)
	}
	switch reply {
	case "0":
	case "2":
		return at, fmt.Errorf("%s: %w", what, journal.ErrExists)
	case "4":
		return at, fail(what, fmt.Errorf("of the %d entries put, not all are there: it took too long, or Redis has lost them", in.entries))
	default:
		return at, fail(what, fmt.Errorf("redis answered %T %.20v", reply, reply))
	}
	in.closed = true
	if err := in.list(ctx, &img); err != nil {
		return at, fail(what, err)
	}
	// What cannot be read as an entry makes watchers doubt what they have.
	if err := j.client.Publish(ctx, j.watches.channel(in.room), "imported"); err != nil {
		j.log.Warn("nodes are not told at once that a room was replaced", "room", in.room, "error", err)
	}
	return journal.Position{Epoch: epoch, Seq: img.Top.Seq, ID: img.Top.ID}, nil
}

// list names the room, and what waits in it, in the lists that span rooms.
func (in *incoming) list(ctx context.Context, img *journal.Image) error {
	if err := in.j.listRoom(ctx, in.room); err != nil {
		return err
	}
	for i := range img.Open {
		e := &img.Open[i].Entry
		if _, err := in.j.client.Do(ctx, "zadd", in.j.waitingKey(), e.Time, waitingName(in.room, e.ID)); err != nil {
			return err
		}
	}
	return nil
}

// openNonces appends the nonce keys of the open reviews that are replaced: they
// would wait for ever.
func (j *Journal) openNonces(keys []string, room chat.RoomID, reply any) ([]string, error) {
	records, err := texts(reply)
	if err != nil {
		return nil, err
	}
	prefix := j.roomPrefix(room)
	for _, rec := range records {
		if r, err := decodeReview(rec); err == nil {
			keys = append(keys, nonceKey(prefix, r.Entry.From, r.Entry.Nonce))
		}
	}
	return keys, nil
}

// image are the arguments of import.lua.
func (in *incoming) image(epoch string, img *journal.Image) ([]any, error) {
	fresh := ""
	if img.Fresh {
		fresh = "fresh"
	}
	past := slices.DeleteFunc(slices.Clone(img.Past), func(name string) bool { return knownEpoch(name) != name || name == "" })
	args := []any{epoch, img.Top.Seq, string(img.Top.ID), strings.Join(past, " "), fresh, in.entries,
		len(img.State), len(img.Open), len(img.Decided)}
	for key, value := range img.State {
		args = append(args, key, value)
	}
	prefix := in.j.roomPrefix(in.room)
	for i := range img.Open {
		r := &img.Open[i]
		rec, err := appendReview(nil, r)
		if err != nil {
			return nil, fmt.Errorf("import %s: %w", in.room, err)
		}
		e := &r.Entry
		answer := codec.AppendAnswer(nil, e.ID, e.Outcome, e.Reasons)
		args = append(args, string(e.ID), string(e.From), nonceKey(prefix, e.From, e.Nonce), answer, rec)
	}
	for i := range img.Decided {
		rec, err := appendReview(nil, &img.Decided[i])
		if err != nil {
			return nil, fmt.Errorf("import %s: %w", in.room, err)
		}
		args = append(args, rec)
	}
	return args, nil
}

// Abort implements journal.Import.
func (in *incoming) Abort(ctx context.Context) error {
	j := in.j
	if err := j.begin(); err != nil {
		return err
	}
	defer j.calls.Done()
	if in.closed {
		return nil
	}
	in.closed = true
	_, err := j.client.Do(ctx, "del", in.stream)
	return fail("give up an import of "+string(in.room), err)
}

// Remember keeps the answer to a nonce for a time, as an append would have. It
// is for moving a room with its clients: an answer that is known stays.
func (j *Journal) Remember(ctx context.Context, room chat.RoomID, user chat.UserID, nonce string, r journal.Receipt, life time.Duration) error {
	if err := j.begin(); err != nil {
		return err
	}
	defer j.calls.Done()
	if err := checkRoom(room); err != nil {
		return err
	}
	value := codec.AppendAnswer(fmt.Appendf(nil, "%s %d ", r.Epoch, r.Seq), r.ID, r.Outcome, r.Reasons)
	_, err := j.client.Do(ctx, "set", nonceKey(j.roomPrefix(room), user, nonce), value, "px", max(1, life.Milliseconds()), "nx")
	return fail("remember a nonce in "+string(room), err)
}
