package redis_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/cluster"
	"parley/core/presence"
	"parley/core/presence/redis"
	rds "parley/core/redis"
	"parley/core/redis/redistest"
)

func TestOneRoomOnTwoNodes(t *testing.T) { redistest.Each(t, redistest.Options{}, oneRoomOnTwoNodes) }

func oneRoomOnTwoNodes(t *testing.T, s redistest.Store) {
	a, b := start(t, s.URL(), "a", nil), start(t, s.URL(), "b", nil)
	aware(t, a, b)
	a.enters("ann", "lobby")
	a.hears("lobby join ann 1")
	a.sees("lobby", "ann")
	b.sees("lobby", "ann") // nobody is there on b
	b.enters("bob", "lobby")
	b.hears("lobby join bob 2")
	a.hears("lobby join bob 2")
	b.enters("ann", "lobby")
	b.enters("ann", "lobby")
	a.sees("lobby", "ann", "bob")
	await(t, "b's register names ann", func() bool {
		return strings.Contains(s.Do("HGET", "parley:{lobby}:here", string(b.nodes.Self())), " ann bob")
	})
	a.Leave("lobby", "ann") // one of three connections
	b.Leave("lobby", "ann")
	b.sees("lobby", "ann", "bob")
	await(t, "a's register is gone", func() bool { return slices.Equal(fields(s, "parley:{lobby}:here"), []string{string(b.nodes.Self())}) })
	b.Leave("lobby", "ann")
	b.hears("lobby leave ann 1")
	a.sees("lobby", "bob")
	a.hearsNoMore() // nobody is left there to be told
	b.hearsNoMore()
}

// Who comes to a node that has not followed the room is told the true count,
// once.
func TestFirstOnANode(t *testing.T) { redistest.Each(t, redistest.Options{}, firstOnANode) }

func firstOnANode(t *testing.T, s redistest.Store) {
	a, b := start(t, s.URL(), "a", nil), start(t, s.URL(), "b", nil)
	aware(t, a, b)
	for i := range 20 {
		a.enters(chat.UserID(fmt.Sprint("u", i)), "lobby")
	}
	await(t, "a's register counts 20", func() bool { return strings.Contains(s.Do("HVALS", "parley:{lobby}:here"), " 20 ") })
	b.enters("bob", "lobby")
	b.hears("lobby join bob 1", "lobby count  21")
	if n, users := b.Members(t.Context(), "lobby"); n != 21 || len(users) != 21 {
		t.Errorf("got %d members and %d names, want 21", n, len(users))
	}
	b.hearsNoMore()
}

func TestThreeNodesOneDies(t *testing.T) { redistest.Each(t, redistest.Options{}, threeNodesOneDies) }

func threeNodesOneDies(t *testing.T, s redistest.Store) {
	p := s.Front(t)
	a, b := start(t, s.URL(), "a", nil), start(t, s.URL(), "b", nil)
	dies := start(t, p.URL(), "dies", nil)
	aware(t, a, b, dies)
	a.enters("ann", "lobby", "tea")
	a.sees("tea", "ann")
	b.sees("lobby", "ann")
	b.enters("bob", "lobby")
	a.hears("lobby join ann 1", "tea join ann 1", "lobby join bob 2")
	b.sees("lobby", "ann", "bob")
	dies.enters("eve", "lobby", "tea")
	a.hears("lobby join eve 3", "tea join eve 2")
	dies.sees("lobby", "ann", "bob", "eve")
	dies.sees("tea", "ann", "eve")
	dies.enters("bob", "lobby", "tea")
	a.hears("tea join bob 3")
	b.sees("lobby", "ann", "bob", "eve")
	b.told("lobby", 3)
	b.forgets()
	dies.told("lobby", 3)
	dies.told("tea", 3)
	dies.forgets()

	p.Halt() // to the others it is as if killed
	a.hears("lobby leave eve 2", "tea leave bob 2", "tea leave eve 1")
	b.hears("lobby leave eve 2")
	a.sees("tea", "ann")
	for _, key := range []string{"parley:{lobby}:here", "parley:{tea}:here"} {
		await(t, "its register is removed", func() bool { return !slices.Contains(fields(s, key), string(dies.nodes.Self())) })
	}
	if n, _ := dies.Members(t.Context(), "lobby"); n != 3 {
		t.Errorf("the node that redis left sees %d members, want its last view of 3", n)
	}
	dies.hearsNoMore()
	a.hearsNoMore()
	b.hearsNoMore()
}

