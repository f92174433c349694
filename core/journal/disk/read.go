package disk

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/codec"
)

func nowMilli() int64 { return time.Now().UnixMilli() }

// viewRoom runs fn in a read transaction with the room's head as far as it is
// durable. ahead says that the transaction holds more than that: a commit is
// under way, or the last one failed and is in doubt. A damaged head is
// repaired first.
func (j *Journal) viewRoom(ctx context.Context, room chat.RoomID, fn func(b *buckets, h head, ahead bool) error) error {
	if !chat.ValidRoom(room) {
		return fn(nil, head{}, false)
	}
	view := func(b *buckets) error {
		h, ahead, err := j.durableHead(b, room)
		if err != nil {
			return err
		}
		return fn(b, h, ahead)
	}
	err := j.view(view)
	if errors.Is(err, errHead) {
		p := j.newPending(journal.Request{Room: room})
		p.repair = true
		if _, err := j.submit(ctx, p); err != nil {
			return err
		}
		err = j.view(view)
	}
	return err
}

// durableHead compares the head in the transaction with the published one.
// The latter is looked at second, so it is as new as the transaction at least,
// but for the one commit that may be under way.
func (j *Journal) durableHead(b *buckets, room chat.RoomID) (h head, ahead bool, err error) {
	seen, ok := j.pub.head(room)
	h, err = loadHead(b, room, seen)
	switch {
	case err != nil || !ok || h.gen < seen.gen:
		// Not among the rooms of a commit under way, or an older snapshot.
		return h, false, err
	case h.gen > seen.gen:
		// The epoch after this is not durable yet. The entries of this one
		// are there still: they are deleted in later commits only.
		return seen, true, nil
	case h.top > seen.top:
		seen.first = min(h.first, seen.top+1)
		return seen, true, nil
	case h.reviews > seen.reviews:
		return seen, true, nil
	}
	return h, false, nil
}

// Read implements journal.Journal.
func (j *Journal) Read(ctx context.Context, room chat.RoomID, after uint64, limit int) (epoch string, es []journal.Entry, err error) {
	return j.read(ctx, room, limit, func(b *buckets, h head) (batch, error) {
		r := batch{j: j, room: room, gen: h.gen, limit: limit}
		if after >= h.top {
			return r, nil
		}
		return r, r.up(b, max(after+1, h.first), h.top)
	})
}

// ReadBefore implements journal.Journal.
func (j *Journal) ReadBefore(ctx context.Context, room chat.RoomID, before uint64, limit int) (epoch string, es []journal.Entry, err error) {
	return j.read(ctx, room, limit, func(b *buckets, h head) (batch, error) {
		r := batch{j: j, room: room, gen: h.gen, limit: limit}
		last := h.top
		if before > 0 {
			last = min(last, before-1)
		}
		if h.top == 0 || last < h.first {
			return r, nil
		}
		err := r.down(b, h.first, last)
		slices.Reverse(r.es)
		return r, err
	})
}

func (j *Journal) read(ctx context.Context, room chat.RoomID, limit int, collect func(*buckets, head) (batch, error)) (epoch string, es []journal.Entry, err error) {
	if err := j.usable(ctx); err != nil || limit < 1 {
		return "", nil, err
	}
	err = j.viewRoom(ctx, room, func(b *buckets, h head, _ bool) error {
		r, err := collect(b, h)
		epoch, es = h.epoch, r.es
		return err
	})
	return epoch, es, err
}

// batch collects entries until it is full: in number, in bytes, or before a
// damaged record.
type batch struct {
	j     *Journal
	room  chat.RoomID
	gen   uint32
	limit int
	bytes int
	es    []journal.Entry
}

func (r *batch) up(b *buckets, first, last uint64) error {
	r.es = make([]journal.Entry, 0, min(uint64(r.limit), last-first+1, 256))
	want := entryKey(make([]byte, 0, 96), r.room, r.gen, first)
	c := b.entries().Cursor()
	k, v := c.Seek(want)
	for seq := first; seq <= last; seq++ {
		if full, err := r.add(entryKey(want[:0], r.room, r.gen, seq), k, v, seq); full || err != nil {
			return err
		}
		k, v = c.Next()
	}
	return nil
}

