package room

import (
	"context"

	"parley/core/journal"
)

// maxUnforgotten bounds the erasures of one room that wait to be handed on.
const maxUnforgotten = 1024

// OnErase makes the hub call f, in a goroutine, whenever entries of a loaded
// room have been erased, on this node or another, and again for what the newest
// entries tell of when a room is loaded. The room's ring holds tombstones by
// then. Call it before the hub is used.
func (h *Hub) OnErase(f func(ctx context.Context, r *Room, epoch string, seqs []uint64)) {
	h.onErase = f
}

// erasure is what an entry has erased.
type erasure struct {
	epoch string
	seqs  []uint64
}

// erasedLocked notes what an entry that has just been put in the ring has erased.
func (r *Room) erasedLocked(e *journal.Entry) {
	if r.hub.onErase != nil && len(r.erased) < maxUnforgotten {
		r.erased = append(r.erased, erasure{r.epoch, e.Erases})
		r.erasing.Store(true)
	}
}

// tellErased hands on what was erased. The caller holds no lock.
func (r *Room) tellErased() {
	if !r.erasing.Load() {
		return
	}
	r.mu.Lock()
	list := r.erased
	r.erased = nil
	r.erasing.Store(false)
	r.mu.Unlock()
	if len(list) == 0 {
		return
	}
	r.hub.spawn(func(ctx context.Context) { // false when the hub stops: the node's store is asked again by nobody
		for _, e := range list {
			r.hub.onErase(ctx, r, e.epoch, e.seqs)
		}
	})
}
