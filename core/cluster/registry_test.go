package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/cluster"
	"parley/core/redis"
	"parley/core/redis/redistest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// go-redis looks for a lost server once a second, and ends when it
		// next notices that the client was closed.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// patience bounds every wait; what is awaited takes milliseconds.
const patience = redistest.Patience

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// node is a registry under test and what it says.
type node struct {
	*cluster.Registry
	views chan cluster.View // of OnChange
	stop  func()            // ends Run and waits
}

// start runs a registry with short leases until the test or stop ends it.
func start(t *testing.T, url, name string, tune func(*cluster.Config, *cluster.Registry)) *node {
	t.Helper()
	return startLogging(t, url, name, quiet, tune)
}

func startLogging(t *testing.T, url, name string, log *slog.Logger, tune func(*cluster.Config, *cluster.Registry)) *node {
	t.Helper()
	cfg := cluster.Config{Name: name, Lease: time.Second, Renew: 200 * time.Millisecond}
	if tune != nil {
		tune(&cfg, nil)
	}
	rc := redis.Defaults()
	rc.URL = url
	rc.DialTimeout, rc.ProbeTimeout = patience, patience // a call that gets no answer is tried again, and TestRedisAway waits for that
	client, err := redis.Open(rc, quiet)
	if err != nil {
		t.Fatal(err)
	}
	r, err := cluster.New(cfg, client, log)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Registry: r, views: make(chan cluster.View, 1000)}
	r.OnChange(func(v cluster.View) { n.views <- v })
	if tune != nil {
		tune(&cfg, r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	n.stop = sync.OnceFunc(func() { cancel(); running.Wait(); client.Close() })
	t.Cleanup(n.stop)
	return n
}

// await takes views until one is ok.
func (n *node) await(t *testing.T, what string, ok func(cluster.View) bool) cluster.View {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case v := <-n.views:
			if ok(v) {
				return v
			}
		case <-deadline:
			t.Fatalf("%s waits for %s: nothing after %v; it sees %v", n.Self(), what, patience, ids(n.Nodes()))
		}
	}
}

func ids(nodes []cluster.Node) (out []cluster.NodeID) {
	for _, n := range nodes {
		out = append(out, n.ID)
	}
	return out
}

func sees(n int) func(cluster.View) bool {
	return func(v cluster.View) bool { return len(v.Nodes) == n }
}

func TestJoinAndStop(t *testing.T) { redistest.Each(t, redistest.Options{}, joinAndStop) }

func joinAndStop(t *testing.T, server redistest.Store) {
	// Who waits for the end of such a lease waits for too long.
	long := func(c *cluster.Config, _ *cluster.Registry) { c.Lease = 2 * patience }
	a := start(t, server.URL(), "a", long)
	if v := a.await(t, "itself", sees(1)); !v.Rewrite || len(v.Joined) != 1 || v.Joined[0] != a.Self() {
		t.Errorf("first view: got %+v", v)
	}
	b := start(t, server.URL(), "b", long)
	c := start(t, server.URL(), "c", long)
	for _, n := range []*node{a, b, c} {
		v := n.await(t, "three nodes", sees(3))
		for i, x := range []*node{a, b, c} {
			if v.Nodes[i].ID != x.Self() || !n.Alive(x.Self()) {
				t.Errorf("node %s sees %v", n.Self(), ids(v.Nodes))
			}
		}
	}
	b.stop()
	v := a.await(t, "the stop", sees(2))
	if len(v.Gone) != 1 || v.Gone[0] != b.Self() || len(v.Left) != 1 || v.Left[0] != b.Self() || a.Alive(b.Self()) || v.Rewrite {
		t.Errorf("after the stop: got %+v", v)
	}
	got, err := a.Confirm(t.Context(), a.Self(), b.Self(), c.Self())
	if err != nil || !got[a.Self()] || got[b.Self()] || !got[c.Self()] {
		t.Errorf("confirm: got %v, %v", got, err)
	}
}

