package gitsync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"parley/policy"
	"parley/policy/gitsync/signers"
)

// Hooks is what a Syncer calls, always from the goroutine of Restore, Sync or
// Run.
type Hooks struct {
	// Apply takes the files live under revision or says why not.
	Apply func(ctx context.Context, files policy.Files, revision string) error
	// Refuse records that revision was not taken: Apply's error, or that the
	// commit holds what a policy must not. nil only logs.
	Refuse func(revision string, err error)
}

// Syncer follows one ref. Make one with New.
type Syncer struct {
	// Set at construction.
	cfg     Config
	hooks   Hooks
	log     *slog.Logger
	trigger chan struct{}
	orders  chan pinOrder
	tally   *tally

	retry atomic.Bool // see Retry

	// Owned by Restore, Sync and Run.
	seen     string    // what the ref or the pin was, taken last or refused
	current  *revision // in use; nil before the first
	followed string    // commit that was taken from the ref last
	pin      *Pin      // nil: the ref is followed
	who      string    // digest of the signers that seen was judged by
	refused  bool      // the newest that was looked at was not taken
	fails    int       // polls that failed in a row

	mu     sync.Mutex
	status Status // guarded by mu
}

// New returns a Syncer.
func New(cfg Config, hooks Hooks, log *slog.Logger) (*Syncer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if len(cfg.Signers) > 0 { // what an operator lists must be there when he looks
		if _, err := signers.Load(cfg.Signers...); err != nil {
			return nil, err
		}
	}
	return &Syncer{
		cfg: cfg, hooks: hooks, trigger: make(chan struct{}, 1), orders: make(chan pinOrder), tally: newTally(),
		log:    log.With("url", cfg.display(), "ref", cfg.Ref),
		status: Status{URL: cfg.display(), Ref: cfg.Ref, Path: cfg.dir()},
	}, nil
}

// Revision names a commit as decisions and the status show it.
func Revision(commit string) string { return "git:" + commit }

// Trigger asks for a poll at once; a poll already asked for is enough.
func (s *Syncer) Trigger() {
	s.tally.asked(time.Now())
	s.wake()
}

func (s *Syncer) wake() {
	select {
	case s.trigger <- struct{}{}:
	default:
	}
}

// Retry asks for a poll at once that applies the commit there is, though it
// was taken or refused before.
func (s *Syncer) Retry() {
	s.retry.Store(true)
	s.wake()
}

// Restore applies the last good policy from disk, and the pin that goes with
// it. The error wraps fs.ErrNotExist when there is none for this repository,
// ref and path.
func (s *Syncer) Restore(ctx context.Context) error {
	if s.cfg.StateDir == "" {
		return fmt.Errorf("load last good policy: no folder is configured: %w", fs.ErrNotExist)
	}
	g, err := s.cfg.load()
	if err != nil {
		return err
	}
	s.setPin(g.Pin) // in force even where its policy is not usable any more
	if err := s.hooks.Apply(ctx, g.Files, Revision(g.Commit)); err != nil {
		return fmt.Errorf("apply last good policy of commit %s: %w", g.Commit, err)
	}
	s.took(&revision{commit: g.Commit, committed: g.CommittedAt, signedBy: g.SignedBy, files: g.Files}, fromDisk)
	s.followed = g.Followed
	return nil
}

// Sync polls once: where the ref has moved, the commit is read, applied and
// kept on disk. It returns why the remote could not be read or the commit was
// refused; both are in the status and the log already.
func (s *Syncer) Sync(ctx context.Context) error {
	begun := time.Now()
	result, err := s.poll(ctx)
	if ctx.Err() != nil && err != nil {
		return ctx.Err() // stopping is nobody's fault
	}
	s.tally.polled(result)
	if result != ResultTaken && result != ResultError {
		s.tally.settled(begun)
	}
	return err
}

