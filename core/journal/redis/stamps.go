package redis

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"parley/core/chat"
	"parley/core/journal"
	rds "parley/core/redis"
)

// A stamp, "ms id", says when a key of a room's state was changed last: the time
// at which the change was stored, or a millisecond after the stamp that it
// found, whichever is later; and the id of the entry. What a room is made with
// is before all changes: a deployment that makes a room which another has had
// for long, or makes it again after a loss, takes nothing back there. So a change that was made
// in knowledge of another has the later stamp, whatever the clocks say, and of
// two that did not know of each other the one with the later time wins, on
// every deployment. What loses is carried too, with the value that holds in
// place of its own, so that folding a log's changes still gives the state.

// register is one key of the state with its stamp.
type register struct {
	value any // string, or nil
	stamp string
}

// appendCarried adds the entries of a parcel as mirror.lua reads them.
func (j *Journal) appendCarried(ctx context.Context, room chat.RoomID, args []any, es []Carried) ([]any, error) {
	var held map[string]register
	for i := range es {
		c := &es[i]
		if c.record == "" || len(c.Changes) == 0 {
			args = append(args, c.Seq, c.record, c.origin, "", 0)
			continue
		}
		if held == nil {
			var err error
			if held, err = j.registers(ctx, room, es); err != nil {
				return nil, err
			}
		}
		record, stamp, changes, err := decideChanges(c, held)
		if err != nil {
			return nil, err
		}
		args = append(append(args, c.Seq, record, c.origin, stamp, len(changes)/4), changes...)
	}
	return args, nil
}

// decideChanges decides which of an entry's changes hold, by the registers as
// they are before it, and changes those. It returns the record with the values
// that hold, and for each key what mirror.lua reads.
func decideChanges(c *Carried, held map[string]register) (record, stamp string, changes []any, err error) {
	if stamp = c.stamp; stamp == "" {
		stamp = fmt.Sprintf("%d %s", max(c.Time, 0), c.ID)
	}
	e, kept := c.Entry, false
	e.Changes = make([]journal.Change, len(c.Changes))
	for i, change := range c.Changes {
		was := held[change.Key]
		value, next := "", stamp
		if change.Value != nil {
			value = "=" + string(change.Value)
		}
		if laterStamp(stamp, was.stamp) {
			now := register{stamp: stamp}
			if change.Value != nil {
				now.value = string(change.Value)
			}
			held[change.Key] = now
		} else {
			kept, value, next = true, "", ""
			change.Value = nil
			if s, ok := was.value.(string); ok {
				change.Value = []byte(s)
			}
		}
		e.Changes[i] = change
		changes = append(changes, change.Key, value, was.stamp, next)
	}
	if !kept {
		return c.record, stamp, changes, nil
	}
	b, err := appendEntry(nil, &e)
	if err != nil {
		return "", "", nil, err
	}
	return string(b), stamp, changes, nil
}

// registers reads the keys that the entries change.
func (j *Journal) registers(ctx context.Context, room chat.RoomID, es []Carried) (map[string]register, error) {
	held := make(map[string]register)
	prefix := j.roomPrefix(room)
	values, stamps := []any{"hmget", prefix + "state"}, []any{"hmget", prefix + "state:stamps"}
	var keys []string
	for i := range es {
		for _, change := range es[i].Changes {
			if _, ok := held[change.Key]; !ok {
				held[change.Key] = register{}
				keys = append(keys, change.Key)
				values, stamps = append(values, change.Key), append(stamps, change.Key)
			}
		}
	}
	var lists [2][]any
	for i, r := range j.client.Pipeline(ctx, []rds.Command{{Args: values}, {Args: stamps}}) {
		if r.Err != nil {
			return nil, r.Err
		}
		if lists[i], _ = r.Value.([]any); len(lists[i]) != len(keys) {
			return nil, fmt.Errorf("redis answered %d fields, want %d", len(lists[i]), len(keys))
		}
	}
	for i, key := range keys {
		stamp, _ := lists[1][i].(string)
		value, set := lists[0][i].(string)
		if set && stamp == "" { // from before there were stamps
			var err error
			if stamp, err = j.stampOld(ctx, room, key, value); err != nil {
				return nil, err
			}
		}
		held[key] = register{lists[0][i], stamp}
	}
	return held, nil
}

// stampOld gives a key the stamp of the entry that changed it last; or, if that
// is gone, one that is older than all, and of two different values always the
// same is the later.
func (j *Journal) stampOld(ctx context.Context, room chat.RoomID, key, value string) (string, error) {
	sum := sha256.Sum256([]byte(value))
	stamp := "0 " + hex.EncodeToString(sum[:16])
	before := uint64(0)
search:
	for {
		_, es, err := j.ReadBefore(ctx, room, before, MaxParcel)
		if damaged, ok := errors.AsType[*journal.DamagedError](err); ok {
			before = damaged.Seq
			if before == 1 {
				break
			}
			continue
		}
		if err != nil {
			return "", err
		}
		for i := len(es) - 1; i >= 0; i-- {
			for _, change := range es[i].Changes {
				if change.Key == key {
					stamp = fmt.Sprintf("%d %s", max(es[i].Time, 0), es[i].ID)
					break search
				}
			}
		}
		if len(es) == 0 || es[0].Seq == 1 {
			break
		}
		before = es[0].Seq
	}
	name := j.roomPrefix(room) + "state:stamps"
	if _, err := j.client.Do(ctx, "hsetnx", name, key, stamp); err != nil {
		return "", err
	}
	reply, err := j.client.Do(ctx, "hget", name, key)
	if s, ok := reply.(string); ok {
		stamp = s
	}
	return stamp, err
}

// laterStamp reports whether a is later than b. No stamp is before all others.
func laterStamp(a, b string) bool {
	if x, y := stampTime(a), stampTime(b); x != y {
		return x > y
	}
	return a > b
}

// stampTime is the time of a stamp, -1 for what is none.
func stampTime(stamp string) int64 {
	digits, _, ok := strings.Cut(stamp, " ")
	ms, err := strconv.ParseInt(digits, 10, 53)
	if !ok || err != nil || ms < 0 {
		return -1
	}
	return ms
}
