package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/core/redis"
	"parley/core/redis/redistest"
)

// ofMaster returns names whose slots lie on the master, by its number.
func ofMaster(c *redistest.Cluster, master, n int) (names []string) {
	share := 16384 / len(c.Masters)
	for i := 0; len(names) < n; i++ {
		name := fmt.Sprintf("x:{%d}:y", i)
		if slot := redis.Slot(name); slot >= master*share && slot < (master+1)*share {
			names = append(names, name)
		}
	}
	return names
}

func TestClusterSpreadsKeys(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, 0, redistest.Options{})
	c := open(t, strings.TrimSuffix(cluster.URL(), ","+cluster.Masters[2].Addr()), nil) // two of three are named
	if got := c.Mode(); got != redis.Cluster {
		t.Errorf("mode: got %q", got)
	}
	add := redis.NewScript("add", `return redis.call('INCRBY', KEYS[1], ARGV[1])`)
	round := func(want int64) {
		t.Helper()
		var cmds []redis.Command
		for i := range 300 {
			key := fmt.Sprintf("n:{%d}", i)
			if got, err := c.Eval(t.Context(), add, []string{key}, 1); err != nil || got != want {
				t.Fatalf("script on %s: got %v, %v, want %d", key, got, err, want)
			}
			cmds = append(cmds, redis.Command{Args: []any{"get", key}}, redis.Command{Script: add, Keys: []string{key}, Args: []any{2}})
		}
		for i, r := range c.Pipeline(t.Context(), cmds) {
			want := any(want + 2)
			if i%2 == 0 {
				continue // the order of two commands of a batch is not promised
			}
			if r.Err != nil || r.Value != want {
				t.Fatalf("reply %d: got %v, %v, want %v", i, r.Value, r.Err, want)
			}
		}
	}
	round(1)
	total := 0
	for _, s := range cluster.Masters {
		var n int
		if _, err := fmt.Sscan(s.Do("DBSIZE"), &n); err != nil || n < 50 {
			t.Errorf("%s has %d keys, %v, want its share of 300", s.Addr(), n, err)
		}
		total += n
		s.Do("SCRIPT", "FLUSH")
	}
	if total != 300 {
		t.Errorf("got %d keys in all, want 300", total)
	}
	round(4)
	if err := c.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	if got, err := c.Do(t.Context(), "time"); err != nil || got == nil {
		t.Errorf("a command without a key: got %v, %v", got, err)
	}
	if _, err := c.Do(t.Context(), "mget", "a", "b"); err == nil || !strings.Contains(err.Error(), "CROSSSLOT") {
		t.Errorf("keys of two slots: got %v, want CROSSSLOT", err)
	}
	cluster.Masters[1].Kill()
	if err := c.Ping(t.Context()); !errors.Is(err, redis.ErrUnavailable) {
		t.Errorf("ping with a dead primary: got %v, want ErrUnavailable", err)
	}
	if p := c.Pool(); p.Total == 0 {
		t.Errorf("pool: got %+v", p)
	}
}

// TestClusterFollowsAMove takes a slot from one primary to another, step by
// step, while a client that last saw it at the first goes on using it. The
// subscriber's probe to a primary has the first slot of ofMaster.
func TestClusterFollowsAMove(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, 0, redistest.Options{})
	for name, n := range map[string]int{"a slot": 3, "the slot of a probe": 0} {
		t.Run(name, func(t *testing.T) { followAMove(t, cluster, ofMaster(cluster, 0, 4)[n], ofMaster(cluster, 0, 5)[4]) })
	}
}

