package disk

import (
	"context"
	"fmt"
	"hash/maphash"

	"parley/core/chat"
	"parley/core/journal"
)

// Append implements journal.Journal. Watchers of the room have been called
// with the entry when it returns.
func (j *Journal) Append(ctx context.Context, r journal.Request) (journal.Receipt, error) {
	if err := j.usable(ctx); err != nil {
		return journal.Receipt{}, err
	}
	if !chat.ValidRoom(r.Room) {
		return journal.Receipt{}, fmt.Errorf("journal: %q is no room name", r.Room)
	}
	if err := r.Check(); err != nil {
		return journal.Receipt{}, err
	}
	p := j.newPending(r)
	if err := p.encode(); err != nil {
		j.release(p)
		return journal.Receipt{}, err
	}
	if r.Entry.Nonce != "" {
		p.hash = hashNonce(r.Room, r.Entry.From, r.Entry.Nonce)
	}
	return j.submit(ctx, p)
}

// submit queues p and waits for the committer, or for ctx.
func (j *Journal) submit(ctx context.Context, p *pending) (journal.Receipt, error) {
	if err := j.queue.put(p, j.cfg.MaxPending, j.cfg.MaxPendingBytes); err != nil {
		j.release(p)
		return journal.Receipt{}, err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.abandoned.Store(true)
		return journal.Receipt{}, ctx.Err()
	}
	defer j.release(p)
	return p.receipt, p.err
}

// nonceHash stands for (room, user, nonce) in memory. It has 128 bits under
// secret seeds, so that two of them meet by accident once in 10^26 pairs and
// by intent not at all; the receipt itself is compared as well.
type nonceHash struct{ a, b uint64 }

var seedA, seedB = maphash.MakeSeed(), maphash.MakeSeed()

func hashNonce(room chat.RoomID, user chat.UserID, nonce string) nonceHash {
	type key struct {
		room  chat.RoomID
		user  chat.UserID
		nonce string
	}
	k := key{room, user, nonce}
	return nonceHash{maphash.Comparable(seedA, k), maphash.Comparable(seedB, k)}
}