func (s *Syncer) poll(ctx context.Context) (Result, error) {
	bounded, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	who, err := s.signers()
	if err != nil {
		return ResultError, s.unreadable(ctx, err)
	}
	var rev *revision
	var want string
	err = s.guard(func() error {
		rev, want, err = s.news(bounded, who)
		return err
	})
	var problems policy.Problems
	switch {
	case errors.As(err, &problems):
		s.reachable()
		return ResultRefused, s.refuse(want, err)
	case err != nil:
		return ResultError, s.unreadable(ctx, err)
	case rev == nil:
		s.reachable()
		return ResultUnchanged, nil
	}
	s.reachable()
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

// news asks the remote and reads what it has that is new, nil for nothing. want
// is what was looked at.
func (s *Syncer) news(ctx context.Context, who *signers.Set) (rev *revision, want string, err error) {
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
	req := request{want: id, who: who, bases: s.bases()}
	if s.pin != nil {
		req.want, req.bases = plumbing.NewHash(s.pin.Revision), nil
		head = req.want
	} else if id != head { // an annotated tag
		req.tag = strings.TrimPrefix(strings.TrimPrefix(s.cfg.Ref, "refs/"), "tags/")
	}
	want = req.want.String()
	again := s.retry.Swap(false)
	if !again && (want == s.seen || s.current != nil && head.String() == s.current.commit && !s.unsettled(who)) {
		return nil, want, nil
	}
	rev, err = s.cfg.read(ctx, r, req)
	return rev, want, err
}

// unsettled reports whether the commit in use is to be looked at once more: it was
// taken before signatures were asked for, or the ref has come back to it from
// one that was refused, which is settled by taking it.
func (s *Syncer) unsettled(who *signers.Set) bool {
	return s.refused || who != nil && s.current.signedBy == ""
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

// Run polls until ctx ends and returns nil then.
func (s *Syncer) Run(ctx context.Context) error {
	var answered time.Time // when the last poll began that was asked for
	for ctx.Err() == nil {
		_ = s.Sync(ctx) // logged and in the status already
		asked := s.wait(ctx, answered)
		select {
		case <-s.trigger: // the poll that begins now answers it
			asked = true
		default:
		}
		if asked {
			answered = time.Now()
		}
	}
	return nil
}

// wait returns when the next poll is due, and whether it was asked for. The
// last that was began at answered.
func (s *Syncer) wait(ctx context.Context, answered time.Time) (asked bool) {
	timer := time.NewTimer(s.pause())
	defer timer.Stop()
	trigger := s.trigger
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return asked
		case <-trigger:
			rest := s.cfg.Debounce - time.Since(answered)
			if rest <= 0 {
				return true
			}
			timer.Reset(rest)
			asked, trigger = true, nil // more of them are answered by the same poll
		case o := <-s.orders:
			o.done <- s.obey(ctx, o.pin)
		}
	}
}

// maxBackoff is how many intervals a remote that fails is left alone at most.
const maxBackoff = 8

// pause is the time to the next poll.
func (s *Syncer) pause() time.Duration {
	d := s.cfg.Interval * time.Duration(min(1<<min(s.fails, 8), maxBackoff))
	return d*9/10 + rand.N(d/5+1)
}

// Where a revision came from.
const (
	fromRef = iota
	fromPin
	fromDisk
)

// took notes that rev decides now.
func (s *Syncer) took(rev *revision, from int) {
	counted := rev.committed
	if s.current == nil || s.current.commit == rev.commit { // who starts late has not waited since the merge
		counted = time.Time{}
	}
	s.current, s.refused = rev, false
	if from == fromRef {
		s.followed = rev.commit
		s.tally.live(time.Now(), counted)
	}
	var at *time.Time
	if !rev.committed.IsZero() {
		t := rev.committed.UTC()
		at = &t
	}
	s.mu.Lock()
	s.status.Commit, s.status.CommittedAt, s.status.SignedBy = rev.commit, at, rev.signedBy
	s.mu.Unlock()
}

// refuse notes that what was looked at is not taken.
func (s *Syncer) refuse(want string, err error) error {
	s.seen, s.refused = want, true
	commit := s.Status().Head
	if s.pin != nil {
		commit = want
	}
	if s.hooks.Refuse != nil {
		s.hooks.Refuse(Revision(commit), err)
	} else {
		s.log.Error("policy commit refused", "commit", commit, "problems", err)
	}
	return fmt.Errorf("policy commit %s refused: %w", commit, err)
}

// keep writes the policy in use and the pin to disk.
func (s *Syncer) keep() error {
	if s.cfg.StateDir == "" || s.current == nil {
		return nil
	}
	err := save(s.cfg.StateDir, lastGood{
		Format: 1, Identity: s.cfg.identity(), Commit: s.current.commit, CommittedAt: s.current.committed.UTC(), SignedBy: s.current.signedBy,
		Followed: s.followed, Pin: s.pin, SavedAt: time.Now().UTC(), Files: s.current.files,
	})
	text := ""
	if err != nil {
		text = err.Error()
		s.log.Error("the last good policy could not be kept, a restart needs the repository", "err", err)
	}
	s.mu.Lock()
	s.status.SaveError = text
	s.mu.Unlock()
	return err
}