// TestKilled has a node fall silent: the others see it once its lease is over,
// and not before.
func TestKilled(t *testing.T) {
	for _, others := range []int{1, 2} {
		redistest.Each(t, redistest.Options{}, func(t *testing.T, server redistest.Store) {
			proxy := server.Front(t)
			var left []*node
			for i := range others {
				left = append(left, start(t, server.URL(), fmt.Sprint("n", i), nil))
			}
			dies := start(t, proxy.URL(), "dies", nil)
			for _, n := range append(left, dies) {
				n.await(t, "all nodes", sees(others+1))
			}
			end := leaseOf(t, server, dies.Self()) // or a renewal later
			proxy.Halt()                           // to the others it is as if killed
			for _, n := range left {
				v := n.await(t, "the death", sees(others))
				if left := time.Until(end); left > 0 {
					t.Errorf("the death was seen %v before the lease was over", left)
				}
				if len(v.Gone) != 1 || v.Gone[0] != dies.Self() || len(v.Left) > 0 {
					t.Errorf("got %+v", v)
				}
				if n.Alive(dies.Self()) {
					t.Error("a dead node counts as alive")
				}
			}
			// Usually at most 5 ms later. On a busy machine the others may be so late
			// themselves that all get another lease.
			t.Logf("the death was seen %v after the end of the lease", time.Since(end).Round(time.Millisecond))
			if st := dies.Stats(); len(dies.Nodes()) != others+1 {
				t.Errorf("who cannot reach redis declares nobody dead: it sees %v, %+v", ids(dies.Nodes()), st)
			}
		})
	}
}

// leaseOf is when a node's lease ends, as Redis has it: to the millisecond, by the
// clock of this machine.
func leaseOf(t *testing.T, server redistest.Store, id cluster.NodeID) time.Time {
	t.Helper()
	var ms float64
	if _, err := fmt.Sscan(server.Do("ZSCORE", "parley:{nodes}:leases", string(id)), &ms); err != nil {
		t.Fatalf("the lease of %s: %v", id, err)
	}
	return time.UnixMilli(int64(ms))
}

// TestRedisAway holds that nobody is declared dead while Redis cannot be
// reached, nor when it comes back with leases that have ended long ago.
func TestRedisAway(t *testing.T) {
	for _, how := range []string{"killed", "paused"} {
		redistest.Each(t, redistest.Options{AppendOnly: true}, func(t *testing.T, server redistest.Store) {
			a, b := start(t, server.URL(), "a", nil), start(t, server.URL(), "b", nil)
			a.await(t, "both", sees(2))
			b.await(t, "both", sees(2))
			failed := a.Stats().Failed
			begun := time.Now()
			if how == "killed" {
				server.Kill()
			} else {
				server.Pause()
			}
			awaitThat(t, "two leases to pass", func() bool {
				return time.Since(begun) > 2*time.Second && (how == "paused" || a.Stats().Failed > failed)
			})
			if len(a.Nodes()) != 2 || !b.Alive(a.Self()) {
				t.Error("somebody was declared dead while redis was away")
			}
			renewed := []uint64{a.Stats().Renewed, b.Stats().Renewed}
			if how == "killed" {
				server.Restart()
			} else {
				server.Resume()
			}
			awaitThat(t, "renewals of both", func() bool { return a.Stats().Renewed > renewed[0]+3 && b.Stats().Renewed > renewed[1]+3 })
			for _, n := range []*node{a, b} {
				for len(n.views) > 0 {
					if v := <-n.views; len(v.Nodes) != 2 || len(v.Gone) > 0 {
						t.Errorf("after redis came back: got %+v", v)
					}
				}
			}
		})
	}
}

// TestHowANodeWent holds that the log tells a node that ended in order from one
// that fell silent: the second is for people to look at.
func TestHowANodeWent(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	front := server.Front(t)
	var said book
	a := startLogging(t, server.URL(), "a", slog.New(slog.NewTextHandler(&said, nil)), nil)
	leaves, dies := start(t, server.URL(), "leaves", nil), start(t, front.URL(), "dies", nil)
	a.await(t, "three nodes", sees(3))
	leaves.stop()
	a.await(t, "the stop", sees(2))
	front.Halt()
	a.await(t, "the death", sees(1))
	for id, want := range map[cluster.NodeID]string{
		leaves.Self(): `level=INFO msg="a node has left"`, dies.Self(): `level=WARN msg="a node is gone: its lease ran out"`,
	} {
		if got := said.about(id); !strings.Contains(got, want) {
			t.Errorf("of %s: logged %q, want %s", id, got, want)
		}
	}
}

