package redis_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/redis"
	"parley/core/redis/redistest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// go-redis looks for a lost server once a second, and ends when it
		// next notices that the client was closed.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// open opens a client whose patience is the test's: what a machine that stands
// still for some seconds must not fail. A test of what happens when time runs out
// says so.
func open(t testing.TB, url string, edit func(*redis.Config)) *redis.Client {
	t.Helper()
	cfg := redis.Defaults()
	cfg.URL = url
	cfg.DialTimeout, cfg.CallTimeout, cfg.ProbeTimeout = patience, patience, patience
	if edit != nil {
		edit(&cfg)
	}
	c, err := redis.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 {
			if err := c.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	})
	return c
}

func TestReplies(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Args: []string{"--requirepass", "se cret"}})
	c := open(t, "redis://:se%20cret@"+server.Addr(), nil)
	ctx := t.Context()
	if err := c.Ping(ctx); err != nil {
		t.Fatalf("ping: %v", err)
	}
	tests := []struct {
		name string
		args []any
		want any
	}{
		{"status", []any{"set", "k", []byte("v")}, "OK"},
		{"string", []any{"get", "k"}, "v"},
		{"nil", []any{"get", "none"}, nil},
		{"number", []any{"incrby", "n", 41}, int64(41)},
		{"list", []any{"mget", "k", "none"}, []any{"v", nil}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := c.Do(ctx, tt.args...)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %#v, %v, want %#v", got, err, tt.want)
			}
		})
	}
	if got := c.Pool(); got.Total == 0 {
		t.Errorf("pool: got %+v, want a connection", got)
	}
	_, err := c.Do(ctx, "incr", "k")
	if err == nil || errors.Is(err, redis.ErrUnavailable) || errors.Is(err, redis.ErrOverloaded) {
		t.Errorf("a wrong command: got %v, want an error of neither kind", err)
	}
	if err := open(t, server.URL(), nil).Ping(ctx); !errors.Is(err, redis.ErrUnavailable) {
		t.Errorf("without the password: got %v, want ErrUnavailable", err)
	}
}

func TestScriptsOutliveTheServersCache(t *testing.T) {
	server := redistest.Start(t, redistest.Options{AppendOnly: true})
	c := open(t, server.URL(), nil)
	add := redis.NewScript("add", `return redis.call('INCRBY', KEYS[1], ARGV[1])`)
	want := int64(0)
	run := func(when string) {
		t.Helper()
		want += 2
		if got, err := c.Eval(t.Context(), add, []string{"n"}, 2); err != nil || got != want {
			t.Fatalf("%s: got %v, %v, want %d", when, got, err, want)
		}
	}
	run("first")
	run("cached")
	server.Do("SCRIPT", "FLUSH")
	run("after a flush of the scripts")
	server.Stop()
	server.Restart()
	run("after a restart")
}

func TestOverloaded(t *testing.T) {
	server := redistest.Start(t, redistest.Options{MaxMemory: "3mb"})
	c := open(t, server.URL(), nil)
	block := strings.Repeat("x", 64<<10)
	set := redis.NewScript("set", `return redis.call('SET', KEYS[1], ARGV[1])`)
	var err error
	for i := range 200 {
		if _, err = c.Eval(t.Context(), set, []string{fmt.Sprint(i)}, block); err != nil {
			break
		}
	}
	if !errors.Is(err, redis.ErrOverloaded) {
		t.Errorf("script at maxmemory: got %v, want ErrOverloaded", err)
	}
	if _, err := c.Do(t.Context(), "set", "k", block); !errors.Is(err, redis.ErrOverloaded) || !strings.Contains(err.Error(), "maxmemory") {
		t.Errorf("command at maxmemory: got %v, want ErrOverloaded that names maxmemory", err)
	}
	if _, err := c.Do(t.Context(), "get", "0"); err != nil {
		t.Errorf("reading at maxmemory: got %v, want it to work", err)
	}
}

func TestReadOnlyReplicaIsUnavailable(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	c := open(t, server.URL(), nil)
	server.Do("REPLICAOF", "127.0.0.1", "1")
	if _, err := c.Do(t.Context(), "set", "k", "v"); !errors.Is(err, redis.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	server.Do("REPLICAOF", "NO", "ONE")
	if _, err := c.Do(t.Context(), "set", "k", "v"); err != nil {
		t.Errorf("after it became a primary: %v", err)
	}
}

// patience is far above what a loaded machine needs.
const patience = redistest.Patience

func TestGoneServer(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	c := open(t, server.URL(), func(c *redis.Config) { c.CallTimeout = 300 * time.Millisecond })
	until(t, "an answer", func() bool { return c.Ping(t.Context()) == nil })
	t.Run("paused", func(t *testing.T) {
		server.Pause()
		defer server.Resume()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for range 3 {
			if err := c.Ping(ctx); !errors.Is(err, redis.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
		}
		if ctx.Err() != nil {
			t.Error("the calls ended with the test's patience, not by their own deadline")
		}
	})
	t.Run("killed", func(t *testing.T) {
		server.Kill()
		if err := c.Ping(t.Context()); !errors.Is(err, redis.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
	})
	t.Run("back", func(t *testing.T) {
		server.Restart()
		awaiting(t, "the server is back", func() error { return c.Ping(t.Context()) })
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Ping(ctx); !errors.Is(err, context.Canceled) || !errors.Is(err, redis.ErrUnavailable) {
			t.Errorf("got %v, want context.Canceled and ErrUnavailable", err)
		}
	})
}

// TestOneAttempt loses the answer to a command on its way back, while a second
// attempt would get through: there must be none.
func TestOneAttempt(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	proxy := redistest.StartProxy(t, server.Addr())
	c := open(t, proxy.URL(), func(c *redis.Config) { c.CallTimeout = 300 * time.Millisecond })
	until(t, "an answer, on the connection that goes silent", func() bool { return c.Ping(t.Context()) == nil })
	proxy.Silence()
	if _, err := c.Do(t.Context(), "incr", "n"); !errors.Is(err, redis.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	until(t, "the command to arrive", func() bool { return server.Do("GET", "n") != "" })
	until(t, "an answer on a new connection", func() bool { return c.Ping(t.Context()) == nil })
	if got := server.Do("GET", "n"); got != "1" {
		t.Errorf("the command ran %s times, want once", got)
	}
}
