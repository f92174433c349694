package room

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/redis"
	"parley/core/redis/redistest"
)

// onRedis returns a Redis and a journal on it, which compares its tops every so
// often.
func onRedis(t *testing.T, tops time.Duration) (*redistest.Server, *journalredis.Journal) {
	t.Helper()
	server := redistest.Start(t, redistest.Options{})
	log := slog.New(slog.DiscardHandler)
	rc := redis.Defaults()
	rc.URL = server.URL()
	client, err := redis.Open(rc, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	cfg := journalredis.Defaults()
	cfg.TopsEvery = tops
	node, err := journalredis.New(cfg, client, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = node.Run(ctx) })
	t.Cleanup(func() { _ = node.Close(); stop(); running.Wait() })
	return server, node
}

// A replica that had missed the newest entries of a room is promoted. Members
// who have seen them are told to reset: by the entry that takes the place of
// the first, though it is not as far as they are, and without one by the
// comparison of tops.
func TestLostTailIsAReset(t *testing.T) {
	left := map[string]uint64{"another entry comes": 3, "nothing comes": 2}
	for name, tops := range map[string]time.Duration{"another entry comes": time.Hour, "nothing comes": 20 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			server, node := onRedis(t, tops)
			w := newWorld(t, nil, func(journal.Journal) journal.Journal { return node })
			w.post("lobby", 2)
			copies := func(from, to string) { // in one step: tops are compared meanwhile
				server.Do("EVAL", "for i = 1, 3, 2 do redis.call('COPY', KEYS[i], KEYS[i+1], 'REPLACE') end", "4",
					"parley:{"+from+"}:log", "parley:{"+to+"}:log", "parley:{"+from+"}:meta", "parley:{"+to+"}:meta")
			}
			copies("lobby", "replica")
			last := w.post("lobby", 3)
			s := newSink(-1)
			w.join("lobby", s, nil)
			if at := w.room("lobby").Position(); at.Seq != 5 {
				t.Fatalf("the room stands at %+v, want 5", at)
			}
			copies("replica", "lobby")
			if name == "another entry comes" { // by a node that has not seen more
				rc, err := node.Append(t.Context(), journal.Request{Room: "lobby", Entry: journal.Entry{ID: "other", Kind: journal.KindMessage, From: "bob", Text: "hi"}})
				if err != nil || rc.Seq != 3 || rc.Epoch != last.Epoch {
					t.Fatalf("append: got %+v, %v, want seq 3 of the same epoch", rc, err)
				}
			}
			s.await(t, "a reset", func(s *sink) bool { return bytes.Contains(s.got, []byte(`"type":"reset"`)) })
			if at := w.room("lobby").Position(); at.Seq != left[name] || at.Epoch == last.Epoch {
				t.Errorf("the room stands at %+v, want seq %d of another epoch than %s: a seq must not be given twice", at, left[name], last.Epoch)
			}
			next := w.post("lobby", 1)
			s.await(t, "what comes next", func(s *sink) bool {
				return bytes.Contains(s.got, []byte(`"id":"`+string(next.ID)+`"`))
			})
		})
	}
}
