package redis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/redis/redistest"
)

// TestErasedTextLeavesRedis looks for the text in every key, as RDB files and
// replicas have it: a stream keeps what was deleted from it.
func TestErasedTextLeavesRedis(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	const secret = "the-secret-0451"
	var seqs []uint64
	var epoch string
	for i := range 2500 { // several steps of a rewrite
		r := message("lobby", fmt.Sprint("n", i))
		if i%500 == 3 {
			r.Entry.Text = secret
		}
		rc := mustAppend(t, j, r)
		if i%500 == 3 {
			seqs = append(seqs, rc.Seq)
		}
		epoch = rc.Epoch
	}
	if keys := holding(server, secret); len(keys) == 0 {
		t.Fatal("no key ever held the text: this test shows nothing")
	}
	n, err := j.Erase(within(t), "lobby", journal.Erasure{Epoch: epoch, Seqs: seqs})
	if err != nil || n != len(seqs) {
		t.Fatalf("erase: got %d, %v, want %d", n, err, len(seqs))
	}
	if keys := holding(server, secret); len(keys) > 0 {
		t.Errorf("the text is still in %q", keys)
	}
	for _, key := range strings.Fields(server.Do("KEYS", "*:copy*")) {
		t.Errorf("the rewrite left %s behind", key)
	}
	_, all := ids(t, j, "lobby")
	if len(all) != 2500 {
		t.Errorf("got %d entries, want 2500", len(all))
	}
}

// TestErasedTextLeavesLostEpochs: what survived of an epoch can be erased from
// the next.
func TestErasedTextLeavesLostEpochs(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	const secret = "the-secret-0451"
	r := message("lobby", "a")
	r.Entry.Text = secret
	mustAppend(t, j, r)
	r = message("lobby", "b")
	r.Entry.Text = secret
	r.Known = journal.Position{Epoch: "lost", Seq: 7, ID: "x"}
	rc := mustAppend(t, j, r)
	if n := len(holding(server, secret)); n != 1 {
		t.Fatalf("got the text in %d keys, want the log alone", n)
	}
	if _, err := j.Erase(within(t), "lobby", journal.Erasure{Epoch: rc.Epoch, Seqs: []uint64{1, 2}}); err != nil {
		t.Fatal(err)
	}
	if keys := holding(server, secret); len(keys) > 0 {
		t.Errorf("the text is still in %q", keys)
	}
}

