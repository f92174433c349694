package redis

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"parley/core/chat"
	"parley/core/journal"
)

const (
	sweepRooms   = 256 // rooms listed at a time
	sweepEntries = 128 // heads read at a time
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
		if err := j.sweep(ctx, time.Now().Add(-j.cfg.MaxAge)); err != nil && ctx.Err() == nil {
			j.log.Warn("journal sweep stopped early, the next one goes on", "error", err)
		}
	}
}

// sweep drops the entries from before the given time in every room. Every
// node does it, which is harmless: dropping what is dropped is nothing.
func (j *Journal) sweep(ctx context.Context, before time.Time) error {
	var last chat.RoomID
	for {
		rooms, err := j.Rooms(ctx, last, sweepRooms)
		if err != nil || len(rooms) == 0 {
			return err
		}
		for _, room := range rooms {
			if err := j.sweepRoom(ctx, room, before.UnixMilli()); err != nil {
				return err
			}
		}
		last = rooms[len(rooms)-1]
	}
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
