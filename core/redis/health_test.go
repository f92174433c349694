package redis_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/redis"
	"parley/core/redis/redistest"
)

func TestHealth(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	c := open(t, server.URL(), nil)
	h, err := c.Health(t.Context())
	if err != nil || h.Err() != nil || h.Primaries != 1 || len(h.Notes()) > 0 {
		t.Errorf("one server: got %+v, %v", h, err)
	}
	server.Kill()
	if h, err = c.Health(t.Context()); err != nil || !errors.Is(h.Err(), redis.ErrUnavailable) || len(h.Notes()) > 0 {
		t.Errorf("killed: got %+v, %v, want an error and no note", h, err)
	}
}

// TestHealthNeedsRights holds that a server which lets the node write but not do
// what an append does is not healthy.
func TestHealthNeedsRights(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	for _, missing := range []string{"-evalsha", "-publish", "resetchannels"} {
		server.Do("ACL", "SETUSER", "narrow", "reset", "on", ">one", "~*", "&*", "+@all", missing)
		c := open(t, strings.Replace(server.URL(), "://", "://narrow:one@", 1), nil)
		h, err := c.Health(t.Context())
		if err != nil || h.Err() == nil || !strings.Contains(h.Err().Error(), "lacks a right") {
			t.Errorf("%s: got %+v, %v; want the right that is lacking", missing, h, err)
		}
	}
}

// TestClusterHealth holds that health names the primary that does not answer
// and its part of the rooms, and that it and calls to the others go on.
func TestClusterHealth(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3, 0, redistest.Options{Args: []string{"--cluster-require-full-coverage", "no"}})
	var said book
	cfg := redis.Defaults()
	cfg.URL, cfg.CallTimeout = cluster.URL(), 5*time.Second // above what the others may take, as the one that hangs is told from them by that
	c, err := redis.Open(cfg, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	health := func() redis.Health {
		t.Helper()
		h, err := c.Health(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	if h := health(); h.Primaries != 3 || len(h.Bad) > 0 || h.Unowned > 0 || h.Err() != nil || len(h.Notes()) > 0 {
		t.Errorf("all well: got %+v", h)
	}
	bad := cluster.Masters[1]
	bad.Pause()
	h := health()
	if h.Err() != nil || len(h.Bad) != 1 || h.Bad[0].Addr != bad.Addr() || !errors.Is(h.Bad[0].Err, redis.ErrUnavailable) {
		t.Errorf("one hangs: got %+v", h)
	}
	want := "1 of 3 Redis primaries do not take messages: " + bad.Addr() + " (slots 5461-10921, 33.3 % of the rooms): "
	if notes := h.Notes(); len(notes) != 1 || !strings.HasPrefix(notes[0], want) {
		t.Errorf("got the notes %q, want %q", notes, want)
	}
	for master := range 3 {
		_, err := c.Do(t.Context(), "set", ofMaster(cluster, master, 1)[0], "x")
		if (err == nil) != (master != 1) {
			t.Errorf("a key of primary %d: got %v", master, err)
		}
	}
	const shut, answers = "redis answers nobody", "redis answers again"
	about := "server=" + bad.Addr() + ` of="slots 5461-10921, 33.3 % of the rooms"`
	if got := said.line(shut); !strings.Contains(got, about) {
		t.Errorf("logged %q, want %s", got, about)
	}
	bad.Resume()
	awaiting(t, "it answers again", func() error { h := health(); return errors.Join(h.Err(), badOf(h)) })
	until(t, "it is logged", func() bool { return strings.Contains(said.line(answers), about) })
	for _, s := range cluster.Masters {
		s.Kill()
	}
	awaiting(t, "nothing can be written", func() error {
		if h, err := c.Health(t.Context()); err == nil && h.Err() == nil {
			return errors.New("somebody answers")
		}
		return nil
	})
}

// TestBatchWithOneThatHangs holds that the replies of a batch count that came in
// time, though the batch waits for another server until the deadline of all.
func TestBatchWithOneThatHangs(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3, 0, redistest.Options{})
	c := open(t, cluster.URL(), func(c *redis.Config) { c.CallTimeout = stallTime })
	until(t, "an answer", func() bool { return c.Ping(t.Context()) == nil })
	cluster.Masters[1].Pause()
	cmds := []redis.Command{{Args: []any{"set", ofMaster(cluster, 1, 1)[0], "x"}}}
	for _, key := range append(ofMaster(cluster, 0, 30), ofMaster(cluster, 2, 30)...) {
		cmds = append(cmds, redis.Command{Args: []any{"set", key, "x"}})
	}
	for i, r := range c.Pipeline(t.Context(), cmds) {
		if (i == 0) != (r.Err != nil) {
			t.Errorf("reply %d: got %v", i, r.Err)
		}
	}
}

func badOf(h redis.Health) error {
	for _, b := range h.Bad {
		return b.Err
	}
	return nil
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

// line returns the first line with text.
func (l *book) line(text string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, text) {
			return line
		}
	}
	return ""
}
