package share_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/redis/redistest"
	"parley/plugins"
	"parley/sdk/abi"
)

func TestAFolderGoesToAllNodes(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	a, b, c := newNode(t, server, "a").up(), newNode(t, server, "b").up(), newNode(t, server, "c").up()

	begun := time.Now()
	a.drop("p", says(abi.Deny, "v1"), `{"version":"1"}`)
	all(t, "p", "1", a, b, c)
	t.Logf("from drop to judging on three nodes: %v", time.Since(begun).Round(time.Millisecond))

	begun = time.Now()
	b.drop("p", says(abi.Deny, "v2"), `{"version":"2"}`)
	all(t, "p", "2", a, b, c)
	t.Logf("a new version: %v", time.Since(begun).Round(time.Millisecond))

	// What a node refuses stays there.
	c.drop("bad", []byte("no module"), "")
	await(t, "it is refused", func() bool { return c.status("bad").Error != "" })
	await(t, "c says so", func() bool { return len(c.share.Info().Problems) == 1 })
	if why := c.share.NotReady(); len(why) > 0 {
		t.Errorf("c is not ready: %v", why)
	}

	// A node that was down takes what changed, and what was changed in its folder
	// goes to the others.
	c.down()
	a.drop("q", says(abi.Deny, "q1"), `{"version":"1"}`)
	b.remove("p")
	all(t, "q", "1", a, b)
	all(t, "p", "", a, b)
	c.drop("r", says(abi.Deny, "r1"), `{"version":"1"}`)
	c.up()
	all(t, "q", "1", a, b, c)
	all(t, "r", "1", a, b, c)
	all(t, "p", "", a, b, c)
	if c.has("p.wasm") || c.has("p.json") || a.has("bad.wasm") {
		t.Error("what was removed is still there, or what was refused is")
	}
	for plugin, want := range map[string]bool{"p": true, "q": false, "r": true} { // of b, its own, of c
		if n := a.log.count(`from another node" plugin=` + plugin); n > 0 != want {
			t.Errorf("a took over %s %d times, want it to: %t", plugin, n, want)
		}
	}

	// Both changed while it was down: the others' counts, its own is kept aside.
	c.down()
	a.drop("q", says(abi.Deny, "q2"), `{"version":"2"}`)
	all(t, "q", "2", a, b)
	c.drop("q", says(abi.Deny, "mine"), `{"version":"mine"}`)
	c.up()
	all(t, "q", "2", a, b, c)
	aside, err := filepath.Glob(filepath.Join(c.state, "aside", "q.*.wasm"))
	if err != nil || len(aside) != 1 {
		t.Fatalf("got %v, %v, want q kept aside", aside, err)
	}
	if kept, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(kept, says(abi.Deny, "mine")) {
		t.Errorf("what was kept aside is not what was in the folder: %v", err)
	}
}

func TestTwoNodesWithOneFolder(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	a, b, c := newNode(t, server, "a"), newNode(t, server, "b"), newNode(t, server, "c")
	b.dir = a.dir
	a.up()
	b.up()
	c.up()
	for i := range 5 {
		v := fmt.Sprint(i)
		a.drop("p", says(abi.Deny, v), `{"version":"`+v+`"}`)
		all(t, "p", v, a, b, c)
		c.drop("p", says(abi.Deny, v+"c"), `{"version":"`+v+`c"}`)
		all(t, "p", v+"c", a, b, c)
	}
	b.remove("p")
	all(t, "p", "", a, b, c)
	for _, n := range []*node{a, b, c} {
		if n.log.count("kept_aside") > 0 {
			t.Errorf("%s has kept something aside", n.name)
		}
	}
}

// A folder that was lost, or another in its place, was not emptied by a person.
func TestALostFolderIsFilledAgain(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	a, b := newNode(t, server, "a").up(), newNode(t, server, "b").up()
	a.drop("p", says(abi.Deny, "v1"), `{"version":"1"}`)
	a.drop("q", says(abi.Deny, "v1"), `{"version":"1"}`)
	all(t, "p", "1", a, b)
	all(t, "q", "1", a, b)
	b.down()
	b.dir = t.TempDir()
	b.up()
	all(t, "p", "1", a, b)
	all(t, "q", "1", a, b)
	// And one whose memory was lost takes the others' word for what it has.
	b.down()
	a.drop("p", says(abi.Deny, "v2"), `{"version":"2"}`)
	a.remove("q")
	all(t, "p", "2", a)
	all(t, "q", "", a)
	await(t, "the removal is known", func() bool { return a.log.count("plugin removed on all nodes") == 1 })
	b.must(os.Remove(filepath.Join(b.dir, ".parley-share")))
	b.up()
	all(t, "p", "2", a, b)
	all(t, "q", "", a, b)
}

