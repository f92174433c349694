package redis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	rds "parley/core/redis"
)

// A hint may be lost though the link that carries hints lives: a server that
// drops a slow subscriber's output, a proxy that drops a message. Then the next
// entry of the room shows the hole; a room that has no next entry would stay
// behind for good. Likewise a store that has lost its newest entries shows it
// only when it is written to. So each node compares, slowly, the top of each room that it
// watches with that of the store.

const (
	// topsRooms is how many rooms are compared together.
	topsRooms = 64
	// topsGrace is how long a watcher has to come to where the store was seen
	// to be: entries may be on their way.
	topsGrace = 2 * time.Second
)

// behind is where a room has to come to, or its watchers are told to doubt.
type behind struct {
	room chat.RoomID
	top  journal.Position
	seen time.Time
}

// compareUntil compares the tops of all rooms that are watched, each once in
// TopsEvery, until ctx ends.
func (j *Journal) compareUntil(ctx context.Context) {
	var late []behind
	for {
		rooms := j.watches.names()
		// Spread over half of the time, so that a room that comes in the
		// middle has its turn in time.
		batches := (len(rooms) + topsRooms - 1) / topsRooms
		pause := j.cfg.TopsEvery / 2 / time.Duration(max(batches, 1))
		for first := true; first || len(rooms) > 0; first = false {
			wait := pause - rand.N(pause/4+1)
			for wait > 0 { // those that are late are looked at in between
				step := wait
				if len(late) > 0 {
					step = min(step, topsGrace/2)
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(step):
				}
				wait -= step
				late = j.settleLate(late, time.Now())
			}
			n := min(topsRooms, len(rooms))
			more, err := j.compare(ctx, rooms[:n])
			if err != nil && ctx.Err() == nil {
				j.log.Debug("tops of rooms cannot be compared at present", "error", err)
			}
			late, rooms = append(late, more...), rooms[n:]
		}
	}
}

// compare returns those of the rooms whose watchers are not where the store is.
func (j *Journal) compare(ctx context.Context, rooms []chat.RoomID) (late []behind, err error) {
	if len(rooms) == 0 {
		return nil, nil
	}
	cmds := make([]rds.Command, len(rooms))
	before := make([]journal.Position, len(rooms))
	for i, room := range rooms {
		if w := j.watches.get(room); w != nil {
			before[i] = w.farthest()
		}
		cmds[i].Args = []any{"hmget", j.roomPrefix(room) + "meta", "epoch", "top", "id"}
	}
	listed := []any{"zadd", j.roomsKey()}
	for i, r := range j.client.Pipeline(ctx, cmds) {
		if r.Err != nil {
			err = r.Err
			continue
		}
		top, e := readTop(r.Value)
		if e != nil {
			err = e
			continue
		}
		if top.Epoch != "" {
			listed = append(listed, 0, string(rooms[i]))
		}
		switch w := j.watches.get(rooms[i]); {
		case w == nil:
		case before[i].Epoch == top.Epoch && before[i].Seq > top.Seq:
			j.missed.Add(1)
			j.log.Warn("the store has lost entries that a room has; its members are told to reset", "room", rooms[i], "epoch", top.Epoch, "top", top.Seq, "had", before[i].Seq)
			w.each(journal.Watcher.Doubt)
		case w.misses(top):
			late = append(late, behind{rooms[i], top, time.Now()})
		}
		j.compared.Add(1)
	}
	if len(listed) > 2 { // a list that was lost with a part of a cluster
		if _, e := j.client.Do(ctx, listed...); e != nil {
			err = e
		}
	}
	return late, err
}

// settleLate tells the watchers that have not come to where they had to within
// topsGrace, and returns what is left to look at.
func (j *Journal) settleLate(late []behind, now time.Time) (left []behind) {
	for _, b := range late {
		w := j.watches.get(b.room)
		switch {
		case w == nil || !w.misses(b.top):
		case now.Sub(b.seen) < topsGrace:
			left = append(left, b)
		default:
			j.missed.Add(1)
			j.log.Warn("a room had missed entries though its link lives; it reads them now", "room", b.room, "epoch", b.top.Epoch, "top", b.top.Seq)
			w.each(journal.Watcher.Doubt)
		}
	}
	return left
}

// readTop reads epoch, top and id.
func readTop(reply any) (journal.Position, error) {
	parts, ok := reply.([]any)
	if !ok || len(parts) != 3 {
		return journal.Position{}, fmt.Errorf("redis answered %T, want three fields", reply)
	}
	epoch, _ := parts[0].(string)
	digits, _ := parts[1].(string)
	id, _ := parts[2].(string)
	if epoch == "" {
		return journal.Position{}, nil
	}
	seq, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return journal.Position{}, fmt.Errorf("read the top: %w", err)
	}
	return journal.Position{Epoch: epoch, Seq: seq, ID: chat.MessageID(id)}, nil
}

// farthest returns the newest position that one of the watchers has.
func (r *watched) farthest() (at journal.Position) {
	for _, x := range *r.list.Load() {
		if p, ok := x.to.(journal.Placed); ok {
			if q := p.Position(); q.Seq > at.Seq {
				at = q
			}
		}
	}
	return at
}

// misses reports whether one of the watchers is not where the store was seen
// to be, nor beyond it.
func (r *watched) misses(top journal.Position) bool {
	for _, x := range *r.list.Load() {
		if p, ok := x.to.(journal.Placed); ok && lacks(p.Position(), top) {
			return true
		}
	}
	return false
}

// lacks reports whether a watcher at at has not seen top.
func lacks(at, top journal.Position) bool {
	switch {
	case at.Epoch != top.Epoch:
		return true
	case at.Seq == top.Seq:
		return at.ID != "" && top.ID != "" && at.ID != top.ID
	}
	return at.Seq < top.Seq
}

// Sweeps count what the journal has looked at by itself since it was made.
type Sweeps struct {
	Compared uint64 // rooms whose top was compared with the store's
	Missed   uint64 // of them, those that had missed entries, or had entries that the store has lost
	Swept    uint64 // rooms looked at for entries above MaxAge, by this node
}

// Sweeps returns the present counts, for metrics.
func (j *Journal) Sweeps() Sweeps {
	return Sweeps{Compared: j.compared.Load(), Missed: j.missed.Load(), Swept: j.swept.Load()}
}
