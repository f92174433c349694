package room

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"parley/core/journal"
	"parley/core/state"
)

// sight is where the room stood when somebody looked.
type sight struct {
	journal.Position
	generation uint32
}

func (r *Room) sight() sight {
	r.mu.Lock()
	defer r.mu.Unlock()
	return sight{r.positionLocked(), r.generation}
}

// era returns the room's epoch and generation.
func (r *Room) era() (epoch string, generation uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.epoch, r.generation
}

// maxTakeOvers is how often one fill follows the journal into another epoch
// before it pauses.
const maxTakeOvers = 8

// fillOnce brings the ring up to the journal's top, or takes over a new epoch.
// It may run several times at once.
func (r *Room) fillOnce(ctx context.Context) error {
	for range maxTakeOvers {
		at, err := r.fillEpoch(ctx)
		if err != nil || at == nil {
			return err
		}
		if err := r.takeOver(ctx, *at); err != nil {
			return err
		}
	}
	return fmt.Errorf("fill room %s: its epoch keeps changing: %w", r.id, journal.ErrUnavailable)
}

// fillEpoch pushes what the journal has beyond the ring's head. Where the
// journal does not continue from there, it returns the place.
func (r *Room) fillEpoch(ctx context.Context) (diverged *sight, err error) {
	for {
		at := r.sight()
		epoch, es, err := r.readOverlap(ctx, at)
		if err != nil {
			return nil, err
		}
		if es != nil && at.diverged(epoch, es) {
			return r.elsewhere(ctx, at, epoch)
		}
		if es != nil && len(es) == 0 {
			lost, err := r.lostTail(ctx, at)
			if err != nil {
				return nil, err
			}
			if lost {
				return r.elsewhere(ctx, at, epoch)
			}
		}
		after := at.Seq
		if len(es) > 0 {
			es = es[1:]
		}
		if len(es) == 0 { // the top, damage, or a batch that was full after one large entry
			if epoch, es, after, err = r.readPast(ctx, at.Seq); err != nil {
				return nil, err
			}
			if epoch != at.Epoch && (at.Seq > 0 || at.Epoch != "") { // an unborn room takes its first epoch
				return r.elsewhere(ctx, at, epoch)
			}
		}
		if len(es) > 0 {
			after = es[0].Seq - 1
		}
		if after > at.Seq {
			if moved, err := r.skip(ctx, at, after); err != nil {
				return nil, err
			} else if moved {
				continue
			}
		}
		if !r.pushAll(at, epoch, es) {
			return nil, nil
		}
		r.wake()
	}
}

// readOverlap reads on from the entry at the head itself, which proves that
// the journal still holds what was delivered there. It returns nil where that
// entry is not known, or cannot be read any more.
func (r *Room) readOverlap(ctx context.Context, at sight) (epoch string, es []journal.Entry, err error) {
	if at.Seq == 0 || at.ID == "" {
		return "", nil, nil
	}
	epoch, es, err = r.hub.journal.Read(ctx, r.id, at.Seq-1, readBatch)
	if errors.Is(err, journal.ErrDamaged) {
		return "", nil, nil
	}
	if es == nil && err == nil {
		es = []journal.Entry{}
	}
	return epoch, es, err
}

// lostTail reports whether the journal, which has no entry at at, ends before
// it: a replica that had missed the newest entries was promoted, and no append
// has opened a new epoch yet. Otherwise retention has passed the entry.
func (r *Room) lostTail(ctx context.Context, at sight) (bool, error) {
	info, err := r.hub.journal.Info(ctx, r.id)
	if err != nil {
		return false, fmt.Errorf("read room %s: %w", r.id, err)
	}
	return info.Top.Epoch == at.Epoch && info.Top.Seq < at.Seq, nil
}

// diverged reports whether es, read from the head on, does not continue from
// at: another epoch, another entry, or retention is beyond it.
func (at *sight) diverged(epoch string, es []journal.Entry) bool {
	return epoch != at.Epoch || len(es) > 0 && (es[0].Seq != at.Seq || es[0].ID != at.ID)
}

