package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/gate"
	"parley/core/journal"
	"parley/core/liveness"
	"parley/core/moderation"
	"parley/core/presence"
	"parley/core/room"
	"parley/core/state"
	"parley/core/wire"
)

// Gate answers whether a subject may do an action (package policy).
type Gate interface {
	Decide(ctx context.Context, in *gate.Input) gate.Decision
	// Rehearse answers as Decide would, and leaves no trace.
	Rehearse(ctx context.Context, in *gate.Input) gate.Decision
	// Refusers is Rehearse with the rule behind each reason of the answer, zero
	// where none is known.
	Refusers(ctx context.Context, in *gate.Input) (gate.Decision, []gate.Rule)
}

// Moderator judges a text by the room's plugins (package moderation).
type Moderator interface {
	Judge(ctx context.Context, m *moderation.Message, only []string) (moderation.Result, error)
	// Rehearse judges as Judge would, and leaves no trace.
	Rehearse(ctx context.Context, m *moderation.Message, only []string) (moderation.Result, error)
}

// Authenticator proves identities. Errors are *chat.Error.
type Authenticator interface {
	// Token verifies a token.
	Token(token string) (chat.Identity, error)
	// Guest gives the wished name, or another where wish is empty, to this
	// connection until release is called, with whether the guest was told how to
	// resume the name. secret resumes an earlier one. evict is called when a
	// token user claims the name.
	Guest(wish, secret string, evict func()) (name chat.UserID, resume string, release func(told bool), err error)
	// Known reports whether a token was ever verified for the name, at any node,
	// so that no guest can have it; what the others know only as far as they can
	// be asked before ctx ends.
	Known(ctx context.Context, u chat.UserID) bool
}

// Config bounds what clients may ask for; 0 means no limit.
type Config struct {
	FrameBytes         int
	TextBytes          int
	Connections        int
	ConnectionsPerIP   int
	ConnectionsPerUser int
	AcceptsPerSecond   int
	CommandsPerSecond  int
	CommandsBurst      int
	RoomsPerConnection int
	HistoryEntries     int
	HandshakeTimeout   time.Duration
	PingsPerSecond     int // pings and pongs of a connection, with pingSeconds of them at once
	ReconnectJitter    time.Duration
	Heartbeat          time.Duration // announced to clients
	StoreTimeout       time.Duration // for one command's work on the store
	SendTimeout        time.Duration // the same for a send; 0 = StoreTimeout
	ReviewAge          time.Duration // how long a held message waits for a moderator
	NotifyAbsent       bool          // through Deps.Absent, who has to be there
}

// Deps are what sessions work with.
type Deps struct {
	Hub      *room.Hub
	Journal  journal.Journal
	Gate     Gate
	Stage    Moderator
	Signals  *moderation.Tracker
	Auth     Authenticator
	Presence *presence.Tracker
	Wheel    *liveness.Wheel
	Evidence Evidence // nil keeps none
	Spread   Spread   // nil where the store is this node's own
	People   People   // nil where there is no other node
	Absent   Absent   // nil where nobody is told of what concerns them while they are away
	// Rooms are the operator's: where one does not exist, because the store has
	// lost it, whoever enters it first has it made with these settings and does
	// not own it.
	Rooms map[chat.RoomID]state.Settings
	Log   *slog.Logger
}

// People tells the nodes of each other's users (package presence/redis).
type People interface {
	// Online and Offline hear whose first connection to this node has come, and
	// whose last has ended, in that order and under the server's lock: they must
	// not block.
	Online(chat.UserID)
	Offline(chat.UserID)
}

// Evidence keeps what plugins saw and said (package evidence). It does not
// block.
type Evidence interface {
	Judged()
	Keep(evidence.Record)
	Note(evidence.Note)
	// Erase is the exception: it waits for the store.
	Erase(evidence.Selection) (int, error)
	// EraseMessages does too.
	EraseMessages([]chat.MessageID) (int, error)
}

// Server holds the sessions of one node.
type Server struct {
	cfg    Config
	d      Deps
	stats  *Stats
	limits *limiter
	turns  *turns

	worst pathsOnce

	rules     atomic.Uint64 // how often the policy is known to have changed
	appeals   appeals
	reviewers reviewers

	rehearsals chan struct{} // a place for each that plugins are asked for; see why.go

	ctx      context.Context // commands run under it; ended by Close
	stop     context.CancelFunc
	draining atomic.Bool

	mu      sync.Mutex
	accepts bucket
	turn    time.Time // when the next refused connection is to come again
	logs    bucket
	paths   bucket
	open    map[*Session]struct{}
	byIP    map[netip.Addr]int
	users   map[chat.UserID]int
	conns   int // admitted, with or without a session
}

