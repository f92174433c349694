// Package transporttest gives the tests of the transports a node to carry
// sessions for: real journal, rooms, heartbeat and guests, and a gate that
// allows everything.
package transporttest

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"parley/core/auth"
	"parley/core/chat"
	"parley/core/gate"
	"parley/core/journal/disk"
	"parley/core/liveness"
	"parley/core/moderation"
	"parley/core/presence"
	"parley/core/room"
	"parley/core/session"
)

// Patience bounds every wait of a test. It is far above what is needed, so
// that a loaded machine does not fail one.
const Patience = 30 * time.Second

// beat is how often clients are asked for a sign of life: not within a test,
// where a reader that is held up would be taken for a program that is frozen.
const beat = 10 * time.Minute

// Node returns the sessions of a node that runs until the test has ended. The
// test ends its listeners and connections before, by t.Cleanup or itself.
func Node(t testing.TB, change func(*session.Config)) *session.Server {
	t.Helper()
	cfg := session.Config{
		FrameBytes: 64 << 10, TextBytes: 4096, RoomsPerConnection: 200, HistoryEntries: 200,
		HandshakeTimeout: Patience, ReconnectJitter: 5 * time.Second, Heartbeat: beat, StoreTimeout: Patience,
	}
	if change != nil {
		change(&cfg)
	}
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	dc := disk.Defaults()
	dc.Path = filepath.Join(dir, "parley.db")
	j, err := disk.Open(dc, log)
	check(t, err)
	hub, err := room.New(room.Defaults(), j, log)
	check(t, err)
	// Nobody is asked for a pong within a test: who stalls in one is to be
	// judged by what the test is about, however slow the machine.
	wheel, err := liveness.New(liveness.Config{Ping: 10 * Patience, Pong: Patience})
	check(t, err)
	stage, err := moderation.New(moderation.Defaults(), nobody{})
	check(t, err)
	seats, err := auth.NewGuests(auth.GuestsConfig{Key: bytes.Repeat([]byte("k"), 32)})
	check(t, err)
	s, err := session.New(cfg, session.Deps{
		Hub: hub, Journal: j, Gate: open{}, Stage: stage, Signals: moderation.NewTracker(64),
		Auth: guests{seats}, Presence: presence.New(), Wheel: wheel, Log: log,
	})
	check(t, err)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{hub.Run, wheel.Run} {
		running.Go(func() { _ = run(ctx) })
	}
	t.Cleanup(func() {
		s.Close()
		stop()
		running.Wait()
		check(t, j.Close())
		if n := s.Open(); n != 0 {
			t.Errorf("got %d sessions that were never ended", n)
		}
	})
	return s
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open is a gate that allows everything.
type open struct{}

func (open) Decide(context.Context, *gate.Input) gate.Decision { return gate.Decision{Allow: true} }

func (o open) Rehearse(ctx context.Context, in *gate.Input) gate.Decision { return o.Decide(ctx, in) }

func (o open) Refusers(ctx context.Context, in *gate.Input) (gate.Decision, []gate.Rule) {
	return o.Decide(ctx, in), nil
}

// nobody judges.
type nobody struct{}

func (nobody) Judges() []moderation.Judge { return nil }

// guests takes guests only.
type guests struct{ seats *auth.Guests }

func (g guests) Token(string) (chat.Identity, error) {
	return chat.Identity{}, chat.Errorf(chat.CodeUnauthorized, "this server takes no tokens")
}

func (g guests) Known(context.Context, chat.UserID) bool { return false }

func (g guests) Guest(wish, secret string, evict func()) (chat.UserID, string, func(bool), error) {
	seat, err := g.seats.Enter(chat.UserID(wish), secret, evict)
	if err != nil {
		return "", "", nil, err
	}
	return seat.Identity.User, seat.Secret, seat.Leave, nil
}