func TestRedisComesBackEmpty(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	a, b := newNode(t, server, "a").up(), newNode(t, server, "b").up()
	a.drop("p", says(abi.Deny, "v1"), `{"version":"1"}`)
	all(t, "p", "1", a, b)
	a.drop("p", says(abi.Deny, "v2"), `{"version":"2"`+shadow)
	all(t, "p", "1 2:shadow", a, b)
	for percent := range 3 { // so that the count of decisions is not the first
		a.must(b.order("p", plugins.Order{Action: plugins.ActionSet, Stage: plugins.StageCanary, Percent: 10 + percent}))
	}
	all(t, "p", "1 2:canary12", a, b)
	server.Do("FLUSHALL")
	c := newNode(t, server, "c").up()
	all(t, "p", "1 2:canary12", a, b, c)
	a.must(c.order("p", plugins.Order{Action: plugins.ActionSet, Percent: 20}))
	all(t, "p", "1 2:canary20", a, b, c)

	// Nobody remembers but by its own state.
	for _, n := range []*node{a, b, c} {
		n.down()
	}
	server.Do("FLUSHALL")
	a.up()
	d := newNode(t, server, "d").up()
	all(t, "p", "1 2:canary20", a, d)
	a.must(d.order("p", plugins.Order{Action: plugins.ActionSet, Percent: 30}))
	b.up()
	all(t, "p", "1 2:canary30", a, b, d)
}

const shadow = `,"rollout":{"stage":"shadow","guards":{"min_decisions":10,"deny_rate":0.5,"disagreement":0}}}`

func TestRolloutsStandAlike(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	a, b, c := newNode(t, server, "a").up(), newNode(t, server, "b").up(), newNode(t, server, "c").up()
	a.drop("p", says(abi.Allow, ""), `{"version":"1"}`)
	all(t, "p", "1", a, b, c)
	a.drop("p", says(abi.Deny, "v2"), `{"version":"2"`+shadow)
	all(t, "p", "1 2:shadow", a, b, c)

	begun := time.Now()
	a.must(b.order("p", plugins.Order{Action: plugins.ActionSet, Stage: plugins.StageCanary, Percent: 20}))
	all(t, "p", "1 2:canary20", b, a, c)
	t.Logf("an order holds on three nodes after %v", time.Since(begun).Round(time.Millisecond))

	// A node that was down, and one that is new: both judge as the others do.
	c.down()
	a.must(a.order("p", plugins.Order{Action: plugins.ActionSet, Percent: 30}))
	all(t, "p", "1 2:canary30", a, b)
	c.up()
	d := newNode(t, server, "d").up()
	all(t, "p", "1 2:canary30", a, b, c, d)

	// A guard of one node takes it back on all, once, and says where.
	denied := 0
	for i := 0; a.status("p").Candidate != nil && i < 1000; i++ {
		in := abi.Input{TimeMS: 1, Text: []byte("x"), Normalized: []byte("x"), User: fmt.Sprint("user", i), Room: "lobby", Kind: "message"}
		denied += judge(a.catalog, &in)
	}
	all(t, "p", "1", a, b, c, d)
	for _, n := range []*node{a, b, c, d} {
		r := n.status("p").LastRollback
		if r == nil || r.By != "guard" || r.Node != string(a.nodes.Self()) || r.Version != "2" || r.Stage != plugins.StageCanary {
			t.Errorf("%s: got %+v, want a rollback by the guard of a", n.name, r)
		}
		await(t, "the log says so", func() bool { return n.log.count("plugin rolled back") > 0 })
		if why := n.share.NotReady(); len(why) > 0 {
			t.Errorf("%s is not ready: %v", n.name, why)
		}
	}
	if denied == 0 {
		t.Error("the canary decided about nobody")
	}
	for _, n := range []*node{a, b, c, d} {
		if got := n.log.count("plugin rolled back"); got != 1 {
			t.Errorf("%s: rolled back %d times, want once", n.name, got)
		}
	}
	// It stays out after a restart, and on a node that comes later.
	b.down()
	b.up()
	e := newNode(t, server, "e").up()
	all(t, "p", "1", a, b, e)

	// A retry lets it in everywhere, a promotion at one node brings it into force.
	a.must(c.order("p", plugins.Order{Action: plugins.ActionRetry}))
	all(t, "p", "1 2:shadow", a, b, c, d, e)
	a.must(d.order("p", plugins.Order{Action: plugins.ActionPromote}))
	all(t, "p", "1 2:canary5", a, b, c, d, e)
	a.must(b.order("p", plugins.Order{Action: plugins.ActionPromote}))
	all(t, "p", "2", a, b, c, d, e)
	f := newNode(t, server, "f").up()
	all(t, "p", "2", a, f)

	// What was brought into force is so again when it is dropped again, on nodes
	// that remember and on those that were started since.
	a.remove("p")
	all(t, "p", "", a, b, c, d, e, f)
	b.down()
	c.drop("p", says(abi.Deny, "v2"), `{"version":"2"`+shadow)
	all(t, "p", "2", a, c, d, e, f)
	b.up()
	all(t, "p", "2", a, b)
}

