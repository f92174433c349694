package redis_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/redis"
	"parley/core/redis/redistest"
)

func TestTwoNodesOneOrder(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	nodes := []*journalredis.Journal{
		node(t, quick(server.URL()), journalredis.Defaults()), node(t, quick(server.URL()), journalredis.Defaults()),
	}
	followers := []*follower{follow(t, nodes[0], "lobby"), follow(t, nodes[1], "lobby"), follow(t, nodes[1], "lobby")}
	const writers, each = 8, 50
	ctx := within(t)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			var known journal.Position
			for i := range each {
				r := message("lobby", fmt.Sprintf("%d-%d", w, i))
				r.Known = known
				rc, err := nodes[w%2].Append(ctx, r)
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				known = journal.Position{Epoch: rc.Epoch, Seq: rc.Seq, ID: rc.ID}
			}
		})
	}
	wg.Wait()
	epoch, want := ids(t, nodes[0], "lobby")
	if len(want) != writers*each {
		t.Fatalf("got %d entries, want %d", len(want), writers*each)
	}
	for _, f := range followers {
		f.await(t, epoch, want)
	}
}

func TestLostSubscriptionsLoseNothing(t *testing.T) {
	tests := []struct {
		name  string
		fault func(*redistest.Server, *redistest.Proxy)
	}{
		{"closed by the server", func(s *redistest.Server, _ *redistest.Proxy) { s.Do("CLIENT", "KILL", "TYPE", "pubsub") }},
		{"silent", func(_ *redistest.Server, p *redistest.Proxy) { p.Silence() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := redistest.Start(t, redistest.Options{})
			proxy := redistest.StartProxy(t, server.Addr())
			a := node(t, quick(server.URL()), journalredis.Defaults())
			b := node(t, impatient(proxy.URL()), journalredis.Defaults())
			near, far := follow(t, a, "lobby"), follow(t, b, "lobby")
			far.awaitDoubt(t, 0) // subscribed
			for round := range 3 {
				before := far.doubted()
				for i := range 100 {
					if i == 50 {
						tt.fault(server, proxy)
					}
					mustAppend(t, a, message("lobby", fmt.Sprintf("%d-%d", round, i)))
				}
				far.awaitDoubt(t, before)
			}
			epoch, want := ids(t, a, "lobby")
			near.await(t, epoch, want)
			far.await(t, epoch, want)
			if links := b.Subscription().Links; links < 4 {
				t.Errorf("got %d links, want one more after each of 3 faults", links)
			}
		})
	}
}

func TestServerRestartedWithItsData(t *testing.T) {
	server := redistest.Start(t, redistest.Options{AppendOnly: true})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	f := follow(t, j, "lobby")
	var last journal.Receipt
	for i := range 50 {
		r := message("lobby", fmt.Sprint(i))
		r.Entry.Changes = []journal.Change{{Key: "settings", Value: []byte(fmt.Sprint(i))}}
		last = mustAppend(t, j, r)
	}
	server.Kill()
	server.Restart()
	again := insist(t, j, message("lobby", "49"))
	if !again.Repeat || again.Seq != last.Seq || again.Epoch != last.Epoch {
		t.Errorf("resend after the restart: got %+v, want a repeat of %+v", again, last)
	}
	r := message("lobby", "after")
	r.Known = journal.Position{Epoch: last.Epoch, Seq: last.Seq, ID: last.ID}
	if rc := insist(t, j, r); rc.Epoch != last.Epoch || rc.Seq != 51 {
		t.Errorf("after the restart: got seq %d of %q, want 51 of %q", rc.Seq, rc.Epoch, last.Epoch)
	}
	info, err := j.Info(within(t), "lobby")
	if err != nil || string(info.State["settings"]) != "49" {
		t.Errorf("state after the restart: got %q, %v, want 49", info.State, err)
	}
	epoch, want := ids(t, j, "lobby")
	f.await(t, epoch, want)
}

func TestServerRestartedEmpty(t *testing.T) {
	server := redistest.Start(t, redistest.Options{AppendOnly: true})
	nodes := []*journalredis.Journal{
		node(t, quick(server.URL()), journalredis.Defaults()), node(t, quick(server.URL()), journalredis.Defaults()),
	}
	f := follow(t, nodes[1], "lobby")
	f.awaitDoubt(t, 0)
	var known [2]journal.Position
	for i := range 10 {
		rc := mustAppend(t, nodes[0], message("lobby", fmt.Sprint(i)))
		known[i%2] = journal.Position{Epoch: rc.Epoch, Seq: rc.Seq, ID: rc.ID}
	}
	before := f.doubted()
	server.Wipe()
	server.Restart()
	f.awaitDoubt(t, before)
	var epoch string
	for i, j := range nodes {
		r := message("lobby", fmt.Sprintf("new %d", i))
		r.Known = known[i]
		rc := insist(t, j, r)
		if rc.Seq != uint64(i+1) || rc.Epoch == known[i].Epoch || i > 0 && rc.Epoch != epoch {
			t.Errorf("node %d: got seq %d of %q, want %d of one new epoch", i, rc.Seq, rc.Epoch, i+1)
		}
		epoch = rc.Epoch
	}
	_, want := ids(t, nodes[0], "lobby")
	f.await(t, epoch, want)
}

