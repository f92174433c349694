package redis_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/core/absent"
	"parley/core/absent/redis"
	"parley/core/chat"
	"parley/core/journal"
	journals "parley/core/journal/redis"
	"parley/core/redis/redistest"
)

const secret = "my-number-is-0451"

// confide appends a message of from that holds the secret.
func confide(t *testing.T, j *journals.Journal, room chat.RoomID, id chat.MessageID, from chat.UserID) {
	t.Helper()
	e := message(id)
	e.From, e.Text = from, secret
	notify := []journal.Notice{{User: "bob", Kind: journal.NoticeMention}, {User: "cid", Kind: journal.NoticeMention}}
	if _, err := j.Append(t.Context(), journal.Request{Room: room, Entry: e, Notify: notify}); err != nil {
		t.Fatal(err)
	}
}

// holding lists the keys, but for the rooms' logs, whose dump holds the secret.
func holding(store *redistest.Server) (keys []string) {
	for _, key := range strings.Fields(store.Do("KEYS", "*")) {
		if !strings.HasSuffix(key, ":log") && strings.Contains(store.Do("DUMP", key), secret) {
			keys = append(keys, key)
		}
	}
	return keys
}

// placed are messages in all the places where news waits: "dead" among the dead
// letters, "told" in the stream, "box" in an outbox that nobody empties.
func placed(t *testing.T) (store *redistest.Server, j *journals.Journal, q *redis.Queue, c *redis.Carrier) {
	store = redistest.Start(t, redistest.Options{})
	client := open(t, store.URL())
	j, q = journalOn(t, client, true), redis.NewQueue(client)
	confide(t, j, "lobby", "dead", "ann")
	c, stop := carrier(t, client, 1000, nil)
	await(t, "the first arrives", func() bool { return c.Stats().Carried == 2 })
	items, err := q.Read(t.Context(), 2, false, 0)
	if err != nil || len(items) != 2 {
		t.Fatalf("got %d items, %v", len(items), err)
	}
	if err := q.Done(t.Context(), items[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := q.Bury(t.Context(), items[1].ID, "no", 3); err != nil {
		t.Fatal(err)
	}
	confide(t, j, "lobby", "told", "ann")
	c.Wrote("lobby")
	await(t, "the second arrives", func() bool {
		return c.Stats().Carried == 4 && store.Do("EXISTS", "p:{lobby}:outbox", "p:{lobby}:outcarry") == "0"
	})
	stop()
	confide(t, j, "lobby", "box", "ann")
	if keys := holding(store); len(keys) != 2 {
		t.Fatalf("the text is in %q, want the texts and the outbox", keys)
	}
	return store, j, q, c
}

func TestErase(t *testing.T) {
	store, j, q, c := placed(t)
	if err := c.Erase(t.Context(), "lobby", []chat.MessageID{"dead", "never"}); err != nil {
		t.Fatal(err)
	}
	letters, err := q.Dead(t.Context(), "", 10)
	if err != nil || len(letters) != 1 || letters[0].Entry.Text != "" || !letters[0].Entry.Texted {
		t.Errorf("got %+v, %v, want the letter without its text", letters, err)
	}
	if keys := holding(store); len(keys) != 2 {
		t.Errorf("the other texts are in %q alone", keys)
	}
	if err := c.Erase(t.Context(), "lobby", []chat.MessageID{"told", "box"}); err != nil {
		t.Fatal(err)
	}
	if keys := holding(store); len(keys) > 0 {
		t.Errorf("the text is still in %q", keys)
	}
	confide(t, j, "lobby", "later", "ann")
	carrier(t, open(t, store.URL()), 1000, nil)
	var got []absent.Entry
	await(t, "all arrive", func() bool {
		got = append(got, drain(t, q)...)
		return len(got) == 6
	})
	for _, e := range got {
		if want := map[bool]string{true: secret}[e.ID == "later"]; e.Text != want {
			t.Errorf("%s for %s is delivered with %q, want %q", e.ID, e.User, e.Text, want)
		}
	}
	if n, err := q.Revive(t.Context(), []string{letters[0].ID}); n != 1 || err != nil {
		t.Fatalf("revived %d, %v", n, err)
	}
	if es := drain(t, q); len(es) != 1 || es[0].ID != "dead" || es[0].Text != "" {
		t.Errorf("got %+v, want the letter without its text", es)
	}
}

// TestEraseAnOutboxThatMoves: parcels leave an outbox at its beginning while it is
// gone through, and none is passed over for that.
func TestEraseAnOutboxThatMoves(t *testing.T) {
	store := redistest.Start(t, redistest.Options{})
	client := open(t, store.URL())
	j := journalOn(t, client, true)
	c, err := redis.New(redis.Defaults(), client, nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		confide(t, j, "lobby", chat.MessageID(fmt.Sprint("m", i)), "ann")
	}
	taken := false
	err = c.Strip(t.Context(), "lobby", func(chat.MessageID, chat.UserID) bool {
		if !taken {
			taken = true
			store.Do("LPOP", "p:{lobby}:outbox", "32")
		}
		return true
	})
	if err != nil || store.Do("LLEN", "p:{lobby}:outbox") != "68" {
		t.Fatalf("%v; %s parcels are left, want 68", err, store.Do("LLEN", "p:{lobby}:outbox"))
	}
	if keys := holding(store); len(keys) > 0 {
		t.Errorf("the text is still in %q", keys)
	}
}

// TestEraseWhatIsCarried: a carrier that has a message in hand while it is erased
// does not bring the text back.
func TestEraseWhatIsCarried(t *testing.T) {
	for name, erase := range map[string]func(*redis.Carrier) error{
		"one":           func(c *redis.Carrier) error { return c.Erase(t.Context(), "lobby", []chat.MessageID{"box"}) },
		"all of a user": func(c *redis.Carrier) error { return c.EraseOf(t.Context(), "ann") },
	} {
		t.Run(name, func(t *testing.T) {
			store, _, q, c := placed(t)
			parcel := store.Do("LRANGE", "p:{lobby}:outbox", "0", "-1")
			if err := erase(c); err != nil {
				t.Fatal(err)
			}
			if after := store.Do("LRANGE", "p:{lobby}:outbox", "0", "-1"); after == parcel || strings.Contains(after, secret) {
				t.Fatalf("the outbox holds %q", after)
			}
			store.Do("RPUSH", "p:{lobby}:outbox", parcel) // as it was when the carrier took it
			carrier(t, open(t, store.URL()), 1000, nil)
			var got []absent.Entry
			await(t, "it arrives, with and without", func() bool {
				got = append(got, drain(t, q)...)
				return len(got) == 6
			})
			for _, e := range got[2:] {
				if e.ID != "box" || e.Text != "" {
					t.Errorf("got %+v, want no text", e)
				}
			}
		})
	}
}

func TestEraseOf(t *testing.T) {
	store, j, q, c := placed(t)
	confide(t, j, "kitchen", "other", "dan")
	confide(t, j, "kitchen", "hers", "ann")
	if err := c.EraseOf(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	if keys := holding(store); !slices.Equal(keys, []string{"p:{kitchen}:outbox"}) || strings.Count(store.Do("LRANGE", keys[0], "0", "-1"), secret) != 1 {
		t.Errorf("the text is in %q, want that of dan alone", keys)
	}
	late := message("late")
	late.Text, late.Time = "what she writes now", time.Now().Add(time.Hour).UnixMilli() // beyond any difference of clocks
	if _, err := j.Append(t.Context(), journal.Request{Room: "attic", Entry: late, Notify: []journal.Notice{{User: "bob", Kind: journal.NoticeMention}}}); err != nil {
		t.Fatal(err)
	}
	carrier(t, open(t, store.URL()), 1000, nil)
	texts := map[chat.MessageID]string{}
	await(t, "all arrive", func() bool {
		for _, e := range drain(t, q) {
			texts[e.ID] = e.Text
		}
		return len(texts) == 5
	})
	for id, want := range map[chat.MessageID]string{"told": "", "box": "", "hers": "", "other": secret, "late": late.Text} {
		if texts[id] != want {
			t.Errorf("%s: got %q, want %q", id, texts[id], want)
		}
	}
}

// TestEraseEverywhere: on one server and in a cluster, where no script may touch
// two slots.
func TestEraseEverywhere(t *testing.T) {
	everywhere(t, func(t *testing.T, url string) {
		client := open(t, url)
		j, q := journalOn(t, client, true), redis.NewQueue(client)
		for _, id := range []chat.MessageID{"a", "b"} {
			confide(t, j, "lobby", id, "ann")
		}
		c, err := redis.New(redis.Defaults(), client, nil, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Erase(t.Context(), "lobby", []chat.MessageID{"a"}); err != nil {
			t.Fatal(err)
		}
		if err := c.EraseOf(t.Context(), "ann"); err != nil {
			t.Fatal(err)
		}
		carrier(t, client, 1000, nil)
		var got []absent.Entry
		await(t, "all arrive", func() bool {
			got = append(got, drain(t, q)...)
			return len(got) == 4
		})
		for _, e := range got {
			if e.Text != "" {
				t.Errorf("got %+v, want no text", e)
			}
		}
	})
}
