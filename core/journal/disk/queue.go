package disk

import (
	"fmt"
	"sync"
	"sync/atomic"

	"parley/core/journal"
	"parley/core/journal/codec"
)

// pending is one append on its way. Its caller owns it until it is queued,
// the committer from then on; the caller gets it back with done. A caller
// that gives up first marks it abandoned and forgets it.
type pending struct {
	req       journal.Request
	repair    bool      // no append: check the head of req.Room
	do        change    // no append: this, in the commit; it may run more than once
	rec       []byte    // version and body of the entry; the committer seals it
	body      int       // length of rec before it is sealed
	review    []byte    // version and body of the review, where there is one
	hash      nonceHash // of room, user and nonce
	abandoned atomic.Bool
	done      chan struct{} // one slot

	// Set by the committer.
	receipt journal.Receipt
	err     error
	gen     uint32   // generation the entry went to
	added   bool     // an entry was staged
	decided bool     // a change of a review was staged
	doubt   bool     // the log was replaced: watchers are told to look again
	twin    *pending // staged in the same commit with the same nonce
}

// change is work on a room that is no append. What it wants to be known of the
// room it puts into w; p.err is what its caller is told, an error it returns
// fails the commit.
type change func(c *committer, b *buckets, w *work, p *pending) error

// newPending takes a pending from the pool. The pool is the journal's own: a
// channel made in a testing/synctest bubble must not turn up in another.
func (j *Journal) newPending(r journal.Request) *pending {
	p, ok := j.pendings.Get().(*pending)
	if !ok {
		p = &pending{done: make(chan struct{}, 1)}
	}
	p.req = r
	return p
}

// encode makes the record of the entry, but for its checksum.
func (p *pending) encode() (err error) {
	p.rec, err = appendEntry(p.rec[:0], &p.req.Entry)
	p.body = len(p.rec)
	if err == nil && p.req.Review != nil {
		p.review, err = codec.AppendReview([]byte{recordVersion}, p.req.Review)
	}
	return err
}

// size is what p holds of memory.
func (p *pending) size() int {
	n := len(p.rec) + len(p.review)
	for i := range p.req.Expect {
		n += len(p.req.Expect[i].Key) + len(p.req.Expect[i].Value)
	}
	return n
}

// maxKeptRecord bounds the buffer a pooled pending keeps; a rare long entry
// must not stay in memory.
const maxKeptRecord = 8 << 10

// release gives p back to the pool. Nobody else may hold it.
func (j *Journal) release(p *pending) {
	rec, done := p.rec, p.done
	if cap(rec) > maxKeptRecord {
		rec = nil
	}
	*p = pending{rec: rec[:0], done: done}
	j.pendings.Put(p)
}

// queue is what waits for the committer.
type queue struct {
	wake chan struct{} // one slot

	mu     sync.Mutex
	ps     []*pending
	bytes  int
	target int   // the committer wants to be woken at this length
	closed bool  // nothing more is taken
	fault  error // why nothing is taken at present
}

// put adds p, or says why not.
func (q *queue) put(p *pending, maxLen, maxBytes int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return errClosed
	case q.fault != nil:
		return q.fault
	case len(q.ps) >= maxLen:
		return fmt.Errorf("%w: %d appends wait for the disk, no more are taken; try again later", journal.ErrOverloaded, len(q.ps))
	case len(q.ps) > 0 && q.bytes+p.size() > maxBytes:
		return fmt.Errorf("%w: %d bytes wait for the disk, no more are taken; try again later", journal.ErrOverloaded, q.bytes)
	}
	q.ps = append(q.ps, p)
	q.bytes += p.size()
	if n := len(q.ps); n == 1 || n == q.target {
		q.signalLocked()
	}
	return nil
}

func (q *queue) signalLocked() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// signal wakes the committer.
func (q *queue) signal() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.signalLocked()
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ps)
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signalLocked()
}

// unusable returns why nothing is taken at present, or nil.
func (q *queue) unusable() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return errClosed
	}
	return q.fault
}

// broken is the fault alone: what was queued before Close is still committed.
func (q *queue) broken() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.fault
}

func (q *queue) setFault(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.fault = err
}

// swapLocked takes everything, leaving an empty list in its place.
func (q *queue) swapLocked(empty []*pending) []*pending {
	ps := q.ps
	q.ps, q.bytes = empty[:0], 0
	return ps
}