// TestKnownEntryReplaced is a failover to a replica that had missed entries
// and was written to since: its top is high enough, but not the same log.
func TestKnownEntryReplaced(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	for _, seq := range []uint64{3, 2} { // the top, and one below
		t.Run(fmt.Sprint(seq), func(t *testing.T) {
			room := chat.RoomID(fmt.Sprintf("lobby%d", seq))
			var old journal.Receipt
			for i := range 3 {
				old = mustAppend(t, j, message(room, fmt.Sprint(i)))
			}
			r := message(room, "other")
			r.Known = journal.Position{Epoch: old.Epoch, Seq: seq, ID: "an entry that was lost"}
			rc := mustAppend(t, j, r)
			if rc.Epoch == old.Epoch || rc.Seq != 4 {
				t.Fatalf("got seq %d of %q, want 4 of an epoch other than %q", rc.Seq, rc.Epoch, old.Epoch)
			}
			if epoch, all := ids(t, j, room); epoch != rc.Epoch || len(all) != 4 {
				t.Errorf("got %q of %q, want the three that survived and the new one, of %q", all, epoch, rc.Epoch)
			}
		})
	}
}

func TestPausedServer(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	cfg := quick(server.URL())
	cfg.CallTimeout = 500 * time.Millisecond
	j := node(t, cfg, journalredis.Defaults())
	f := follow(t, j, "lobby")
	insist(t, j, message("lobby", "before"))
	server.Pause()
	ctx := within(t)
	if _, err := j.Append(ctx, message("lobby", "n1")); !errors.Is(err, journal.ErrUnavailable) {
		t.Errorf("append: got %v, want ErrUnavailable", err)
	}
	if err := j.Healthy(ctx); !errors.Is(err, journal.ErrUnavailable) {
		t.Errorf("healthy: got %v, want ErrUnavailable", err)
	}
	if ctx.Err() != nil {
		t.Error("the calls ended with the test's patience, not by their own deadline")
	}
	server.Resume()
	if rc := insist(t, j, message("lobby", "n1")); rc.Seq != 2 {
		t.Errorf("resend: got seq %d, want 2", rc.Seq)
	}
	epoch, want := ids(t, j, "lobby")
	if len(want) != 2 {
		t.Errorf("got the entries %q, want n1 once", want)
	}
	f.await(t, epoch, want)
	until(t, "it is healthy again", func() bool { return j.Healthy(t.Context()) == nil })
}

// TestLostAnswer swallows the answer to an append that went through. A client
// that tried again by itself would succeed here and store the entry twice; the
// journal must say that it does not know, and the nonce must settle it.
func TestLostAnswer(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	proxy := redistest.StartProxy(t, server.Addr())
	cfg := impatient(proxy.URL())
	cfg.CallTimeout = 500 * time.Millisecond
	j := node(t, cfg, journalredis.Defaults())
	f := follow(t, j, "lobby")
	first := insist(t, j, message("lobby", "before"))
	stored := func(n string) { // what goes through the proxy may be late
		t.Helper()
		until(t, n+" entries are stored", func() bool { return server.Do("XLEN", "parley:{lobby}:log") == n })
	}
	proxy.Silence()
	without := message("lobby", "") // nothing settles this one: it must not be tried twice
	if _, err := j.Append(within(t), without); !errors.Is(err, journal.ErrUnavailable) {
		t.Fatalf("append without a nonce: got %v, want ErrUnavailable", err)
	}
	stored("2")
	insist(t, j, message("lobby", "warm")) // until it has found every silent connection
	proxy.Silence()
	if _, err := j.Append(within(t), message("lobby", "n1")); !errors.Is(err, journal.ErrUnavailable) {
		t.Fatalf("append: got %v, want ErrUnavailable", err)
	}
	stored("4")
	rc := insist(t, j, message("lobby", "n1"))
	if !rc.Repeat || rc.Seq != 4 || rc.Epoch != first.Epoch || rc.ID != "id-of-n1" {
		t.Errorf("resend: got %+v, want a repeat of seq 4", rc)
	}
	epoch, want := ids(t, j, "lobby")
	if fmt.Sprint(want) != "[id-of-before id-of- id-of-warm id-of-n1]" {
		t.Errorf("got the entries %q, want each once", want)
	}
	f.await(t, epoch, want)
}

