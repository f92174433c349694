// Package mirror carries rooms between two deployments, each with a Redis and
// nodes of its own: what is posted at one appears at the other, once.
//
// A mirror keeps nothing. How far a deployment has come in the other's log is
// stored there, in the same step as the entries (core/journal/redis, Accept).
// So a mirror may be killed at any moment and started anywhere, and two at work
// by mistake do no harm. Pub/sub says when to look; the stream says what there
// is.
//
// Each room is carried by one worker at a time in each direction, in batches,
// so that a long way costs one round trip for some hundred messages. Memory is
// bounded by the workers and their batches, beside a few words for each room.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"sync"
	"time"

	"parley/core/chat"
	journalredis "parley/core/journal/redis"
)

// Config says what is carried. Decode it over Defaults.
type Config struct {
	// Patterns choose rooms by name, as path.Match has them: "lobby", "team-*".
	Patterns []string
	// OneWay carries from the first deployment to the second only.
	OneWay bool
	// Workers is how many rooms are carried at once in each direction.
	Workers int
	// RoomsEvery is how often new rooms are looked for.
	RoomsEvery time.Duration
	// CompareEvery is how often both sides' tops are looked at, in case that a
	// hint was lost.
	CompareEvery time.Duration
	// ReportEvery is how often the log says what was carried; 0 = never.
	ReportEvery time.Duration
}

// Defaults returns the settings for ordinary use, without patterns.
func Defaults() Config {
	return Config{
		Workers:      16, // 16 x 256 messages for each round trip
		RoomsEvery:   2 * time.Second,
		CompareEvery: 2 * time.Second,
		ReportEvery:  10 * time.Second,
	}
}

// Check reports the first setting that cannot work.
func (c Config) Check() error {
	if len(c.Patterns) == 0 {
		return errors.New("no rooms are chosen: want patterns, as \"lobby\" or \"team-*\"")
	}
	for _, p := range c.Patterns {
		if _, err := path.Match(p, "x"); err != nil {
			return fmt.Errorf("pattern %q: %w", p, err)
		}
	}
	switch {
	case c.Workers < 1:
		return fmt.Errorf("workers %d: want at least 1", c.Workers)
	case c.RoomsEvery <= 0:
		return fmt.Errorf("rooms_every %v: want more than 0", c.RoomsEvery)
	case c.CompareEvery <= 0:
		return fmt.Errorf("compare_every %v: want more than 0", c.CompareEvery)
	}
	return nil
}

// Matches reports whether a room is chosen.
func (c Config) Matches(room chat.RoomID) bool {
	for _, p := range c.Patterns {
		if ok, _ := path.Match(p, string(room)); ok {
			return true
		}
	}
	return false
}

// Side is one deployment.
type Side struct {
	Name    string // for the log
	Journal *journalredis.Journal
}

// Mirror carries rooms between two deployments while Run runs.
type Mirror struct {
	// Set at construction.
	cfg  Config
	ways []*way // the first is from the first side to the second; the second, if any, back
	log  *slog.Logger

	watched map[chat.RoomID]struct{} // owned by discover
	fatal   context.CancelCauseFunc  // ends Run with an error; set by it
}

// New returns a mirror that does nothing until Run. The journals stay the
// caller's, who runs them.
func New(cfg Config, from, to Side, log *slog.Logger) (*Mirror, error) {
	if err := cfg.Check(); err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	m := &Mirror{cfg: cfg, log: log, watched: make(map[chat.RoomID]struct{})}
	m.ways = append(m.ways, newWay(m, from, to))
	if !cfg.OneWay {
		m.ways = append(m.ways, newWay(m, to, from))
	}
	return m, nil
}

// Run carries until ctx ends, and returns nil; or an error if it can never
// work. Call it once.
func (m *Mirror) Run(ctx context.Context) error {
	ctx, m.fatal = context.WithCancelCause(ctx)
	defer m.fatal(nil)
	var working sync.WaitGroup
	for _, w := range m.ways {
		for range m.cfg.Workers {
			working.Go(func() { w.work(ctx) })
		}
		working.Go(func() { w.compare(ctx) })
	}
	if m.cfg.ReportEvery > 0 {
		working.Go(func() { m.report(ctx) })
	}
	cancels := m.discover(ctx)
	working.Wait()
	for _, cancel := range cancels {
		cancel()
	}
	if err := context.Cause(ctx); errors.Is(err, journalredis.ErrSameLog) {
		return err
	}
	return nil
}

// pageRooms is how many names of rooms are read at a time.
const pageRooms = 256

// discover finds rooms until ctx ends. It returns what ends their watching.
func (m *Mirror) discover(ctx context.Context) (cancels []func()) {
	sides := []Side{m.ways[0].from, m.ways[0].to}
	for {
		for i, side := range sides {
			if m.cfg.OneWay && i > 0 {
				break // rooms that are only there have nothing to carry
			}
			var after chat.RoomID
			for {
				rooms, err := side.Journal.Rooms(ctx, after, pageRooms)
				if err != nil && ctx.Err() == nil {
					m.log.Warn("mirror cannot list the rooms of one side, it goes on with those it knows", "side", side.Name, "error", err)
				}
				if err != nil || len(rooms) == 0 {
					break
				}
				for _, room := range rooms {
					if _, known := m.watched[room]; known || !m.cfg.Matches(room) {
						continue
					}
					cs, err := m.add(ctx, room)
					cancels = append(cancels, cs...)
					if err != nil {
						break
					}
				}
				after = rooms[len(rooms)-1]
			}
		}
		select {
		case <-ctx.Done():
			return cancels
		case <-time.After(m.cfg.RoomsEvery):
		}
	}
}

// add begins to carry a room.
func (m *Mirror) add(ctx context.Context, room chat.RoomID) (cancels []func(), err error) {
	sides := []Side{m.ways[0].from, m.ways[0].to}
	tracks := make([]*track, len(m.ways))
	for i, w := range m.ways {
		tracks[i] = w.track(room)
	}
	for i, side := range sides {
		e := &ear{}
		if i < len(tracks) {
			e.out = tracks[i]
		}
		if back := 1 - i; back < len(tracks) {
			e.in = tracks[back]
		}
		cancel, err := side.Journal.Watch(ctx, room, e)
		if err != nil {
			return cancels, err
		}
		cancels = append(cancels, cancel)
	}
	m.watched[room] = struct{}{}
	for _, t := range tracks {
		t.poke()
	}
	return cancels, nil
}