func followAMove(t *testing.T, cluster *redistest.Cluster, channel, other string) {
	from, to := cluster.Masters[0], cluster.Masters[2]
	c := open(t, cluster.URL(), quickProbes)
	slot := redis.Slot(channel)
	e := newEar()
	s := listen(t, c, e)
	s.Subscribe(channel)
	s.Subscribe(other)
	e.await(t, "the subscriptions", func() bool { return e.doubts[channel] > 0 && e.doubts[other] > 0 })

	add := redis.NewScript("add", `return redis.call('INCRBY', KEYS[1], ARGV[1])`)
	want := int64(0)
	use := func(when string) {
		t.Helper()
		want++
		for key := range 5 { // the keys share the slot
			key := fmt.Sprintf("%s:%d", channel, key)
			if got, err := c.Eval(t.Context(), add, []string{key}, 1); err != nil || got != want {
				t.Fatalf("%s: got %v, %v, want %d", when, got, err, want)
			}
		}
	}
	use("before")
	cluster.BeginMove(slot, from, to)
	use("on its way, all keys at the old primary")
	cluster.MoveKeys(slot, from, to)
	use("on its way, all keys at the new primary")
	if _, err := c.Do(t.Context(), "set", channel, "new"); err != nil {
		t.Fatalf("a key that is at neither: %v", err)
	}
	e.mu.Lock()
	before := e.doubts[channel]
	e.mu.Unlock()
	cluster.Move(slot, from, to)
	use("moved")
	e.await(t, "doubt after the move", func() bool { return e.doubts[channel] > before })
	for _, ch := range []string{channel, other} {
		awaiting(t, "a message on "+ch, func() error { // the link may be on its way yet, with Doubt to come
			if err := c.Publish(t.Context(), ch, "after"); err != nil {
				return err
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			if len(e.heard[ch]) == 0 {
				return errors.New("nothing is heard")
			}
			return nil
		})
	}
	awaiting(t, "a link to each of two primaries", func() error {
		if st := s.Stats(); st.Open != 2 {
			return fmt.Errorf("%d links", st.Open)
		}
		return c.Ping(t.Context())
	})
	s.Unsubscribe(channel)
	awaiting(t, "the end of the link that has no channel", func() error {
		if st := s.Stats(); st.Open != 1 {
			return fmt.Errorf("%d links", st.Open)
		}
		return c.Ping(t.Context())
	})
}

// atOnce demands that a write is refused whose primary was killed a moment ago,
// unless its replica has been quicker.
func atOnce(t *testing.T, c *redis.Client, key string, replica *redistest.Server) {
	t.Helper()
	_, err := c.Do(t.Context(), "set", key, "now")
	if err == nil && strings.HasPrefix(replica.Do("ROLE"), "master") {
		return
	}
	if !errors.Is(err, redis.ErrUnavailable) {
		t.Errorf("at once: got %v, want ErrUnavailable", err)
	}
}

// awaiting asks again and again, over the network, until ok.
func awaiting(t *testing.T, what string, ok func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := ok()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s: still %v after %v", what, err, patience)
		}
	}
}

func TestClusterSilentLink(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3, 0, redistest.Options{})
	proxy := redistest.StartProxy(t, cluster.Masters[1].Addr())
	cluster.Announce(1, proxy)
	// The links to the others, which are not silent, must outlive a machine that
	// stands still.
	c := open(t, cluster.URL(), func(c *redis.Config) { impatient(c); c.ProbeTimeout = 5 * time.Second })
	e := newEar()
	s := listen(t, c, e)
	var all []string
	for master := range 3 {
		all = append(all, ofMaster(cluster, master, 5)...)
	}
	for _, channel := range all {
		s.Subscribe(channel)
	}
	e.await(t, "the subscriptions", func() bool { return len(e.doubts) == len(all) })
	if st := s.Stats(); st.Open != 3 || st.Channels != len(all) {
		t.Errorf("stats: got %+v, want 3 links", st)
	}
	e.mu.Lock()
	clear(e.doubts)
	e.mu.Unlock()
	proxy.Silence()
	e.await(t, "doubt on the silent link", func() bool { return len(e.doubts) == 5 })
	until(t, "a message to be heard", func() bool {
		_ = c.Publish(t.Context(), all[5], "after") // some connections are silent
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.heard[all[5]]) > 0
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, channel := range all {
		if on := i >= 5 && i < 10; (e.doubts[channel] > 0) != on {
			t.Errorf("%s, of primary %d: doubted %d times", channel, i/5, e.doubts[channel])
		}
	}
}

