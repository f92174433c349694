package gitsync

import (
	"context"
	"time"
)

// Status is what an operator sees of the repository.
type Status struct {
	URL    string `json:"url"` // without credentials
	Ref    string `json:"ref"`
	Path   string `json:"path,omitempty"`
	Commit string `json:"commit,omitempty"` // in use, from the remote or from disk
	// CommittedAt is the date of that commit, by the clock of who made it.
	CommittedAt *time.Time `json:"committed_at,omitempty"`
	SignedBy    string     `json:"signed_by,omitempty"` // where signers are asked for
	Head        string     `json:"head,omitempty"`      // commit the ref points to, taken or not
	Pin         *Pin       `json:"pin,omitempty"`       // nil: the ref is followed
	// TookMS is how long it took until the commit decided, since it was asked
	// for by a webhook, a poll or an operator; 0 where it came from elsewhere.
	TookMS int64 `json:"took_ms,omitempty"`
	// PolledAt is when the remote last answered.
	PolledAt *time.Time `json:"polled_at,omitempty"`
	// Error is why the remote cannot be read now, since ErrorSince.
	Error      string     `json:"error,omitempty"`
	ErrorSince *time.Time `json:"error_since,omitempty"`
	// SaveError is why the last good policy could not be kept on disk.
	SaveError string `json:"save_error,omitempty"`
}

// Status returns a copy.
func (s *Syncer) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *Syncer) sawHead(commit string) {
	s.mu.Lock()
	s.status.Head = commit
	s.mu.Unlock()
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
