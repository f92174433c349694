package redis_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/chat"
	"parley/core/cluster"
	"parley/core/presence"
	"parley/core/presence/redis"
	rds "parley/core/redis"
	"parley/core/redis/redistest"
	"parley/core/wire"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// go-redis looks for a lost server once a second, and ends when it
		// next notices that the client was closed.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// patience bounds every wait; what is awaited takes milliseconds.
const patience = redistest.Patience

// lease of the nodes under test.
const lease = time.Second

// setup are the settings of a node under test.
type setup struct {
	redis.Config
	client rds.Config
	lease  time.Duration
}

// impatient has a silent link given up soon, and whatever waits on a silent
// connection: so it may be as well where the machine stands still for a moment,
// and with it hints that nobody hears again.
func impatient(c *setup) {
	c.client.CallTimeout, c.client.ProbeEvery, c.client.ProbeTimeout = 500*time.Millisecond, 100*time.Millisecond, 400*time.Millisecond
}

var await = redistest.Await

// node is one node's presence: registry, tracker, link, and a room that keeps
// what is announced.
type node struct {
	t *testing.T
	*presence.Tracker
	*redis.Link
	nodes  *cluster.Registry
	client *rds.Client
	log    *logbook
	stop   func() // ends it as SIGTERM does, and waits

	mu   sync.Mutex
	news *sync.Cond
	seen []string
	left int // how many of seen were taken
}

// start runs a node until the test or stop ends it.
func start(t *testing.T, url, name string, tune func(*setup)) *node {
	t.Helper()
	n := &node{t: t, log: new(logbook), Tracker: presence.New()}
	n.news = sync.NewCond(&n.mu)
	log := slog.New(slog.NewTextHandler(n.log, nil))
	cfg := setup{redis.Defaults(), rds.Defaults(), lease}
	cfg.client.URL = url
	cfg.client.DialTimeout, cfg.client.CallTimeout, cfg.client.ProbeTimeout = patience, patience, patience
	cfg.Pace, cfg.Grace = 10*time.Millisecond, 800*time.Millisecond
	if tune != nil {
		tune(&cfg)
	}
	var err error
	if n.client, err = rds.Open(cfg.client, log); err != nil {
		t.Fatal(err)
	}
	if n.nodes, err = cluster.New(cluster.Config{Name: name, Lease: cfg.lease, Renew: lease / 5}, n.client, log); err != nil {
		t.Fatal(err)
	}
	if n.Link, err = redis.New(cfg.Config, n.client, n.nodes, n.Tracker, log); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{n.Tracker.Run, n.Link.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	late, over := context.WithCancel(context.Background()) // the lease is given back last
	var leasing sync.WaitGroup
	leasing.Go(func() { _ = n.nodes.Run(late) })
	n.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		over()
		leasing.Wait()
		n.client.Close()
	})
	t.Cleanup(n.stop)
	return n
}

// Announce implements presence.Announcer.
func (n *node) Announce(f wire.Frame, except chat.UserID) {
	var e wire.PresenceEvent
	if err := json.Unmarshal(f.JSON(), &e); err != nil {
		panic(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	line := fmt.Sprintf("%s %s %s %d", e.Room, e.Event, e.User, e.Count)
	if e.Type == wire.Typing {
		line = fmt.Sprintf("%s typing %s", e.Room, e.User)
	}
	n.seen = append(n.seen, line)
	n.news.Broadcast()
}

// enters joins rooms with one connection of the user.
func (n *node) enters(u chat.UserID, rooms ...chat.RoomID) {
	for _, id := range rooms {
		n.Join(id, u, n)
	}
}

// hears waits for exactly these announcements, in any order, and no others
// before them.
func (n *node) hears(want ...string) {
	n.t.Helper()
	late := time.AfterFunc(patience, func() { n.mu.Lock(); n.news.Broadcast(); n.mu.Unlock() })
	defer late.Stop()
	began := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.seen)-n.left < len(want) && time.Since(began) < patience {
		n.news.Wait()
	}
	got := slices.Clone(n.seen[n.left:min(len(n.seen), n.left+len(want))])
	n.left += len(got)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		n.t.Fatalf("%s heard %q, want %q", n.nodes.Self(), got, want)
	}
}

// hearsNoMore fails for announcements that hears has not taken.
func (n *node) hearsNoMore() {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if rest := n.seen[n.left:]; len(rest) > 0 {
		n.t.Errorf("%s heard %q beside", n.nodes.Self(), rest)
	}
	n.left = len(n.seen)
}

// told waits until an announcement has given the room this count: it comes a
// moment after Count does.
func (n *node) told(room string, count int) {
	n.t.Helper()
	end := fmt.Sprintf(" %d", count)
	await(n.t, room+end, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return slices.ContainsFunc(n.seen, func(s string) bool { return strings.HasPrefix(s, room+" ") && strings.HasSuffix(s, end) })
	})
}

// awaitLast waits for an announcement and fails if there were more than most
// up to it, which is asked when it has come.
func (n *node) awaitLast(want string, most func() int) {
	n.t.Helper()
	await(n.t, want, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.seen) > 0 && n.seen[len(n.seen)-1] == want
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	if got, most := len(n.seen)-n.left, most(); got > most {
		n.t.Errorf("heard %d announcements, want at most %d", got, most)
	}
}

// forgets takes whatever was announced so far.
func (n *node) forgets() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.left = len(n.seen)
}

// sees waits until the members of a room are these.
func (n *node) sees(id chat.RoomID, want ...chat.UserID) {
	n.t.Helper()
	await(n.t, fmt.Sprintf("%s sees %v in %s", n.nodes.Self(), want, id), func() bool {
		count, users := n.Members(n.t.Context(), id)
		return count == len(want) && slices.Equal(users, want)
	})
}

func aware(t *testing.T, ns ...*node) {
	t.Helper()
	for _, n := range ns {
		await(t, "the nodes know of each other", func() bool { return len(n.nodes.Nodes()) == len(ns) })
	}
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

func (l *logbook) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// fields returns the nodes that have a field in a hash.
func fields(s redistest.Store, key string) []string {
	return strings.Fields(s.Do("HKEYS", key))
}
