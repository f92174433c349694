package disk

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/codec"

	bolt "go.etcd.io/bbolt"
)

// importGens is the distance to the generation that an import is put into, so
// that none of the epochs opened meanwhile takes the same.
const importGens = 1 << 16

// incoming is a journal.Import: entries of a generation that counts as garbage
// until it is committed, so that a crash leaves nothing behind.
type incoming struct {
	j      *Journal
	room   chat.RoomID
	gen    uint32
	span   journal.Span
	closed bool
}

// Import implements journal.Journal.
func (j *Journal) Import(ctx context.Context, room chat.RoomID) (journal.Import, error) {
	if err := j.usable(ctx); err != nil {
		return nil, err
	}
	if !chat.ValidRoom(room) {
		return nil, fmt.Errorf("journal: %q is no room name", room)
	}
	in := &incoming{j: j, room: room}
	err := in.do(ctx, func(c *committer, b *buckets, w *work, _ *pending) error {
		in.gen = (w.h.gen/importGens + 1) * importGens
		for b.garbage().Get(genPrefix(nil, room, in.gen)) != nil { // of an import before this
			in.gen += importGens
		}
		prefix := genPrefix(nil, room, in.gen)
		c.importing[string(prefix)] = true
		w.dirty = true
		return b.garbage().Put(prefix, []byte{recordVersion})
	})
	if err != nil {
		return nil, err
	}
	return in, nil
}

// do has the committer make a change to the room.
func (in *incoming) do(ctx context.Context, f change) error {
	p := in.j.newPending(journal.Request{Room: in.room})
	p.do = f
	_, err := in.j.submit(ctx, p)
	return err
}

// Put implements journal.Import.
func (in *incoming) Put(ctx context.Context, es []journal.Entry) error {
	if in.closed {
		return errImported
	}
	if err := in.span.Add(es); err != nil {
		return err
	}
	type pair struct{ key, rec []byte }
	recs := make([]pair, len(es))
	for i := range es {
		rec, err := appendEntry(nil, &es[i])
		if err != nil {
			return fmt.Errorf("import entry %d of %s: %w", es[i].Seq, in.room, err)
		}
		key := entryKey(nil, in.room, in.gen, es[i].Seq)
		recs[i] = pair{key, seal(key, rec)}
	}
	return in.do(ctx, func(_ *committer, b *buckets, w *work, _ *pending) error {
		w.dirty = true
		for _, r := range recs {
			if err := b.entries().Put(r.key, r.rec); err != nil {
				return err
			}
		}
		return nil
	})
}

var errImported = errors.New("journal: the import has ended")

// Commit implements journal.Import.
func (in *incoming) Commit(ctx context.Context, img journal.Image) (at journal.Position, err error) {
	if in.closed {
		return at, errImported
	}
	if err := img.Check(in.span); err != nil {
		return at, err
	}
	open, err := reviewRecords(img.Open)
	if err != nil {
		return at, err
	}
	decided, err := reviewRecords(img.Decided)
	if err != nil {
		return at, err
	}
	epoch := img.Epoch
	if epoch == "" {
		epoch = rand.Text()
	}
	err = in.do(ctx, func(c *committer, b *buckets, w *work, p *pending) error {
		if img.Fresh && w.h.top > 0 {
			p.err = journal.ErrExists
			return nil
		}
		h := head{gen: in.gen, epoch: epoch, top: img.Top.Seq, topID: img.Top.ID, first: in.span.First, reviews: w.h.reviews + 1}
		if h.first == 0 {
			h.first = h.top + 1
		}
		h.past = pastOf(epoch, slices.Concat(img.Past, w.h.past, []string{w.h.epoch}))
		if w.h.gen > 0 {
			if err := b.garbage().Put(genPrefix(nil, in.room, w.h.gen), []byte{recordVersion}); err != nil {
				return err
			}
			c.garbage = true
		}
		if err := b.garbage().Delete(genPrefix(nil, in.room, in.gen)); err != nil {
			return err
		}
		w.h, w.changed, w.lineage, p.doubt = h, true, true, true
		if err := c.replaceState(b, in.room, img.State); err != nil {
			return err
		}
		return c.replaceReviews(b, in.room, img.Open, open, img.Decided, decided)
	})
	if err != nil {
		return at, err
	}
	in.closed = true
	if err := in.forget(ctx, false); err != nil {
		return at, err
	}
	return journal.Position{Epoch: epoch, Seq: img.Top.Seq, ID: img.Top.ID}, nil
}

// pastOf is the list of epochs left behind, each once and none of it the
// present one; the newest are last.
func pastOf(epoch string, names []string) []string {
	var past []string
	for _, name := range names {
		if name != "" && name != epoch && !slices.Contains(past, name) {
			past = append(past, name)
		}
	}
	return past[max(0, len(past)-maxPast):]
}

// Abort implements journal.Import.
func (in *incoming) Abort(ctx context.Context) error {
	if in.closed {
		return nil
	}
	in.closed = true
	return in.forget(ctx, true)
}

// forget ends the protection of the generation; drop leaves it to be deleted.
func (in *incoming) forget(ctx context.Context, drop bool) error {
	return in.do(ctx, func(c *committer, _ *buckets, _ *work, _ *pending) error {
		delete(c.importing, string(genPrefix(nil, in.room, in.gen)))
		c.garbage = c.garbage || drop
		return nil
	})
}

func reviewRecords(rs []journal.Review) ([][]byte, error) {
	recs := make([][]byte, len(rs))
	for i := range rs {
		rec, err := codec.AppendReview([]byte{recordVersion}, &rs[i])
		if err != nil {
			return nil, fmt.Errorf("import a review: %w", err)
		}
		recs[i] = rec
	}
	return recs, nil
}

// deleteAll deletes the room's keys in a bucket.
func deleteAll(b *bolt.Bucket, room chat.RoomID) error {
	prefix := roomPrefix(nil, room)
	var keys [][]byte
	cur := b.Cursor()
	for k, _ := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = cur.Next() {
		keys = append(keys, bytes.Clone(k)) // a cursor must not see deletes
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

func (c *committer) replaceState(b *buckets, room chat.RoomID, state map[string][]byte) error {
	if err := deleteAll(b.state(), room); err != nil {
		return err
	}
	for name, value := range state {
		key := stateKey(nil, room, name)
		if err := b.state().Put(key, seal(key, append([]byte{recordVersion}, value...))); err != nil {
			return err
		}
	}
	return nil
}

func (c *committer) replaceReviews(b *buckets, room chat.RoomID, open []journal.Review, openRecs [][]byte, decided []journal.Review, decidedRecs [][]byte) error {
	if err := deleteAll(b.reviews(), room); err != nil {
		return err
	}
	if err := deleteAll(b.decided(), room); err != nil {
		return err
	}
	p := &c.j.pub
	p.mu.RLock()
	for _, v := range p.open.byRoom[room] {
		c.openings = append(c.openings, opening{v, true})
	}
	p.mu.RUnlock()
	for i := range open {
		c.openings = append(c.openings, opening{openReview: openOf(room, &open[i])})
		key := reviewKey(nil, room, open[i].Entry.ID)
		if err := b.reviews().Put(key, seal(key, slices.Clone(openRecs[i]))); err != nil {
			return err
		}
	}
	for i := range decided {
		key := decidedKey(nil, room, decided[i].Decided, decided[i].Entry.ID)
		if err := b.decided().Put(key, seal(key, slices.Clone(decidedRecs[i]))); err != nil {
			return err
		}
	}
	return nil
}
