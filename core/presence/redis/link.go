package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/chat"
	"parley/core/cluster"
	"parley/core/presence"
	rds "parley/core/redis"
)

// Config says how often and for how long. Decode it over Defaults.
type Config struct {
	// Pace is the least time between two writes of this node about one room.
	Pace time.Duration
	// Refresh is how often what has not changed is written again, and Life how
	// long a key stays without that.
	Refresh, Life time.Duration
	// Grace is how long a register that is missing though its node lives is
	// waited for.
	Grace time.Duration
	// Idle is how long a room is still followed when nobody there is connected
	// to this node any more.
	Idle time.Duration
	// Sweep is how often it is looked for what is due by Refresh and Idle.
	Sweep time.Duration
}

// Defaults returns the settings for ordinary use.
func Defaults() Config {
	return Config{
		Pace:    100 * time.Millisecond,
		Refresh: 20 * time.Minute,
		Life:    time.Hour,
		Grace:   10 * time.Second, // two renewals of a lease, at which a node learns that Redis forgot it
		Idle:    30 * time.Second,
		Sweep:   5 * time.Second,
	}
}

func (c Config) check() error {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"pace", c.Pace}, {"refresh", c.Refresh}, {"life", c.Life}, {"grace", c.Grace}, {"idle", c.Idle}, {"sweep", c.Sweep}} {
		if d.value <= 0 {
			return fmt.Errorf("presence %s %v: want more than 0", d.name, d.value)
		}
	}
	if c.Life <= c.Refresh {
		return fmt.Errorf("presence life %v: want more than the refresh of %v, or keys end while they are in use", c.Life, c.Refresh)
	}
	return nil
}

// Nodes says who is alive; *cluster.Registry does.
type Nodes interface {
	Self() cluster.NodeID
	// Known is closed once it is known who is alive; until then Alive is true
	// of everybody.
	Known() <-chan struct{}
	Alive(cluster.NodeID) bool
	// Confirm asks which of the nodes have a lease at this moment.
	Confirm(ctx context.Context, ids ...cluster.NodeID) (map[cluster.NodeID]bool, error)
	OnChange(func(cluster.View))
}

var (
	//go:embed say.lua
	saySource string
	//go:embed fields.lua
	fieldsSource string

	sayScript    = rds.NewScript("say who is here", saySource)
	fieldsScript = rds.NewScript("read who is here", fieldsSource)
)

// Link carries one node's presence. Make one with New.
type Link struct {
	// Set at construction.
	cfg     Config
	client  *rds.Client
	nodes   Nodes
	self    string
	tracker *presence.Tracker
	log     *slog.Logger
	sub     *rds.Subscriber
	keys    string // begins every key
	channel string // begins every channel
	write   chan struct{}
	read    chan struct{} // one slot each: there is something to do

	// Stats of the same name.
	written, hinted, loaded, bad, dropped atomic.Uint64
	badSaid                               atomic.Bool

	mu      sync.Mutex // never held while the tracker is called; the tracker calls under its own lock
	rooms   ledger[chat.RoomID]
	follows map[chat.RoomID]*follow
	users   ledger[chat.UserID]
	here    map[chat.UserID]struct{} // users who are connected to this node
	typing  []typist
	toRead  []chat.RoomID
	died    []cluster.NodeID
	grown   bool // nodes have come that were not known
	version uint64
}

// follow is one room that this node hears of.
type follow struct {
	reading bool      // it is in toRead
	strange bool      // a node that is not known to live has spoken there
	idle    time.Time // since when nobody there is connected to this node; zero while somebody is
	due     time.Time // when to look for what is missing; zero for never
	missing map[presence.Node]time.Time
}

// typist is somebody who writes in a room.
type typist struct {
	room chat.RoomID
	user chat.UserID
}

// maxTyping bounds the news of who writes that wait for the next write; more
// are dropped, as they may be.
const maxTyping = 1024

