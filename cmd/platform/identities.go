package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
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
	names    *sharednames.Names // who has which name on all nodes; nil: there are no others
	owned    sync.Map           // folded names of registered users -> ownedName
	log      *slog.Logger
}

// tellAgain is how often the nodes are told of a registered user who keeps
// coming: a Redis that came back empty knows them again by then.
const tellAgain = 10 * time.Minute

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
	s.identities = id
	gc := auth.GuestsConfig{Known: known, Fold: fold, Reserved: []chat.UserID{systemUser, admin.Author}}
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
	if told, ok := i.owned.Load(folded); ok && time.Since(told.(ownedName).told) < tellAgain {
		return told.(ownedName).since
	}
	first, err := i.names.Own(folded, since)
	if err == nil {
		i.owned.Store(folded, ownedName{time.Now(), first})
	}
	return first
}

// ownedName is what the nodes know of a registered user.
type ownedName struct{ told, since time.Time }

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