// elsewhere returns the place that the journal does not continue from, once it
// is safe to leave it. In an epoch that has a name of its own it is. In the same
// one, or in none, the store may have lost what the room knows: it must begin a
// new epoch first. Were the room to forget what it knew, it would give seqs of
// the old epoch once more, or its next append would name nothing and that of
// another node, which still knew the old epoch, open a second one over it.
//
// Where the store cannot begin one without an append, a room whose store holds
// nothing stays as it is until the next.
func (r *Room) elsewhere(ctx context.Context, at sight, epoch string) (*sight, error) {
	if epoch != "" && epoch != at.Epoch {
		return &at, nil
	}
	if renewer, ok := r.hub.journal.(journal.Renewer); ok && at.Seq > 0 {
		if err := renewer.Renew(ctx, r.id, at.Position); err != nil {
			return nil, err
		}
		return &at, nil
	}
	if epoch == "" {
		return nil, nil
	}
	return &at, nil
}

// maxSteps is how many damaged entries in a row one look steps over.
const maxSteps = 64

// readPast is journal.Read that steps over damaged entries: it returns the seq
// it got to as well.
func (r *Room) readPast(ctx context.Context, after uint64) (epoch string, es []journal.Entry, _ uint64, err error) {
	for range maxSteps {
		epoch, es, err = r.hub.journal.Read(ctx, r.id, after, readBatch)
		var d *journal.DamagedError
		if !errors.As(err, &d) || d.Seq <= after {
			return epoch, es, after, err
		}
		after = d.Seq
	}
	return epoch, nil, after, nil
}

// skip moves the room past entries that nobody can read: members that are owed
// them will ask the journal, and be told to reset. Their changes are part of
// the room's state all the same, so that is read anew. It
// reports whether the room or its log has moved from at by itself.
func (r *Room) skip(ctx context.Context, at sight, to uint64) (moved bool, err error) {
	info, err := r.hub.journal.Info(ctx, r.id)
	if err != nil {
		return false, fmt.Errorf("read room %s: %w", r.id, err)
	}
	st, err := state.Load(info.State)
	if err != nil {
		return false, fmt.Errorf("load room %s: %w", r.id, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.generation != at.generation || r.ring.head != at.Seq {
		return true, nil
	}
	r.bornLocked(info.Top.Epoch)
	if r.epoch != info.Top.Epoch {
		return true, nil
	}
	r.ring.restart(to)
	r.st.Store(st) // of the top: folding the entries up to there once more ends in the same
	r.renewedLocked()
	r.hub.log.Error("room goes on behind entries that cannot be read", slog.String("room", string(r.id)), slog.Uint64("after", at.Seq), slog.Uint64("to", to))
	return false, nil
}

// pushAll pushes the entries, read at at, whose turn it is, and reports whether
// the room has moved from there.
func (r *Room) pushAll(at sight, epoch string, es []journal.Entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.generation == at.generation {
		r.bornLocked(epoch)
		for i := range es {
			if r.epoch == epoch && es[i].Seq == r.ring.head+1 {
				delete(r.pending, es[i].Seq)
				r.pushLocked(&es[i])
			}
		}
	}
	r.drainPendingLocked()
	if r.generation == at.generation && r.ring.head == at.Seq {
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

// takeOver follows the journal into another epoch, unless the room has moved
// meanwhile. Members notice by the generation and are sent a reset.
func (r *Room) takeOver(ctx context.Context, was sight) error {
	took, err := r.reload(ctx, was)
	if err != nil || !took {
		return err
	}
	r.wake()
	now := r.Position()
	r.hub.stats.Resets.Add(1)
	r.hub.log.Warn("room's log was replaced; members are told to reset", slog.String("room", string(r.id)),
		slog.String("was_epoch", was.Epoch), slog.Uint64("was_seq", was.Seq), slog.String("epoch", now.Epoch), slog.Uint64("seq", now.Seq))
	return nil
}
