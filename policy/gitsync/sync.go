package gitsync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"parley/policy"
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

	again atomic.Bool // see Retry

	// Owned by Restore, Sync and Run.
	seen  string // commit last taken or refused
	fails int    // polls that failed in a row

	mu     sync.Mutex
	status Status // guarded by mu
}

// Status is what an operator sees of the repository.
type Status struct {
	URL    string `json:"url"` // without credentials
	Ref    string `json:"ref"`
	Path   string `json:"path,omitempty"`
	Commit string `json:"commit,omitempty"` // taken last, from the remote or from disk
	// PolledAt is when the remote last answered.
	PolledAt *time.Time `json:"polled_at,omitempty"`
	// Error is why the remote cannot be read now, since ErrorSince.
	Error      string     `json:"error,omitempty"`
	ErrorSince *time.Time `json:"error_since,omitempty"`
	// SaveError is why the last good policy could not be kept on disk.
	SaveError string `json:"save_error,omitempty"`
}

// New returns a Syncer.
func New(cfg Config, hooks Hooks, log *slog.Logger) (*Syncer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Syncer{
		cfg: cfg, hooks: hooks, trigger: make(chan struct{}, 1),
		log:    log.With("url", cfg.display(), "ref", cfg.Ref),
		status: Status{URL: cfg.display(), Ref: cfg.Ref, Path: cfg.dir()},
	}, nil
}

// Revision names a commit as decisions and the status show it.
func Revision(commit string) string { return "git:" + commit }

// Trigger asks for a poll at once; a poll already asked for is enough.
func (s *Syncer) Trigger() {
	select {
	case s.trigger <- struct{}{}:
	default:
	}
}

// Retry asks for a poll at once that applies the commit there is, though it
// was taken or refused before.
func (s *Syncer) Retry() {
	s.again.Store(true)
	s.Trigger()
}

// Status returns a copy.
func (s *Syncer) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Restore applies the last good policy from disk. The error wraps
// fs.ErrNotExist when there is none for this repository, ref and path.
func (s *Syncer) Restore(ctx context.Context) error {
	if s.cfg.StateDir == "" {
		return fmt.Errorf("load last good policy: no folder is configured: %w", fs.ErrNotExist)
	}
	g, err := s.cfg.load()
	if err != nil {
		return err
	}
	if err := s.hooks.Apply(ctx, g.Files, Revision(g.Commit)); err != nil {
		return fmt.Errorf("apply last good policy of commit %s: %w", g.Commit, err)
	}
	s.took(g.Commit)
	return nil
}

// Sync polls once: where the ref has moved, the commit is read, applied and
// kept on disk. It returns why the remote could not be read or the commit was
// refused; both are in the status and the log already.
func (s *Syncer) Sync(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	t, err := s.cfg.head(bounded)
	if err != nil {
		return s.unreadable(ctx, err)
	}
	if again := s.again.Swap(false); t.commit == s.seen && !again {
		s.reachable()
		return nil
	}
	revision := Revision(t.commit)
	files, err := t.read(bounded)
	var problems policy.Problems
	switch {
	case errors.As(err, &problems):
		s.reachable()
		return s.refuse(t.commit, err)
	case err != nil:
		return s.unreadable(ctx, err)
	}
	s.reachable()
	if err := s.hooks.Apply(ctx, files, revision); err != nil {
		if ctx.Err() != nil {
			return ctx.Err() // stopping is not the commit's fault
		}
		return s.refuse(t.commit, err)
	}
	s.took(t.commit)
	s.keep(t.commit, files)
	return nil
}

// Run polls until ctx ends and returns nil then.
func (s *Syncer) Run(ctx context.Context) error {
	for {
		_ = s.Sync(ctx) // logged and in the status already
		timer := time.NewTimer(s.pause())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-s.trigger:
			timer.Stop()
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

func (s *Syncer) took(commit string) {
	s.seen = commit
	s.mu.Lock()
	s.status.Commit = commit
	s.mu.Unlock()
}

func (s *Syncer) refuse(commit string, err error) error {
	s.seen = commit
	if s.hooks.Refuse != nil {
		s.hooks.Refuse(Revision(commit), err)
	} else {
		s.log.Error("policy commit refused", "commit", commit, "problems", err)
	}
	return fmt.Errorf("policy commit %s refused: %w", commit, err)
}

// reachable notes that the remote answered.
func (s *Syncer) reachable() {
	now := time.Now()
	if s.fails > 0 {
		s.log.Info("policy repository reachable again", "polls_failed", s.fails)
	}
	s.fails = 0
	s.mu.Lock()
	s.status.PolledAt, s.status.Error, s.status.ErrorSince = &now, "", nil
	s.mu.Unlock()
}

// unreadable notes that the remote cannot be read; it is logged when it begins.
func (s *Syncer) unreadable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s.fails == 0 {
		s.log.Error("policy repository cannot be read, the policy in use stays", "err", err)
	}
	s.fails++
	now := time.Now()
	s.mu.Lock()
	s.status.Error = err.Error()
	if s.status.ErrorSince == nil {
		s.status.ErrorSince = &now
	}
	s.mu.Unlock()
	return err
}

// keep writes the last good policy to disk. That it cannot is no reason to
// refuse the policy, which is live by now.
func (s *Syncer) keep(commit string, files policy.Files) {
	if s.cfg.StateDir == "" {
		return
	}
	err := save(s.cfg.StateDir, lastGood{
		Format: 1, Identity: s.cfg.identity(), Commit: commit, SavedAt: time.Now().UTC(), Files: files,
	})
	text := ""
	if err != nil {
		text = err.Error()
		s.log.Error("the last good policy could not be kept, a restart needs the repository", "err", err)
	}
	s.mu.Lock()
	s.status.SaveError = text
	s.mu.Unlock()
}