func (r *batch) down(b *buckets, first, last uint64) error {
	r.es = make([]journal.Entry, 0, min(uint64(r.limit), last-first+1, 256))
	want := entryKey(make([]byte, 0, 96), r.room, r.gen, last)
	c := b.entries().Cursor()
	k, v := c.Seek(want)
	for seq := last; seq >= first; seq-- {
		if full, err := r.add(entryKey(want[:0], r.room, r.gen, seq), k, v, seq); full || err != nil {
			return err
		}
		k, v = c.Prev()
	}
	return nil
}

// add takes the record that the cursor found where the key want should be. It
// reports whether the batch is full.
func (r *batch) add(want, k, v []byte, seq uint64) (full bool, err error) {
	if len(r.es) >= r.limit || len(r.es) > 0 && r.bytes+len(v) > journal.MaxBatchBytes {
		return true, nil
	}
	if !bytes.Equal(k, want) {
		v = nil // the sequence is dense, so the record is missing
	}
	body, err := unseal(want, v)
	if err == nil {
		r.es = append(r.es, journal.Entry{})
		e := &r.es[len(r.es)-1]
		if err = codec.DecodeEntry(e, seq, string(body)); err == nil {
			r.bytes += len(v)
			return false, nil
		}
		r.es = r.es[:len(r.es)-1]
	}
	r.j.damage.note(r.room, r.gen, seq, err)
	if len(r.es) > 0 {
		return true, nil // the next read begins with it
	}
	return false, &journal.DamagedError{Room: r.room, Seq: seq, Detail: err.Error()}
}

// Info implements journal.Journal. It waits for a commit under way that
// concerns the room, so that state and top are of one moment and durable.
func (j *Journal) Info(ctx context.Context, room chat.RoomID) (journal.Info, error) {
	var info journal.Info
	err := j.viewSettled(ctx, room, func(b *buckets, h head) (err error) {
		info = journal.Info{Top: h.position(), First: max(h.first, 1)}
		if h.gen > 0 {
			info.State, err = readState(b, room)
		}
		return err
	})
	if err != nil {
		return journal.Info{}, err
	}
	return info, nil
}

// viewSettled runs fn in a read transaction in which everything about the room
// is durable. It waits for a commit under way that concerns the room.
func (j *Journal) viewSettled(ctx context.Context, room chat.RoomID, fn func(b *buckets, h head) error) error {
	if err := j.usable(ctx); err != nil {
		return err
	}
	for {
		round := j.pub.round()
		inDoubt := false
		err := j.viewRoom(ctx, room, func(b *buckets, h head, ahead bool) error {
			if inDoubt = ahead; ahead {
				return nil
			}
			return fn(b, h)
		})
		if err != nil || !inDoubt {
			return err
		}
		if fault := j.queue.unusable(); fault != nil {
			return fault
		}
		select {
		case <-j.pub.after(round):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readState reads the room's state. A value that fails its checksum is an
// error: a room without its bans would be worse than none. Setting the key
// again heals it.
func readState(b *buckets, room chat.RoomID) (map[string][]byte, error) {
	state := map[string][]byte{}
	prefix := roomPrefix(nil, room)
	c := b.state().Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		body, err := unseal(k, v)
		if err != nil {
			return nil, &journal.DamagedError{Room: room, Detail: "state key " + string(k[len(prefix):]) + ": " + err.Error()}
		}
		state[string(k[len(prefix):])] = bytes.Clone(body)
	}
	return state, nil
}

// Rooms implements journal.Journal.
func (j *Journal) Rooms(ctx context.Context, after chat.RoomID, limit int) ([]chat.RoomID, error) {
	if err := j.usable(ctx); err != nil || limit < 1 {
		return nil, err
	}
	var rooms []chat.RoomID
	err := j.view(func(b *buckets) error {
		c := b.rooms().Cursor()
		k, _ := c.Seek([]byte(after))
		if after != "" && bytes.Equal(k, []byte(after)) {
			k, _ = c.Next()
		}
		for ; k != nil && len(rooms) < limit; k, _ = c.Next() {
			rooms = append(rooms, chat.RoomID(k))
		}
		return nil
	})
	return rooms, err
}