// book is a log that can be looked at.
type book struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *book) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// about returns the last line about another node.
func (l *book) about(id cluster.NodeID) (last string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, "other="+string(id)) {
			last = line
		}
	}
	return last
}

// awaitThat asks until ok is true: for what has no event.
func awaitThat(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waiting for %s: nothing after %v", what, patience)
		}
	}
}

func TestRedisAbsentAtStart(t *testing.T) { redistest.Each(t, redistest.Options{}, redisAbsentAtStart) }

func redisAbsentAtStart(t *testing.T, server redistest.Store) {
	server.Stop()
	a := start(t, server.URL(), "a", nil)
	awaitThat(t, "a renewal that fails", func() bool { return a.Stats().Failed > 0 })
	if n := a.Nodes(); len(n) != 1 || n[0].ID != a.Self() || !a.Alive("other-00000000") {
		t.Errorf("before the first view: it sees %v", ids(n))
	}
	select {
	case <-a.Known():
		t.Error("known before the first view")
	default:
	}
	server.Restart()
	a.await(t, "itself", func(v cluster.View) bool { return v.Rewrite })
	<-a.Known()
}

func TestRedisBackEmpty(t *testing.T) { redistest.Each(t, redistest.Options{}, redisBackEmpty) }

func redisBackEmpty(t *testing.T, server redistest.Store) {
	a, b := start(t, server.URL(), "a", nil), start(t, server.URL(), "b", nil)
	a.await(t, "both", sees(2))
	b.await(t, "both", sees(2))
	server.Do("FLUSHALL")
	a.await(t, "the loss", func(v cluster.View) bool { return v.Rewrite })
	b.await(t, "the loss", func(v cluster.View) bool { return v.Rewrite })
	awaitThat(t, "both to be back", func() bool { return len(a.Nodes()) == 2 && len(b.Nodes()) == 2 })
}

// TestOthersAreAwaited: a table that was lost knows nobody but who has come back
// to it. The others get a whole lease; who does not come back in it is gone.
func TestOthersAreAwaited(t *testing.T) { redistest.Each(t, redistest.Options{}, othersAreAwaited) }

func othersAreAwaited(t *testing.T, server redistest.Store) {
	proxy := server.Front(t)
	a, b := start(t, server.URL(), "a", nil), start(t, server.URL(), "b", nil)
	dies := start(t, proxy.URL(), "dies", nil)
	for _, n := range []*node{a, b} {
		n.await(t, "three nodes", sees(3))
	}
	proxy.Halt()
	begun := time.Now()
	server.Do("FLUSHALL")
	for _, n := range []*node{a, b} {
		n.await(t, "the loss", func(v cluster.View) bool {
			if len(v.Gone) > 0 {
				t.Errorf("%s: %v are gone with the table", n.Self(), v.Gone)
			}
			return v.Rewrite
		})
		v := n.await(t, "the one that does not come back", func(v cluster.View) bool { return len(v.Gone) > 0 })
		if len(v.Gone) != 1 || v.Gone[0] != dies.Self() || len(v.Nodes) != 2 {
			t.Errorf("%s: got %+v", n.Self(), v)
		}
		if took := time.Since(begun); took < time.Second {
			t.Errorf("%s gave it %v, want a whole lease", n.Self(), took)
		}
	}
}

func TestInfoTravels(t *testing.T) { redistest.Each(t, redistest.Options{}, infoTravels) }

