package redis_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"parley/core/absent"
	"parley/core/absent/redis"
	"parley/core/chat"
	rds "parley/core/redis"
	"parley/core/redis/redistest"
)

// put puts n messages into the stream.
func put(t *testing.T, client *rds.Client, n int) {
	t.Helper()
	for i := range n {
		e := absent.Entry{Room: "lobby", Epoch: "e", Seq: uint64(i + 1), ID: chat.MessageID(fmt.Sprint("m", i)), From: "ann", User: "bob", Kind: "mention"}
		if _, err := client.Do(t.Context(), e.AppendFields([]any{"xadd", absent.KeysOf("p").Stream, "*"})...); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, q *redis.Queue, n int, claim bool, idle time.Duration) (ids []string, items []redis.Item) {
	t.Helper()
	items, err := q.Read(t.Context(), n, claim, idle)
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range items {
		ids = append(ids, it.ID)
	}
	return ids, items
}

// TestQueue: each item has one owner, who keeps it by signs of life or loses it,
// and an end.
func TestQueue(t *testing.T) {
	everywhere(t, func(t *testing.T, url string) {
		client := open(t, url)
		a, b := redis.NewQueue(client), redis.NewQueue(client)
		if ids, _ := read(t, a, 10, true, time.Hour); len(ids) != 0 {
			t.Fatalf("an empty stream had %v", ids)
		}
		put(t, client, 10)
		mine, _ := read(t, a, 6, true, time.Hour)
		rest, _ := read(t, b, 6, true, time.Hour)
		if len(mine) != 6 || len(rest) != 4 {
			t.Fatalf("got %d and %d, want 6 and 4", len(mine), len(rest))
		}
		if kept, err := a.Keep(t.Context(), append(slices.Clone(mine), rest[0], "1-1")); err != nil || !slices.Equal(kept, mine) {
			t.Errorf("kept %v, %v, want %v", kept, err, mine)
		}
		if err := a.Failed(t.Context(), mine[0], 7); err != nil {
			t.Fatal(err)
		}
		if err := a.Done(t.Context(), mine[5]); err != nil {
			t.Fatal(err)
		}
		// b finds that a has let its items lie.
		await(t, "b takes over what a has", func() bool {
			ids, items := read(t, b, 100, true, 50*time.Millisecond)
			if len(ids) == 0 {
				return false
			}
			for i := range ids {
				if ids[i] == mine[0] && items[i].Tries != 7 {
					t.Errorf("got %d tries, want 7", items[i].Tries)
				}
			}
			return slices.Contains(ids, mine[0])
		})
		kept, err := a.Keep(t.Context(), mine)
		if err != nil || slices.Contains(kept, mine[0]) {
			t.Errorf("a keeps %v, %v, which b has taken", kept, err)
		}
		if err := b.Bury(t.Context(), mine[0], "no", 8); err != nil {
			t.Fatal(err)
		}
		if err := a.Bury(t.Context(), mine[0], "no", 8); err != nil { // who did not know: nothing happens
			t.Fatal(err)
		}
		for _, id := range append(mine[1:5:5], rest...) {
			if err := b.Done(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		if s, d, err := a.Waiting(t.Context()); s != 0 || d != 1 || err != nil {
			t.Errorf("%d and %d are left, %v, want 0 and 1", s, d, err)
		}
		letters, err := a.Dead(t.Context(), "", 10)
		if err != nil || len(letters) != 1 || letters[0].Reason != "no" || letters[0].Tries != 8 || letters[0].Entry.User != "bob" {
			t.Fatalf("got %+v, %v", letters, err)
		}
		if more, err := a.Dead(t.Context(), letters[0].ID, 10); err != nil || len(more) != 0 {
			t.Errorf("after the last: got %+v, %v", more, err)
		}
		if n, err := a.Revive(t.Context(), []string{letters[0].ID, letters[0].ID}); n != 1 || err != nil {
			t.Errorf("revived %d, %v, want 1", n, err)
		}
		_, items := read(t, a, 10, false, 0)
		if len(items) != 1 || items[0].Tries != 0 || items[0].Bad != nil || items[0].Entry != letters[0].Entry {
			t.Errorf("got %+v, want it as if it were new", items)
		}
	})
}

// TestConsumersAreForgotten: a worker that ended leaves nothing behind but what it
// had in hand.
func TestConsumersAreForgotten(t *testing.T) {
	redistest.Each(t, redistest.Options{}, consumersAreForgotten)
}

func consumersAreForgotten(t *testing.T, store redistest.Store) {
	client := open(t, store.URL())
	put(t, client, 1)
	holds, done := redis.NewQueue(client), redis.NewQueue(client)
	ids, _ := read(t, holds, 1, false, 0)
	if len(ids) != 1 {
		t.Fatal("nothing was read")
	}
	put(t, client, 1)
	ids, _ = read(t, done, 1, false, 0)
	if err := done.Done(t.Context(), ids[0]); err != nil {
		t.Fatal(err)
	}
	last := redis.NewQueue(client)
	last.ForgetAfter(0)
	await(t, "one of the two is forgotten", func() bool {
		if _, err := last.Keep(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		return store.Do("EVAL", "return #redis.call('XINFO','CONSUMERS',KEYS[1],'webhook')", "1", "p:{absent}:stream") == "1"
	})
	if got := store.Do("EVAL", "return redis.call('XPENDING',KEYS[1],'webhook')[1]", "1", "p:{absent}:stream"); got != "1" {
		t.Errorf("%s are in hand, want 1", got)
	}
}