// A node that ends in order is gone at once, and leaves nothing behind.
func TestStop(t *testing.T) { redistest.Each(t, redistest.Options{}, stop) }

func stop(t *testing.T, s redistest.Store) {
	// Who waits for the end of such a lease waits for too long.
	long := func(c *setup) { c.lease = 2 * patience }
	a, b := start(t, s.URL(), "a", long), start(t, s.URL(), "b", long)
	aware(t, a, b)
	a.enters("ann", "lobby")
	a.sees("lobby", "ann")
	b.enters("bob", "lobby", "tea")
	b.Online("bob")
	a.hears("lobby join ann 1", "lobby join bob 2")
	await(t, "bob's entry", func() bool { return len(fields(s, "parley:{u:bob}:at")) == 1 })
	b.stop()
	a.hears("lobby leave bob 1")
	if got := s.Do("KEYS", "parley:{tea}*"); got != "" {
		t.Errorf("it left %q", got)
	}
	if got := s.Do("KEYS", "parley:{u:*"); got != "" {
		t.Errorf("it left %q", got)
	}
	a.hearsNoMore()
}

// While Redis is away nobody leaves. It comes back empty: everything is written
// again, and nothing is announced.
func TestRedisBackEmpty(t *testing.T) { redistest.Each(t, redistest.Options{}, redisBackEmpty) }

func redisBackEmpty(t *testing.T, s redistest.Store) {
	// As by default the grace is longer than what it takes to write everything
	// again: connecting, a pause after a failed write, a renewal.
	const grace = 4 * time.Second
	tune := func(c *setup) { c.Grace = grace }
	a, b := start(t, s.URL(), "a", tune), start(t, s.URL(), "b", tune)
	aware(t, a, b)
	rooms := []chat.RoomID{"lobby", "tea", "news"}
	for _, n := range []*node{a, b} {
		for i := range 30 {
			n.enters(chat.UserID(fmt.Sprint(n.nodes.Self()[:1], i)), rooms...)
			n.Online(chat.UserID(fmt.Sprint(n.nodes.Self()[:1], i)))
		}
	}
	settled := func() bool {
		for _, n := range []*node{a, b} {
			for _, id := range rooms {
				if n.Count(id) != 60 {
					return false
				}
			}
		}
		return true
	}
	await(t, "60 members everywhere", settled)
	for _, n := range []*node{a, b} {
		for _, id := range rooms {
			n.told(string(id), 60)
		}
	}
	s.Kill()
	await(t, "both nodes notice", func() bool {
		return a.log.count("redis subscription lost") > 0 && b.log.count("redis subscription lost") > 0
	})
	for _, n := range []*node{a, b} {
		n.forgets()
	}
	began := time.Now()
	s.Restart()
	for _, id := range rooms {
		await(t, "both registers are there again", func() bool { return len(fields(s, "parley:{"+string(id)+"}:here")) == 2 })
	}
	await(t, "both indexes are there again", func() bool {
		return len(fields(s, "parley:{u:a7}:at")) == 1 && len(fields(s, "parley:{u:b29}:at")) == 1
	})
	await(t, "every room is read again, after the grace for what was missing", func() bool { return time.Since(began) > grace+2*time.Second })
	if !settled() {
		t.Error("somebody is missing")
	}
	a.hearsNoMore()
	b.hearsNoMore()
}

