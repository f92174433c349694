package share

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"parley/core/cluster/objects"
	"parley/plugins"
)

// telling is a decision that is in force here and not told yet.
type telling struct {
	// Set at construction.
	name   string
	change func(plugins.Standing) (plugins.Standing, error)

	// Owned by Open, then by Run.
	after time.Time // when to try again; zero: at once

	// Guarded by Share.mu.
	tries int   // in vain, in a row
	err   error // of the last
}

// Bounds of telling.
const (
	maxPending = 256 // that wait to be told
	giveUp     = 8   // attempts, after which a person is told, and the rest has the time
)

// stuck reports whether a person should look at it.
func (t *telling) stuck() bool { return t.tries >= giveUp }

// Tell implements plugins.Board.
func (s *Share) Tell(name string, change func(plugins.Standing) (plugins.Standing, error)) {
	s.mu.Lock()
	if len(s.pending) == maxPending {
		s.pending = s.pending[1:] // what it took back stays out here; the catalog remembers that
	}
	s.pending = append(s.pending, &telling{name: name, change: change})
	s.mu.Unlock()
	s.poke()
}

// telling reports whether the others are to be told of a rollback of the name.
func (s *Share) telling(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.pending, func(t *telling) bool { return t.name == name })
}

// flush tells the others what is in force here already. What cannot be told waits,
// longer each time, and holds up only what follows about the same plugin. It
// returns when there is something to be tried again, zero for nothing.
func (s *Share) flush(ctx context.Context, p *problems) (again time.Time) {
	s.mu.Lock()
	pending := slices.Clone(s.pending)
	s.mu.Unlock()
	waiting, silent := make(map[string]bool), false
	for _, t := range pending {
		if !silent && !waiting[t.name] && !time.Now().Before(t.after) {
			_, err := s.Agree(ctx, t.name, t.change)
			if ctx.Err() != nil {
				return again
			}
			if err == nil {
				s.told(t)
				continue
			}
			s.untold(t, err)
			silent = !here(err) // Redis would not answer the next either
		}
		waiting[t.name] = true
		due := t.after
		if now := time.Now(); !due.After(now) { // it was passed over
			due = now.Add(s.cfg.Retry)
		}
		if again.IsZero() || due.Before(again) {
			again = due
		}
		if t.stuck() {
			p.add("rollback of plugin "+t.name, fmt.Errorf("the other nodes could not be told in %d attempts; the next is within %v: %w", t.tries, s.longest(), t.err))
		}
	}
	return again
}

// here reports whether an agreement failed for a reason other than Redis's silence.
func here(err error) bool {
	return !errors.Is(err, plugins.ErrNoAgreement) || errors.Is(err, errHead) || errors.Is(err, errStanding) ||
		errors.Is(err, objects.ErrConflict) || errors.Is(err, objects.ErrNoSecret)
}

// told forgets what the others know now.
func (s *Share) told(t *telling) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = slices.DeleteFunc(s.pending, func(x *telling) bool { return x == t })
}

// longest is the longest wait between two attempts.
func (s *Share) longest() time.Duration { return s.cfg.Retry << (giveUp - 1) }

// untold notes an attempt in vain. While Redis is silent the wait does not grow:
// the others judge on with what was taken back, and are told once it answers.
func (s *Share) untold(t *telling, err error) {
	wait := s.cfg.Retry
	if here(err) {
		wait = s.cfg.Retry << min(t.tries, giveUp-1)
	}
	t.after = time.Now().Add(wait)
	s.mu.Lock()
	defer s.mu.Unlock()
	t.tries++
	t.err = err
}

// following is how rollouts stand once the others know what they are to be told:
// what was taken back here must not come back meanwhile.
func (s *Share) following(all map[string]plugins.Standing) map[string]plugins.Standing {
	s.mu.Lock()
	pending := slices.Clone(s.pending)
	s.mu.Unlock()
	if len(pending) == 0 {
		return all
	}
	all = maps.Clone(all)
	for _, t := range pending {
		if old, ok := all[t.name]; ok {
			if next, err := t.change(old); err == nil {
				next.Rev = old.Rev
				all[t.name] = next
			}
		}
	}
	return all
}
