package redis_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/absent"
	"parley/core/absent/redis"
	"parley/core/chat"
	"parley/core/journal"
	journals "parley/core/journal/redis"
	rds "parley/core/redis"
	"parley/core/redis/redistest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// go-redis looks for a lost server once a second, and ends when it
		// next notices that the client was closed.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

var await = redistest.Await

var quiet = slog.New(slog.DiscardHandler)

// open opens a client that gives up nothing because the machine stands still for
// some seconds.
func open(t *testing.T, url string) *rds.Client {
	t.Helper()
	return openFor(t, url, redistest.Patience)
}

// openFor opens one whose calls end after so long.
func openFor(t *testing.T, url string, call time.Duration) *rds.Client {
	t.Helper()
	c := rds.Defaults()
	c.URL, c.Prefix = url, "p"
	c.DialTimeout, c.CallTimeout, c.ProbeTimeout = redistest.Patience, call, redistest.Patience
	client, err := rds.Open(c, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func journalOn(t *testing.T, client *rds.Client, text bool) *journals.Journal {
	t.Helper()
	c := journals.Defaults()
	c.NotifyText = text
	j, err := journals.New(c, client, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// carrier makes one that sweeps often. It runs until stop or the test's end.
func carrier(t *testing.T, client *rds.Client, most int, called redis.Called) (c *redis.Carrier, stop func()) {
	t.Helper()
	cfg := redis.Defaults()
	cfg.MaxEntries, cfg.SweepEvery = most, 50*time.Millisecond
	c, err := redis.New(cfg, client, nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if called != nil {
		c.OnCalled(called)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var own sync.WaitGroup
	own.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		own.Wait()
	})
	t.Cleanup(stop)
	return c, stop
}

// say appends a message that concerns the users.
func say(t *testing.T, j *journals.Journal, room chat.RoomID, id chat.MessageID, users ...chat.UserID) journal.Receipt {
	t.Helper()
	r := journal.Request{Room: room, Entry: message(id)}
	for _, u := range users {
		r.Notify = append(r.Notify, journal.Notice{User: u, Kind: journal.NoticeMention})
	}
	rc, err := j.Append(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return rc
}

func message(id chat.MessageID) journal.Entry {
	return journal.Entry{ID: id, Kind: journal.KindMessage, From: "ann", Time: 1764000000123, Nonce: string(id), Text: "hello", Outcome: chat.Accepted}
}

// drain takes everything out of the stream, as a worker does.
func drain(t *testing.T, q *redis.Queue) (es []absent.Entry) {
	t.Helper()
	for {
		items, err := q.Read(t.Context(), 100, false, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(items) == 0 {
			return es
		}
		for _, it := range items {
			if it.Bad != nil {
				t.Errorf("%s: %v", it.ID, it.Bad)
			}
			e := it.Entry
			if e.Text, err = q.Text(t.Context(), &e); err != nil {
				t.Fatal(err)
			}
			es = append(es, e)
			if err := q.Done(t.Context(), it.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// everywhere runs the test on one server, and on a cluster.
func everywhere(t *testing.T, f func(t *testing.T, url string)) {
	t.Run("server", func(t *testing.T) { // with the rights of docs/redis.md, and no more
		s := redistest.Start(t, redistest.Options{})
		s.Do(rights(t)...)
		f(t, strings.Replace(s.URL(), "://", "://parley:SECRET@", 1))
	})
	t.Run("cluster", func(t *testing.T) { f(t, redistest.StartCluster(t, 3, 0, redistest.Options{}).URL()) })
}

// rights are the rules that docs/redis.md gives an operator, for the prefix p.
func rights(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("../../../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rules, ok := strings.CutPrefix(strings.TrimSpace(line), "ACL SETUSER parley "); ok {
			return append([]string{"ACL", "SETUSER", "parley"}, strings.Fields(strings.ReplaceAll(rules, "parley:", "p:"))...)
		}
	}
	t.Fatal("docs/redis.md has no line that begins with ACL SETUSER parley")
	return nil
}

// TestFromTheAppendToTheStream: an entry for each person, with the place the
// journal gave the message, of several rooms, each once; and not before a
// carrier runs, nor for a repeat.
func TestFromTheAppendToTheStream(t *testing.T) {
	everywhere(t, func(t *testing.T, url string) {
		client := open(t, url)
		j, q := journalOn(t, client, true), redis.NewQueue(client)
		want := map[absent.Entry]bool{}
		for i := range 40 {
			room, id := chat.RoomID(fmt.Sprint("room", i%7)), chat.MessageID(fmt.Sprint("m", i))
			rc := say(t, j, room, id, "bob", "Zoë")
			if again := say(t, j, room, id, "bob", "Zoë"); !again.Repeat {
				t.Fatal("a repeat was stored")
			}
			for _, u := range []chat.UserID{"bob", "Zoë"} {
				want[absent.Entry{Room: room, Epoch: rc.Epoch, Seq: rc.Seq, ID: id, From: "ann", User: u, Kind: journal.NoticeMention, Time: 1764000000123, Text: "hello", Texted: true}] = true
			}
		}
		if es := drain(t, q); len(es) > 0 {
			t.Fatalf("%d entries without a carrier", len(es))
		}
		c, _ := carrier(t, client, 1000, nil)
		carrier(t, client, 1000, nil) // another node's
		var got []absent.Entry
		await(t, "all arrive", func() bool {
			got = append(got, drain(t, q)...)
			return len(got) >= len(want)
		})
		rc := say(t, j, "room0", "last", "bob")
		c.Wrote("room0")
		await(t, "the last arrives", func() bool {
			got = append(got, drain(t, q)...)
			return len(got) > len(want)
		})
		want[absent.Entry{Room: "room0", Epoch: rc.Epoch, Seq: rc.Seq, ID: "last", From: "ann", User: "bob", Kind: journal.NoticeMention, Time: 1764000000123, Text: "hello", Texted: true}] = true
		for _, e := range got {
			if !want[e] {
				t.Errorf("got %+v, twice or out of nowhere", e)
			}
			delete(want, e)
		}
		if len(want) > 0 {
			t.Errorf("%d are missing", len(want))
		}
	})
}

// TestOnlyWhatIsInTheLogIsTold: a message that waits for a moderator concerns
// nobody until it is approved.
func TestOnlyWhatIsInTheLogIsTold(t *testing.T) {
	redistest.Each(t, redistest.Options{}, onlyWhatIsInTheLogIsTold)
}

func onlyWhatIsInTheLogIsTold(t *testing.T, store redistest.Store) {
	client := open(t, store.URL())
	j, q := journalOn(t, client, false), redis.NewQueue(client)
	review := func(id chat.MessageID, outcome chat.Outcome) {
		t.Helper()
		e := message(id)
		e.Outcome = outcome
		v := journal.Review{Entry: e}
		if outcome != chat.Held {
			v.Entry.Text, v.By, v.Decided = "", "mod", 1764000000999
		}
		if outcome == chat.Rejected {
			e.Text = ""
		}
		if _, err := j.Append(t.Context(), journal.Request{Room: "lobby", Entry: e, Review: &v, Notify: []journal.Notice{{User: "bob", Kind: journal.NoticeMention}}}); err != nil {
			t.Fatalf("%s: %v", outcome, err)
		}
	}
	review("good", chat.Held)
	review("bad", chat.Held)
	review("bad", chat.Rejected)
	review("good", chat.Accepted)
	carrier(t, client, 1000, nil)
	var got []absent.Entry
	await(t, "one arrives", func() bool {
		got = append(got, drain(t, q)...)
		return len(got) > 0
	})
	say(t, j, "lobby", "after", "bob")
	await(t, "the next arrives", func() bool {
		got = append(got, drain(t, q)...)
		return len(got) > 1
	})
	if got[0].ID != "good" || got[0].Text != "" || got[1].ID != "after" {
		t.Errorf("got %+v", got)
	}
}

// TestBoundsTakeTexts: what makes way, and what is delivered, leaves no text.
func TestBoundsTakeTexts(t *testing.T) {
	store := redistest.Start(t, redistest.Options{})
	client := open(t, store.URL())
	j, q := journalOn(t, client, true), redis.NewQueue(client)
	for i := range 30 {
		say(t, j, "lobby", chat.MessageID(fmt.Sprint("m", i)), "bob", "cid")
	}
	c, _ := carrier(t, client, 7, nil)
	await(t, "all are carried", func() bool { return c.Stats().Carried == 60 })
	if texts, uses := store.Do("HLEN", "p:{absent}:texts"), store.Do("HLEN", "p:{absent}:uses"); texts != "4" || uses != "4" {
		t.Errorf("%s texts with %s counts are left, want those of the 4 messages that the stream has", texts, uses)
	}
	if es := drain(t, q); len(es) != 7 || es[0].Text != "hello" || es[6].Text != "hello" {
		t.Errorf("got %+v, want the last 7 with their texts", es)
	}
	if left := store.Do("EXISTS", "p:{absent}:texts", "p:{absent}:uses"); left != "0" {
		t.Error("what was delivered has left a text behind")
	}
}

// TestBounds: a full outbox and a full stream drop the oldest, and count them.
func TestBounds(t *testing.T) { redistest.Each(t, redistest.Options{}, bounds) }

func bounds(t *testing.T, store redistest.Store) {
	client := open(t, store.URL())
	j, q := journalOn(t, client, false), redis.NewQueue(client)
	const most = 1000 // parcels of an outbox
	for i := range most + 5 {
		say(t, j, "lobby", chat.MessageID(fmt.Sprint("m", i)), "bob")
	}
	c, _ := carrier(t, client, 200, nil)
	await(t, "all are carried", func() bool { return c.Stats().Carried == most && c.Stats().OutboxDropped == 5 })
	st := c.Stats()
	es := drain(t, q)
	if int(st.Dropped) != most-len(es) || st.Dropped == 0 || len(es) < 200 {
		t.Errorf("%d are left and %d were dropped, of %d", len(es), st.Dropped, most)
	}
	if last := es[len(es)-1]; last.ID != chat.MessageID(fmt.Sprint("m", most+4)) {
		t.Errorf("the newest was dropped, and not the oldest: the last is %s", last.ID)
	}
	if got := store.Do("HGET", "p:{absent}:counts", "dropped"); got != fmt.Sprint(st.Dropped) {
		t.Errorf("counted %s for all, want %d", got, st.Dropped)
	}
	if got := store.Do("HGET", "p:{absent}:counts", "outbox_dropped"); got != "5" {
		t.Errorf("counted %s for all, want 5", got)
	}
	if got := store.Do("EXISTS", "p:{lobby}:outbox", "p:{lobby}:outlost", "p:{lobby}:outcarry"); got != "0" {
		t.Errorf("%s keys of the outbox are left", got)
	}
}

// TestACarrierThatDiedIsFollowed: what it had in hand is carried by another once
// its time is over, or at once if it was never read.
func TestACarrierThatDiedIsFollowed(t *testing.T) {
	redistest.Each(t, redistest.Options{}, aCarrierThatDiedIsFollowed)
}

func aCarrierThatDiedIsFollowed(t *testing.T, store redistest.Store) {
	client := open(t, store.URL())
	j, q := journalOn(t, client, false), redis.NewQueue(client)
	say(t, j, "lobby", "m1", "bob")
	store.Do("SET", "p:{lobby}:outcarry", "the dead", "PX", "300")
	store.Do("RPUSH", "p:{lobby}:outbox", "nonsense")
	store.Do("ZADD", "p:{absent}:rooms", "1", "No Room", "1", "empty")
	c, _ := carrier(t, client, 1000, nil)
	await(t, "it arrives", func() bool { return len(drain(t, q)) == 1 })
	if st := c.Stats(); st.Bad != 1 || st.Carried != 1 {
		t.Errorf("got %+v", st)
	}
	await(t, "rooms without anything leave the list", func() bool { return store.Do("ZCARD", "p:{absent}:rooms") == "1" })
	// A room that was just listed stays: an append may be under way.
	if got := store.Do("ZRANGE", "p:{absent}:rooms", "0", "-1"); got != "lobby" {
		t.Errorf("listed: %s", got)
	}
}

// TestRedisAway: what cannot be carried waits in its room.
func TestRedisAway(t *testing.T) { redistest.Each(t, redistest.Options{}, redisAway) }

func redisAway(t *testing.T, store redistest.Store) {
	client := openFor(t, store.URL(), 3*time.Second)
	j, q := journalOn(t, client, false), redis.NewQueue(client)
	c, _ := carrier(t, client, 1000, nil)
	say(t, j, "lobby", "m1", "bob")
	await(t, "it arrives", func() bool { return len(drain(t, q)) == 1 })
	store.Pause()
	c.Wrote("lobby")
	await(t, "the carrier notices", func() bool { return c.Stats().Failed > 0 })
	store.Resume()
	await(t, "redis is tried again", func() bool { _, err := client.Do(t.Context(), "exists", "p:{lobby}"); return err == nil })
	say(t, j, "lobby", "m2", "bob")
	// Perhaps behind the first, which arrives once more if Redis stood still before
	// the carrier could take it out of the outbox.
	await(t, "the second arrives", func() bool {
		return slices.ContainsFunc(drain(t, q), func(e absent.Entry) bool { return e.ID == "m2" })
	})
}

// TestCalls: other nodes hear of a direct, the caller does not.
func TestCalls(t *testing.T) {
	everywhere(t, func(t *testing.T, url string) {
		client := open(t, url)
		heard := make(chan string, 100)
		a, _ := carrier(t, client, 100, func(u, _ chat.UserID, _ chat.RoomID, _ bool) { heard <- "a heard of " + string(u) })
		b, _ := carrier(t, client, 100, func(u, from chat.UserID, room chat.RoomID, made bool) {
			heard <- fmt.Sprint("b ", u, " ", from, " ", room, " ", made)
		})
		var got []string
		await(t, "a call is heard", func() bool { // from when the channel is subscribed
			a.Call("bob", "ann", "dm:x", true)
			select {
			case s := <-heard:
				got = append(got, s)
			default:
			}
			return len(got) > 0
		})
		if want := "b bob ann dm:x true"; !slices.Contains(got, want) || len(got) != 1 {
			t.Errorf("got %q, want %q", got, want)
		}
		for i := range 3 { // strangers' bytes on the channel
			payload := []string{"x", `{"user":"b b"}`, string(make([]byte, 2000))}[i]
			if err := client.Publish(t.Context(), "p:{absent}:called", payload); err != nil {
				t.Fatal(err)
			}
		}
		await(t, "what cannot be read is counted", func() bool { return b.Stats().Bad == 3 })
	})
}

func TestConfig(t *testing.T) {
	if _, err := redis.New(redis.Config{}, nil, nil, quiet); err == nil {
		t.Error("no bounds: got no error")
	}
}