// logsPerSecond bounds the log lines about failed commands, which a store
// that is away or a hostile client could make many of. All are counted.
const (
	logsPerSecond = 10
	logsBurst     = 100
)

// pathsPerSecond bounds the log lines about connections on a poor path.
const (
	pathsPerSecond = 1
	pathsBurst     = 10
)

// New returns a server. It starts nothing.
func New(cfg Config, d Deps) (*Server, error) {
	if cfg.HistoryEntries <= 0 || cfg.HistoryEntries > wire.MaxHistory {
		return nil, fmt.Errorf("session: HistoryEntries %d is not within 1 and %d", cfg.HistoryEntries, wire.MaxHistory)
	}
	if cfg.StoreTimeout <= 0 {
		return nil, errors.New("session: StoreTimeout must be above 0")
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{
		ctx: ctx, stop: stop, cfg: cfg, d: d, stats: newStats(), limits: newLimiter(), turns: newTurns(),
		rehearsals: make(chan struct{}, maxRehearsals),
		accepts:    newBucket(cfg.AcceptsPerSecond, cfg.AcceptsPerSecond),
		logs:       newBucket(logsPerSecond, logsBurst),
		paths:      newBucket(pathsPerSecond, pathsBurst),
		open:       make(map[*Session]struct{}),
		byIP:       make(map[netip.Addr]int),
		users:      make(map[chat.UserID]int),
	}
	if d.Hub != nil {
		d.Hub.OnReview(s.reviewed)
		d.Hub.OnChange(s.changed)
	}
	return s, nil
}

// Run does what sessions do not do by themselves, until ctx ends: it expires
// held messages, erases evidence about what other nodes have erased and asks about everybody again when the policy has changed.
func (s *Server) Run(ctx context.Context) error {
	var own sync.WaitGroup
	own.Go(func() { s.expireUntil(ctx) })
	own.Go(func() { s.followForgotten(ctx) })
	defer own.Wait()
	return s.followPolicy(ctx)
}

// Config returns the server's configuration.
func (s *Server) Config() Config { return s.cfg }

// Stats returns the server's counters, live.
func (s *Server) Stats() *Stats { return s.stats }

// Open returns how many sessions there are.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// Admit counts a new connection from ip before anything is read from it, and
// refuses it above the limits. release must be called when it has ended; it
// may be called twice.
func (s *Server) Admit(ip netip.Addr) (release func(), err *chat.Error) {
	key := network(ip)
	if s.draining.Load() {
		return nil, s.refused(&chat.Error{Code: chat.CodeGoingAway, Text: "this server is shutting down; connect again shortly", Retry: s.cfg.ReconnectJitter})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.cfg.Connections > 0 && s.conns >= s.cfg.Connections:
		return nil, s.refused(&chat.Error{Code: chat.CodeTooManyConns, Text: "this server has as many connections as it may; try again later or another node", Retry: 10 * time.Second})
	case s.cfg.ConnectionsPerIP > 0 && s.byIP[key] >= s.cfg.ConnectionsPerIP:
		return nil, s.refused(&chat.Error{Code: chat.CodeTooManyConns, Text: fmt.Sprintf("your network address has %d connections, as many as are allowed; close one", s.byIP[key]), Retry: 10 * time.Second})
	}
	if now := time.Now(); s.accepts.take(now, 1) > 0 {
		return nil, s.refused(&chat.Error{Code: chat.CodeOverloaded, Text: "too many new connections just now; try again at the time given", Retry: s.turnLocked(now)})
	}
	s.conns++
	s.byIP[key]++
	return s.leaver(key, 1), nil
}

// visitors is how many connections more than ConnectionsPerIP an address may
// have without a session: they load the web client, or are told that there are
// too many.
const visitors = 16

// Visit counts a connection from ip that has no session yet, and refuses it
// above ConnectionsPerIP and some more. release must be called when it has
// ended, or before Admit; it may be called twice.
func (s *Server) Visit(ip netip.Addr) (release func(), ok bool) {
	key := network(ip)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.ConnectionsPerIP > 0 && s.byIP[key] >= s.cfg.ConnectionsPerIP+visitors {
		return nil, false
	}
	s.byIP[key]++
	return s.leaver(key, 0), true
}

// leaver returns what gives back one connection of the network, once.
func (s *Server) leaver(key netip.Addr, conns int) func() {
	var once sync.Once
	return func() {
		once.Do(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.conns -= conns
			if s.byIP[key]--; s.byIP[key] <= 0 {
				delete(s.byIP, key)
			}
		})
	}
}

