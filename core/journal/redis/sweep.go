package redis

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	rds "parley/core/redis"
)

const (
	sweepRooms   = 64  // rooms looked at together; each shows one entry
	sweepEntries = 128 // entries of a room read at a time
	// sweepBatches bounds the reads for one room in one sweep, so that a room
	// with a long past does not hold up the others; the next sweep goes on.
	sweepBatches = 64
)

// sweepUntil applies MaxAge every SweepEvery until ctx ends.
func (j *Journal) sweepUntil(ctx context.Context) {
	for {
		// Nodes that were started together spread out.
		wait := j.cfg.SweepEvery - rand.N(j.cfg.SweepEvery/4+1)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		mine, err := j.maySweep(ctx)
		if err == nil && mine {
			err = j.sweep(ctx, time.Now().Add(-j.cfg.MaxAge))
		}
		if err != nil && ctx.Err() == nil {
			j.log.Warn("journal sweep stopped early, the next one goes on", "error", err)
		}
	}
}

// maySweep takes the turn of sweeping, which one node has at a time. It ends by
// itself before the node would ask again, so a node that ends while it has the
// turn holds up nobody.
func (j *Journal) maySweep(ctx context.Context) (bool, error) {
	turn := max(j.cfg.SweepEvery/2, time.Millisecond).Milliseconds()
	reply, err := j.client.Do(ctx, "set", j.client.Prefix()+":sweeping", "1", "nx", "px", turn)
	return reply != nil, fail("take the turn of sweeping", err)
}

// sweep drops the entries from before the given time in every room.
func (j *Journal) sweep(ctx context.Context, before time.Time) error {
	var last chat.RoomID
	for {
		rooms, err := j.Rooms(ctx, last, sweepRooms)
		if err != nil || len(rooms) == 0 {
			return err
		}
		old, err := j.withOld(ctx, rooms, before.UnixMilli())
		if err != nil {
			return err
		}
		for _, room := range old {
			if err := j.sweepRoom(ctx, room, before.UnixMilli()); err != nil {
				return err
			}
		}
		j.swept.Add(uint64(len(rooms)))
		last = rooms[len(rooms)-1]
	}
}

// withOld returns the rooms whose first entry is from before the given Unix ms,
// or cannot be read.
func (j *Journal) withOld(ctx context.Context, rooms []chat.RoomID, before int64) (old []chat.RoomID, err error) {
	cmds := make([]rds.Command, len(rooms))
	for i, room := range rooms {
		cmds[i].Args = []any{"xrange", j.roomPrefix(room) + "log", streamID(0), lastID, "count", 1}
	}
	for i, r := range j.client.Pipeline(ctx, cmds) {
		if r.Err != nil {
			return nil, fail("read the first entry of "+string(rooms[i]), r.Err)
		}
		if at, ok := firstTime(r.Value); !ok || at < before {
			old = append(old, rooms[i])
		}
	}
	return old, nil
}

// firstTime reads the time of the one entry in a reply to XRANGE; ok is false
// if it is damaged. An empty log has no entry that could be old.
func firstTime(reply any) (at int64, ok bool) {
	list, _ := reply.([]any)
	if len(list) == 0 {
		return math.MaxInt64, true
	}
	if entry, _ := list[0].([]any); len(entry) == 2 {
		if fields, _ := entry[1].([]any); len(fields) >= 2 {
			if rec, _ := fields[1].(string); rec != "" {
				e, err := decodeEntry(rec, 0)
				return e.Time, err == nil
			}
		}
	}
	return 0, false
}

// sweepRoom drops the room's oldest entries up to the first that is not from
// before the given Unix ms. Stream ids are seqs, not times, so the times are
// read from the entries.
func (j *Journal) sweepRoom(ctx context.Context, room chat.RoomID, before int64) error {
	var at uint64 // the newest entry looked at
	for range sweepBatches {
		epoch, es, err := j.Read(ctx, room, at, sweepEntries)
		if damaged, ok := errors.AsType[*journal.DamagedError](err); ok {
			at = damaged.Seq // as old as what follows it
			continue
		}
		if err != nil {
			return err
		}
		old := 0
		for old < len(es) && es[old].Time < before {
			at = es[old].Seq
			old++
		}
		if old > 0 {
			if err := j.trim(ctx, room, epoch, at); err != nil {
				return err
			}
		}
		if old < len(es) || old == 0 {
			return nil
		}
	}
	return nil
}

// trim drops the entries up to and including last, if the room is still in
// that epoch.
func (j *Journal) trim(ctx context.Context, room chat.RoomID, epoch string, last uint64) error {
	prefix := j.roomPrefix(room)
	_, err := j.client.Eval(ctx, trimScript, []string{prefix + "log", prefix + "meta"}, epoch, streamID(last+1))
	return fail("trim "+string(room), err)
}
