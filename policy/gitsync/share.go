package gitsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"parley/policy/gitsync/signers"
)

// Offer is a revision that another node uses.
type Offer struct {
	Parcel Parcel
	Pin    *Pin // nil: it follows the ref
}

// Errors of Accept.
var (
	// ErrUnsound says that an offered revision is refused for what it is: it is
	// damaged, not signed, too large, or does not descend from the one in use.
	ErrUnsound = errors.New("the revision is unsound")
	// ErrBehind says that the revision in use descends from the offered one.
	ErrBehind = errors.New("the revision is older than the one in use")
	// ErrUntold says that an operator of this node has pinned, or ended a pin, since
	// the offer was made: their word is to be shared first, see Told.
	ErrUntold = errors.New("a pin of this node, or its end, was not shared yet")
)

// Shared is what a node has to offer.
type Shared struct {
	Parcel *Parcel // nil: nothing is in use, or it cannot be handed on
	Commit string  // in use
	Pin    *Pin
	// Untold says that the pin, or its end, is an operator's word that was not
	// shared yet; see Told.
	Untold bool
	// Begun is when the revision was asked for that this node brought in; zero
	// where it came from another node or from disk.
	Begun time.Time
	// Turn counts changes.
	Turn uint64

	lineage lineage
	over    []string
}

// Newer reports whether the revision in use is newer than that commit: it
// descends from it, or was taken over it.
func (s *Shared) Newer(commit string) bool {
	return commit != s.Commit && (s.lineage.has(commit) || slices.Contains(s.over, commit))
}

// Shared returns what this node has to offer. Any goroutine may call it.
func (s *Syncer) Shared() Shared {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shared
}

// show makes the present state what Shared answers.
func (s *Syncer) show() {
	if !s.cfg.Share {
		return
	}
	now := Shared{Pin: s.pin, Untold: s.untold, Turn: s.turn, over: s.over, Begun: s.begun}
	if s.current != nil {
		now.Parcel, now.Commit, now.lineage = s.current.parcel, s.current.commit, s.current.lineage
	}
	s.mu.Lock()
	s.shared = now
	s.mu.Unlock()
	if s.hooks.Changed != nil {
		s.hooks.Changed()
	}
}

// Told notes that the pin of a Shared, or that there is none, was shared. It counts
// for as long as that is what the operator has said last, whatever has changed beside
// it: a word that was heard is not said again over another node's newer one.
func (s *Syncer) Told(ctx context.Context, pin *Pin) error {
	return s.order(ctx, func(context.Context) error {
		if s.pin != pin || !s.untold {
			return nil
		}
		s.untold = false
		s.show()
		return s.keep()
	})
}

// Accept takes a revision that another node offers, after the same checks as one
// of the repository, which is not asked: its name is the hash of what it holds,
// so it does not matter who brings it. It returns when it decides, or why it does
// not; nothing has changed then, but that an offer without a pin ends the pin
// where what it offers is sound. An operator's word that was not shared yet stands
// above every offer: ErrUntold. Run must be running.
func (s *Syncer) Accept(ctx context.Context, o Offer) error {
	return s.order(ctx, func(ctx context.Context) error { return s.accept(ctx, o) })
}

// AcceptFirst is Accept before Run, as Restore is.
func (s *Syncer) AcceptFirst(ctx context.Context, o Offer) error { return s.accept(ctx, o) }

func (s *Syncer) accept(ctx context.Context, o Offer) error {
	if o.Pin != nil && !(wholeID(o.Pin.Revision) && len(o.Pin.By) <= maxByBytes && len(o.Pin.Reason) <= maxReasonBytes) {
		return fmt.Errorf("%w: its pin is malformed", ErrUnsound)
	}
	if s.untold {
		return ErrUntold
	}
	same := s.current != nil && s.current.commit == o.Parcel.Commit
	unpins, behind := o.Pin == nil && s.pin != nil, o.Pin == nil && !same && s.current != nil && s.current.lineage.has(o.Parcel.Commit)
	if behind && !unpins {
		return ErrBehind
	}
	var rev *revision
	if !same || unpins || o.Pin != nil && o.Pin.Revision != o.Parcel.Want {
		who, err := s.signers()
		if err != nil {
			return fmt.Errorf("judge an offered revision: %w", err)
		}
		if rev, err = s.openOffer(ctx, o, who, same || behind); err != nil {
			return s.refuseOffer(ctx, o, fmt.Errorf("%w: %w", ErrUnsound, err))
		}
	}
	if unpins {
		s.endPin()
	}
	switch {
	case behind:
		return ErrBehind
	case unpins && same:
		return nil
	}
	if rev != nil {
		if err := s.hooks.Apply(ctx, rev.files, Revision(rev.commit)); err != nil {
			return s.refuseOffer(ctx, o, err)
		}
		s.pin = o.Pin // before took, which counts only what is taken from the ref
		s.took(rev, fromNode)
	}
	if o.Pin != nil {
		s.seen = o.Pin.Revision
		s.log.Warn("policy is pinned, says another node", "revision", o.Pin.Revision, "by", o.Pin.By, "reason", o.Pin.Reason)
	}
	s.untold = false
	s.setPin(o.Pin)
	_ = s.keep() // logged and in the status
	return nil
}