// judge has the judges of a catalog decide about one message, and counts denials of
// canaries.
func judge(c *plugins.Catalog, in *abi.Input) (denied int) {
	encoded := abi.AppendInput(nil, in)
	for _, j := range c.Judges() {
		denied += observe(j, in, encoded)
	}
	return denied
}

// Two orders at the same moment: one counts on all nodes, and the other is told
// so or came first.
func TestOrdersAtOnce(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	a, b := newNode(t, server, "a").up(), newNode(t, server, "b").up()
	a.drop("p", says(abi.Allow, ""), `{"version":"1"}`)
	all(t, "p", "1", a, b)
	for i := range 10 {
		v := fmt.Sprint(i + 2)
		a.drop("p", says(abi.Flag, v), `{"version":"`+v+`"`+shadow)
		all(t, "p", "1 "+v+":shadow", a, b)
		var wg sync.WaitGroup
		var promoted, back error
		wg.Go(func() { promoted = a.order("p", plugins.Order{Action: plugins.ActionPromote}) })
		wg.Go(func() { back = b.order("p", plugins.Order{Action: plugins.ActionRollback, Reason: "no"}) })
		wg.Wait()
		if back != nil {
			t.Fatalf("the rollback failed: %v", back)
		}
		if promoted != nil && !errors.Is(promoted, plugins.ErrNotNow) {
			t.Fatalf("the promotion failed: %v", promoted)
		}
		all(t, "p", "1", a, b) // a rollback of a canary counts, whichever came first
	}
}

// Without Redis nothing goes further, a rollback works at once, and the others
// learn of it later, even from another start of the node.
func TestRedisAway(t *testing.T) {
	server := redistest.Start(t, redistest.Options{AppendOnly: true})
	a, b := newNode(t, server, "a").up(), newNode(t, server, "b").up()
	a.drop("p", says(abi.Allow, ""), `{"version":"1"}`)
	all(t, "p", "1", a, b)
	a.drop("p", says(abi.Flag, "v2"), `{"version":"2"`+shadow)
	all(t, "p", "1 2:shadow", a, b)
	a.must(a.order("p", plugins.Order{Action: plugins.ActionPromote}))
	all(t, "p", "1 2:canary5", a, b)
	server.Stop()
	err := a.order("p", plugins.Order{Action: plugins.ActionPromote})
	if !errors.Is(err, plugins.ErrNotNow) || !errors.Is(err, plugins.ErrNoAgreement) || a.judges("p") != "1 2:canary5" {
		t.Errorf("a promotion without redis: got %v and %q, want it refused and nothing changed", err, a.judges("p"))
	}
	a.must(a.order("p", plugins.Order{Action: plugins.ActionRollback, Reason: "odd"}))
	if a.judges("p") != "1" || b.judges("p") != "1 2:canary5" {
		t.Errorf("got %q and %q, want it rolled back here alone", a.judges("p"), b.judges("p"))
	}
	if a.share.Stats().Pending != 1 {
		t.Errorf("got %+v, want one thing to be told", a.share.Stats())
	}
	// Another start of a, still without Redis.
	a.down()
	a.up()
	if a.judges("p") != "1" {
		t.Errorf("after a restart: got %q, want it to stay out", a.judges("p"))
	}
	server.Restart()
	all(t, "p", "1", a, b)
	if r := b.status("p").LastRollback; r == nil || r.By != "olga" || r.Reason != "odd" || !strings.HasPrefix(r.Node, "a-") {
		t.Errorf("got %+v on b, want the rollback that a made", r)
	}
}