func infoTravels(t *testing.T, server redistest.Store) {
	slow := func(c *cluster.Config, _ *cluster.Registry) { c.Renew, c.Lease = 10*time.Minute, time.Hour }
	var mu sync.Mutex
	revision := "one"
	a := start(t, server.URL(), "a", func(c *cluster.Config, r *cluster.Registry) {
		slow(c, r)
		if r != nil {
			r.SetInfo("policy", func() any { mu.Lock(); defer mu.Unlock(); return map[string]string{"revision": revision} })
			r.SetInfo("bad", func() any { return func() {} })
			r.SetInfo("large", func() any { return strings.Repeat("x", 17<<10) })
		}
	})
	a.await(t, "itself", sees(1))
	seen := make(chan string, 100)
	b := start(t, server.URL(), "b", func(c *cluster.Config, r *cluster.Registry) {
		slow(c, r)
		if r == nil {
			return
		}
		r.OnView(func(v cluster.View) {
			for i := range v.Nodes {
				var p struct{ Revision string }
				if ok, err := v.Nodes[i].Decode("policy", &p); ok && err == nil {
					seen <- p.Revision
				}
			}
		})
	})
	b.await(t, "both", sees(2))
	want := func(revision string) {
		t.Helper()
		for deadline := time.After(patience); ; {
			select {
			case got := <-seen:
				if got == revision {
					return
				}
			case <-deadline:
				t.Fatalf("%s has not come", revision)
			}
		}
	}
	want("one")
	awaitThat(t, "the subscription", func() bool {
		return server.Do("PUBSUB", "NUMSUB", "parley:{nodes}:changed") == "parley:{nodes}:changed\n2"
	})
	mu.Lock()
	revision = "two"
	mu.Unlock()
	a.Touch()
	want("two")
	n := b.Nodes()
	if len(n) != 2 || len(n[0].Info) != 1 {
		t.Errorf("what cannot be said is left out: got %s", n[0].Info)
	}
}

func TestBadRecords(t *testing.T) { redistest.Each(t, redistest.Options{}, badRecords) }

func badRecords(t *testing.T, server redistest.Store) {
	now := time.Now().UnixMilli()
	far := fmt.Sprint(now + 3_600_000_000)
	server.Do("SET", "parley:{nodes}:beat", fmt.Sprint(now))
	for id, rec := range map[string]string{
		"json-00000001": "{", "format-00000002": `{"format":2}`, "good-00000003": `{"format":1,"info":{"k":1}}`, "large-00000004": strings.Repeat("x", 65<<10),
		"no id": "{}", "\xff-00000005": "{}",
	} {
		server.Do("HSET", "parley:{nodes}:nodes", id, rec)
		server.Do("ZADD", "parley:{nodes}:leases", far, id)
	}
	server.Do("ZADD", "parley:{nodes}:leases", far, "norecord-00000006")
	server.Do("HSET", "parley:{nodes}:nodes", "nolease-00000007", "{}")
	a := start(t, server.URL(), "a", nil)
	v := a.await(t, "the others", func(v cluster.View) bool { return len(v.Nodes) > 1 })
	got := map[cluster.NodeID]int{}
	for _, n := range v.Nodes {
		got[n.ID] = len(n.Info)
		if n.Lease > 2*time.Second {
			t.Errorf("the lease of %s is %v: a lease from somebody's hand must end", n.ID, n.Lease)
		}
	}
	want := map[cluster.NodeID]int{"json-00000001": 0, "format-00000002": 0, "good-00000003": 1, "large-00000004": 0, "norecord-00000006": 0, a.Self(): 0}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if st := a.Stats(); st.BadRecords < 6 {
		t.Errorf("stats: got %+v", st)
	}
	a.await(t, "the ghosts to go", sees(1))
	if got := server.Do("HLEN", "parley:{nodes}:nodes"); got != "1" {
		t.Errorf("records left: %s, want 1", got)
	}
}

func TestConfig(t *testing.T) {
	for _, tune := range []func(*cluster.Config){
		func(c *cluster.Config) { c.Name = "" }, func(c *cluster.Config) { c.Name = "a b" }, func(c *cluster.Config) { c.Name = strings.Repeat("n", 65) },
		func(c *cluster.Config) { c.Renew = 0 }, func(c *cluster.Config) { c.Lease = c.Renew },
	} {
		cfg := cluster.Defaults()
		tune(&cfg)
		if _, err := cluster.New(cfg, nil, quiet); err == nil {
			t.Errorf("%+v: got no error", cfg)
		}
	}
	if err := cluster.CheckName(cluster.HostName()); err != nil {
		t.Errorf("the machine's name: %v", err)
	}
	for id, want := range map[cluster.NodeID]string{"a-b-0123abcd": "a-b", "x": "x", "a-0123": "a-0123"} {
		if got := id.Name(); got != want {
			t.Errorf("name of %s: got %s, want %s", id, got, want)
		}
	}
}
