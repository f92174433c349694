package gitsync

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"parley/policy"
	"parley/policy/gitsync/signers"
)

func (s *Syncer) poll(ctx context.Context) (Result, error) {
	begun := time.Now()
	bounded, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	who, err := s.signers()
	if err != nil {
		return ResultError, s.unreadable(ctx, err)
	}
	q := s.question(who)
	rev, want, err := s.ask(bounded, ctx, &q)
	var problems policy.Problems
	switch {
	case err == nil || errors.As(err, &problems):
		s.reachable()
	default:
		return ResultError, s.unreadable(ctx, err)
	}
	if s.turn != q.turn { // an order has changed what the answer was meant for
		if q.again {
			s.retry.Store(true)
		}
		s.wake()
		return ResultUnchanged, nil
	}
	if q.reached {
		s.ahead = false
	}
	switch {
	case err != nil:
		return ResultRefused, s.refuse(want, err)
	case rev == nil:
		return ResultUnchanged, nil
	}
	s.begun = s.tally.since(begun)
	if err := s.hooks.Apply(ctx, rev.files, Revision(rev.commit)); err != nil {
		if ctx.Err() != nil {
			return ResultError, ctx.Err()
		}
		return ResultRefused, s.refuse(want, err)
	}
	s.seen = want
	if s.pin != nil {
		s.took(rev, fromPin)
	} else {
		s.took(rev, fromRef)
	}
	_ = s.keep() // logged and in the status; no reason to refuse a policy that is live by now
	return ResultTaken, nil
}

// question is what a poll needs to know while orders are carried out beside it.
type question struct {
	who     *signers.Set
	bases   []plumbing.Hash
	pin     *Pin
	seen    string
	current *revision
	lineage lineage
	turn    uint64
	look    bool // at the commit in use once more
	ahead   bool

	// Found on the way.
	again   bool // Retry was asked for
	reached bool // the ref is where the commit in use is, or beyond
}

func (s *Syncer) question(who *signers.Set) question {
	q := question{who: who, bases: s.bases(), pin: s.pin, seen: s.seen, current: s.current, turn: s.turn, ahead: s.ahead}
	if s.current != nil {
		q.look, q.lineage = s.unsettled(who), s.current.lineage
	}
	return q
}

// ask polls the remote, and carries out orders until it has answered: one that
// does not answer must hold nobody up. outer is the context of orders.
func (s *Syncer) ask(ctx, outer context.Context, q *question) (rev *revision, want string, err error) {
	done := make(chan struct{})
	var asking sync.WaitGroup
	defer asking.Wait()
	asking.Go(func() {
		defer close(done)
		err = s.guard(func() error {
			var err error
			rev, want, err = s.news(ctx, q)
			return err
		})
	})
	for {
		select {
		case <-done:
			return rev, want, err
		case o := <-s.orders:
			o.done <- o.do(outer)
		}
	}
}

// news asks the remote and reads what it has that is new, nil for nothing. want
// is what was looked at. It does not run on the goroutine of Run.
func (s *Syncer) news(ctx context.Context, q *question) (rev *revision, want string, err error) {
	r, err := s.cfg.open(ctx)
	if err != nil {
		return nil, "", err
	}
	defer r.close()
	names := refNames(s.cfg.Ref)
	id, head, err := r.find(names)
	if errors.Is(err, errNoRef) {
		err = fmt.Errorf("repository %s has no branch or tag %s", s.cfg.display(), s.cfg.Ref)
	}
	if err != nil {
		return nil, "", err
	}
	s.sawHead(head.String())
	req := request{want: id, who: q.who, bases: q.bases}
	if q.pin != nil {
		req.want, req.bases = plumbing.NewHash(q.pin.Revision), nil
		head = req.want
	} else if id != head { // an annotated tag
		req.tag = s.cfg.tagName()
	}
	want = req.want.String()
	q.again = s.retry.Swap(false)
	q.reached = q.current == nil || head.String() == q.current.commit || !q.lineage.has(head.String())
	switch {
	case q.again:
	case want == q.seen, q.current != nil && head.String() == q.current.commit && !q.look:
		return nil, want, nil
	case q.ahead && !q.reached: // the others have seen a newer one than this server shows us
		return nil, want, nil
	}
	rev, err = s.readOver(ctx, r, req, q.lineage)
	return rev, want, err
}

// tagName is the ref's short name, which an annotated tag must have.
func (c Config) tagName() string {
	return strings.TrimPrefix(strings.TrimPrefix(c.Ref, "refs/"), "tags/")
}

// unsettled reports whether the commit in use is to be looked at once more: it was
// taken before signatures were asked for, or the ref has come back to it from
// one that was refused, which is settled by taking it.
func (s *Syncer) unsettled(who *signers.Set) bool {
	return s.refused || who != nil && s.current.signedBy == "" || s.cfg.Share && s.current.parcel == nil
}

// bases are the commits that what is taken next descends from: the one in use,
// and, after a pin, the one taken from the ref before.
func (s *Syncer) bases() (ids []plumbing.Hash) {
	if s.current == nil {
		return nil
	}
	ids = append(ids, plumbing.NewHash(s.current.commit))
	if s.followed != "" && s.followed != s.current.commit {
		ids = append(ids, plumbing.NewHash(s.followed))
	}
	return ids
}

// signers reads who may sign, nil where nobody must. A refusal by others is
// forgotten.
func (s *Syncer) signers() (*signers.Set, error) {
	if len(s.cfg.Signers) == 0 {
		return nil, nil
	}
	set, err := signers.Load(s.cfg.Signers...)
	if err != nil {
		return nil, err
	}
	if s.who != set.Digest() {
		s.who, s.seen = set.Digest(), ""
	}
	return set, nil
}

// guard turns a panic over what a repository sent into an error: the decoders
// of packs and signatures are not ours, and their input is anybody's.
func (s *Syncer) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("reading the policy repository panicked", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("read repository: panic: %v", p)
		}
	}()
	return f()
}
