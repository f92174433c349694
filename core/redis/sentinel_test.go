package redis_test

import (
	"errors"
	"strings"
	"testing"

	"parley/core/redis"
	"parley/core/redis/redistest"
)

func TestSentinelFailover(t *testing.T) {
	primary := redistest.Start(t, redistest.Options{})
	replica := redistest.StartReplica(t, primary, redistest.Options{})
	sentinels := redistest.StartSentinels(t, 3, primary, replica)
	c := open(t, sentinels.URL(), quickProbes)
	if got := c.Mode(); got != redis.Sentinel {
		t.Errorf("mode: got %q", got)
	}
	e := newEar()
	s := listen(t, c, e)
	s.Subscribe("a")
	if _, err := c.Do(t.Context(), "set", "k", "before"); err != nil {
		t.Fatal(err)
	}
	e.await(t, "the subscription", func() bool { return e.doubts["a"] == 1 })
	sentinels.All[0].Kill() // two of three still agree
	primary.AwaitReplica()
	primary.Kill()
	atOnce(t, c, "now", replica)
	goesOn(t, c, e)

	// The old primary comes back as such, and is made a replica in time. Nobody
	// may take its word meanwhile.
	primary.Restart()
	primary.AwaitLog(0, "MASTER <-> REPLICA sync: Finished with success")
	if got, err := c.Do(t.Context(), "get", "k"); err != nil || got != "after" {
		t.Errorf("with the old primary back: got %v, %v, want after", got, err)
	}
	if st := s.Stats(); st.Open != 1 || st.Heard.IsZero() {
		t.Errorf("stats: got %+v, want one link that hears", st)
	}
}

// TestSentinelSwitch has the sentinels name another primary while the old one
// stays reachable, as after a partition: the client must leave it unasked.
func TestSentinelSwitch(t *testing.T) {
	primary := redistest.Start(t, redistest.Options{})
	replica := redistest.StartReplica(t, primary, redistest.Options{})
	sentinels := redistest.StartSentinels(t, 1, primary, replica)
	c := open(t, sentinels.URL(), quickProbes)
	e := newEar()
	listen(t, c, e).Subscribe("a")
	e.await(t, "the subscription", func() bool { return e.doubts["a"] == 1 })
	sentinels.All[0].Do("SENTINEL", "FAILOVER", redistest.Service)
	sentinels.AwaitFailover()
	e.await(t, "doubt after the switch", func() bool { return e.doubts["a"] > 1 })
	if _, err := c.Do(t.Context(), "set", "k", "v"); err != nil {
		t.Errorf("after the switch: %v", err)
	}
	if got := replica.Do("GET", "k"); got != "v" {
		t.Errorf("at the new primary: got %q, want v", got)
	}
}

func TestSentinelUnknownService(t *testing.T) {
	primary := redistest.Start(t, redistest.Options{})
	sentinels := redistest.StartSentinels(t, 1, primary)
	c := open(t, strings.TrimSuffix(sentinels.URL(), redistest.Service)+"other", nil)
	if err := c.Ping(t.Context()); !errors.Is(err, redis.ErrUnavailable) || !strings.Contains(err.Error(), `monitors no "other"`) {
		t.Errorf("got %v, want it to say what the sentinel does not know", err)
	}
}

// goesOn waits until what was written before a failover is read behind it, and what is
// published is heard.
func goesOn(t *testing.T, c *redis.Client, e *ear) {
	t.Helper()
	awaiting(t, "write after the failover", func() error {
		got, err := c.Do(t.Context(), "set", "k", "after", "get")
		if err == nil && got != "before" {
			t.Fatalf("got %v, want what was written before", got)
		}
		return err
	})
	e.await(t, "doubt after the failover", func() bool { return e.doubts["a"] > 1 })
	if err := c.Publish(t.Context(), "a", "after"); err != nil {
		t.Fatal(err)
	}
	e.await(t, "a message", func() bool { return len(e.heard["a"]) > 0 })
}
