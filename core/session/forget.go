package session

import (
	"context"
	"log/slog"
	"time"

	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/journal"
)

// Spread lists erasures for all nodes of a shared store (core/journal/redis).
type Spread interface {
	Forget(ctx context.Context, ids []chat.MessageID, user chat.UserID) error
	Forgotten(ctx context.Context, since int64, skip, limit int) ([]journal.Forgotten, error)
}

const (
	// forgetEvery is how often a node looks for erasures by others.
	forgetEvery = 10 * time.Second
	// forgetSlack is how far back the clock of the list may go, when another
	// server becomes the primary.
	forgetSlack = time.Minute
	forgetPage  = 500
)

// spread lists an erasure for the other nodes.
func (s *Server) spread(ctx context.Context, ids []chat.MessageID, u chat.UserID) error {
	if s.d.Spread == nil {
		return nil
	}
	return s.d.Spread.Forget(ctx, ids, u)
}

// followForgotten erases evidence about what other nodes have erased, until ctx
// ends; at first about everything that is listed, for this node may have been
// down.
func (s *Server) followForgotten(ctx context.Context) {
	if s.d.Spread == nil || s.d.Evidence == nil {
		return
	}
	tick := time.NewTicker(forgetEvery)
	defer tick.Stop()
	f := forgetter{s: s, done: map[journal.Forgotten]bool{}}
	for {
		if err := f.look(ctx); err != nil && ctx.Err() == nil {
			s.d.Log.Warn("evidence about what other nodes have erased stays until the next look", slog.Any("error", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// forgetter is where a node stands in the list.
type forgetter struct {
	s     *Server
	since int64                      // Unix ms; what is older has been done
	done  map[journal.Forgotten]bool // of what is not
}

// look erases what is listed since the last look, and some before.
func (f *forgetter) look(ctx context.Context) error {
	newest := f.since
	for skip := 0; ; {
		list, err := f.s.d.Spread.Forgotten(ctx, f.since, skip, forgetPage)
		if err != nil {
			return err
		}
		var ids []chat.MessageID // together
		for _, x := range list {
			if !f.done[x] && x.User == "" && x.ID != "" {
				ids = append(ids, x.ID)
			}
		}
		if len(ids) > 0 {
			if _, err := f.s.d.Evidence.EraseMessages(ids); err != nil {
				return err
			}
		}
		for _, x := range list {
			if !f.done[x] && x.User != "" {
				// What the user has written since stays.
				if _, err := f.s.d.Evidence.Erase(evidence.Selection{User: x.User, Before: x.At + 1}); err != nil {
					return err
				}
			}
			f.done[x] = true
			newest = max(newest, min(x.At, time.Now().UnixMilli())) // a time to come must not hide what is listed until then
		}
		skip += len(list)
		if len(list) < forgetPage {
			break
		}
	}
	f.since = max(f.since, newest-forgetSlack.Milliseconds())
	for x := range f.done {
		if x.At < f.since {
			delete(f.done, x)
		}
	}
	return nil
}
