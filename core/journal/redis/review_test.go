package redis_test

import (
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/redis/redistest"
)

// held and decided make the requests that hold a message and decide about it.
func held(nonce string) journal.Request {
	r := message("lobby", nonce)
	r.Entry.Outcome, r.Entry.Time = chat.Held, 100
	r.Review = &journal.Review{Entry: r.Entry}
	return r
}

func decided(r journal.Request, outcome chat.Outcome) journal.Request {
	v := *r.Review
	r.Entry.Outcome, v.Entry.Outcome, v.Entry.Text, v.Decided = outcome, outcome, "", 200
	if outcome != chat.Accepted {
		r.Entry.Text = ""
	}
	r.Review = &v
	return r
}

// A message whose nonce was posted beside the open review, as a store could
// have it that an older version has written, is not posted again.
func TestApprovedThoughPosted(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	for _, outcome := range []chat.Outcome{chat.Accepted, chat.Rejected} {
		t.Run(string(outcome), func(t *testing.T) {
			server.Do("FLUSHALL")
			r := held("h1")
			mustAppend(t, j, r)
			server.Do("DEL", "parley:{lobby}:nonce:3:ann:h1")
			posted := mustAppend(t, j, message("lobby", "h1"))
			if posted.Seq != 1 {
				t.Fatalf("got %+v, want it posted, or the key of a nonce has another name", posted)
			}
			rc := mustAppend(t, j, decided(r, outcome))
			if outcome == chat.Accepted && (rc.Seq != 1 || !rc.Repeat || rc.ID != posted.ID) {
				t.Errorf("got %+v, want the receipt of the entry that stands there", rc)
			}
			if outcome == chat.Rejected && (rc.Seq != 0 || rc.Repeat || rc.Outcome != chat.Rejected) {
				t.Errorf("got %+v, want it rejected", rc)
			}
			if _, es := ids(t, j, "lobby"); len(es) != 1 {
				t.Errorf("got %d entries, want 1", len(es))
			}
			open, done, err := j.Reviews(t.Context(), "lobby")
			if err != nil || len(open) != 0 || len(done) != 1 {
				t.Errorf("got %d open, %d decided, %v, want it decided", len(open), len(done), err)
			}
			again, ok, err := j.Lookup(t.Context(), "lobby", "ann", "h1")
			if err != nil || !ok || again.ID != posted.ID || again.Seq != 1 {
				t.Errorf("lookup: got %+v, %v, %v, want the entry that stands there", again, ok, err)
			}
			if n := server.Do("EXISTS", "parley:{lobby}:reviews", "parley:{lobby}:authors", "parley:waiting"); n != "0" {
				t.Errorf("%s keys of the queue are left, want none", n)
			}
		})
	}
}

// What is overdue and damaged, or gone, does not stand before the rest.
func TestOverdueSkipsWhatIsNotThere(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	bad, gone, good := held("bad"), held("gone"), held("good")
	for _, r := range []journal.Request{bad, gone, good} {
		mustAppend(t, j, r)
	}
	server.Do("HSET", "parley:{lobby}:reviews", string(bad.Entry.ID), "no record")
	server.Do("HDEL", "parley:{lobby}:reviews", string(gone.Entry.ID))
	seen := 0
	for range 3 { // one at a time, in any order
		ws, err := j.Overdue(t.Context(), 101, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range ws {
			seen++
			if w.Room != "lobby" || w.Review.Entry.ID != good.Entry.ID {
				t.Errorf("got %+v, want the sound one", w)
			}
		}
	}
	if seen == 0 {
		t.Error("the sound one did not come")
	}
	if n := server.Do("ZCARD", "parley:waiting"); n != "1" {
		t.Errorf("%s are listed as waiting, want 1", n)
	}
}

// The nonce of what waits does not expire, and has its window afterwards.
func TestNonceOfWhatWaitsHasNoExpiry(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	cfg := journalredis.Defaults()
	cfg.NonceWindow = time.Hour
	j := node(t, quick(server.URL()), cfg)
	r := held("h1")
	mustAppend(t, j, r)
	const key = "parley:{lobby}:nonce:3:ann:h1"
	if ttl := server.Do("TTL", key); ttl != "-1" {
		t.Errorf("got TTL %s, want none", ttl)
	}
	mustAppend(t, j, decided(r, chat.Expired))
	if ttl := server.Do("TTL", key); ttl == "-1" || ttl == "-2" {
		t.Errorf("decided: got TTL %s, want the window", ttl)
	}
}
