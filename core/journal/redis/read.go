package redis

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"parley/core/chat"
	"parley/core/journal"
)

// Read implements journal.Journal.
func (j *Journal) Read(ctx context.Context, room chat.RoomID, after uint64, limit int) (string, []journal.Entry, error) {
	if after == math.MaxUint64 { // nothing lies after it but the room's epoch is asked for
		limit, after = 0, 0
	}
	return j.read(ctx, room, "XRANGE", streamID(after+1), lastID, limit)
}

// ReadBefore implements journal.Journal.
func (j *Journal) ReadBefore(ctx context.Context, room chat.RoomID, before uint64, limit int) (string, []journal.Entry, error) {
	if before == 0 {
		before = math.MaxUint64
	}
	epoch, es, err := j.read(ctx, room, "XREVRANGE", streamID(before-1), streamID(0), limit)
	slices.Reverse(es)
	return epoch, es, err
}

func (j *Journal) read(ctx context.Context, room chat.RoomID, command, from, to string, limit int) (string, []journal.Entry, error) {
	if err := j.begin(); err != nil {
		return "", nil, err
	}
	defer j.calls.Done()
	if err := checkRoom(room); err != nil {
		return "", nil, err
	}
	prefix := j.roomPrefix(room)
	reply, err := j.client.Eval(ctx, readScript, []string{prefix + "log", prefix + "meta"},
		command, from, to, max(limit, 0), journal.MaxBatchBytes)
	if err != nil {
		return "", nil, fail("read "+string(room), err)
	}
	parts, err := texts(reply)
	if err == nil && len(parts)%2 != 1 {
		err = fmt.Errorf("redis answered %d parts, want an epoch and pairs", len(parts))
	}
	if err != nil {
		return "", nil, fail("read "+string(room), err)
	}
	es, err := decodeBatch(room, parts[1:])
	return parts[0], es, err
}

// decodeBatch decodes pairs of stream id and entry. It ends before a damaged
// one; a batch that begins with one is a *journal.DamagedError.
func decodeBatch(room chat.RoomID, pairs []string) ([]journal.Entry, error) {
	es := make([]journal.Entry, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		seq, err := parseStreamID(pairs[i])
		if err != nil {
			return nil, fail("read "+string(room), err)
		}
		e, err := decodeEntry(pairs[i+1], seq)
		if err != nil && i > 0 {
			break
		}
		if err != nil {
			return nil, &journal.DamagedError{Room: room, Seq: seq, Detail: err.Error()}
		}
		es = append(es, e)
	}
	return es, nil
}

// Info implements journal.Journal.
func (j *Journal) Info(ctx context.Context, room chat.RoomID) (journal.Info, error) {
	if err := j.begin(); err != nil {
		return journal.Info{}, err
	}
	defer j.calls.Done()
	if err := checkRoom(room); err != nil {
		return journal.Info{}, err
	}
	prefix := j.roomPrefix(room)
	reply, err := j.client.Eval(ctx, infoScript, []string{prefix + "log", prefix + "meta", prefix + "state"}, lastID)
	if err != nil {
		return journal.Info{}, fail("describe "+string(room), err)
	}
	info, err := readInfoReply(reply)
	return info, fail("describe "+string(room), err)
}

// readInfoReply reads what info.lua answers.
func readInfoReply(reply any) (journal.Info, error) {
	parts, err := texts(reply)
	if err != nil {
		return journal.Info{}, err
	}
	const head = 4 // epoch, top, id, first
	if len(parts) < head || len(parts)%2 != 0 {
		return journal.Info{}, fmt.Errorf("redis answered %d parts, want %d and pairs", len(parts), head)
	}
	top, err := strconv.ParseUint(parts[1], 10, 63)
	if err != nil {
		return journal.Info{}, fmt.Errorf("read the top: %w", err)
	}
	info := journal.Info{
		Top:   journal.Position{Epoch: parts[0], Seq: top, ID: chat.MessageID(parts[2])},
		First: top + 1,
	}
	if parts[3] != "" {
		if info.First, err = parseStreamID(parts[3]); err != nil {
			return journal.Info{}, err
		}
	}
	if len(parts) > head {
		info.State = make(map[string][]byte, (len(parts)-head)/2)
	}
	for i := head; i < len(parts); i += 2 {
		info.State[parts[i]] = []byte(parts[i+1])
	}
	return info, nil
}

// lastID is the highest stream id an entry of ours can have. Ids above it are
// of those that Redis makes from the time: not ours.
var lastID = streamID(math.MaxUint64)

// streamID names the entry with that seq in a room's stream.
func streamID(seq uint64) string { return "0-" + strconv.FormatUint(seq, 10) }

func parseStreamID(id string) (uint64, error) {
	digits, ok := strings.CutPrefix(id, "0-")
	seq, err := strconv.ParseUint(digits, 10, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("stream id %.40q is not one of ours", id)
	}
	return seq, nil
}
