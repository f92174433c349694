package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"parley/core/admin"
	"parley/core/auth"
	sharednames "parley/core/auth/names"
	"parley/core/chat"
	"parley/core/cluster"
	"parley/core/config"
	"parley/core/moderation"
)

// identities joins tokens and guests.
type identities struct {
	verifier *auth.Verifier
	guests   *auth.Guests // nil: guests are off
	key      []byte       // of guests' secrets, this node's own
	known    *auth.KnownUsers
	names    *sharednames.Names  // who has which name on all nodes; nil: there are no others
	owned    *sharednames.Recent // registered users of whom the nodes were told lately
	log      *slog.Logger
}

const (
	// tellAgain is how often the nodes are told of a registered user who keeps
	// coming: a Redis that came back empty knows them again by then.
	tellAgain = 10 * time.Minute
	// toldMost bounds the users that this is remembered of, at some 150 bytes each;
	// with more of them Redis is asked more often.
	toldMost = 128 << 10
)

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
	id := &identities{verifier: v, known: known, owned: sharednames.NewRecent(tellAgain, toldMost), log: s.log}
	s.identities = id
	gc := auth.GuestsConfig{Known: known, Fold: fold, Reserved: []chat.UserID{chat.ServerUser, admin.Author}}
	if s.redis != nil {
		if id.names, err = sharednames.New(sharednames.Defaults(), s.redis, s.log); err != nil {
			return nil, err
		}
		gc.Names = id.names
		s.nodes.OnChange(func(v cluster.View) {
			if v.Rewrite { // this node is new, or Redis has lost what it was told
				id.names.Rewrite()
			}
		})
	}
	if !a.Guests {
		return id, nil
	}
	if id.key, err = auth.LoadOrCreateKey(s.data("guests.key")); err != nil {
		return nil, err
	}
	gc.Key = id.key
	id.guests, err = auth.NewGuests(gc)
	return id, err
}

// begin learns what guests who come back are known by; call it before anybody
// can connect.
func (i *identities) begin(ctx context.Context) {
	if i.names != nil {
		i.names.Begin(ctx, sharednames.Local{Guests: i.guests, Key: i.key})
	}
}

// run keeps names in step with the other nodes until ctx ends.
func (i *identities) run(ctx context.Context) error {
	if i.names == nil {
		return nil
	}
	return i.names.Run(ctx, sharednames.Local{Guests: i.guests, Key: i.key, Known: i.known.All})
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
	folded := fold(string(who.User))
	who.Since = i.own(folded, i.known.Since(folded))
	if i.guests != nil {
		i.guests.Lose(folded)
	}
	return who, nil
}

// own tells the other nodes of a registered user, now and then, and returns
// since when any of them has known the name.
func (i *identities) own(folded string, since time.Time) time.Time {
	if i.names == nil {
		return since
	}
	if first, ok := i.owned.Since(folded); ok {
		return first
	}
	first, err := i.names.Own(folded, since)
	if err == nil {
		i.owned.Put(folded, first)
	}
	return first
}

// Known implements session.Authenticator. Where the other nodes cannot be asked,
// what this one knows counts.
func (i *identities) Known(ctx context.Context, u chat.UserID) bool {
	folded := fold(string(u))
	if i.known.Known(folded) || i.names == nil {
		return i.known.Known(folded)
	}
	registered, err := i.names.Registered(ctx, folded)
	return registered && err == nil
}

// Guest implements session.Authenticator.
func (i *identities) Guest(wish, secret string, evict func()) (chat.UserID, string, func(bool), error) {
	if i.guests == nil {
		return "", "", nil, chat.Errorf(chat.CodeUnauthorized, "this server has no guests; connect with a token")
	}
	seat, err := i.guests.Enter(chat.UserID(wish), secret, evict)
	if err != nil {
		return "", "", nil, err
	}
	return seat.Identity.User, seat.Secret, seat.Leaver(), nil
}
