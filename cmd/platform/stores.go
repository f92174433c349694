package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"parley/core/chat"
	"parley/core/config"
	"parley/core/journal/disk"
	redisjournal "parley/core/journal/redis"
	"parley/core/redis"
	"parley/core/session"
	"parley/core/tuning"
)

// sendTimeout bounds a send where the store is another process; 0 leaves it to
// storeTimeout.
func (s *server) sendTimeout() time.Duration {
	if s.cfg.Redis.URL == "" {
		return 0
	}
	return s.cfg.Redis.CallTimeout + sendMargin
}

func (s *server) openTuner(context.Context) error {
	r := s.cfg.Runtime
	t, err := tuning.New(tuning.Config{
		GOGC: r.GOGC, MemoryLimit: int64(r.MemoryLimit), AutoMaxProcs: r.AutoMaxProcs, SMT: r.SMT,
		GovernProcs: tuning.Profile(r.Governor.Procs), GovernGC: r.Governor.GC, GovernEvery: r.Governor.Every,
		Connections: func() int { return s.sessions.Open() }, // asked from Run, when all is made
	}, s.log)
	if err != nil {
		return err
	}
	t.Apply() // before anything sizes itself by GOMAXPROCS
	s.tuner = t
	return nil
}

func redisConfig(cfg config.Config) redis.Config {
	rc := redis.Defaults()
	r := cfg.Redis
	rc.URL, rc.PasswordFile, rc.Prefix = r.URL, r.PasswordFile, r.Prefix
	rc.CallTimeout, rc.MaxQueued, rc.MaxReplyBytes = r.CallTimeout, r.MaxQueued, int(r.MaxReplyBytes)
	rc.SentinelUser, rc.SentinelPasswordFile = r.Sentinel.User, r.Sentinel.PasswordFile
	rc.TLS = redis.TLS{CAFile: r.TLS.CAFile, CertFile: r.TLS.CertFile, KeyFile: r.TLS.KeyFile, ServerName: r.TLS.ServerName}
	return rc
}

// openJournal opens Redis where it is configured, else the embedded store.
func (s *server) openJournal(context.Context) error {
	j := s.cfg.Journal
	if s.cfg.Redis.URL != "" {
		client, err := redis.Open(redisConfig(s.cfg), s.log)
		if err != nil {
			return err
		}
		s.redis = client
		s.closers = append(s.closers, client.Close)
		jc := redisjournal.Defaults()
		jc.MaxEntries, jc.MaxAge, jc.NonceWindow = j.RetentionEntries, j.RetentionAge, j.NonceWindow
		jc.NotifyText = s.cfg.Absent.Text
		rj, err := redisjournal.New(jc, client, s.log)
		if err != nil {
			return err
		}
		s.closers = append(s.closers, rj.Close)
		s.journal, s.runJournal = rj, rj.Run
		return nil
	}
	dc := disk.Defaults()
	dc.Path = s.data("parley.db")
	dc.CommitWindow, dc.NonceWindow, dc.MaxEntries, dc.MaxAge = j.CommitWindow, j.NonceWindow, j.RetentionEntries, j.RetentionAge
	dj, err := disk.Open(dc, s.log)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, dj.Close)
	s.journal = dj
	return nil
}

// spread is where erasures are listed for the other nodes, nil where there are none.
func (s *server) spread() session.Spread {
	if shared, ok := s.journal.(session.Spread); ok {
		return shared
	}
	return nil
}

// firstRooms makes the configured rooms before the first client, where the
// store is this process's own and so must answer.
func (s *server) firstRooms(ctx context.Context) error {
	if s.runJournal != nil {
		return nil
	}
	return s.makeRooms(ctx, false)
}

// ensureRooms makes the configured rooms as soon as a shared store answers, and
// again whenever it may have lost them.
func (s *server) ensureRooms(ctx context.Context) error {
	if s.runJournal == nil {
		return nil
	}
	const first = 100 * time.Millisecond
	lost := false
	for wait := first; ; wait = min(2*wait, 5*time.Second) {
		var next <-chan time.Time
		if err := s.makeRooms(ctx, lost); err != nil {
			s.log.Warn("the configured rooms cannot be made yet", slog.Any("error", err))
			next = time.After(wait)
		} else {
			wait = first
		}
		select {
		case <-next:
		case <-s.forgotten:
			lost = true
		case <-ctx.Done():
			return nil
		}
	}
}

// makeRooms makes the configured rooms. With lost it asks the store about each,
// also where the hub has the room, for the hub may know what the store has lost.
func (s *server) makeRooms(ctx context.Context, lost bool) error {
	for _, r := range s.cfg.Rooms {
		rm, err := s.hub.Room(ctx, r.ID)
		if err != nil {
			return fmt.Errorf("room %s: %w", r.ID, err)
		}
		if rm.Exists() && !lost {
			continue
		}
		if err := s.sessions.CreateRoom(ctx, rm, r.Settings(), chat.ServerUser, ""); err != nil {
			return err
		}
	}
	return nil
}

// mayHaveForgotten is called when the shared store had no record of this node:
// it may have lost the rooms as well. Each room looks for itself.
func (s *server) mayHaveForgotten() {
	if j, ok := s.journal.(*redisjournal.Journal); ok {
		j.Doubt()
	}
	select {
	case s.forgotten <- struct{}{}:
	default:
	}
}