func TestFullServer(t *testing.T) {
	server := redistest.Start(t, redistest.Options{MaxMemory: "64mb"})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	first := mustAppend(t, j, message("lobby", "0"))
	server.Do("CONFIG", "SET", "maxmemory", "1") // far below what it uses

	next, foreign, create := message("lobby", "next"), message("lobby", "foreign"), message("attic", "create")
	foreign.Known = journal.Position{Epoch: "another", Seq: 9}
	create.Create = true
	for _, r := range []journal.Request{next, foreign, create} {
		if _, err := j.Append(within(t), r); !errors.Is(err, journal.ErrOverloaded) || errors.Is(err, journal.ErrUnavailable) {
			t.Errorf("append %s: got %v, want ErrOverloaded alone", r.Entry.Nonce, err)
		}
	}
	if err := j.Healthy(within(t)); !errors.Is(err, journal.ErrOverloaded) {
		t.Errorf("healthy: got %v, want ErrOverloaded", err)
	}
	if _, ok, err := j.Lookup(within(t), "lobby", "ann", "next"); ok || err != nil {
		t.Errorf("nonce of what was refused: got ok %v, %v, want neither", ok, err)
	}
	if epoch, all := ids(t, j, "lobby"); len(all) != 1 || epoch != first.Epoch {
		t.Errorf("got %d entries of %q, want 1 of %q", len(all), epoch, first.Epoch)
	}
	if rooms, err := j.Rooms(within(t), "", 10); err != nil || len(rooms) != 1 {
		t.Errorf("rooms: got %q, %v, want the lobby alone", rooms, err)
	}
	server.Do("CONFIG", "SET", "maxmemory", "64mb")
	if rc := mustAppend(t, j, next); rc.Repeat || rc.Seq != 2 || rc.Epoch != first.Epoch {
		t.Errorf("with more memory: got %+v, want seq 2 of %q", rc, first.Epoch)
	}
}

func TestBadThingsInRedis(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	f := follow(t, j, "lobby")
	f.awaitDoubt(t, 0)
	before := f.doubted()
	server.Do("PUBLISH", "parley:{lobby}:new", "not an entry")
	f.awaitDoubt(t, before)
	server.Do("PUBLISH", "parley:{lobby}:new", "epoch 1 not an entry")
	f.awaitDoubt(t, before+1)

	server.Do("XADD", "parley:{attic}:log", "0-7", "e", "not an entry")
	_, es, err := j.Read(within(t), "attic", 0, 10)
	if !errors.Is(err, journal.ErrDamaged) || !strings.Contains(fmt.Sprint(err), "record 7 ") || len(es) != 0 {
		t.Errorf("read a damaged entry: got %d entries, %v, want ErrDamaged that names record 7", len(es), err)
	}
	if info, err := j.Info(within(t), "attic"); err != nil || info.First != 7 {
		t.Errorf("info: got %+v, %v, want first 7", info, err)
	}
	server.Do("XADD", "parley:{attic}:log", "0-9", "e", "not an entry either")
	if _, _, err := j.ReadBefore(within(t), "attic", 9, 10); err == nil || !strings.Contains(err.Error(), "record 7 ") {
		t.Errorf("read before 9: got %v, want it to name record 7", err)
	}
	// A stream without its meta key is what is left of a lost epoch, damaged or
	// not, and the new one goes on behind it.
	server.Do("XADD", "parley:{attic}:log", "0-10", "e", "")
	if rc := mustAppend(t, j, message("attic", "n")); rc.Seq != 11 {
		t.Errorf("append: got seq %d, want 11 of a new epoch", rc.Seq)
	}
	server.Do("SET", "parley:{tower}:state", "a string")
	if _, err := j.Info(within(t), "tower"); !errors.Is(err, journal.ErrUnavailable) {
		t.Errorf("info of a room whose state is a string: got %v, want ErrUnavailable", err)
	}
}