// FLUSHALL cuts no link: the nodes notice by their leases.
func TestRedisFlushed(t *testing.T) { redistest.Each(t, redistest.Options{}, redisFlushed) }

func redisFlushed(t *testing.T, s redistest.Store) {
	a := start(t, s.URL(), "a", nil)
	a.enters("ann", "lobby")
	a.Online("ann")
	await(t, "the register", func() bool { return len(fields(s, "parley:{lobby}:here")) == 1 })
	s.Do("FLUSHALL")
	await(t, "the register again", func() bool { return len(fields(s, "parley:{lobby}:here")) == 1 })
	await(t, "the entry again", func() bool { return len(fields(s, "parley:{u:ann}:at")) == 1 })
}

// What changed while a node did not hear is announced as a difference, also
// that somebody has left and their node has nothing more to say of the room.
func TestMissedWhileDeaf(t *testing.T) { redistest.Each(t, redistest.Options{}, missedWhileDeaf) }

func missedWhileDeaf(t *testing.T, s redistest.Store) {
	p := s.Front(t)
	a, b := start(t, p.URL(), "a", impatient), start(t, s.URL(), "b", nil)
	aware(t, a, b)
	a.enters("ann", "lobby", "tea")
	for i := range 20 {
		b.enters(chat.UserID(fmt.Sprint("u", i)), "lobby")
	}
	b.enters("bob", "tea")
	await(t, "all are seen", func() bool { return a.Count("lobby") == 21 && a.Count("tea") == 2 })
	a.told("lobby", 21)
	a.told("tea", 2)
	a.forgets()
	p.Silence()
	b.Leave("lobby", "u3")
	b.enters("zoe", "lobby")
	b.Leave("tea", "bob")
	a.hears("lobby leave u3 20", "lobby join zoe 21", "tea leave bob 1")
	a.hearsNoMore()
}

// The field of a node that died when nobody looked counts for nobody, and is
// removed; so is one with a lease but without a place in the view not.
func TestStrangersAreSweptOut(t *testing.T) {
	redistest.Each(t, redistest.Options{}, strangersAreSweptOut)
}

func strangersAreSweptOut(t *testing.T, s redistest.Store) {
	const dead = "x-00000000"
	s.Do("HSET", "parley:{lobby}:here", dead, "1 5 2 eve zoe")
	a := start(t, s.URL(), "a", nil)
	await(t, "a's lease", func() bool { return len(a.nodes.Nodes()) == 1 && a.nodes.Stats().Renewed > 0 })
	a.enters("ann", "lobby")
	await(t, "the dead node's field goes", func() bool { return slices.Equal(fields(s, "parley:{lobby}:here"), []string{string(a.nodes.Self())}) })
	a.sees("lobby", "ann")
	s.Do("PUBLISH", "parley:{lobby}:here", "here "+dead+" 1 6 1 eve")
	s.Do("PUBLISH", "parley:{lobby}:here", "type "+dead+" eve")
	b := start(t, s.URL(), "b", nil)
	aware(t, a, b)
	b.enters("bob", "lobby")
	a.hears("lobby join ann 1", "lobby join bob 2")
	a.hearsNoMore()
}

func TestBadRegisters(t *testing.T) { redistest.Each(t, redistest.Options{}, badRegisters) }

func badRegisters(t *testing.T, s redistest.Store) {
	a, b := start(t, s.URL(), "a", nil), start(t, s.URL(), "b", nil)
	aware(t, a, b)
	a.enters("ann", "lobby")
	a.sees("lobby", "ann")
	b.enters("bob", "lobby")
	a.hears("lobby join ann 1", "lobby join bob 2")
	self := string(b.nodes.Self())
	for _, payload := range []string{
		"", "here", "here " + self, "here " + self + " nonsense", "here " + self + " 1 zz 1 two names", "type " + self + " two names",
		"here " + self + " 1 zzzzz 1 " + strings.Repeat("x", 1<<20),
	} {
		s.Do("PUBLISH", "parley:{lobby}:here", payload)
	}
	s.Do("PUBLISH", "parley:{lobby}:here", "news "+self+" of a later version")
	await(t, "each was counted", func() bool { return a.Stats().Bad >= 7 })
	s.Do("HSET", "parley:{lobby}:here", self, "nonsense")
	s.Do("CLIENT", "KILL", "TYPE", "pubsub")
	before := a.Stats().Read
	await(t, "the room is read again", func() bool { return a.Stats().Read > before })
	a.sees("lobby", "ann", "bob")
	a.hearsNoMore()
	if n := a.log.count("presence of another node cannot be read"); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
}

