package redis_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/journal"
	"parley/core/journal/journaltest"
	journalredis "parley/core/journal/redis"
	"parley/core/redis"
	"parley/core/redis/redistest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// go-redis looks for a lost server once a second, and ends when it
		// next notices that the client was closed.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// quick are client settings that find soon what has changed, and give up nothing
// because the machine stands still for some seconds.
func quick(url string) redis.Config {
	c := impatient(url)
	c.DialTimeout, c.CallTimeout, c.ProbeTimeout = patience, patience, patience
	return c
}

// impatient are settings that find a silent link soon, and end a call by the
// default: for faults that show by silence.
func impatient(url string) redis.Config {
	c := redis.Defaults()
	c.URL = url
	c.ProbeEvery, c.ProbeTimeout = 100*time.Millisecond, time.Second
	return c
}

// node opens a journal as a node of its own would and runs it.
func node(t testing.TB, client redis.Config, cfg journalredis.Config) *journalredis.Journal {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	c, err := redis.Open(client, log)
	if err != nil {
		t.Fatal(err)
	}
	j, err := journalredis.New(cfg, c, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := j.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		cancel()
		running.Wait()
		if err := c.Close(); err != nil {
			t.Errorf("close client: %v", err)
		}
	})
	return j
}

func TestConformance(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	conform(t, server.URL(), func() { server.Do("FLUSHALL") })
}

// TestConformanceInACluster runs the same suite where each room lies on one of
// three primaries, and what lists them on others: no script may touch keys of
// two slots.
func TestConformanceInACluster(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, 0, redistest.Options{})
	conform(t, cluster.URL(), cluster.FlushAll)
}

func conform(t *testing.T, url string, empty func()) {
	journaltest.Run(t, func(t *testing.T) journaltest.Store {
		empty()
		return journaltest.Store{
			Shared: true,
			Open: func(t *testing.T, o journaltest.Options) journal.Journal {
				cfg := journalredis.Defaults()
				if o.MaxEntries != 0 {
					cfg.MaxEntries = o.MaxEntries
				}
				if o.NonceWindow != 0 {
					cfg.NonceWindow = o.NonceWindow
				}
				return node(t, quick(url), cfg)
			},
		}
	})
}
