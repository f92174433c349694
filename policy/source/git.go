package source

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/policy/decisionlog"
	"parley/policy/gitsync"
)

// FromGit reports whether a repository feeds the policy.
func (s *Source) FromGit() bool { return s.git != nil }

// errNoGit says that there is nothing to pin.
var errNoGit = errors.New("no repository is followed (policy.git.url)")

// Pin makes a commit of the repository decide until Unpin. See
// gitsync.Syncer.Pin.
func (s *Source) Pin(ctx context.Context, revision, by, reason string) error {
	if s.git == nil {
		return errNoGit
	}
	// Who pins a commit by name means it: policy.guard must not stand in the way
	// of going back.
	name := gitsync.Revision(revision)
	s.mu.Lock()
	s.accepted[name] = by
	s.mu.Unlock()
	err := s.git.Pin(ctx, gitsync.Pin{Revision: revision, By: by, Reason: reason})
	s.mu.Lock()
	delete(s.accepted, name)
	s.mu.Unlock()
	if err == nil {
		s.happened(decisionlog.EventPinned, name, by, reason)
	}
	return err
}

// pinned records that another node's operator has pinned the policy, or unpinned it.
func (s *Source) pinned(before, now *gitsync.Pin, node string) {
	switch {
	case now != nil && !samePin(before, now):
		s.happened(decisionlog.EventPinned, gitsync.Revision(now.Revision), now.By, "on node "+node+": "+now.Reason)
	case now == nil && before != nil:
		s.happened(decisionlog.EventUnpinned, gitsync.Revision(before.Revision), "", "on node "+node)
	}
}

// Unpin follows the ref again.
func (s *Source) Unpin(ctx context.Context) error {
	if s.git == nil {
		return errNoGit
	}
	err := s.git.Unpin(ctx)
	if err == nil {
		s.happened(decisionlog.EventUnpinned, s.live.Engine().Revision(), "", "")
	}
	return err
}

// GitStats returns the counters of the repository; ok is false without one.
func (s *Source) GitStats() (st gitsync.Stats, ok bool) {
	if s.git == nil {
		return st, false
	}
	return s.git.Stats(), true
}

// Fallback says what decides instead of what the repository holds.
type Fallback string

// The fallbacks.
const (
	NoFallback  Fallback = ""        // what the repository gave, or none is configured
	FromDisk    Fallback = "disk"    // the last good policy; the repository has not answered since the start
	FromDefault Fallback = "default" // the built-in policy
)

// Fallback returns what decides instead of what the repository holds.
func (s *Source) Fallback() Fallback {
	if s.git == nil {
		return NoFallback
	}
	st := s.git.Status()
	switch {
	case st.Commit == "":
		return FromDefault
	case st.PolledAt == nil:
		return FromDisk
	}
	return NoFallback
}

// Notes says what an operator should know although decisions are made: that
// something else decides than the repository holds, that it does not answer,
// that a revision is refused, or that the cache gave a wrong answer.
func (s *Source) Notes() (notes []string) {
	st := s.Status()
	if st.CacheOff {
		notes = append(notes, "the policy's cache is switched off: it gave an answer that the rules do not give")
	}
	if st.Refused != nil && (s.git == nil || st.Git.Commit != "") {
		notes = append(notes, fmt.Sprintf("the newest policy was refused (%s); %s stays in use", st.Refused.Revision, st.Revision))
	}
	if s.git == nil {
		return notes
	}
	if why, behind := s.cannotConverge(); why != "" && !behind {
		notes = append(notes, why)
	}
	switch fallback := s.Fallback(); {
	case fallback == FromDefault:
		notes = append(notes, "the built-in policy decides: the repository has given none that could be taken, and there is no last good one on disk")
	case fallback == FromDisk && st.Git.Error != "":
		notes = append(notes, fmt.Sprintf("the last good policy on disk decides (%s): the repository has not answered since the start", st.Revision))
	case st.Git.Error != "" && st.Git.ErrorSince != nil:
		notes = append(notes, fmt.Sprintf("the policy repository has not answered since %s; %s stays in use", st.Git.ErrorSince.UTC().Format(time.RFC3339), st.Revision))
	}
	return notes
}