// What somebody else has put into a room's hash is not loaded: neither large
// values nor more fields than there can be nodes.
func TestForeignFields(t *testing.T) { redistest.Each(t, redistest.Options{}, foreignFields) }

func foreignFields(t *testing.T, s redistest.Store) {
	a, b := start(t, s.URL(), "a", nil), start(t, s.URL(), "b", nil)
	aware(t, a, b)
	b.enters("bob", "lobby", "tea")
	await(t, "b's registers", func() bool {
		return strings.Contains(s.Do("HVALS", "parley:{lobby}:here"), " bob") && strings.Contains(s.Do("HVALS", "parley:{tea}:here"), " bob")
	})
	for i := range 4 {
		s.Do("EVAL", "return redis.call('HSET', KEYS[1], ARGV[1], string.rep('x', 20000000))", "1", "parley:{lobby}:here", fmt.Sprint("large-0000000", i))
	}
	s.Do("EVAL", "for i = 1, 5000 do redis.call('HSET', KEYS[1], 'many-' .. i, string.rep('x', 20000)) end", "1", "parley:{tea}:here")
	s.Do("EVAL", "for i = 1, 5000 do redis.call('HSET', KEYS[1], 'many-' .. i, string.rep('x', 20000)) end", "1", "parley:{u:eve}:at")
	a.enters("ann", "lobby", "tea")
	a.sees("lobby", "ann", "bob")
	await(t, "a hash of many fields is counted", func() bool { return a.Stats().Bad > 0 })
	if got := a.at("eve", "ann"); got != "" {
		t.Errorf("connected: got %q, want nobody by fields of no node", got)
	}
	if n := a.log.count("redis.max_reply_bytes"); n > 0 {
		t.Errorf("a reply was larger than its bound, %d times", n)
	}
}

// A key that is no hash costs its room alone.
func TestForeignKey(t *testing.T) { redistest.Each(t, redistest.Options{}, foreignKey) }

func foreignKey(t *testing.T, s redistest.Store) {
	s.Do("SET", "parley:{tea}:here", "something else")
	a, b := start(t, s.URL(), "a", nil), start(t, s.URL(), "b", nil)
	aware(t, a, b)
	a.enters("ann", "tea", "lobby")
	await(t, "one member, at once", func() bool { // and not when the wait for what others say is over, a second later
		began := time.Now()
		n, _ := a.Members(t.Context(), "tea")
		return n == 1 && time.Since(began) < time.Second
	})
	a.sees("lobby", "ann")
	b.enters("bob", "tea", "lobby")
	a.hears("tea join ann 1", "lobby join ann 1", "lobby join bob 2")
	await(t, "it was counted", func() bool { return a.Stats().Bad > 0 && b.Stats().Bad > 0 })
}

// A node that is asked before it knows who is alive counts nobody's register,
// and everybody's who lives once it does.
func TestBeforeTheFirstView(t *testing.T) { redistest.Each(t, redistest.Options{}, beforeTheFirstView) }

