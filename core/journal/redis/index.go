package redis

import (
	"context"
	"strconv"
	"strings"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	rds "parley/core/redis"
)

// Three lists span rooms: the rooms, what waits for a moderator in them, and
// those with news for absent people (package absent/redis reads that one).
// They lie in slots of their own, so the script of an append cannot write
// them. A name is listed before what it names is stored, and taken off after
// that is gone: whatever ends in between leaves a name too many, which whoever
// reads the list takes off. A name too few would hide a room from retention
// and a message from its end.

func (j *Journal) roomsKey() string { return j.client.Prefix() + ":rooms" }

// waitingKey names the open reviews of all rooms, "room id", by the time at
// which they were held.
func (j *Journal) waitingKey() string { return j.client.Prefix() + ":waiting" }

func waitingName(room chat.RoomID, id chat.MessageID) string { return string(room) + " " + string(id) }

// listRoom lists a room that is about to be stored.
func (j *Journal) listRoom(ctx context.Context, room chat.RoomID) error {
	_, err := j.client.Do(ctx, "zadd", j.roomsKey(), 0, string(room))
	return err
}

// listWaiting lists a review that is about to be stored.
func (j *Journal) listWaiting(ctx context.Context, r *journal.Request) error {
	_, err := j.client.Do(ctx, "zadd", j.waitingKey(), r.Review.Entry.Time, waitingName(r.Room, r.Review.Entry.ID))
	return err
}

// listOutbox lists a room whose outbox is about to get something.
func (j *Journal) listOutbox(ctx context.Context, room chat.RoomID) error {
	_, err := j.client.Do(ctx, "zadd", j.absent.Rooms, time.Now().UnixMilli(), string(room))
	return err
}

// settle takes a review off the list unless it waits after what was answered.
// Where the answer is not known, and where this fails, Overdue does so later.
func (j *Journal) settle(ctx context.Context, r *journal.Request, rc journal.Receipt, err error) {
	if err != nil && !refused(err) {
		return
	}
	if err == nil && r.Act() == journal.ActHold && rc.ID == r.Entry.ID || err == nil && !rc.Repeat && r.Act() == journal.ActHold {
		return // it waits, or the resend of it has been answered
	}
	_, _ = j.client.Do(ctx, "zrem", j.waitingKey(), waitingName(r.Room, r.Entry.ID))
}

// pageNames bounds the names of a list that are looked at together.
const pageNames = 256

// Rooms implements journal.Journal.
func (j *Journal) Rooms(ctx context.Context, after chat.RoomID, limit int) ([]chat.RoomID, error) {
	if err := j.begin(); err != nil {
		return nil, err
	}
	defer j.calls.Done()
	if limit <= 0 {
		return nil, ctx.Err()
	}
	var rooms []chat.RoomID
	from := "-"
	if after != "" {
		from = "(" + string(after)
	}
	for len(rooms) < limit {
		n := min(limit-len(rooms), pageNames)
		reply, err := j.client.Do(ctx, "zrangebylex", j.roomsKey(), from, "+", "limit", 0, n)
		if err != nil {
			return nil, fail("list rooms", err)
		}
		names, err := texts(reply)
		if err == nil {
			rooms, err = j.appendStored(ctx, rooms, names)
		}
		if err != nil {
			return nil, fail("list rooms", err)
		}
		if len(names) < n {
			break
		}
		from = "(" + names[n-1]
	}
	return rooms, nil
}

// appendStored adds those of the names that are rooms, and takes the others
// off the list.
func (j *Journal) appendStored(ctx context.Context, rooms []chat.RoomID, names []string) ([]chat.RoomID, error) {
	stored, err := j.ask(ctx, "exists", names, func(name string) []any { return []any{j.roomPrefix(chat.RoomID(name)) + "meta"} })
	if err != nil {
		return rooms, err
	}
	var gone []string
	for i, name := range names {
		if stored[i] != int64(0) {
			rooms = append(rooms, chat.RoomID(name))
		} else {
			gone = append(gone, name)
		}
	}
	return rooms, j.unlist(ctx, j.roomsKey(), gone, nil, "exists",
		func(name string) []any { return []any{j.roomPrefix(chat.RoomID(name)) + "meta"} })
}

