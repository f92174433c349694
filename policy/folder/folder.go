// Package folder keeps the policy of one folder live: it reads the folder at
// start and whenever its content changes, and hands the files to a callback
// that checks them and swaps the policy. Content decides, not time stamps: a
// folder with the digest last seen is left alone, taken or refused.
//
// Links to files are followed, so a folder that a container platform fills
// through links works; links to folders and names that begin with a dot are
// skipped. New starts nothing; Load and Run must not overlap.
package folder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"parley/core/watch"
	"parley/policy"
)

// Hooks is what a Source calls, always from the goroutine of Load or Run.
type Hooks struct {
	// Apply takes the files live under revision or says why not.
	Apply func(ctx context.Context, files policy.Files, revision string) error
	// Refuse records that revision was not taken: Apply's error, or that the
	// folder could not be read (revision is "" then).
	Refuse func(revision string, err error)
}

// Source follows one folder. Make one with New.
type Source struct {
	dir     string
	hooks   Hooks
	watcher *watch.Watcher
	seen    string // revision last applied or refused; owned by Load and Run
	unread  string // last error of reading, so that it is reported once; the same owner

	again chan struct{} // one slot: apply what is there though it was seen
}

// New returns a Source for dir.
func New(dir string, hooks Hooks, log *slog.Logger) (*Source, error) {
	cfg := watch.Defaults()
	cfg.Dir, cfg.Tree = dir, true
	s := &Source{dir: dir, hooks: hooks, again: make(chan struct{}, 1)}
	w, err := watch.New(cfg, log, s.changed)
	if err != nil {
		return nil, fmt.Errorf("policy folder: %w", err)
	}
	s.watcher = w
	return s, nil
}

// Load reads the folder once and applies it. The start of a server uses it: an
// error means that no policy of this folder is live.
func (s *Source) Load(ctx context.Context) error {
	files, err := Read(s.dir)
	if err != nil {
		return err
	}
	s.seen = Revision(files)
	return s.hooks.Apply(ctx, files, s.seen)
}

// Run follows the folder until ctx ends and returns nil then.
func (s *Source) Run(ctx context.Context) error { return s.watcher.Run(ctx) }

// Retry has the folder applied once more though nothing in it has changed.
func (s *Source) Retry() {
	select {
	case s.again <- struct{}{}:
	default:
	}
	s.watcher.Nudge()
}

// A folder is taken only when two readings, settle apart, agree: somebody may
// be in the middle of writing it, and half a policy can be a valid one.
const (
	settle      = 50 * time.Millisecond
	settleTries = 100 // then the last reading counts
)

// changed is called when the folder may have changed.
func (s *Source) changed(ctx context.Context) {
	select {
	case <-s.again:
		s.seen = ""
	default:
	}
	files, revision, err := s.settled(ctx)
	switch {
	case ctx.Err() != nil:
		return // stopping is not the policy's fault
	case err != nil:
		if s.unread != err.Error() {
			s.unread, s.seen = err.Error(), ""
			s.hooks.Refuse("", err)
		}
		return
	}
	s.unread = ""
	if revision == s.seen {
		return
	}
	err = s.hooks.Apply(ctx, files, revision)
	if ctx.Err() != nil {
		return
	}
	s.seen = revision
	if err != nil {
		s.hooks.Refuse(revision, err)
	}
}

// settled reads the folder until it holds still or is what it was. The error
// is that of the last reading, once reading keeps failing.
func (s *Source) settled(ctx context.Context) (files policy.Files, revision string, err error) {
	before := ""
	for range settleTries {
		state := ""
		if files, err = Read(s.dir); err == nil {
			revision = Revision(files)
			state = revision
		} else {
			state = err.Error()
		}
		if state == before || (err == nil && revision == s.seen) {
			break
		}
		before = state
		timer := time.NewTimer(settle)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, "", ctx.Err()
		case <-timer.C:
		}
	}
	return files, revision, err
}

// Revision names files by content, as "dir:3f2a…".
func Revision(files policy.Files) string { return "dir:" + files.Digest() }

// Read returns the policy files below dir within the bounds of policy.Files.
func Read(dir string) (policy.Files, error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("read policy folder: %w", err)
	}
	files, total := policy.Files{}, 0
	err = filepath.WalkDir(root, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, full)
		if err != nil {
			return err
		}
		p := filepath.ToSlash(rel)
		switch {
		case p == ".":
			return nil
		case d.IsDir() && d.Name()[0] == '.':
			return fs.SkipDir
		case d.IsDir() || !policy.Wanted(p):
			return nil
		case len(files) == policy.MaxFiles:
			return policy.Problems{{Reason: fmt.Sprintf("the folder has more than %d policy files", policy.MaxFiles)}}
		}
		files[p], err = readFile(full)
		if total += len(files[p]); total > policy.MaxBytes && len(files[p]) <= policy.MaxFileBytes {
			return policy.Problems{{Reason: fmt.Sprintf("the policy files have more than %d bytes together", policy.MaxBytes)}}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read policy folder %s: %w", dir, err)
	}
	return files, nil
}

// readFile reads one regular file, one byte past the bound at most, so that
// policy.Files.Check can say that it is too large.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would block for ever
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	// It may have been swapped since, so opening must not wait, and what counts
	// is what has been opened.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file any more")})
	}
	return io.ReadAll(io.LimitReader(f, policy.MaxFileBytes+1))
}