func beforeTheFirstView(t *testing.T, s redistest.Store) {
	p := s.Front(t)
	b := start(t, s.URL(), "b", nil)
	b.enters("bob", "lobby")
	await(t, "b's register", func() bool { return len(fields(s, "parley:{lobby}:here")) == 1 })
	s.Do("HSET", "parley:{lobby}:here", "dead-00000000", "1 1 1 eve")
	s.Pause()
	a := start(t, p.URL(), "a", nil)
	a.enters("ann", "lobby")
	if n, _ := a.Members(t.Context(), "lobby"); n != 1 {
		t.Errorf("got %d members without redis, want one", n)
	}
	if got, err := a.Connected(t.Context(), []chat.UserID{"bob"}); err == nil {
		t.Errorf("before it knows who is alive: got %v, want an error", got)
	}
	s.Resume()
	a.sees("lobby", "ann", "bob")
	a.hears("lobby join ann 1", "lobby count  2")
	a.hearsNoMore()
}

func TestTypingAcrossNodes(t *testing.T) { redistest.Each(t, redistest.Options{}, typingAcrossNodes) }

func typingAcrossNodes(t *testing.T, s redistest.Store) {
	a, b := start(t, s.URL(), "a", nil), start(t, s.URL(), "b", nil)
	aware(t, a, b)
	a.enters("ann", "lobby")
	a.sees("lobby", "ann")
	b.enters("bob", "lobby")
	a.hears("lobby join ann 1", "lobby join bob 2")
	b.sees("lobby", "ann", "bob")
	b.Tracker.Typing("lobby", "bob")
	b.Tracker.Typing("lobby", "bob")
	a.hears("lobby typing bob")
	b.enters("zoe", "lobby") // behind what else there was
	a.hears("lobby join zoe 3")
	a.hearsNoMore()
}

// Ten thousand who join one room are few registers, and soon without names.
func TestStormOfJoins(t *testing.T) { redistest.Each(t, redistest.Options{}, stormOfJoins) }

func stormOfJoins(t *testing.T, s redistest.Store) {
	a, b := start(t, s.URL(), "a", nil), start(t, s.URL(), "b", nil)
	aware(t, a, b)
	b.enters("bob", "lobby")
	b.hears("lobby join bob 1")
	began := time.Now()
	for i := range 10_000 {
		a.enters(chat.UserID(fmt.Sprint("u", i)), "lobby")
	}
	await(t, "all are counted", func() bool { return b.Count("lobby") == 10_001 })
	took := time.Since(began)
	if got, most := a.Stats().Written, uint64(took/(10*time.Millisecond))+2; got > most {
		t.Errorf("wrote %d registers in %v, want at most %d", got, took, most)
	}
	if got := s.Do("HGET", "parley:{lobby}:here", string(a.nodes.Self())); len(got) > 40 || !strings.HasSuffix(got, " 10000") {
		t.Errorf("got the register %.100q, want a count without names", got)
	}
	if n, users := b.Members(t.Context(), "lobby"); n != 10_001 || users != nil {
		t.Errorf("got %d and %d names", n, len(users))
	}
	// By name as long as they were few, from then on a count a second.
	b.awaitLast("lobby count  10001", func() int { return presence.NameLimit + 2 + int(time.Since(began)/time.Second) })
}

// A room is forgotten some time after the last one here has left, and heard of
// again with the next.
func TestIdleRoomsAreForgotten(t *testing.T) {
	redistest.Each(t, redistest.Options{}, idleRoomsAreForgotten)
}

func idleRoomsAreForgotten(t *testing.T, s redistest.Store) {
	tune := func(c *setup) { c.Idle, c.Sweep = 50*time.Millisecond, 10*time.Millisecond }
	a, b := start(t, s.URL(), "a", tune), start(t, s.URL(), "b", nil)
	aware(t, a, b)
	b.enters("bob", "lobby")
	a.enters("ann", "lobby", "tea")
	a.sees("lobby", "ann", "bob")
	if n := a.Stats().Rooms; n != 2 {
		t.Errorf("follows %d rooms, want 2", n)
	}
	a.Leave("lobby", "ann")
	a.Leave("tea", "ann")
	await(t, "both are forgotten", func() bool { return a.Stats().Rooms == 0 && a.Stats().Link.Channels == 0 })
	b.enters("eve", "lobby") // unheard
	a.enters("ann", "lobby")
	a.sees("lobby", "ann", "bob", "eve")
	await(t, "both hear of the lobby", func() bool { return s.Do("PUBSUB", "NUMSUB", "parley:{lobby}:here") == "parley:{lobby}:here\n2" })
}