// A refused connection is asked back in minTurn at the earliest, and in
// maxTurn at the latest: nobody waits longer for a storm to pass.
const (
	minTurn = time.Second
	maxTurn = time.Minute
)

// turnLocked returns how long one more refused connection should wait. Each is
// given a turn of its own, one after the other at the accepted rate: told the
// same time, they would all come back at once.
func (s *Server) turnLocked(now time.Time) time.Duration {
	if earliest := now.Add(minTurn); s.turn.Before(earliest) {
		s.turn = earliest
	}
	wait := s.turn.Sub(now)
	if wait < maxTurn {
		s.turn = s.turn.Add(time.Second / time.Duration(s.cfg.AcceptsPerSecond))
	}
	return min(wait, maxTurn)
}

func (s *Server) refused(e *chat.Error) *chat.Error {
	s.stats.error(e.Code)
	return e
}

// network is what connections are counted by: an IPv4 address or an IPv6 /64.
func network(ip netip.Addr) netip.Addr {
	ip = ip.Unmap()
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// Conn describes the connection below a new session.
type Conn struct {
	Transport string // "ws" or "tcp"
	Remote    netip.Addr
	Socket    room.Socket
	Deflate   bool // the client takes deflated frames, over WebSocket
}

// witness is a Socket that can say what the kernel knows of the connection;
// package transport/stream's can.
type witness interface {
	Evidence() (liveness.Evidence, error)
}

// mayReport reports whether another connection's path is to be logged.
func (s *Server) mayReport() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paths.take(time.Now(), 1) == 0
}

// mayLog reports whether another failed command is to be logged.
func (s *Server) mayLog() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs.take(time.Now(), 1) == 0
}

// Start makes the session of an admitted connection. One that was admitted
// just before Drain is told to reconnect like the others.
func (s *Server) Start(c Conn) *Session {
	x := &Session{
		srv:       s,
		transport: c.Transport,
		network:   gate.NetworkOf(c.Remote),
		remote:    c.Remote,
		rate:      newBucket(s.cfg.CommandsPerSecond, s.cfg.CommandsBurst),
		pings:     newBucket(s.cfg.PingsPerSecond, pingSeconds*s.cfg.PingsPerSecond),
	}
	x.kernel, _ = c.Socket.(witness)
	x.peer = s.d.Hub.NewPeer(progress{c.Socket, x}, c.Transport == "tcp")
	if c.Deflate {
		x.peer.Deflate()
	}
	s.mu.Lock()
	s.open[x] = struct{}{}
	s.mu.Unlock()
	s.stats.Opened.Add(1)
	if s.draining.Load() {
		x.close(wire.CloseRestart, string(chat.CodeGoingAway))
	}
	return x
}

// Drain refuses new connections, lets commands under way finish, and tells
// every client to reconnect within the announced jitter. It returns when all
// are told. When ctx ends first, the commands still under way are cut short.
func (s *Server) Drain(ctx context.Context) {
	s.draining.Store(true)
	var busy []*Session
	for _, x := range s.sessions() {
		if !x.busy.TryLock() {
			busy = append(busy, x)
			continue
		}
		x.close(wire.CloseRestart, string(chat.CodeGoingAway))
		x.busy.Unlock()
	}
	var waiting sync.WaitGroup
	for _, x := range busy { // each for itself: a slow command holds up nobody else
		waiting.Go(func() {
			x.busy.Lock() // the command under way sends its answer first
			defer x.busy.Unlock()
			x.close(wire.CloseRestart, string(chat.CodeGoingAway))
		})
	}
	stop := context.AfterFunc(ctx, func() {
		s.stop()
		for _, x := range busy {
			x.close(wire.CloseRestart, string(chat.CodeGoingAway))
		}
	})
	defer stop()
	waiting.Wait()
}

// Abort cuts every connection that is left, without a word, and ends what
// their commands still wait for.
func (s *Server) Abort() {
	for _, x := range s.sessions() {
		x.peer.Abort()
	}
	s.stop()
}

func (s *Server) sessions() []*Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.open))
}

// Draining reports whether Drain was called.
func (s *Server) Draining() bool { return s.draining.Load() }

// Close ends what commands under way still wait for.
func (s *Server) Close() { s.stop() }
