package disk

import (
	"bytes"
	"context"
	"slices"

	"parley/core/chat"
	"parley/core/journal"
)

// stageReview puts an append that concerns a review into the transaction.
func (c *committer) stageReview(b *buckets, w *work, p *pending, act journal.Act) error {
	id := p.req.Entry.ID
	if act == journal.ActHold {
		switch all, own := c.openIn(w.room, p.req.Entry.From); {
		case own >= journal.MaxOwnReviews:
			p.err = journal.ErrOwnQueueFull
			return nil
		case all >= journal.MaxReviews:
			p.err = journal.ErrQueueFull
			return nil
		}
		c.openings = append(c.openings, opening{openReview: openOf(w.room, p.req.Review)})
		c.key = reviewKey(c.key[:0], w.room, id)
		if err := b.reviews().Put(c.key, c.value(func(buf []byte) []byte { return append(buf, p.review...) })); err != nil {
			return err
		}
		return c.putAnswer(b, w, p)
	}
	c.key = reviewKey(c.key[:0], w.room, id)
	if b.reviews().Get(c.key) == nil {
		p.err = journal.ErrNotOpen
		return nil
	}
	c.openings = append(c.openings, opening{openOf(w.room, p.req.Review), true})
	if err := b.reviews().Delete(c.key); err != nil {
		return err
	}
	if err := c.putDecided(b, w.room, p); err != nil {
		return err
	}
	posted, was := c.postedFor(b, w, p)
	switch {
	case act == journal.ActReject && !was:
		return c.putAnswer(b, w, p)
	case !was:
		w.h.reviews++
		p.decided = true
		return c.put(b, w, p)
	}
	// The nonce keeps its answer.
	w.h.reviews++
	w.changed, p.decided = true, true
	if p.receipt = posted; act == journal.ActReject {
		e := &p.req.Entry
		p.receipt = journal.Receipt{Epoch: w.h.epoch, ID: e.ID, Outcome: e.Outcome, Reasons: e.Reasons}
	}
	return nil
}

// postedFor returns the receipt of an entry that stands in the log under the
// nonce of p, whose review is being decided. While a review is open its nonce
// is taken, so this is a file that has been through worse: a damaged record, an
// older version.
func (c *committer) postedFor(b *buckets, w *work, p *pending) (journal.Receipt, bool) {
	if first := c.staged[p.hash]; first != nil && first.gen == w.h.gen && first.receipt.Seq > 0 {
		rc := first.receipt
		rc.Repeat = true
		return rc, true
	}
	e := &p.req.Entry
	if number, _, ok := c.j.pub.known(p.hash); ok {
		rc, ok := c.j.receiptAt(b, number, w.room, e.From, e.Nonce, w.h, c.now)
		return rc, ok && rc.Seq > 0
	}
	return journal.Receipt{}, false
}

// putAnswer stages the receipt of an append that stores no entry.
func (c *committer) putAnswer(b *buckets, w *work, p *pending) error {
	e := &p.req.Entry
	w.h.reviews++
	w.changed = true
	e.Seq, p.gen, p.decided = 0, w.h.gen, true
	p.receipt = journal.Receipt{Epoch: w.h.epoch, ID: e.ID, Outcome: e.Outcome, Reasons: e.Reasons}
	c.staged[p.hash] = p
	return c.putReceipt(b, w, p)
}

// putDecided stages the decision and drops the oldest above the bound.
func (c *committer) putDecided(b *buckets, room chat.RoomID, p *pending) error {
	r := p.req.Review
	prefix := roomPrefix(nil, room)
	cur := b.decided().Cursor()
	over := countKeys(cur, prefix, 2*journal.MaxDecided) + 1 - journal.MaxDecided
	var old [][]byte
	for k, _ := cur.Seek(prefix); len(old) < over && bytes.HasPrefix(k, prefix); k, _ = cur.Next() {
		old = append(old, bytes.Clone(k)) // a cursor must not see deletes
	}
	for _, k := range old {
		if err := b.decided().Delete(k); err != nil {
			return err
		}
	}
	c.key = decidedKey(c.key[:0], room, r.Decided, r.Entry.ID)
	return b.decided().Put(c.key, c.value(func(buf []byte) []byte { return append(buf, p.review...) }))
}

// cursor is what countKeys needs of a bbolt cursor.
type cursor interface {
	Seek(seek []byte) (key, value []byte)
	Next() (key, value []byte)
}

// countKeys counts the keys that begin with prefix, up to limit.
func countKeys(cur cursor, prefix []byte, limit int) (n int) {
	for k, _ := cur.Seek(prefix); n < limit && bytes.HasPrefix(k, prefix); k, _ = cur.Next() {
		n++
	}
	return n
}

// Reviews implements journal.Journal.
func (j *Journal) Reviews(ctx context.Context, room chat.RoomID) (open, decided []journal.Review, err error) {
	err = j.viewSettled(ctx, room, func(b *buckets, h head) error {
		open, decided = nil, nil
		if h.gen == 0 {
			return nil
		}
		open = j.readReviews(b.reviews().Cursor(), room)
		decided = j.readReviews(b.decided().Cursor(), room)
		slices.Reverse(decided)
		return nil
	})
	return open, decided, err
}

func (j *Journal) readReviews(cur cursor, room chat.RoomID) (rs []journal.Review) {
	prefix := roomPrefix(nil, room)
	for k, v := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cur.Next() {
		r, err := readReview(k, v)
		if err != nil {
			j.log.Error("journal leaves out a review: its record is damaged", "room", room, "key", string(k[len(prefix):]), "error", err)
			continue
		}
		rs = append(rs, r)
	}
	return rs
}
