package gitsync

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

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
	// Changed says that Shared has another answer. nil: nobody asks.
	Changed func()
}

// Syncer follows one ref. Make one with New.
type Syncer struct {
	// Set at construction.
	cfg     Config
	hooks   Hooks
	log     *slog.Logger
	trigger chan struct{}
	orders  chan order
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
	turn     uint64    // counts changes of current and pin
	over     []string  // commits that the ref has left for current
	ahead    bool      // current came from another node, and the ref has not been seen to reach it
	untold   bool      // an operator's word on the pin that was not shared yet
	begun    time.Time // when what was taken last was asked for

	mu     sync.Mutex
	status Status // guarded by mu
	shared Shared // guarded by mu
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
		cfg: cfg, hooks: hooks, trigger: make(chan struct{}, 1), orders: make(chan order), tally: newTally(),
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
	rev := &revision{commit: g.Commit, committed: g.CommittedAt, signedBy: g.SignedBy, files: g.Files}
	if s.cfg.Share {
		rev.parcel, rev.lineage = s.kept(g.Parcel, g.Commit)
		s.untold = g.Untold
	}
	s.took(rev, fromDisk)
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
			o.done <- o.do(ctx)
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
	fromNode
)

// took notes that rev decides now.
func (s *Syncer) took(rev *revision, from int) {
	counted := rev.committed
	if s.current == nil || s.current.commit == rev.commit { // who starts late has not waited since the merge
		counted = time.Time{}
	}
	s.over = nil
	if from == fromRef { // what was pinned over others is not newer than they
		for _, base := range s.bases() {
			s.over = append(s.over, base.String())
		}
	}
	s.current, s.refused = rev, false
	s.turn++
	s.ahead = from == fromNode
	if from == fromRef || from == fromNode && s.pin == nil {
		s.followed = rev.commit
		s.tally.live(time.Now(), counted)
	}
	if from == fromDisk || from == fromNode {
		s.begun = time.Time{}
	}
	var at *time.Time
	if !rev.committed.IsZero() {
		t := rev.committed.UTC()
		at = &t
	}
	took := int64(0)
	if !s.begun.IsZero() {
		took = time.Since(s.begun).Milliseconds()
	}
	s.mu.Lock()
	s.status.Commit, s.status.CommittedAt, s.status.SignedBy, s.status.TookMS = rev.commit, at, rev.signedBy, took
	s.mu.Unlock()
	s.show()
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
		Followed: s.followed, Pin: s.pin, Parcel: s.current.parcel, Untold: s.untold, SavedAt: time.Now().UTC(), Files: s.current.files,
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