// New returns a link that shares what the tracker knows. Both are to be made
// one before the tracker and the registry are used; Run does the work.
func New(cfg Config, client *rds.Client, nodes Nodes, t *presence.Tracker, log *slog.Logger) (*Link, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	l := &Link{
		cfg: cfg, client: client, nodes: nodes, self: string(nodes.Self()), tracker: t, log: log,
		keys: client.Prefix() + ":{", channel: client.ChannelPrefix() + ":{",
		write: make(chan struct{}, 1), read: make(chan struct{}, 1),
		rooms: newLedger[chat.RoomID](), follows: make(map[chat.RoomID]*follow),
		users: newLedger[chat.UserID](), here: make(map[chat.UserID]struct{}),
	}
	l.sub = client.Subscriber(l)
	nodes.OnChange(l.changed)
	t.Share(l)
	return l, nil
}

// Run writes what this node says and hears the others until ctx ends, then
// takes back what it has said and returns nil. Call it once.
func (l *Link) Run(ctx context.Context) error {
	var own sync.WaitGroup
	own.Go(func() { _ = l.sub.Run(ctx) })
	own.Go(func() { l.readUntil(ctx) })
	own.Go(func() { l.writeUntil(ctx) })
	own.Wait()
	return nil
}

const hereName = "}:here"

func (l *Link) roomKey(id chat.RoomID) string     { return l.keys + string(id) + hereName }
func (l *Link) roomChannel(id chat.RoomID) string { return l.channel + string(id) + hereName }
func (l *Link) userKey(u chat.UserID) string      { return l.keys + "u:" + string(u) + "}:at" }

// room undoes roomChannel.
func (l *Link) room(channel string) chat.RoomID {
	name, _ := strings.CutPrefix(channel, l.channel)
	name, _ = strings.CutSuffix(name, hereName)
	return chat.RoomID(name)
}

// alive reports whether the node is known to be alive.
func (l *Link) alive(n cluster.NodeID) bool {
	select {
	case <-l.nodes.Known():
		return l.nodes.Alive(n)
	default:
		return false
	}
}

// away reports whether an error says that Redis cannot be asked now. Any other
// is about what was asked: trying again would not help.
func away(err error) bool {
	return errors.Is(err, rds.ErrUnavailable) || errors.Is(err, rds.ErrOverloaded)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Follow implements presence.Others.
func (l *Link) Follow(id chat.RoomID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followLocked(id)
}

func (l *Link) followLocked(id chat.RoomID) *follow {
	f := l.follows[id]
	if f == nil {
		f = &follow{}
		l.follows[id] = f
		l.sub.Subscribe(l.roomChannel(id)) // notes the wish; Doubt has the room read
	}
	f.idle = time.Now()
	return f
}

// Changed implements presence.Others.
func (l *Link) Changed(id chat.RoomID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followLocked(id)
	l.rooms.mark(id)
	poke(l.write)
}

// Typing implements presence.Others.
func (l *Link) Typing(id chat.RoomID, u chat.UserID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.typing) >= maxTyping {
		l.dropped.Add(1)
		return
	}
	l.typing = append(l.typing, typist{id, u})
	poke(l.write)
}

// changed hears of nodes that have come and gone, from the registry's
// goroutine.
func (l *Link) changed(v cluster.View) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.died = append(l.died, v.Gone...)
	l.grown = l.grown || len(v.Joined) > 0
	if v.Rewrite {
		l.rooms.markAll()
		l.users.markAll()
		poke(l.write)
	}
	poke(l.read)
}

// Stats describe a Link, for metrics.
type Stats struct {
	Rooms   int    // followed
	Users   int    // connected to this node
	Written uint64 // registers and entries of users written
	Hints   uint64 // registers and typing heard from other nodes
	Read    uint64 // rooms read
	Bad     uint64 // what could not be read, each time
	Dropped uint64 // news of who writes that were not told
	Link    rds.SubscriberStats
}

// Stats returns the present state.
func (l *Link) Stats() Stats {
	st := Stats{Written: l.written.Load(), Hints: l.hinted.Load(), Read: l.loaded.Load(), Bad: l.bad.Load(), Dropped: l.dropped.Load(), Link: l.sub.Stats()}
	l.mu.Lock()
	defer l.mu.Unlock()
	st.Rooms, st.Users = len(l.follows), len(l.here)
	return st
}

// refuse counts something that could not be read, and logs the first.
func (l *Link) refuse(what string, id chat.RoomID, node string, err error) {
	l.bad.Add(1)
	if !l.badSaid.Swap(true) {
		l.log.Warn("presence of another node cannot be read and is ignored; further ones are counted only",
			"what", what, "room", id, "other", node[:min(len(node), 80)], "error", err)
	}
}
