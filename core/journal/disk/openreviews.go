package disk

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/codec"
)

// openReview is what is kept in memory of a review that is open, some 250
// bytes: who holds which nonce, and how many wait where, are asked with every
// append and every hold. It is never modified.
type openReview struct {
	room chat.RoomID
	id   chat.MessageID
	from chat.UserID
	hash nonceHash // of room, author and nonce
	at   int64     // Unix ms at which it was held
}

// openReviews are the open reviews of all rooms. The list of a room has at most
// journal.MaxReviews.
type openReviews struct {
	byNonce map[nonceHash]*openReview
	byRoom  map[chat.RoomID][]*openReview
}

func newOpenReviews() openReviews {
	return openReviews{byNonce: map[nonceHash]*openReview{}, byRoom: map[chat.RoomID][]*openReview{}}
}

func (o *openReviews) add(v *openReview) {
	o.byNonce[v.hash] = v
	o.byRoom[v.room] = append(o.byRoom[v.room], v)
}

func (o *openReviews) remove(room chat.RoomID, id chat.MessageID) {
	list := o.byRoom[room]
	i := slices.IndexFunc(list, func(v *openReview) bool { return v.id == id })
	if i < 0 {
		return
	}
	if v := list[i]; o.byNonce[v.hash] == v {
		delete(o.byNonce, v.hash)
	}
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(o.byRoom, room)
		return
	}
	o.byRoom[room] = list
}

// scanReviews reads the open reviews of the file. A damaged one is left out,
// as it is from every list.
func (c *committer) scanReviews(b *buckets) openReviews {
	open := newOpenReviews()
	cur := b.reviews().Cursor()
	for k, v := cur.First(); k != nil; k, v = cur.Next() {
		name, _, ok := bytes.Cut(k, []byte{0})
		r, err := readReview(k, v)
		if !ok || err != nil {
			c.j.log.Error("journal leaves out a review: its record is damaged", "key", string(k), "error", err)
			continue
		}
		open.add(openOf(chat.RoomID(name), &r))
	}
	return open
}

func openOf(room chat.RoomID, r *journal.Review) *openReview {
	e := &r.Entry
	return &openReview{room: room, id: e.ID, from: e.From, hash: hashNonce(room, e.From, e.Nonce), at: e.Time}
}

func readReview(key, rec []byte) (r journal.Review, err error) {
	body, err := unseal(key, rec)
	if err == nil {
		err = codec.DecodeReview(&r, string(body))
	}
	return r, err
}

// opening is a change of the open reviews that is staged.
type opening struct {
	*openReview
	closed bool
}

// openIn counts the open reviews of a room, and those of one author, as they
// are with what is staged.
func (c *committer) openIn(room chat.RoomID, from chat.UserID) (all, own int) {
	count := func(v *openReview, by int) {
		all += by
		if v.from == from {
			own += by
		}
	}
	p := &c.j.pub
	p.mu.RLock()
	for _, v := range p.open.byRoom[room] {
		count(v, 1)
	}
	p.mu.RUnlock()
	for _, o := range c.openings {
		switch {
		case o.room != room:
		case o.closed:
			count(o.openReview, -1)
		default:
			count(o.openReview, 1)
		}
	}
	return all, own
}

// heldFor returns the answer that the holder of p's nonce has, if an open
// review has that nonce: the published one, or one that is staged.
func (c *committer) heldFor(b *buckets, p *pending, published *openReview, h head) (journal.Receipt, bool) {
	v := published
	for _, o := range c.openings {
		if o.hash == p.hash && !o.closed {
			v = o.openReview
		}
	}
	if v == nil {
		return journal.Receipt{}, false
	}
	return c.j.heldAt(b, v, p.req.Entry.Nonce, h)
}

// heldAt reads the receipt of an open review. It is not there when the review
// has been decided in this transaction.
func (j *Journal) heldAt(b *buckets, v *openReview, nonce string, h head) (journal.Receipt, bool) {
	key := reviewKey(nil, v.room, v.id)
	rec := b.reviews().Get(key)
	if rec == nil {
		return journal.Receipt{}, false
	}
	r, err := readReview(key, rec)
	if err != nil {
		j.log.Error("journal forgets a nonce: the review that holds it is damaged", "room", v.room, "review", v.id, "error", err)
		return journal.Receipt{}, false
	}
	e := &r.Entry
	if e.From != v.from || e.Nonce != nonce {
		return journal.Receipt{}, false
	}
	return journal.Receipt{Epoch: h.epoch, ID: e.ID, Outcome: e.Outcome, Reasons: e.Reasons, Repeat: true}, true
}

// publishReviewsLocked shows what this commit has opened and closed. pub.mu is
// held.
func (c *committer) publishReviewsLocked() {
	for _, o := range c.openings {
		if o.closed {
			c.j.pub.open.remove(o.room, o.id)
		} else {
			c.j.pub.open.add(o.openReview)
		}
	}
}

// Overdue implements journal.Journal.
func (j *Journal) Overdue(ctx context.Context, before int64, limit int) ([]journal.Waiting, error) {
	if err := j.usable(ctx); err != nil || limit < 1 {
		return nil, err
	}
	list := j.pub.heldBefore(before)
	slices.SortFunc(list, func(a, b *openReview) int { return cmp.Compare(a.at, b.at) })
	list = list[:min(len(list), limit)]
	if len(list) == 0 {
		return nil, nil
	}
	ws := make([]journal.Waiting, 0, len(list))
	err := j.view(func(b *buckets) error {
		for _, v := range list {
			key := reviewKey(nil, v.room, v.id)
			rec := b.reviews().Get(key)
			if rec == nil { // decided meanwhile
				continue
			}
			r, err := readReview(key, rec)
			if err != nil {
				j.log.Error("journal leaves out a review: its record is damaged", "room", v.room, "review", v.id, "error", err)
				continue
			}
			ws = append(ws, journal.Waiting{Room: v.room, Review: r})
		}
		return nil
	})
	return ws, err
}

// heldBefore lists the open reviews from before the given Unix ms, in no order.
func (p *published) heldBefore(before int64) (list []*openReview) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, vs := range p.open.byRoom {
		for _, v := range vs {
			if v.at < before {
				list = append(list, v)
			}
		}
	}
	return list
}