func TestClusterFailover(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, 1, redistest.Options{Args: []string{"--cluster-require-full-coverage", "no"}})
	c := open(t, cluster.URL(), quickProbes)
	e := newEar()
	s := listen(t, c, e)
	channels := []string{ofMaster(cluster, 0, 1)[0], ofMaster(cluster, 1, 1)[0]}
	for _, channel := range channels {
		s.Subscribe(channel)
		if _, err := c.Do(t.Context(), "set", channel, "before"); err != nil {
			t.Fatal(err)
		}
	}
	e.await(t, "the subscriptions", func() bool { return len(e.doubts) == 2 })
	e.mu.Lock()
	clear(e.doubts)
	e.mu.Unlock()
	cluster.Masters[1].AwaitReplica()
	cluster.Masters[1].Kill()
	atOnce(t, c, channels[1]+":now", cluster.Replicas[1][0])
	if _, err := c.Do(t.Context(), "set", channels[0], "now"); err != nil {
		t.Errorf("on another primary: %v", err)
	}
	cluster.Replicas[1][0].AwaitLog(0, "Failover election won")
	awaiting(t, "write after the failover", func() error {
		got, err := c.Do(t.Context(), "set", channels[1], "after", "get")
		if err == nil && got != "before" {
			t.Fatalf("got %v, want what was written before", got)
		}
		return err
	})
	e.await(t, "doubt after the failover", func() bool { return e.doubts[channels[1]] > 0 })
	if err := c.Publish(t.Context(), channels[1], "after"); err != nil {
		t.Fatal(err)
	}
	e.await(t, "a message", func() bool { return len(e.heard[channels[1]]) > 0 })
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.doubts[channels[0]] > 0 {
		t.Error("the link to another primary was given up too")
	}
}

// TestClusterGone starts before its cluster, and sees it go and come back.
func TestClusterGone(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, 0, redistest.Options{AppendOnly: true})
	for _, s := range cluster.Masters {
		s.Stop()
	}
	c := open(t, cluster.URL(), quickProbes)
	e := newEar()
	s := listen(t, c, e)
	s.Subscribe("a")
	begin := time.Now()
	if _, err := c.Do(t.Context(), "set", "a", "1"); !errors.Is(err, redis.ErrUnavailable) || !strings.Contains(err.Error(), "ask 127.0.0.1:") {
		t.Errorf("got %v, want ErrUnavailable that says who was asked", err)
	}
	if d := time.Since(begin); d > patience/2 { // at once, and not at the end of its time
		t.Errorf("that took %v", d)
	}
	for _, s := range cluster.Masters {
		s.Restart()
	}
	awaiting(t, "write", func() error { _, err := c.Do(t.Context(), "set", "a", "1"); return err })
	e.await(t, "the subscription", func() bool { return e.doubts["a"] > 0 })
}

func TestWrongMode(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	c := open(t, "redis-cluster://"+server.Addr(), nil)
	if err := c.Ping(t.Context()); !errors.Is(err, redis.ErrUnavailable) || !strings.Contains(err.Error(), "write redis:// in redis.url") {
		t.Errorf("a lone server as a cluster: got %v, want advice", err)
	}
	c = open(t, "redis-sentinel://"+server.Addr()+"/parley", nil)
	if err := c.Ping(t.Context()); !errors.Is(err, redis.ErrUnavailable) || !strings.Contains(err.Error(), "ask the sentinel "+server.Addr()) {
		t.Errorf("a lone server as a sentinel: got %v, want it named", err)
	}
	node := redistest.StartCluster(t, 1, 0, redistest.Options{}).Masters[0]
	c = open(t, "redis://"+node.Addr(), nil)
	if _, err := c.Do(t.Context(), "set", "a", "1"); err != nil {
		t.Errorf("one node that has every slot: %v", err)
	}
}
