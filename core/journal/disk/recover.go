package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"parley/core/chat"
)

// doubt is a room whose last commit failed: whether it happened is not known
// until a later commit succeeds.
type doubt struct {
	room chat.RoomID
	was  head // published before
}

// probeAfter is the pause before the next attempt to write: it doubles from
// 100 ms to 5 s.
func probeAfter(failures int) time.Duration {
	return min(100*time.Millisecond<<min(failures-1, 10), 5*time.Second)
}

// failed notes that a commit failed and returns what its callers are told.
// From now on appends are refused at once and the committer probes, until a
// write succeeds. A full disk often takes the probe and refuses the next
// append, so without a commit in between the pause goes on growing. Readers stay with what was published: if the commit did
// reach the file (the sync after the last write failed), it is not durable.
func (c *committer) failed(err error) error {
	c.j.counts.failures.Add(1)
	c.relapses++
	c.failures = c.relapses
	c.nextProbe = time.Now().Add(probeAfter(c.failures))
	c.doubtful = c.roomsOf()
	fault := unavailable("write the journal", err)
	c.j.queue.setFault(fault)
	c.j.pub.endRound()
	c.j.damage.forget()
	c.j.log.Error("journal cannot write; appends are refused until it can", "path", c.j.cfg.Path, "error", err)
	return fault
}

var probeKey = []byte("probe")

// probe tries to write. Success makes whatever the file holds durable, the
// commit in doubt included, if it is there: bbolt had synced its pages before
// it wrote the page that makes them count.
func (c *committer) probe() {
	err := c.transact(func(b *buckets) (bool, error) {
		n := binary.BigEndian.AppendUint64(nil, uint64(c.now))
		return true, b.tx.Bucket(bucketMeta).Put(probeKey, n)
	})
	if err == nil {
		err = c.settle()
	}
	if err != nil {
		c.failures++
		c.nextProbe = time.Now().Add(probeAfter(c.failures))
		c.j.queue.setFault(unavailable("write the journal", err))
		return
	}
	c.failures = 0
	c.j.queue.setFault(nil)
	c.j.log.Info("journal writes again", "path", c.j.cfg.Path)
}

// settle learns from the file what became of the commits in doubt.
func (c *committer) settle() error {
	var changed []chat.RoomID
	var nonces map[nonceHash]uint64
	var open openReviews
	err := c.j.view(func(b *buckets) error {
		for _, d := range c.doubtful {
			if h, err := loadHead(b, d.room, head{}); err != nil && !errors.Is(err, errHead) {
				return err
			} else if err != nil || h.gen != d.was.gen || h.top != d.was.top || h.reviews != d.was.reviews {
				changed = append(changed, d.room)
			}
		}
		nonces, open = c.scanNonces(b), c.scanReviews(b)
		return nil
	})
	if err != nil {
		return err
	}
	p := &c.j.pub
	p.mu.Lock()
	for _, d := range c.doubtful {
		delete(p.heads, d.room)
	}
	p.nonces, p.open = nonces, open
	p.endRoundLocked()
	p.mu.Unlock()
	c.doubtful = nil
	for _, room := range changed {
		c.j.watch.doubt(room)
	}
	return nil
}

// sweepEvery is the pause between rounds of maintenance; sweepRooms and
// sweepBudget bound one round, so that appends wait for it no longer than for
// a commit of that size.
const (
	sweepEvery  = 10 * time.Second
	sweepRooms  = 256
	sweepBudget = 1024 // records deleted
)

// maintain enforces retention in rooms nobody writes to, and deletes old
// generations and receipts.
func (c *committer) maintain() {
	err := c.transact(func(b *buckets) (bool, error) {
		changed, err := c.sweep(b, sweepBudget)
		if err != nil {
			return false, err
		}
		if c.j.cfg.MaxEntries > 0 || c.j.cfg.MaxAge > 0 {
			if err := c.retainNext(b); err != nil {
				return false, err
			}
		}
		wrote, err := c.writeHeads(b)
		return changed || wrote, err
	})
	var page *pageError
	switch {
	case err == nil:
		c.publish()
	case errors.As(err, &page):
		c.j.log.Error("journal maintenance met a damaged page", "path", c.j.cfg.Path, "error", err)
	default:
		_ = c.failed(err) // it has been logged, and nobody waits for an answer
	}
}

// retainNext enforces retention in the next few rooms.
func (c *committer) retainNext(b *buckets) error {
	cur := b.rooms().Cursor()
	k, _ := cur.Seek([]byte(c.sweepAt))
	if c.sweepAt != "" && string(k) == string(c.sweepAt) {
		k, _ = cur.Next()
	}
	var rooms []chat.RoomID
	for ; k != nil && len(rooms) < sweepRooms; k, _ = cur.Next() {
		rooms = append(rooms, chat.RoomID(k))
	}
	c.sweepAt = ""
	if len(rooms) == sweepRooms {
		c.sweepAt = rooms[sweepRooms-1]
	}
	for _, room := range rooms {
		w, err := c.workOn(b, room)
		if err != nil {
			return err
		}
		if err := c.retain(b, w, sweepBudget/8); err != nil {
			return err
		}
	}
	return nil
}

// sweep deletes at most budget records of old generations and of receipts
// past the window.
func (c *committer) sweep(b *buckets, budget int) (changed bool, err error) {
	n, err := c.expireNonces(b, budget)
	if err != nil || !c.garbage {
		return n > 0, err
	}
	m, err := c.deleteGarbage(b, budget)
	return n+m > 0, err
}

// deleteGarbage deletes entries of generations that were left.
func (c *committer) deleteGarbage(b *buckets, budget int) (n int, err error) {
	left := b.garbage().Cursor()
	prefix, _ := left.First()
	for prefix != nil && c.importing[string(prefix)] {
		prefix, _ = left.Next()
	}
	if prefix == nil {
		c.garbage = false
		return 0, nil
	}
	prefix = bytes.Clone(prefix)
	keys := make([][]byte, 0, min(budget, 64))
	cur := b.entries().Cursor()
	for k, _ := cur.Seek(prefix); bytes.HasPrefix(k, prefix) && len(keys) < budget; k, _ = cur.Next() {
		keys = append(keys, bytes.Clone(k)) // a cursor must not see deletes
	}
	if len(keys) == 0 {
		return 1, b.garbage().Delete(prefix)
	}
	for _, k := range keys {
		if err := b.entries().Delete(k); err != nil {
			return 0, err
		}
	}
	return len(keys), nil
}
