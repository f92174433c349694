package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"parley/core/chat"
	"parley/core/journal"
)

// expireBatch is how many overdue reviews are asked for at a time.
const expireBatch = 100

// expireUntil expires held messages that nobody has decided about within
// Config.ReviewAge, until ctx ends. Every node of a cluster may do so: of those
// that expire the same one counts.
func (s *Server) expireUntil(ctx context.Context) {
	age := s.cfg.ReviewAge
	if age <= 0 {
		return
	}
	every := min(max(age/10, time.Second), time.Minute)
	for {
		wait := every - rand.N(every/4+1) // nodes that were started together spread out
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if err := s.expire(ctx, time.Now().Add(-age)); err != nil && ctx.Err() == nil {
			s.d.Log.Warn("held messages cannot be expired yet, it is tried again", slog.Any("error", err))
		}
	}
}

// expire closes the reviews of all rooms that were held before the given time.
func (s *Server) expire(ctx context.Context, before time.Time) error {
	why := []chat.Reason{{Code: reasonExpired, Text: "no moderator decided about it within " + spell(s.cfg.ReviewAge), Source: limitsSource}}
	for {
		late, err := s.d.Journal.Overdue(ctx, before.UnixMilli(), expireBatch)
		if err != nil || len(late) == 0 {
			return err
		}
		expired := 0
		for i := range late {
			ok, err := s.expireOne(ctx, &late[i], why)
			if err != nil {
				return fmt.Errorf("expire a review of room %s: %w", late[i].Room, err)
			}
			if ok {
				expired++
			}
		}
		if expired == 0 { // others are at it; what is left is for the next time
			return nil
		}
	}
}

// expireOne reports whether it was this call that closed the review.
func (s *Server) expireOne(ctx context.Context, w *journal.Waiting, why []chat.Reason) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.StoreTimeout)
	defer cancel()
	r, err := s.d.Hub.Room(ctx, w.Room) // loaded, it tells the author and the moderators
	if err != nil {
		return false, err
	}
	_, _, err = s.settle(ctx, r, &w.Review, chat.Expired, why, "")
	if errors.Is(err, journal.ErrNotOpen) {
		return false, nil
	}
	return err == nil, err
}

// spell writes a time for people, in the largest unit that it is a whole number
// of: "7 days", "90 minutes".
func spell(d time.Duration) string {
	for _, u := range []struct {
		name string
		of   time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}} {
		if n := d / u.of; n > 0 && d%u.of == 0 {
			if n > 1 {
				u.name += "s"
			}
			return fmt.Sprintf("%d %s", n, u.name)
		}
	}
	return d.String()
}
