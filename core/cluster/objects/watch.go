package objects

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// watched is a head that is watched.
type watched struct {
	name string
	to   []func(Head)
	told bool
	last Head
	bad  string // why it could not be read, as logged last
}

// OnHead has f called, from Run's goroutine, with the head of that name as soon
// as Redis has answered, and with each other state of it that is seen
// after that; states that were replaced at once may be skipped. A head that is
// not there has version 0, and one that cannot be read no value. f must return soon: no head is
// looked at until then. Call it before Run.
func (s *Store) OnHead(name string, f func(Head)) {
	for _, w := range s.watched {
		if w.name == name {
			w.to = append(w.to, f)
			return
		}
	}
	s.watched = append(s.watched, &watched{name: name, to: []func(Head){f}})
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// ear hears hints.
type ear struct{ s *Store }

// Message implements redis.Handler.
func (e ear) Message(string, string) { poke(e.s.nudge) }

// Doubt implements redis.Handler.
func (e ear) Doubt(string) { poke(e.s.nudge) }

// spacing is the least time between two looks that hints asked for.
const spacing = 20 * time.Millisecond

// Run watches heads and removes what is kept no longer until ctx ends, and
// returns nil. Call it once.
func (s *Store) Run(ctx context.Context) error {
	var aside sync.WaitGroup
	defer aside.Wait()
	aside.Go(func() { _ = s.sub.Run(ctx) })
	aside.Go(func() { s.sweepUntil(ctx) })
	failing := false
	for ctx.Err() == nil {
		err := s.look(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			s.log.Warn("what the nodes share cannot be read; what is in force stays", "error", err)
		}
		failing = err != nil
		s.wait(ctx, failing)
	}
	return nil
}

func (s *Store) wait(ctx context.Context, failing bool) {
	begun := time.Now()
	pause, nudge := s.cfg.Poll*9/10+rand.N(s.cfg.Poll/5), s.nudge
	if failing {
		pause, nudge = min(pause, 3*time.Second/4+rand.N(time.Second/2)), nil
	}
	due := time.NewTimer(pause)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			return
		case <-nudge:
			nudge = nil
			due.Reset(max(0, spacing-time.Since(begun)))
		}
	}
}

// look reads every watched head and tells who watches what has changed.
func (s *Store) look(ctx context.Context) error {
	if len(s.watched) == 0 {
		return nil
	}
	select {
	case <-s.nudge:
	default:
	}
	names := make([]string, len(s.watched))
	for i, w := range s.watched {
		names[i] = w.name
	}
	texts, err := s.heads(ctx, names...)
	if err != nil {
		return err
	}
	defer s.remember()
	for i, w := range s.watched {
		h, err := s.judge(w.name, texts[i])
		if untrusted(err) {
			h, err = s.putBack(ctx, h, texts[i], err)
		}
		if errors.Is(err, ErrConflict) { // another node was faster
			poke(s.nudge)
			continue
		}
		h.bad = err
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != "" && text != w.bad {
			s.log.Error("what the nodes share is not readable; what is in force stays", "head", w.name, "error", err)
		}
		w.bad = text
		if w.told && same(w.last, h) {
			continue
		}
		w.told, w.last = true, h
		for _, f := range w.to {
			f(h)
		}
	}
	return nil
}

// putBack replaces a head that is not to be believed by the newest that was; one
// that nobody has sealed, where none was, is removed. text is its stored form. The
// error says why h still is what there is.
func (s *Store) putBack(ctx context.Context, h Head, text string, why error) (Head, error) {
	last, ok := s.Last(h.Name)
	switch {
	case ok:
		set, err := s.SetHead(ctx, h.Name, h.Version, last.Value, last.Names...)
		if err != nil {
			return h, fmt.Errorf("%w; what was there before cannot be put back: %w", why, err)
		}
		s.restored.Add(1)
		s.log.Error("WHAT THE NODES SHARE WAS CHANGED BY NONE OF THEM; what was there before is put back", "head", h.Name, "why", why)
		return set, nil
	case errors.Is(why, ErrUnsealed):
		if _, err := s.client.Eval(ctx, unheadScript, []string{s.headsKey()}, h.Name, text, maxHeadBytes); err != nil {
			return h, fmt.Errorf("%w; it cannot be removed: %w", why, err)
		}
		s.restored.Add(1)
		s.log.Warn("what the nodes share was not sealed and is removed; nodes that have the secret say anew what they have", "head", h.Name)
		return Head{Name: h.Name}, nil
	}
	return h, why // of nodes with another secret, maybe: one of the two is to be told by a person
}

// sweepUntil removes objects that are kept no longer.
func (s *Store) sweepUntil(ctx context.Context) {
	for {
		t := time.NewTimer(s.cfg.Sweep/2 + rand.N(s.cfg.Sweep))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("objects that no head names could not be removed", "error", err)
		}
	}
}

// sweepBatch bounds one sweep: each object may be 128 MiB that Redis frees.
const sweepBatch = 64

func (s *Store) sweep(ctx context.Context) error {
	old, err := s.old(ctx)
	for _, d := range old {
		dropped, err := s.drop(ctx, d)
		if err != nil {
			return err
		}
		if dropped {
			s.swept.Add(1)
		}
	}
	return err
}

// old finds digests of objects that no head has named for longer than they are
// kept.
func (s *Store) old(ctx context.Context) (digests []string, err error) {
	reply, err := s.client.Eval(ctx, sweepScript, []string{s.headsKey(), s.agesKey()}, s.keepSeconds(), sweepBatch, maxHeads, maxHeadBytes)
	list, _ := reply.([]any)
	for _, v := range list {
		if d, _ := v.(string); Digest(d).Valid() {
			digests = append(digests, d)
		}
	}
	return digests, err
}

// drop removes an object, unless it was put or named since it was found old.
func (s *Store) drop(ctx context.Context, d string) (bool, error) {
	dropped, err := s.client.Eval(ctx, dropScript, []string{s.objectKey(Digest(d)), s.agesKey()}, d, s.keepSeconds())
	return dropped == int64(1), err
}

func (s *Store) keepSeconds() int { return int(s.cfg.Keep / time.Second) }