// What was changed in Redis is refused by name, and nothing is lost; a node that
// has the files puts them right.
func TestRedisIsNotBelieved(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	a, b := newNode(t, server, "a").up(), newNode(t, server, "b").up()
	a.drop("p", says(abi.Deny, "v1"), `{"version":"1"}`)
	all(t, "p", "1", a, b)
	b.down()
	a.drop("p", says(abi.Deny, "v2"), `{"version":"2"}`)
	all(t, "p", "2", a)
	source := a.status("p").Source
	await(t, "it is shared", func() bool { return a.log.count(`other nodes" plugin=p source=`+source[:12]) == 1 })
	a.down()

	key := "parley:{objects}:o:" + source
	flip(t, a.url, key)
	b.up()
	if b.judges("p") != "1" {
		t.Fatalf("got %q, want the old version to stay", b.judges("p"))
	}
	await(t, "b says that it cannot converge", func() bool { return b.share.Stats().Judged && len(b.share.Notes()) == 1 })
	if why := b.share.Notes()[0]; !strings.Contains(why, "plugin p") || !strings.Contains(why, "not what its name says") {
		t.Errorf("got %q, want plugin and cause named", why)
	}
	if why := b.share.NotReady(); len(why) > 0 {
		t.Errorf("b is not ready (%v), and no other node is better", why)
	}
	a.up()
	all(t, "p", "2", a, b)
	await(t, "b is well", func() bool { return len(b.share.NotReady())+len(b.share.Notes()) == 0 })

	// A head that cannot be is refused whole.
	for _, head := range []string{setName, rolloutsName} {
		h, err := a.store.Head(t.Context(), head)
		a.must(err)
		_, err = a.store.SetHead(t.Context(), head, h.Version, json.RawMessage(`{"format":1,"plugins":{"../../x":{"source":"`+source+`"}}}`))
		a.must(err)
		await(t, "both say so", func() bool { return refuses(a, head) && refuses(b, head) })
		if a.judges("p") != "2" || b.judges("p") != "2" || len(a.share.NotReady()) > 0 {
			t.Errorf("got %q and %q, want everything as it was", a.judges("p"), b.judges("p"))
		}
		if head == rolloutsName {
			continue
		}
		h, err = a.store.Head(t.Context(), head)
		a.must(err)
		_, err = a.store.SetHead(t.Context(), head, h.Version, json.RawMessage(`{"format":1,"plugins":{}}`))
		a.must(err)
		await(t, "it is made whole again", func() bool { return !refuses(a, head) && !refuses(b, head) })
	}
	all(t, "p", "2", a, b)
}

const setName, rolloutsName = "plugins", "rollouts"

func refuses(n *node, head string) bool {
	for _, p := range n.share.Info().Problems {
		if strings.HasPrefix(p, "head "+head+": refused") {
			return true
		}
	}
	return false
}

// A node that cannot load a version keeps what it had and says so.
func TestANodeThatCannotLoadAVersion(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	a, b := newNode(t, server, "a").up(), newNode(t, server, "b")
	b.edit = func(c *plugins.Config) { c.OutputBytes, c.MemoryBytes, c.GoMemoryBytes = 4096, 1<<20, 1<<20 }
	b.up()
	a.drop("p", says(abi.Deny, "v1"), `{"version":"1"}`)
	all(t, "p", "1", a, b)
	a.drop("p", says(abi.Deny, "v2"), `{"version":"2","limits":{"memory_bytes":8388608}}`)
	all(t, "p", "2", a)
	await(t, "b says that it cannot converge", func() bool { return len(b.share.NotReady()) == 1 })
	if why := b.share.NotReady()[0]; !strings.Contains(why, "memory_bytes") || b.judges("p") != "1" {
		t.Errorf("got %q and %q, want the cause named and the old version in force", why, b.judges("p"))
	}
	if a.share.Info().Digest == b.share.Info().Digest {
		t.Error("two nodes that judge otherwise have the same digest")
	}
	a.drop("p", says(abi.Deny, "v3"), `{"version":"3"}`)
	all(t, "p", "3", a, b)
	await(t, "b is ready", func() bool { return len(b.share.NotReady()) == 0 })
}
