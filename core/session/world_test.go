package session

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/auth"
	"parley/core/chat"
	"parley/core/gate"
	"parley/core/journal"
	"parley/core/journal/disk"
	"parley/core/liveness"
	"parley/core/moderation"
	"parley/core/presence"
	"parley/core/room"
	"parley/policy"
	"parley/policy/rego"
	"parley/sdk/abi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a node without sockets: a real embedded journal, hub, stage, wheel
// and authentication, with rules and judges the test writes.
type world struct {
	t        testing.TB
	srv      *Server
	store    *store
	hub      *room.Hub
	wheel    *liveness.Wheel
	presence *presence.Tracker
	auth     *identities
	rules    atomic.Pointer[func(*gate.Input) gate.Decision]
	engine   atomic.Pointer[policy.Live] // behind rules, since law or write
	judges   atomic.Pointer[[]moderation.Judge]
	log      *logbook

	mu      sync.Mutex
	changed chan struct{} // see Changed; guarded by mu
}

// setup is what a test may change before the world is made.
type setup struct {
	cfg    Config
	room   room.Config
	wheel  liveness.Config
	disk   disk.Config
	guests bool
	shared journal.Journal // in place of one of its own, which it closes
}

func newWorld(t testing.TB, change func(*setup)) *world {
	t.Helper()
	dir := t.TempDir()
	s := setup{
		cfg: Config{
			FrameBytes: 64 << 10, TextBytes: 4096, RoomsPerConnection: 200, HistoryEntries: 200,
			HandshakeTimeout: 10 * time.Second, ReconnectJitter: 5 * time.Second, Heartbeat: 15 * time.Second, StoreTimeout: 5 * time.Second,
		},
		room: room.Defaults(), disk: disk.Defaults(), guests: true,
		wheel: liveness.Config{Ping: 15 * time.Second, Pong: 3 * time.Second},
	}
	s.room.Pace, s.disk.CommitWindow = 0, 0
	s.disk.Path = filepath.Join(dir, "parley.db")
	if change != nil {
		change(&s)
	}
	w := &world{t: t, presence: presence.New(), log: new(logbook), changed: make(chan struct{})}
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.allow(nil)
	w.judge()
	own := func() error { return nil }
	if s.shared == nil {
		d := must(disk.Open(s.disk, log))
		s.shared, own = d, d.Close
	}
	w.store = &store{Journal: s.shared}
	w.hub = must(room.New(s.room, w.store, log))
	w.wheel = must(liveness.New(s.wheel))
	w.auth = newIdentities(t, dir, s.guests)
	stage := must(moderation.New(moderation.Defaults(), w))
	var err error
	w.srv, err = New(s.cfg, Deps{Hub: w.hub, Journal: w.store, Gate: w, Stage: stage, Signals: moderation.NewTracker(64),
		Auth: w.auth, Presence: w.presence, Wheel: w.wheel, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{w.hub.Run, w.wheel.Run, w.presence.Run, w.srv.followPolicy} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		w.srv.Close()
		stop()
		running.Wait()
		if err := errors.Join(own(), w.auth.known.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Decide implements Gate by the test's rules.
func (w *world) Decide(_ context.Context, in *gate.Input) gate.Decision { return (*w.rules.Load())(in) }

// Rehearse implements Gate.
func (w *world) Rehearse(ctx context.Context, in *gate.Input) gate.Decision {
	if l := w.engine.Load(); l != nil {
		return l.Rehearse(ctx, in)
	}
	return w.Decide(ctx, in)
}

// Refusers implements Gate.
func (w *world) Refusers(ctx context.Context, in *gate.Input) (gate.Decision, []gate.Rule) {
	if l := w.engine.Load(); l != nil {
		return l.Engine().Refusers(ctx, in)
	}
	return w.Decide(ctx, in), nil
}

// allow sets the rules; nil allows everything.
func (w *world) allow(f func(*gate.Input) gate.Decision) {
	if f == nil {
		f = func(*gate.Input) gate.Decision { return gate.Decision{Allow: true} }
	}
	w.engine.Store(nil)
	w.rules.Store(&f)
}

// Changed tells of adopt.
func (w *world) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// adopt is allow for rules that everybody who is somewhere is to be asked
// about.
func (w *world) adopt(f func(*gate.Input) gate.Decision) {
	w.allow(f)
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
}

// law makes the default policy decide.
func (w *world) law() { w.write(rego.Files(), rego.Revision) }

// write makes the policy in files decide.
func (w *world) write(files policy.Files, revision string) *policy.Live {
	w.t.Helper()
	o := policy.Defaults()
	o.EvalTimeout, o.TestTimeout = time.Minute, time.Minute
	e, err := o.Compile(w.t.Context(), files, revision)
	if err != nil {
		w.t.Fatal(err)
	}
	live := policy.NewLive(e, "test", slog.New(slog.DiscardHandler))
	w.allow(func(in *gate.Input) gate.Decision { return live.Decide(context.Background(), in) })
	w.engine.Store(live)
	return live
}

// rule decides about one action and allows all others.
func (w *world) rule(action string, d gate.Decision) {
	w.allow(func(in *gate.Input) gate.Decision {
		if in.Action.Name == action {
			return d
		}
		return gate.Decision{Allow: true}
	})
}

// oblige allows messages under obligations.
func (w *world) oblige(o gate.Obligations) {
	w.rule(gate.MessageSend, gate.Decision{Allow: true, Obligations: o})
}

func no(code, text string) gate.Decision {
	return gate.Decision{Reasons: []chat.Reason{{Code: code, Text: text, Source: "policy"}}}
}

// Judges implements moderation.Source.
func (w *world) Judges() []moderation.Judge { return *w.judges.Load() }

func (w *world) judge(js ...moderation.Judge) { w.judges.Store(&js) }

// judge is a plugin in process.
type judge struct {
	name   string
	decide func(text string) (abi.Verdict, abi.Result, error)
}

func (j judge) Name() string                   { return j.name }
func (j judge) Digest() string                 { return "d1ge57" }
func (j judge) OnError() abi.Verdict           { return abi.Deny }
func (j judge) Version() string                { return "1" }
func (j judge) ConfigDigest() string           { return "" }
func (j judge) Wants(chat.RoomID, string) bool { return true }
func (j judge) Decide(_, text, _ []byte) (abi.Verdict, abi.Result, uint64, error) {
	v, r, err := j.decide(string(text))
	return v, r, 1, err
}

// says is a judge with one answer for texts that hold word.
func says(name, word string, v abi.Verdict) judge {
	return judge{name, func(text string) (abi.Verdict, abi.Result, error) {
		at := strings.Index(text, word)
		if at < 0 {
			return abi.Allow, abi.Result{}, nil
		}
		r := abi.Result{Code: 1, Reason: name + " minds " + word}
		if v == abi.Redact {
			r.Spans = []abi.Span{{Field: abi.FieldText, Start: uint32(at), Length: uint32(len(word))}}
		}
		if v == abi.Error {
			return v, r, errors.New("out of fuel")
		}
		return v, r, nil
	}}
}

// store is the journal with the faults a test sets.
type store struct {
	journal.Journal
	onAppend atomic.Pointer[func(context.Context) error]
	broken   atomic.Pointer[chat.RoomID]                            // nothing can be appended there
	appended atomic.Pointer[func(journal.Request, journal.Receipt)] // before the caller knows
	onLookup atomic.Pointer[func() error]
	onRead   atomic.Pointer[func(journal.Journal, chat.RoomID) error]
	lookups  atomic.Int32
}

func (s *store) Append(ctx context.Context, r journal.Request) (journal.Receipt, error) {
	if f := s.onAppend.Load(); f != nil {
		if err := (*f)(ctx); err != nil {
			return journal.Receipt{}, err
		}
	}
	if id := s.broken.Load(); id != nil && *id == r.Room {
		return journal.Receipt{}, errors.New("the room is damaged")
	}
	rc, err := s.Journal.Append(ctx, r)
	if f := s.appended.Load(); f != nil && err == nil {
		(*f)(r, rc)
	}
	return rc, err
}

func (s *store) Lookup(ctx context.Context, r chat.RoomID, u chat.UserID, nonce string) (journal.Receipt, bool, error) {
	s.lookups.Add(1)
	if err := ctx.Err(); err != nil {
		return journal.Receipt{}, false, err
	}
	if f := s.onLookup.Load(); f != nil {
		if err := (*f)(); err != nil {
			return journal.Receipt{}, false, err
		}
	}
	return s.Journal.Lookup(ctx, r, u, nonce)
}

func (s *store) ReadBefore(ctx context.Context, r chat.RoomID, before uint64, limit int) (string, []journal.Entry, error) {
	if f := s.onRead.Load(); f != nil {
		if err := (*f)(s.Journal, r); err != nil {
			return "", nil, err
		}
	}
	return s.Journal.ReadBefore(ctx, r, before, limit)
}

// failing sets what appends answer; nil lets them work again.
func (s *store) failing(err error) {
	if err == nil {
		s.onAppend.Store(nil)
		return
	}
	f := func(context.Context) error { return err }
	s.onAppend.Store(&f)
}

// identities is core/auth as the wiring joins it.
type identities struct {
	verifier  *auth.Verifier
	guests    *auth.Guests
	known     *auth.KnownUsers
	elsewhere bool // zoe is known at another node
	key       []byte
	fail      atomic.Pointer[error]
}

func newIdentities(t testing.TB, dir string, guests bool) *identities {
	t.Helper()
	file := filepath.Join(dir, "jwt.key")
	i := &identities{verifier: must(auth.NewVerifier(auth.Config{Algorithm: auth.HS256, KeyFile: file, CreateKey: true}))}
	i.key = must(auth.LoadKey(file))
	i.known = must(auth.OpenKnownUsers(filepath.Join(dir, "known"), nil))
	if guests {
		i.guests = must(auth.NewGuests(auth.GuestsConfig{Key: i.key, Known: i.known}))
	}
	return i
}

func (i *identities) Token(token string) (chat.Identity, error) {
	if err := i.fail.Load(); err != nil {
		return chat.Identity{}, *err
	}
	who, err := i.verifier.Verify(token)
	if err != nil {
		return who, err
	}
	if err := i.known.Add(who.User); err != nil {
		return who, err
	}
	who.Since = i.known.Since(string(who.User))
	if i.guests != nil {
		i.guests.Claim(who.User)
	}
	return who, nil
}

func (i *identities) Known(_ context.Context, u chat.UserID) bool {
	return i.known.Known(string(u)) || u == "zoe" && i.elsewhere
}

func (i *identities) Guest(wish, secret string, evict func()) (chat.UserID, string, func(bool), error) {
	if i.guests == nil {
		return "", "", nil, chat.Errorf(chat.CodeUnauthorized, "no guests here")
	}
	seat, err := i.guests.Enter(chat.UserID(wish), secret, evict)
	if err != nil {
		return "", "", nil, err
	}
	return seat.Identity.User, seat.Secret, seat.Leave, nil
}

func (w *world) token(u chat.UserID, ttl time.Duration, roles ...string) string {
	w.t.Helper()
	return must(auth.Sign(w.auth.key, auth.Claims{User: u, Roles: roles, TTL: ttl}))
}

// logbook keeps the log.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logbook) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