// unlist takes names off a list, and puts those back that exist after all:
// what they name may have been stored between two looks.
func (j *Journal) unlist(ctx context.Context, list string, names, scores []string, look string, key func(name string) []any) error {
	if len(names) == 0 {
		return nil
	}
	members := make([]any, 0, 2+len(names))
	members = append(members, "zrem", list)
	for _, name := range names {
		members = append(members, name)
	}
	if _, err := j.client.Do(ctx, members...); err != nil {
		return err
	}
	found, err := j.ask(ctx, look, names, key)
	if err != nil {
		return err
	}
	for i, name := range names {
		if found[i] == nil || found[i] == int64(0) {
			continue
		}
		score := "0"
		if scores != nil {
			score = scores[i]
		}
		if _, err := j.client.Do(ctx, "zadd", list, score, name); err != nil {
			return err
		}
	}
	return nil
}

// ask runs one command for each name, in few round trips.
func (j *Journal) ask(ctx context.Context, command string, names []string, args func(name string) []any) ([]any, error) {
	out := make([]any, 0, len(names))
	for len(names) > 0 {
		n := min(len(names), pageNames)
		cmds := make([]rds.Command, n)
		for i, name := range names[:n] {
			cmds[i].Args = append([]any{command}, args(name)...)
		}
		for _, r := range j.client.Pipeline(ctx, cmds) {
			if r.Err != nil {
				return nil, r.Err
			}
			out = append(out, r.Value)
		}
		names = names[n:]
	}
	return out, nil
}

// listedFor is how long a name in the list of what waits is left alone though
// nothing has it: the append that it was listed for may be under way. It is
// far above the deadline of any call.
const listedFor = 10 * time.Second

// Overdue implements journal.Journal.
func (j *Journal) Overdue(ctx context.Context, before int64, limit int) ([]journal.Waiting, error) {
	if err := j.begin(); err != nil {
		return nil, err
	}
	defer j.calls.Done()
	if limit < 1 {
		return nil, ctx.Err()
	}
	const what = "list the reviews that are overdue"
	reply, err := j.client.Do(ctx, "zrangebyscore", j.waitingKey(), "-inf", "("+strconv.FormatInt(before, 10), "withscores", "limit", 0, limit)
	if err != nil {
		return nil, fail(what, err)
	}
	pairs, err := texts(reply)
	if err != nil {
		return nil, fail(what, err)
	}
	names := make([]string, len(pairs)/2)
	for i := range names {
		names[i] = pairs[2*i]
	}
	key := func(name string) []any {
		room, id, _ := strings.Cut(name, " ")
		return []any{j.roomPrefix(chat.RoomID(room)) + "reviews", id}
	}
	records, err := j.ask(ctx, "hget", names, key)
	if err != nil {
		return nil, fail(what, err)
	}
	ws := make([]journal.Waiting, 0, len(names))
	var gone, scores, damaged []string
	for i, name := range names {
		room, id, _ := strings.Cut(name, " ")
		rec, _ := records[i].(string)
		r, err := decodeReview(rec)
		switch held, _ := strconv.ParseFloat(pairs[2*i+1], 64); {
		case err == nil:
			ws = append(ws, journal.Waiting{Room: chat.RoomID(room), Review: r})
		case rec != "":
			j.log.Error("journal leaves out a review: its record is damaged", "room", room, "review", id, "error", err)
			damaged = append(damaged, name) // nothing that could be decided: out of the way of the rest
		case time.Since(time.UnixMilli(int64(held))) > listedFor:
			gone, scores = append(gone, name), append(scores, pairs[2*i+1])
		}
	}
	if err := j.unlist(ctx, j.waitingKey(), gone, scores, "hget", key); err != nil {
		return nil, fail(what, err)
	}
	for _, name := range damaged {
		if _, err := j.client.Do(ctx, "zrem", j.waitingKey(), name); err != nil {
			return nil, fail(what, err)
		}
	}
	return ws, nil
}
