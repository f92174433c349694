package disk

import (
	"context"
	"encoding/binary"
	"errors"

	"parley/core/chat"
	"parley/core/journal"
)

// The nonce window is a list of receipts in commit order, which costs a page
// or two a commit however many rooms and users take part, and a map in memory
// from the hash of (room, user, nonce) to a place in the list. The map is
// complete, so that an unknown nonce, the ordinary case, needs no look at the
// file. It is read from the list when the journal opens. The nonce of an open
// review outlives the window: see openReviews.

// loadNonces fills the maps of nonces and of open reviews. It runs before the
// committer does.
func (c *committer) loadNonces(b *buckets) error {
	c.j.pub.nonces, c.j.pub.open = c.scanNonces(b), c.scanReviews(b)
	return nil
}

// scanNonces reads the whole list.
func (c *committer) scanNonces(b *buckets) map[nonceHash]uint64 {
	var r receipt
	found := map[nonceHash]uint64{}
	c.next = 1
	cur := b.nonces().Cursor()
	for k, v := cur.First(); k != nil; k, v = cur.Next() {
		if len(k) != 8 {
			continue
		}
		number := binary.BigEndian.Uint64(k)
		c.next = number + 1
		if err := readReceipt(&r, k, v); err != nil {
			c.j.log.Error("journal forgets a nonce: its receipt is damaged", "number", number, "error", err)
			continue
		}
		found[hashNonce(r.room, r.user, r.nonce)] = number
	}
	return found
}

func readReceipt(r *receipt, key, rec []byte) error {
	body, err := unseal(key, rec)
	if err != nil {
		return err
	}
	return decodeReceipt(r, body)
}

// putReceipt stages the receipt of p's entry.
func (c *committer) putReceipt(b *buckets, w *work, p *pending) error {
	e := &p.req.Entry
	r := receipt{
		at: c.now, room: w.room, gen: w.h.gen, user: e.From, nonce: e.Nonce,
		seq: e.Seq, id: e.ID, outcome: e.Outcome, reasons: e.Reasons,
	}
	c.key = nonceKey(c.key[:0], c.next+uint64(len(c.remember)))
	c.remember = append(c.remember, p.hash)
	rec := c.value(func(buf []byte) []byte { return appendReceipt(buf, &r) })
	return b.nonces().Put(c.key, rec)
}

// expireNonces deletes at most budget receipts that are past the window or
// above its bound. A damaged one goes when its turn comes.
func (c *committer) expireNonces(b *buckets, budget int) (int, error) {
	cutoff := c.now - c.j.cfg.NonceWindow.Milliseconds()
	var r receipt
	cur := b.nonces().Cursor()
	for k, v := cur.First(); len(k) == 8 && len(c.forget) < budget; k, v = cur.Next() {
		f := forgotten{number: binary.BigEndian.Uint64(k)}
		over := c.next-f.number > uint64(c.j.cfg.MaxNonces)
		if readReceipt(&r, k, v) == nil {
			if r.at > cutoff && !over {
				break
			}
			f.hash = hashNonce(r.room, r.user, r.nonce)
		}
		c.forget = append(c.forget, f)
	}
	for _, f := range c.forget { // a cursor must not see deletes
		c.key = nonceKey(c.key[:0], f.number)
		if err := b.nonces().Delete(c.key); err != nil {
			return 0, err
		}
	}
	return len(c.forget), nil
}

// publishNoncesLocked shows the receipts of this commit. pub.mu is held.
func (c *committer) publishNoncesLocked() {
	nonces := c.j.pub.nonces
	for _, f := range c.forget {
		if nonces[f.hash] == f.number {
			delete(nonces, f.hash)
		}
	}
	for _, hash := range c.remember {
		nonces[hash] = c.next
		c.next++
	}
}

// receiptAt reads the receipt of that number if it is still good: of this
// nonce, of the room's epoch, within the window.
func (j *Journal) receiptAt(b *buckets, number uint64, room chat.RoomID, user chat.UserID, nonce string, h head, now int64) (journal.Receipt, bool) {
	var r receipt
	key := nonceKey(nil, number)
	if err := readReceipt(&r, key, b.nonces().Get(key)); err != nil {
		if !errors.Is(err, errMissing) {
			j.log.Error("journal forgets a nonce: its receipt is damaged", "number", number, "error", err)
		}
		return journal.Receipt{}, false
	}
	if r.room != room || r.user != user || r.nonce != nonce || r.gen != h.gen || r.at <= now-j.cfg.NonceWindow.Milliseconds() {
		return journal.Receipt{}, false
	}
	return journal.Receipt{Epoch: h.epoch, Seq: r.seq, ID: r.id, Outcome: r.outcome, Reasons: r.reasons, Repeat: true}, true
}

// Lookup implements journal.Journal. An unknown nonce is answered from
// memory.
func (j *Journal) Lookup(ctx context.Context, room chat.RoomID, user chat.UserID, nonce string) (journal.Receipt, bool, error) {
	if err := j.usable(ctx); err != nil {
		return journal.Receipt{}, false, err
	}
	hash := hashNonce(room, user, nonce)
	for {
		number, held, found := j.pub.known(hash)
		if nonce == "" || !found && held == nil {
			return journal.Receipt{}, false, nil
		}
		var rc journal.Receipt
		ok := false
		if found {
			err := j.viewRoom(ctx, room, func(b *buckets, h head, _ bool) error {
				rc, ok = j.receiptAt(b, number, room, user, nonce, h, nowMilli())
				return nil
			})
			if ok || err != nil || held == nil {
				return rc, ok && err == nil, err
			}
		}
		err := j.viewSettled(ctx, room, func(b *buckets, h head) error {
			rc, ok = j.heldAt(b, held, nonce, h)
			return nil
		})
		if ok || err != nil {
			return rc, ok && err == nil, err
		}
		// Decided meanwhile, so there is a receipt by now; or damaged.
		if _, now, _ := j.pub.known(hash); now == held {
			return journal.Receipt{}, false, nil
		}
	}
}