// endPin ends the pin as another node's operator said, who offers a revision that
// was found sound.
func (s *Syncer) endPin() {
	s.log.Warn("policy is no longer pinned, says another node", "revision", s.pin.Revision)
	s.untold = false
	s.setPin(nil)
	s.seen = ""
	s.wake()
	_ = s.keep() // logged and in the status
}

// openOffer reads and judges what a parcel holds. known: it is the revision in use,
// or one that this descends from.
func (s *Syncer) openOffer(ctx context.Context, o Offer, who *signers.Set, known bool) (rev *revision, err error) {
	err = s.guard(func() error {
		r, err := o.Parcel.open()
		if err != nil {
			return err
		}
		req := request{want: r.want, who: who}
		switch {
		case o.Pin != nil && o.Pin.Revision != o.Parcel.Want:
			return fmt.Errorf("its pin names %s, and it holds %s", o.Pin.Revision, o.Parcel.Want)
		case o.Pin == nil && !known:
			req.bases = s.bases()
			if r.want != r.commit {
				req.tag = s.cfg.tagName()
			}
		}
		rev, err = s.read(ctx, r, req)
		return err
	})
	return rev, err
}

func (s *Syncer) refuseOffer(ctx context.Context, o Offer, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s.hooks.Refuse != nil {
		s.hooks.Refuse(Revision(o.Parcel.Commit), err)
	}
	return fmt.Errorf("policy commit %s from another node refused: %w", o.Parcel.Commit, err)
}

// read reads and judges one commit, for the goroutine of Run.
func (s *Syncer) read(ctx context.Context, r remote, req request) (*revision, error) {
	var line lineage
	if s.current != nil {
		line = s.current.lineage
	}
	return s.readOver(ctx, r, req, line)
}

// readOver is Config.read that makes a parcel where nodes share revisions. known
// is the lineage of the commit in use.
func (s *Syncer) readOver(ctx context.Context, r remote, req request, known lineage) (*revision, error) {
	if !s.cfg.Share {
		return s.cfg.read(ctx, r, req)
	}
	rec := record(r)
	rev, err := s.cfg.read(ctx, rec, req)
	if err != nil {
		return nil, err
	}
	s.addHistory(ctx, r, req.want, plumbing.NewHash(rev.commit), rec)
	rev.parcel, rev.lineage, err = parcel(req.want, rev.commit, rec.seen, known)
	if err != nil { // no reason to refuse it
		s.log.Error("the policy cannot be shared with the other nodes", "commit", rev.commit, "err", err)
	}
	return rev, nil
}

// addHistory remembers some of the commit's history where the remote has it at
// hand, for nodes that have slept.
func (s *Syncer) addHistory(ctx context.Context, r remote, want, commit plumbing.Hash, rec recorded) {
	switch r.(type) {
	case local, *opened:
	default:
		return
	}
	store, err := r.objects(ctx, want)
	if err != nil {
		return
	}
	line, err := lineageOf(commit, func(h plumbing.Hash) plumbing.EncodedObject {
		if o, err := store.EncodedObject(plumbing.CommitObject, h); err == nil {
			return o
		}
		return nil
	})
	if err != nil {
		return
	}
	for h, o := range line {
		rec.seen[h] = o
	}
}

// kept is the parcel of the last good policy on disk, nothing where it is not
// what belongs to commit: the repository is asked for another then.
func (s *Syncer) kept(p *Parcel, commit string) (*Parcel, lineage) {
	if p == nil || p.Commit != commit {
		return nil, nil
	}
	var line lineage
	err := s.guard(func() error {
		o, err := p.open()
		if err != nil {
			return err
		}
		line, err = o.lineage()
		return err
	})
	if err != nil {
		s.log.Warn("what the last good policy keeps for other nodes cannot be used", "err", err)
		return nil, nil
	}
	return p, line
}