// TestErasuresShareACopy: many people erase in one room at once, on two nodes,
// and the log is not copied for each of them.
func TestErasuresShareACopy(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	nodes := []*journalredis.Journal{node(t, quick(server.URL()), journalredis.Defaults()), node(t, quick(server.URL()), journalredis.Defaults())}
	const entries, people = 20_000, 40 // of each node
	epoch := fillRoom(t, nodes[0], entries)
	server.Do("CONFIG", "RESETSTAT")
	var changed atomic.Int64
	var wg sync.WaitGroup
	for n, j := range nodes {
		for i := range people {
			wg.Go(func() {
				seqs := []uint64{uint64(1 + i + n*people), entries - uint64(i)} // the second one of both nodes
				k, err := j.Erase(within(t), "lobby", journal.Erasure{Epoch: epoch, Seqs: seqs})
				if err != nil {
					t.Error(err)
				}
				changed.Add(int64(k))
				for _, seq := range seqs {
					if _, es, err := j.Read(within(t), "lobby", seq-1, 1); err != nil || len(es) != 1 || es[0].Outcome != chat.Erased || es[0].Text != "" {
						t.Errorf("entry %d: got %+v, %v, want it erased when the call returns", seq, es, err)
					}
				}
			})
		}
	}
	wg.Go(func() { // appends go on
		for i := range 200 {
			if _, err := nodes[i%2].Append(within(t), message("lobby", fmt.Sprint("more", i))); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if got := changed.Load(); got != 3*people {
		t.Errorf("the calls say that %d entries were changed, want %d", got, 3*people)
	}
	_, rest, _ := strings.Cut(server.Do("INFO", "commandstats"), "cmdstat_rename:calls=")
	calls, _, _ := strings.Cut(rest, ",")
	if n, err := strconv.Atoi(calls); err != nil || n == 0 || n/2 > people/2 { // two for a copy
		t.Errorf("got %s renames, %v, want far fewer copies than %d", calls, err, 2*people)
	}
	_, all := ids(t, nodes[1], "lobby")
	if len(all) != entries+200 {
		t.Errorf("got %d entries, want %d", len(all), entries+200)
	}
	if keys := server.Do("KEYS", "*:log:*"); keys != "" {
		t.Errorf("%s are left", keys)
	}
}

// fillRoom puts a lobby of n entries in.
func fillRoom(t testing.TB, j journal.Journal, n int) (epoch string) {
	t.Helper()
	in, err := j.Import(t.Context(), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	es := make([]journal.Entry, n)
	for i := range es {
		es[i] = message("lobby", strconv.Itoa(i)).Entry
		es[i].ID = chat.MessageID(fmt.Sprintf("01890a5d-ac96-774b-bcce-%012x", i))
		es[i].Seq, es[i].Text = uint64(i+1), strings.Repeat("x", 120)
	}
	if err := in.Put(t.Context(), es); err != nil {
		t.Fatal(err)
	}
	at, err := in.Commit(t.Context(), journal.Image{Top: journal.Position{Seq: uint64(n), ID: es[n-1].ID}})
	if err != nil {
		t.Fatal(err)
	}
	return at.Epoch
}

// TestEraseAfterACrash: what a node has listed and begun when it ends is finished
// by the next erasure in the room, whoever does it; its half copy goes by itself.
func TestEraseAfterACrash(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	epoch := fillRoom(t, j, 3000)
	prefix := quick("").Prefix + ":{lobby}:log"
	server.Do("ZADD", prefix+":wanted:"+epoch, "7", "7", "2999", "2999")
	server.Do("ZADD", prefix+":wanted:another", "8", "8")
	server.Do("XADD", prefix+":copy", "0-1", "e", "half a copy")
	server.Do("SET", prefix+":copying", "somebody who died", "PX", "300")
	_, before := ids(t, j, "lobby")
	if n, err := j.Erase(within(t), "lobby", journal.Erasure{Epoch: epoch, Seqs: []uint64{1500}}); err != nil || n != 1 {
		t.Fatalf("erase: got %d, %v, want 1", n, err)
	}
	if _, after := ids(t, j, "lobby"); !slices.Equal(before, after) {
		t.Error("the log has other entries than before")
	}
	for seq, want := range map[uint64]bool{1: false, 7: true, 8: false, 1500: true, 2999: true, 3000: false} {
		if _, es, err := j.Read(within(t), "lobby", seq-1, 1); err != nil || len(es) != 1 || (es[0].Outcome == chat.Erased) != want {
			t.Errorf("entry %d: got %+v, %v, want erased %v", seq, es, err, want)
		}
	}
	if keys := server.Do("KEYS", "*:log:*"); keys != prefix+":wanted:another" {
		t.Errorf("%s are left, want what was listed of another epoch, which is not followed", keys)
	}
}

// TestEraseGivesUp: where the log is replaced while it is copied nothing comes of
// the copy, and where the caller goes another one copies.
func TestEraseGivesUp(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	epoch := fillRoom(t, j, 20_000)
	prefix := quick("").Prefix + ":{lobby}:log"
	seq := uint64(0)
	// copying erases an entry and returns when the copy has begun. The copy may be
	// over before what is then done to it: it is tried with another entry.
	copying := func(ctx context.Context) chan error {
		seq++
		ended := make(chan error, 1)
		go func(seq uint64) {
			_, err := j.Erase(ctx, "lobby", journal.Erasure{Epoch: epoch, Seqs: []uint64{seq}})
			ended <- err
		}(seq)
		redistest.Await(t, "the copy begins, or is over", func() bool { return server.Do("EXISTS", prefix+":copy") == "1" || len(ended) > 0 })
		return ended
	}
	var err error
	for err == nil {
		ctx, cancel := context.WithCancel(within(t))
		gone := copying(ctx)
		cancel()
		err = <-gone
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's end", err)
	}
	if keys := server.Do("KEYS", "*:copy*"); keys != "" {
		t.Errorf("%s are left", keys)
	}
	for err = nil; err == nil; {
		replaced := copying(within(t))
		fillRoom(t, j, 5)
		if err = <-replaced; err == nil {
			epoch = fillRoom(t, j, 20_000)
		}
	}
	if !errors.Is(err, journal.ErrOtherEpoch) {
		t.Errorf("got %v, want ErrOtherEpoch", err)
	}
	_, all := ids(t, j, "lobby")
	if _, es, err := j.Read(within(t), "lobby", 0, 10); err != nil || len(all) != 5 || len(es) != 5 || es[0].Text == "" || es[1].Text == "" {
		t.Errorf("got %+v, %v, want the new log as it is", es, err)
	}
	if keys := server.Do("KEYS", "*:copy*"); keys != "" {
		t.Errorf("%s are left", keys)
	}
}

// TestEraseOverAFailover: a server that takes another's place in the middle of a
// copy may have missed the last slices of it, and who wants what. The first must
// not become a hole in the log, and the second not an erasure that was none.
func TestEraseOverAFailover(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	const entries = 20_000
	epoch := fillRoom(t, j, entries)
	log := quick("").Prefix + ":{lobby}:log"
	// What a replica has that hears no more, and what it comes to.
	const (
		behind = `if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
			redis.call('COPY', KEYS[1], KEYS[3])
			return redis.call('COPY', KEYS[2], KEYS[4])`
		takeOver = `if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[3], KEYS[4]) return -1 end
			if redis.call('XLEN', KEYS[1]) <= redis.call('XLEN', KEYS[3]) then return 0 end
			redis.call('RENAME', KEYS[3], KEYS[1])
			redis.call('RENAME', KEYS[4], KEYS[2])
			return 1`
		unheard = `if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
			return redis.call('DEL', KEYS[1], KEYS[2], KEYS[5])`
	)
	eval := func(script string) string {
		return server.Do("EVAL", script, "5", log+":copy", log+":copying", log+":behind", log+":behind:copying", log+":wanted:"+epoch)
	}
	seq := uint64(0)
	erase := func() chan error {
		seq++
		done := make(chan error, 1)
		go func() {
			_, err := j.Erase(within(t), "lobby", journal.Erasure{Epoch: epoch, Seqs: []uint64{seq, entries}})
			done <- err
		}()
		return done
	}
	check := func(done chan error) {
		t.Helper()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, all := ids(t, j, "lobby"); len(all) != entries {
			t.Errorf("%d entries are left of %d", len(all), entries)
		}
		if _, es, err := j.Read(within(t), "lobby", seq-1, 1); err != nil || len(es) != 1 || es[0].Outcome != chat.Erased {
			t.Errorf("entry %d: got %+v, %v, want it erased when the call returns", seq, es, err)
		}
	}
	for took := "-1"; took == "-1"; { // the copy may be done before anything can take over
		done := erase()
		redistest.Await(t, "the copy begins", func() bool { return eval(behind) == "1" })
		redistest.Await(t, "the copy goes on", func() bool { took = eval(takeOver); return took != "0" })
		check(done)
	}
	done := erase()
	redistest.Await(t, "the copy begins", func() bool { return eval(unheard) != "0" })
	check(done)
}

// holding lists the keys whose dump holds the text.
func holding(server *redistest.Server, text string) (keys []string) {
	for _, key := range strings.Fields(server.Do("KEYS", "*")) {
		if strings.Contains(server.Do("DUMP", key), text) {
			keys = append(keys, key)
		}
	}
	return keys
}

func TestForgotten(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	a := node(t, quick(server.URL()), journalredis.Defaults())
	b := node(t, quick(server.URL()), journalredis.Defaults())
	if err := a.Forget(within(t), nil, ""); err != nil {
		t.Fatal(err)
	}
	if err := a.Forget(within(t), []chat.MessageID{"m1", "m 2"}, "ann"); err != nil {
		t.Fatal(err)
	}
	got, err := b.Forgotten(within(t), 0, 0, 10)
	if err != nil || len(got) != 3 {
		t.Fatalf("got %+v, %v, want three", got, err)
	}
	at := got[0].At
	want := []journal.Forgotten{{ID: "m 2", At: at}, {ID: "m1", At: at}, {User: "ann", At: at}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, err := b.Forgotten(within(t), at, 2, 10); err != nil || len(got) != 1 {
		t.Errorf("behind two: got %+v, %v", got, err)
	}
	if got, err := b.Forgotten(within(t), at+1, 0, 10); err != nil || len(got) != 0 {
		t.Errorf("later ones: got %+v, %v", got, err)
	}
}
