package gitsync

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// Pin is an operator's word that one revision decides, wherever the ref points.
// It is kept with the last good policy and survives a restart.
type Pin struct {
	Revision string    `json:"revision"` // hex id of a commit or an annotated tag
	By       string    `json:"by,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	At       time.Time `json:"at"`
}

// Bounds of what an operator may say with a pin.
const (
	maxByBytes     = 64
	maxReasonBytes = 300
)

// ErrPin says that an order to pin is malformed.
var ErrPin = errors.New("no such order")

// order is something to do on the goroutine of Run.
type order struct {
	do   func(ctx context.Context) error
	done chan error // has room for one
}

// Pin makes a revision decide, from now on and after a restart, until Unpin: it
// is read by its name, checked like any other but that it need not descend from
// the one in use, and taken. It returns when it is in force, or why it is not;
// nothing has changed then. Run must be running.
func (s *Syncer) Pin(ctx context.Context, p Pin) error {
	switch {
	case len(p.Revision) != 40 || !plumbing.IsHash(p.Revision):
		return fmt.Errorf("%w: %q is not the whole name of a commit, 40 hexadecimal digits", ErrPin, clip(p.Revision))
	case len(p.By) > maxByBytes || len(p.Reason) > maxReasonBytes:
		return fmt.Errorf("%w: the reason has more than %d bytes, or the name more than %d", ErrPin, maxReasonBytes, maxByBytes)
	}
	p.Revision = plumbing.NewHash(p.Revision).String()
	p.At = time.Now().UTC()
	return s.order(ctx, func(ctx context.Context) error { return s.obey(ctx, &p) })
}

// Unpin follows the ref again: its commit is taken with the next poll, which
// comes at once. It must descend from the pinned commit or from the one that
// was taken from the ref before.
func (s *Syncer) Unpin(ctx context.Context) error {
	return s.order(ctx, func(context.Context) error { return s.unpin() })
}

func clip(s string) string { return s[:min(len(s), 64)] }

func (s *Syncer) order(ctx context.Context, do func(context.Context) error) error {
	o := order{do: do, done: make(chan error, 1)}
	select {
	case s.orders <- o:
	case <-ctx.Done():
		return fmt.Errorf("the repository is being read: %w", ctx.Err())
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the order is being carried out, see the status: %w", ctx.Err())
	}
}

// obey pins, on the goroutine of Run.
func (s *Syncer) obey(ctx context.Context, p *Pin) error {
	s.begun = time.Now()
	bounded, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	var rev *revision
	if s.current == nil || s.current.commit != p.Revision { // else: stay where we are, which needs nobody
		who, err := s.signers()
		if err != nil {
			return err
		}
		rev, err = s.readPinned(bounded, p, request{want: plumbing.NewHash(p.Revision), who: who})
		if err != nil {
			return fmt.Errorf("pin %s: %w", p.Revision, err)
		}
		if err := s.hooks.Apply(ctx, rev.files, Revision(rev.commit)); err != nil {
			return fmt.Errorf("pin %s: %w", p.Revision, err)
		}
	}
	s.pin, s.seen, s.untold = p, p.Revision, s.cfg.Share
	if rev != nil { // with its pin: others would be taken over what is shown without
		s.took(rev, fromPin)
	}
	s.setPin(p)
	s.log.Warn("policy is pinned", "revision", p.Revision, "by", p.By, "reason", p.Reason)
	if err := s.keep(); err != nil {
		return fmt.Errorf("%s decides now, but that could not be recorded, so a restart forgets the pin: %w", p.Revision, err)
	}
	return nil
}

func (s *Syncer) readPinned(ctx context.Context, p *Pin, req request) (rev *revision, err error) {
	err = s.guard(func() error {
		r, err := s.cfg.open(ctx)
		if err != nil {
			return err
		}
		defer r.close()
		if _, _, err := r.find(refNames(s.cfg.Ref)); err != nil && !errors.Is(err, errNoRef) {
			return err
		}
		rev, err = s.read(ctx, r, req)
		return err
	})
	return rev, err
}

func (s *Syncer) unpin() error {
	if s.pin == nil {
		return fmt.Errorf("%w: no revision is pinned", ErrPin)
	}
	old := s.pin
	s.untold = s.cfg.Share
	s.setPin(nil)
	s.seen = "" // whatever the ref holds is looked at anew
	s.log.Warn("policy is no longer pinned", "revision", old.Revision)
	if err := s.keep(); err != nil {
		return fmt.Errorf("the ref is followed again, but that could not be recorded, so a restart pins %s again: %w", old.Revision, err)
	}
	s.wake()
	return nil
}

// setPin makes p the pin in force; nil for none.
func (s *Syncer) setPin(p *Pin) {
	s.pin = p
	s.turn++
	s.mu.Lock()
	s.status.Pin = p
	s.mu.Unlock()
	s.show()
}
