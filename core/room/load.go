package room

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"parley/core/journal"
	"parley/core/state"
)

// preload is how many of the newest entries a room reads when it is loaded:
// enough for the first page of history a client asks for, and for slow mode
// to know who spoke last.
const preload = 64

// readBatch is how many entries one read from the journal asks for.
const readBatch = 256

// load fills the room from the journal. Deliveries that arrive meanwhile wait
// in pending.
func (r *Room) load(ctx context.Context) error {
	cancel, err := r.hub.journal.Watch(ctx, r.id, r)
	if err != nil {
		return fmt.Errorf("watch room %s: %w", r.id, err)
	}
	r.cancel = cancel
	if err := r.reload(ctx); err != nil {
		cancel()
		return err
	}
	return nil
}

// reload takes over the journal's view of the room: the newest entries of its
// present epoch and its state.
func (r *Room) reload(ctx context.Context) error {
	info, es, err := r.snapshot(ctx)
	if err != nil {
		return err
	}
	st, err := state.Load(info.State)
	if err != nil {
		return fmt.Errorf("load room %s: %w", r.id, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch, r.firstHeld = info.Top.Epoch, info.First
	r.generation++
	r.ring.restart(info.Top.Seq - uint64(len(es)))
	for i := range es {
		r.putLocked(&es[i])
	}
	r.st.Store(st) // that of the top, so the entries must not be folded again
	r.loaded = true
	r.forgetStaleLocked()
	r.drainPendingLocked()
	return nil
}

// snapshot reads Info and the newest entries until both agree.
func (r *Room) snapshot(ctx context.Context) (journal.Info, []journal.Entry, error) {
	for range 8 {
		info, err := r.hub.journal.Info(ctx, r.id)
		if err != nil {
			return info, nil, fmt.Errorf("read room %s: %w", r.id, err)
		}
		if info.Top.Seq == 0 {
			return info, nil, nil
		}
		epoch, es, err := r.hub.journal.ReadBefore(ctx, r.id, info.Top.Seq+1, preload)
		if errors.Is(err, journal.ErrDamaged) {
			// The room lives on without the damaged part in memory; readers
			// of history are told where it lies.
			r.hub.log.Error("room loaded without its newest entries", slog.String("room", string(r.id)), slog.Any("error", err))
			return info, nil, nil
		}
		if err != nil {
			return info, nil, fmt.Errorf("read room %s: %w", r.id, err)
		}
		if epoch == info.Top.Epoch && len(es) > 0 && es[len(es)-1].Seq == info.Top.Seq {
			return info, es, nil
		}
	}
	return journal.Info{}, nil, fmt.Errorf("read room %s: its epoch keeps changing: %w", r.id, journal.ErrUnavailable)
}

// backfill reads from the journal what lies between the ring's head and the
// journal's top. One runs at a time for each room; asking again while it runs
// makes it look again.
func (h *Hub) backfill(r *Room) {
	r.mu.Lock()
	if r.filling || !r.loaded {
		r.doubted = true
		r.mu.Unlock()
		return
	}
	r.filling = true
	r.mu.Unlock()
	h.stats.Backfills.Add(1)
	if !h.spawn(func(ctx context.Context) { h.fill(ctx, r) }) {
		r.mu.Lock()
		r.filling = false
		r.mu.Unlock()
	}
}

func (h *Hub) fill(ctx context.Context, r *Room) {
	wait := 50 * time.Millisecond // first pause after an error, doubled to 2 s
	for {
		r.mu.Lock()
		r.doubted = false
		r.mu.Unlock()
		err := r.fillOnce(ctx)
		r.wake()
		if err != nil && ctx.Err() == nil {
			h.log.Warn("room cannot catch up with the journal yet", slog.String("room", string(r.id)), slog.Any("error", err))
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			wait = min(2*wait, 2*time.Second)
			r.mu.Lock()
			r.doubted = true
			r.mu.Unlock()
		}
		r.mu.Lock()
		if !r.doubted || ctx.Err() != nil {
			r.filling = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
	}
}

// fillOnce brings the ring up to the journal's top, or takes over a new epoch.
func (r *Room) fillOnce(ctx context.Context) error {
	for {
		r.mu.Lock()
		at := r.positionLocked()
		r.mu.Unlock()
		// One entry of overlap proves that the journal still holds what we
		// delivered at our head.
		from := at.Seq
		if at.ID != "" {
			from--
		}
		epoch, es, err := r.hub.journal.Read(ctx, r.id, from, readBatch)
		if err != nil && !errors.Is(err, journal.ErrDamaged) {
			return err
		}
		if err != nil || r.diverged(at, epoch, es) {
			return r.takeOver(ctx, at)
		}
		if !r.pushAll(at, epoch, es) {
			return nil
		}
		r.wake()
	}
}

// diverged reports whether the journal no longer continues from at.
func (r *Room) diverged(at journal.Position, epoch string, es []journal.Entry) bool {
	if at.Seq == 0 {
		return at.Epoch != "" && epoch != at.Epoch // an unborn room takes its first epoch
	}
	if epoch != at.Epoch {
		return true
	}
	if at.ID == "" {
		return len(es) > 0 && es[0].Seq != at.Seq+1
	}
	return len(es) > 0 && (es[0].Seq != at.Seq || es[0].ID != at.ID)
}

// pushAll pushes the entries after at and reports whether the head moved.
func (r *Room) pushAll(at journal.Position, epoch string, es []journal.Entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bornLocked(epoch)
	at.Epoch = epoch
	for i := range es {
		if r.epoch == at.Epoch && es[i].Seq == r.ring.head+1 {
			delete(r.pending, es[i].Seq)
			r.pushLocked(&es[i])
		}
	}
	r.drainPendingLocked()
	if r.ring.head == at.Seq {
		r.forgetStaleLocked()
		return false
	}
	return true
}

// forgetStaleLocked drops waiting entries that can no longer have a turn.
func (r *Room) forgetStaleLocked() {
	for seq, p := range r.pending {
		if p.epoch != r.epoch || seq <= r.ring.head {
			delete(r.pending, seq)
		}
	}
}

// takeOver follows the journal into another epoch (or past damage). Members
// notice by the epoch or the cursor and are sent a reset.
func (r *Room) takeOver(ctx context.Context, was journal.Position) error {
	if err := r.reload(ctx); err != nil {
		return err
	}
	now := r.Position()
	r.hub.stats.Resets.Add(1)
	r.hub.log.Warn("room's log was replaced; members are told to reset", slog.String("room", string(r.id)),
		slog.String("was_epoch", was.Epoch), slog.Uint64("was_seq", was.Seq), slog.String("epoch", now.Epoch), slog.Uint64("seq", now.Seq))
	return nil
}
