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
	if _, err := r.reload(ctx, sight{}); err != nil {
		cancel()
		return err
	}
	return nil
}

// reload takes over the journal's view of the room: the newest entries of its
// present epoch and its state. It leaves the room alone, and reports false, if
// that has moved since it was seen at was: then somebody else has done so.
func (r *Room) reload(ctx context.Context, was sight) (took bool, err error) {
	info, es, err := r.snapshot(ctx)
	if err == nil && was.Seq > 0 {
		var restored bool
		if restored, err = r.restore(ctx, info); restored {
			info, es, err = r.snapshot(ctx)
		}
	}
	if err != nil {
		return false, err
	}
	st, err := state.Load(info.State)
	if err != nil {
		return false, fmt.Errorf("load room %s: %w", r.id, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.generation != was.generation || r.loaded && r.epoch == info.Top.Epoch && r.ring.head != was.Seq {
		return false, nil
	}
	r.epoch = info.Top.Epoch
	r.generation++
	r.ring.restart(info.Top.Seq - uint64(len(es)))
	for i := range es {
		r.putLocked(&es[i])
	}
	r.st.Store(st) // that of the top, so the entries must not be folded again
	if r.loaded {
		r.renewedLocked()
	}
	r.loaded = true
	r.forgetStaleLocked()
	r.drainPendingLocked()
	return true, nil
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
			for i := len(es) - 1; i > 0; i-- { // behind a hole, if there is one
				if es[i-1].Seq+1 != es[i].Seq {
					return info, es[i:], nil
				}
			}
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

// maxFills is how many rooms read from the journal at once to catch up. When a
// shared store has been away, every room has to: without a bound they would all
// ask it in the moment in which it is back.
const maxFills = 64

func (h *Hub) fill(ctx context.Context, r *Room) {
	wait := 50 * time.Millisecond // first pause after an error, doubled to 2 s
	for {
		err := h.fillInTurn(ctx, r)
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

// fillInTurn looks in the journal once it is the room's turn.
func (h *Hub) fillInTurn(ctx context.Context, r *Room) error {
	select {
	case h.filling <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-h.filling }()
	r.mu.Lock()
	r.doubted = false
	r.mu.Unlock()
	return r.fillOnce(ctx)
}