func TestAgeIsSwept(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	cfg := journalredis.Defaults()
	cfg.MaxAge, cfg.SweepEvery = time.Hour, 5*time.Millisecond
	j := node(t, quick(server.URL()), cfg)
	const old = 300 // more than one read of heads
	now := time.Now()
	add := func(room chat.RoomID, n int, at time.Time) {
		for i := range n {
			r := message(room, fmt.Sprintf("%d-%d", i, at.Unix()))
			r.Entry.Time = at.UnixMilli()
			mustAppend(t, j, r)
		}
	}
	add("lobby", old, now.Add(-2*time.Hour))
	add("lobby", 5, now)
	add("attic", 3, now.Add(-2*time.Hour))
	add("new", 3, now)
	// A damaged head does not stop the sweep.
	server.Do("XADD", "parley:{cellar}:log", "0-1", "e", "not an entry")
	server.Do("HSET", "parley:{cellar}:meta", "epoch", "e", "top", "1")
	server.Do("ZADD", "parley:rooms", "0", "cellar")
	add("cellar", 2, now.Add(-2*time.Hour))
	ctx := within(t)
	for room, want := range map[chat.RoomID]uint64{"lobby": old + 1, "attic": 4, "cellar": 4, "new": 1} {
		for {
			info, err := j.Info(ctx, room)
			if err != nil {
				t.Fatalf("info of %s: %v", room, err)
			}
			if info.First == want {
				break
			}
		}
	}
	// An emptied log goes on where it was.
	if rc := mustAppend(t, j, message("attic", "next")); rc.Seq != 4 {
		t.Errorf("append after the sweep: got seq %d, want 4", rc.Seq)
	}
	if info, err := j.Info(within(t), "new"); err != nil || info.First != 1 || info.Top.Seq != 3 {
		t.Errorf("a young room: got %+v, %v, want 1 to 3", info, err)
	}
}

func TestNonceWindowEnds(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	cfg := journalredis.Defaults()
	cfg.NonceWindow = time.Millisecond
	j := node(t, quick(server.URL()), cfg)
	mustAppend(t, j, message("lobby", "n"))
	ctx := within(t)
	for {
		_, ok, err := j.Lookup(ctx, "lobby", "ann", "n")
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
	}
	if rc := mustAppend(t, j, message("lobby", "n")); rc.Repeat || rc.Seq != 2 {
		t.Errorf("after the window: got %+v, want seq 2", rc)
	}
}

func TestRefusals(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	const bad = "a}b"
	ctx := within(t)
	errs := map[string]error{}
	_, errs["append"] = j.Append(ctx, message(bad, "n"))
	_, _, errs["lookup"] = j.Lookup(ctx, bad, "ann", "n")
	_, _, errs["read"] = j.Read(ctx, bad, 0, 1)
	_, errs["info"] = j.Info(ctx, bad)
	_, errs["watch"] = j.Watch(ctx, bad, &follower{})
	for what, err := range errs {
		if err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s in a room with a bad name: got %v, want an error that names it", what, err)
		}
	}
	odd := message("lobby", "n")
	odd.Known = journal.Position{Epoch: "two words", Seq: 1}
	if rc := mustAppend(t, j, odd); rc.Seq != 1 {
		t.Errorf("an odd epoch: got seq %d, want 1", rc.Seq)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := j.Watch(ended, "lobby", &follower{}); !errors.Is(err, context.Canceled) {
		t.Errorf("watch with an ended context: got %v, want context.Canceled", err)
	}
}

func TestNewChecksSettings(t *testing.T) {
	c, err := redis.Open(quick("redis://localhost"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for want, edit := range map[string]func(*journalredis.Config){
		"max_entries":  func(c *journalredis.Config) { c.MaxEntries = -1 },
		"max_age":      func(c *journalredis.Config) { c.MaxAge = -1 },
		"nonce_window": func(c *journalredis.Config) { c.NonceWindow = 0 },
		"sweep_every":  func(c *journalredis.Config) { c.MaxAge, c.SweepEvery = 1, 0 },
	} {
		cfg := journalredis.Defaults()
		edit(&cfg)
		if _, err := journalredis.New(cfg, c, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that names %s", err, want)
		}
	}
}

// TestDatabasesShareAServer pins that pub/sub, which knows no databases, does
// not carry one installation's entries to another.
func TestDatabasesShareAServer(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	a := node(t, quick(server.URL()), journalredis.Defaults())
	b := node(t, quick(server.URL()+"/3"), journalredis.Defaults())
	f := follow(t, b, "lobby")
	f.awaitDoubt(t, 0)
	other := mustAppend(t, a, message("lobby", "a"))
	own := mustAppend(t, b, message("lobby", "b"))
	f.await(t, own.Epoch, []chat.MessageID{"id-of-b"})
	f.mu.Lock()
	defer f.mu.Unlock()
	if id, ok := f.got[other.Epoch+" 1"]; ok || own.Seq != 1 {
		t.Errorf("database 3 heard %q of database 0 and appended seq %d, want nothing and 1", id, own.Seq)
	}
}
