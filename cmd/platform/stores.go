package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"parley/core/auth"
	"parley/core/chat"
	"parley/core/config"
	"parley/core/journal/disk"
	redisjournal "parley/core/journal/redis"
	"parley/core/moderation"
	"parley/core/redis"
	"parley/core/tuning"
)

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
	rc.URL, rc.PasswordFile = r.URL, r.PasswordFile
	rc.CallTimeout, rc.MaxQueued = r.CallTimeout, r.MaxQueued
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

// identities joins tokens and guests.
type identities struct {
	verifier *auth.Verifier
	guests   *auth.Guests // nil: guests are off
	known    *auth.KnownUsers
	log      *slog.Logger
}

func authConfig(cfg config.Config) auth.Config {
	j := cfg.Auth.JWT
	return auth.Config{Algorithm: j.Algorithm, KeyFile: keyFile(cfg), CreateKey: j.KeyFile == "", Audience: j.Audience, Issuer: j.Issuer}
}

func (s *server) openAuth() (*identities, error) {
	a := s.cfg.Auth
	v, err := auth.NewVerifier(authConfig(s.cfg))
	if err != nil {
		return nil, fmt.Errorf("auth.jwt: %w", err)
	}
	known, err := auth.OpenKnownUsers(s.data("known-users"), fold)
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, known.Close)
	id := &identities{verifier: v, known: known, log: s.log}
	if !a.Guests {
		return id, nil
	}
	key, err := auth.LoadOrCreateKey(s.data("guests.key"))
	if err != nil {
		return nil, err
	}
	id.guests, err = auth.NewGuests(auth.GuestsConfig{Key: key, Known: known, Fold: fold})
	return id, err
}

// fold maps names that people would confuse to one.
func fold(name string) string {
	f, err := moderation.Normalize(name, 0)
	if err != nil {
		return name
	}
	return string(f.Bytes())
}

// Token implements session.Authenticator. The name belongs to its user from
// now on, also against a guest who has it.
func (i *identities) Token(token string) (chat.Identity, error) {
	who, err := i.verifier.Verify(token)
	if err != nil {
		return who, err
	}
	if err := i.known.Add(who.User); err != nil {
		i.log.Error("the name of a token user cannot be kept from guests", slog.Any("error", err))
	}
	who.Since = i.known.Since(fold(string(who.User)))
	if i.guests != nil {
		i.guests.Claim(who.User)
	}
	return who, nil
}

// Known implements session.Authenticator.
func (i *identities) Known(u chat.UserID) bool { return i.known.Known(fold(string(u))) }

// Guest implements session.Authenticator.
func (i *identities) Guest(wish, secret string, evict func()) (chat.UserID, string, func(), error) {
	if i.guests == nil {
		return "", "", nil, chat.Errorf(chat.CodeUnauthorized, "this server has no guests; connect with a token")
	}
	seat, err := i.guests.Enter(chat.UserID(wish), secret, evict)
	if err != nil {
		return "", "", nil, err
	}
	return seat.Identity.User, seat.Secret, seat.Leaver(), nil
}

// firstRooms makes the configured rooms before the first client, where the
// store is this process's own and so must answer.
func (s *server) firstRooms(ctx context.Context) error {
	if s.runJournal != nil {
		return nil
	}
	return s.makeRooms(ctx)
}

// ensureRooms makes the configured rooms as soon as a shared store answers.
func (s *server) ensureRooms(ctx context.Context) error {
	if s.runJournal == nil {
		return nil
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := s.makeRooms(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		s.log.Warn("the configured rooms cannot be made yet", slog.Any("error", err))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *server) makeRooms(ctx context.Context) error {
	for _, r := range s.cfg.Rooms {
		rm, err := s.hub.Room(ctx, r.ID)
		if err != nil {
			return fmt.Errorf("room %s: %w", r.ID, err)
		}
		if rm.Exists() {
			continue
		}
		if err := s.sessions.CreateRoom(ctx, rm, r.Settings(), systemUser, ""); err != nil {
			return err
		}
	}
	return nil
}
