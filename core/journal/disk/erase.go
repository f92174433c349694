package disk

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/codec"
	"parley/core/scrub"
)

// erasedTogether is how many records one commit rewrites: the file's writer, and
// its memory, are taken up by an erasure no longer than by appends.
const erasedTogether = 256

// Erase implements journal.Journal. The records are rewritten, some in a commit,
// between which appends go on; then the pages that are free are overwritten,
// those that held the old records among them, once for all who wait for that. A
// damaged record is deleted: what it held cannot be told.
func (j *Journal) Erase(ctx context.Context, room chat.RoomID, er journal.Erasure) (int, error) {
	if err := j.usable(ctx); err != nil {
		return 0, err
	}
	if err := er.Check(); err != nil {
		return 0, err
	}
	if !chat.ValidRoom(room) {
		return 0, fmt.Errorf("journal: %q is no room name", room)
	}
	erased := 0
	for seqs := er.Seqs; ; {
		n := min(erasedTogether, len(seqs))
		er.Seqs, seqs = seqs[:n], seqs[n:]
		some, err := j.eraseSome(ctx, room, er)
		if erased += some; err != nil {
			return erased, err
		}
		if len(seqs) == 0 {
			break
		}
	}
	// Always: an earlier call may have ended before this.
	if err := j.wipe(ctx); err != nil {
		return erased, unavailable("erase entries", err)
	}
	return erased, nil
}

// eraseSome erases what is named in one commit.
func (j *Journal) eraseSome(ctx context.Context, room chat.RoomID, er journal.Erasure) (erased int, err error) {
	n := 0 // the committer's until submit returns nil
	p := j.newPending(journal.Request{Room: room})
	p.do = func(c *committer, b *buckets, w *work, p *pending) (err error) {
		if w.h.gen == 0 || len(er.Seqs) > 0 && er.Epoch != w.h.epoch {
			p.err = journal.ErrOtherEpoch
			return nil
		}
		n, err = c.erase(b, w, &er)
		return err
	}
	if _, err := j.submit(ctx, p); err != nil {
		return 0, err
	}
	return n, nil
}

// wiper has free pages overwritten for several callers at once: whoever asks
// while a pass is under way is served by the next one, together with all who ask
// until that begins.
type wiper struct {
	slot  chan struct{} // one slot: held by the pass under way
	begun atomic.Uint64 // passes; counted by who holds the slot
	ended atomic.Uint64 // the last that ended well
}

// wipe returns when a pass that began after the call has ended.
func (j *Journal) wipe(ctx context.Context) error {
	w := &j.wiper
	want := w.begun.Load() + 1
	select {
	case w.slot <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-w.slot }()
	if w.ended.Load() >= want {
		return nil
	}
	pass := w.begun.Add(1)
	if _, err := scrub.Free(ctx, j.db, j.readersEnd); err != nil {
		return err
	}
	w.ended.Store(pass)
	return nil
}

// readersEnd returns when every read transaction that has begun has ended.
func (j *Journal) readersEnd() {
	j.reading.Lock()
	defer j.reading.Unlock()
}

// erase stages the tombstones.
func (c *committer) erase(b *buckets, w *work, er *journal.Erasure) (erased int, err error) {
	ids := make(map[chat.MessageID]bool, len(er.Seqs))
	for _, seq := range er.Seqs {
		if seq < w.h.first || seq > w.h.top {
			continue
		}
		c.key = entryKey(c.key[:0], w.room, w.h.gen, seq)
		rec := b.entries().Get(c.key)
		if rec == nil {
			continue
		}
		var e journal.Entry
		body, err := unseal(c.key, rec)
		if err == nil {
			err = codec.DecodeEntry(&e, seq, string(body))
		}
		if err != nil { // readers met it, or will, as one that is missing
			c.j.log.Error("journal erases a damaged record whole", "room", w.room, "seq", seq, "error", err)
			if err := b.entries().Delete(c.key); err != nil {
				return 0, err
			}
			erased++
			continue
		}
		ids[e.ID] = true
		if !e.Erase() {
			continue
		}
		rec, err = appendEntry(nil, &e)
		if err != nil {
			return 0, err
		}
		if err := b.entries().Put(c.key, seal(c.key, rec)); err != nil {
			return 0, err
		}
		erased++
	}
	n, err := c.eraseDecided(b, w.room, er, ids)
	if erased+n > 0 {
		w.changed = true
	}
	return erased, err
}

// eraseDecided takes the reasons out of decisions that the erasure concerns.
func (c *committer) eraseDecided(b *buckets, room chat.RoomID, er *journal.Erasure, ids map[chat.MessageID]bool) (n int, err error) {
	type pair struct{ key, rec []byte }
	var changes []pair // a cursor must not see writes
	prefix := roomPrefix(nil, room)
	cur := b.decided().Cursor()
	for k, v := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cur.Next() {
		r, err := readReview(k, v)
		if err != nil || !er.Concerns(&r, ids) { // a damaged one is never shown and goes with its age
			continue
		}
		r.Entry.Reasons = nil
		rec, err := codec.AppendReview([]byte{recordVersion}, &r)
		if err != nil {
			return 0, err
		}
		key := bytes.Clone(k)
		changes = append(changes, pair{key, seal(key, rec)})
	}
	for _, ch := range changes {
		if err := b.decided().Put(ch.key, ch.rec); err != nil {
			return 0, err
		}
	}
	return len(changes), nil
}
