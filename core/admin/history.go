package admin

import (
	"context"
	"errors"
	"time"

	"parley/core/chat"
	"parley/core/journal"
)

const (
	// clockSlack is how far the clocks of nodes may be apart, and how long a
	// message may take from its verdict to its place in the log.
	clockSlack = int64(time.Minute / time.Millisecond)
	// readEntries is how many entries are read at a time.
	readEntries = 200
)

// findEntry looks for the message in the room's log; at is its time. It returns
// nil if it is not there, and ctx's error if that ends before.
//
// Entries are about in the order of their times, apart from held messages that
// were approved later: so what the times say is only where to begin.
func findEntry(ctx context.Context, j journal.Journal, room chat.RoomID, id chat.MessageID, at int64) (*journal.Entry, error) {
	info, err := j.Info(ctx, room)
	if err != nil {
		return nil, err
	}
	first := max(info.First, 1) - 1
	from, to := first, info.Top.Seq
	for from+1 < to {
		mid := from + (to-from)/2
		es, err := readPast(ctx, j, room, mid, to, 1)
		if err != nil {
			return nil, err
		}
		if len(es) == 0 || es[0].Time >= at-clockSlack {
			to = mid
		} else {
			from = mid
		}
	}
	for _, part := range [][2]uint64{{from, info.Top.Seq}, {first, from}} {
		e, err := scan(ctx, j, room, id, part[0], part[1])
		if e != nil || err != nil {
			return e, err
		}
	}
	return nil, nil
}

// scan looks for the message among the entries behind after, up to top.
func scan(ctx context.Context, j journal.Journal, room chat.RoomID, id chat.MessageID, after, top uint64) (*journal.Entry, error) {
	for after < top {
		es, err := readPast(ctx, j, room, after, top, readEntries)
		if err != nil || len(es) == 0 {
			return nil, err
		}
		for i := range es {
			if es[i].ID == id {
				return &es[i], nil
			}
		}
		after = es[len(es)-1].Seq
	}
	return nil, nil
}

// readPast reads on behind damaged entries, up to top.
func readPast(ctx context.Context, j journal.Journal, room chat.RoomID, after, top uint64, limit int) ([]journal.Entry, error) {
	for {
		_, es, err := j.Read(ctx, room, after, limit)
		var damaged *journal.DamagedError
		if !errors.As(err, &damaged) || damaged.Seq <= after {
			return es, err
		}
		if after = damaged.Seq; after >= top {
			return nil, nil
		}
	}
}
