package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"parley/core/chat"
	"parley/core/journal"
)

// Difference is what a comparison of one room has found.
type Difference struct {
	Room chat.RoomID
	// From and To count the entries of each side that were compared.
	From, To int
	// Missing are entries that one side has and the other lacks, Twice those
	// that one side has more than once, Holes seqs between others that no entry
	// has.
	MissingTo, MissingFrom, Twice, Holes int
	// Older counts entries that one side lacks and that are from before what it
	// keeps: retention has dropped them.
	Older int
	// Keys counts the settings, roles, bans and mutes that are not the same.
	Keys int
	// Example is one of the missing entries, for whoever looks for it.
	Example chat.MessageID
}

// Errors is how many things are wrong.
func (d *Difference) Errors() int {
	return d.MissingTo + d.MissingFrom + d.Twice + d.Holes + d.Keys
}

// Comparison is what both sides hold.
type Comparison struct {
	Rooms    int
	Messages int // distinct entries
	Errors   int
	Differ   []Difference // rooms with errors
	Older    int
}

// Rate is the part of the entries that are wrong.
func (c *Comparison) Rate() float64 { return float64(c.Errors) / float64(max(c.Messages, 1)) }

// Compare reads the chosen rooms at both sides. What is newer than settle is left
// out: it may be on its way. With OneWay only what the second side lacks counts.
// Memory is bounded by the ids of one room.
func Compare(ctx context.Context, cfg Config, from, to Side, settle time.Duration) (*Comparison, error) {
	rooms := make(map[chat.RoomID]struct{})
	for _, side := range []Side{from, to} {
		var after chat.RoomID
		for {
			some, err := side.Journal.Rooms(ctx, after, pageRooms)
			if err != nil {
				return nil, fmt.Errorf("list the rooms of %s: %w", side.Name, err)
			}
			if len(some) == 0 {
				break
			}
			for _, room := range some {
				if cfg.Matches(room) {
					rooms[room] = struct{}{}
				}
			}
			after = some[len(some)-1]
		}
	}
	out := &Comparison{}
	until := time.Now().Add(-settle).UnixMilli()
	for _, room := range slices.Sorted(maps.Keys(rooms)) {
		d, distinct, err := compareRoom(ctx, cfg, room, from, to, until)
		if err != nil {
			return nil, fmt.Errorf("compare %s: %w", room, err)
		}
		out.Rooms++
		out.Messages += distinct
		out.Errors += d.Errors()
		out.Older += d.Older
		if d.Errors() > 0 {
			out.Differ = append(out.Differ, d)
		}
	}
	return out, nil
}

// ledger is what one side holds of a room.
type ledger struct {
	times       map[chat.MessageID]int64
	twice, hole int
	first       uint64 // seq
	oldest      int64  // time of the first entry
}

func compareRoom(ctx context.Context, cfg Config, room chat.RoomID, from, to Side, until int64) (d Difference, distinct int, err error) {
	d.Room = room
	sides := [2]Side{from, to}
	var held [2]*ledger
	var state [2]map[string][]byte
	for i, side := range sides {
		if held[i], err = readLedger(ctx, side, room); err != nil {
			return d, 0, err
		}
		info, err := side.Journal.Info(ctx, room)
		if err != nil {
			return d, 0, err
		}
		state[i] = info.State
		d.Twice += held[i].twice
		d.Holes += held[i].hole
	}
	distinct = len(held[1].times)
	for i := range sides {
		mine, other := held[i], held[1-i]
		for id, at := range mine.times {
			_, there := other.times[id]
			if !there && i == 0 {
				distinct++
			}
			switch {
			case there || at > until || i == 1 && cfg.OneWay:
			case other.first > 1 && at <= other.oldest:
				d.Older++
			case i == 0:
				d.MissingTo, d.Example = d.MissingTo+1, id
			default:
				d.MissingFrom, d.Example = d.MissingFrom+1, id
			}
		}
	}
	d.From, d.To = len(held[0].times), len(held[1].times)
	keys := maps.Clone(state[0])
	if keys == nil {
		keys = make(map[string][]byte)
	}
	if !cfg.OneWay {
		maps.Copy(keys, state[1])
	}
	for key := range keys {
		a, inA := state[0][key]
		b, inB := state[1][key]
		if inA != inB || string(a) != string(b) {
			d.Keys++
		}
	}
	return d, distinct, nil
}

// readLedger reads one side of a room.
func readLedger(ctx context.Context, side Side, room chat.RoomID) (*ledger, error) {
	l := &ledger{times: make(map[chat.MessageID]int64)}
	var last uint64
	for {
		_, es, err := side.Journal.Read(ctx, room, last, 1024)
		if damaged, ok := errors.AsType[*journal.DamagedError](err); ok {
			last = damaged.Seq
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", side.Name, err)
		}
		if len(es) == 0 {
			return l, nil
		}
		for i := range es {
			e := &es[i]
			if l.first == 0 {
				l.first, l.oldest = e.Seq, e.Time
			} else {
				l.hole += int(e.Seq - last - 1)
			}
			last = e.Seq
			if _, known := l.times[e.ID]; known {
				l.twice++
			}
			l.times[e.ID] = e.Time
		}
	}
}