// What is in use is written again before its key ends, and what is not ends with it.
func TestKeysEnd(t *testing.T) { redistest.Each(t, redistest.Options{}, keysEnd) }

func keysEnd(t *testing.T, s redistest.Store) {
	const life = time.Hour // no machine stands still for so long
	a := start(t, s.URL(), "a", func(c *setup) { c.Life, c.Refresh, c.Sweep = life, 100*time.Millisecond, 20*time.Millisecond })
	a.enters("ann", "lobby")
	a.Online("ann")
	for _, key := range []string{"parley:{lobby}:here", "parley:{u:ann}:at"} {
		left := func() (ms int64) {
			if _, err := fmt.Sscan(s.Do("PTTL", key), &ms); err != nil {
				t.Fatal(err)
			}
			return ms
		}
		await(t, key+" is written", func() bool { return len(fields(s, key)) == 1 })
		last := left()
		for range 3 {
			await(t, key+" is written again", func() bool { // then its end moves away
				was := last
				last = left()
				return last > was
			})
		}
		if last <= 0 || last > life.Milliseconds() {
			t.Errorf("%s ends in %d ms, want within %v", key, last, life)
		}
	}
	a.Leave("lobby", "ann")
	a.Offline("ann")
	await(t, "both are removed", func() bool { return s.Do("KEYS", "parley:{lobby}*") == "" && s.Do("KEYS", "parley:{u:*") == "" })
}

// A Redis Cluster serves presence as one server does.
func TestOnARedisCluster(t *testing.T) {
	s := redistest.StartCluster(t, 3, 0, redistest.Options{})
	a, b := start(t, s.URL(), "a", nil), start(t, s.URL(), "b", nil)
	aware(t, a, b)
	rooms := []chat.RoomID{"lobby", "tea", "news", "kitchen", "garden"} // on several servers
	a.enters("ann", rooms...)
	a.Online("ann")
	for _, id := range rooms {
		a.sees(id, "ann")
	}
	a.forgets()
	b.enters("bob", rooms...)
	for _, id := range rooms {
		b.sees(id, "ann", "bob")
	}
	a.hears("lobby join bob 2", "tea join bob 2", "news join bob 2", "kitchen join bob 2", "garden join bob 2")
	b.Tracker.Typing("garden", "bob")
	a.hears("garden typing bob")
	await(t, "ann's entry", func() bool { return b.at("ann", "bob") == "ann " })
	b.stop()
	a.hears("lobby leave bob 1", "tea leave bob 1", "news leave bob 1", "kitchen leave bob 1", "garden leave bob 1")
	a.hearsNoMore()
}

func TestConfig(t *testing.T) {
	rc := rds.Defaults()
	rc.URL = "redis://127.0.0.1:1"
	c, err := rds.Open(rc, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := cluster.New(cluster.Defaults(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*redis.Config){
		"pace": func(c *redis.Config) { c.Pace = 0 }, "refresh": func(c *redis.Config) { c.Refresh = -1 },
		"life": func(c *redis.Config) { c.Life = c.Refresh }, "grace": func(c *redis.Config) { c.Grace = 0 },
		"idle": func(c *redis.Config) { c.Idle = 0 }, "sweep": func(c *redis.Config) { c.Sweep = 0 },
	} {
		cfg := redis.Defaults()
		change(&cfg)
		if _, err := redis.New(cfg, c, r, presence.New(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "presence "+name) {
			t.Errorf("%s: got %v, want an error that names it", name, err)
		}
	}
}
