package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/redis/redistest"
	"parley/sdk/abi"
)

// judged awaits that a message at the node is refused in those words, "" for
// not at all.
func judged(t *testing.T, v *visitor, words string) {
	t.Helper()
	await(t, "messages are refused with "+words, func() bool {
		_, err := v.Send(within(t), "lobby", client.NewNonce(), "hello")
		if err == nil {
			return words == ""
		}
		said := refusal(t, err)
		return said.Code == chat.CodeDenied && len(said.Reasons) == 1 && said.Reasons[0].Text == words
	})
}

// TestAPluginGoesToAllNodes drops, promotes and removes plugins at single nodes
// of three, one of which is down for a while, and watches all of them judge.
func TestAPluginGoesToAllNodes(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t, redistest.Options{AppendOnly: true})
	var nodes []*node
	var dirs []string
	for i, fuel := range []int{50_000_000, 50_000_000, 1_000_000} {
		dirs = append(dirs, t.TempDir())
		nodes = append(nodes, startNode(t, unlimited(settings{"plugins.dir": dirs[i], "plugins.fuel": fuel, "redis.url": store.URL()})))
	}
	a, b, c := nodes[0], nodes[1], nodes[2]
	enter := func(n *node, name string) *visitor {
		v := visit(t, client.Options{URL: n.WSURL(), Guest: name})
		v.enters("lobby")
		return v
	}
	ann, bob, cat := enter(a, "ann"), enter(b, "bob"), enter(c, "cat")

	begun := time.Now()
	drop(a, dirs[0], constantModule(abi.Deny, "says v1"), map[string]any{"version": "1"})
	judged(t, ann, "says v1")
	here := time.Since(begun)
	judged(t, bob, "says v1")
	judged(t, cat, "says v1")
	t.Logf("from drop to judging there %v, on all three nodes %v", here.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))

	// A version on trial, brought into force at another node than it was dropped at.
	drop(b, dirs[1], constantModule(abi.Deny, "says v2"), map[string]any{"version": "2", "rollout": map[string]any{"stage": "shadow"}})
	onTrial := func(n *node, stage string) {
		t.Helper()
		await(t, "v2 is in "+stage, func() bool {
			p := pluginOf(n, "p")
			return p.Version == "1" && p.Candidate != nil && p.Candidate.Version == "2" && p.Candidate.Stage == stage
		})
	}
	for _, n := range nodes {
		onTrial(n, "shadow")
	}
	rollout(c, "p", map[string]any{"action": "set", "stage": "canary", "percent": 100})
	begun = time.Now()
	for _, n := range nodes {
		onTrial(n, "canary")
	}
	t.Logf("an order holds on all three nodes %v after its answer", time.Since(begun).Round(time.Millisecond))

	// Down meanwhile: it comes back to what holds now.
	c.Stop()
	rollout(a, "p", map[string]any{"action": "promote"})
	judged(t, bob, "says v2")
	drop(a, dirs[0], constantModule(abi.Deny, "says v3"), map[string]any{"version": "3"})
	judged(t, bob, "says v3")
	c.Start()
	cat = enter(c, "cath")
	judged(t, cat, "says v3")
	sets := map[string]bool{}
	await(t, "all nodes say that they judge with the same", func() bool {
		clear(sets)
		table := status[struct {
			Nodes []struct{ Plugins struct{ Set string } }
		}](b, "/v1/nodes").Nodes
		for _, n := range table {
			sets[n.Plugins.Set] = true
		}
		return len(table) == 3 && len(sets) == 1
	})

	// A node that cannot load a version keeps what it had and says so.
	drop(a, dirs[0], constantModule(abi.Deny, "says v4"), map[string]any{"version": "4", "limits": map[string]any{"fuel": 2_000_000}})
	judged(t, bob, "says v4")
	await(t, "c says that it cannot converge", func() bool {
		code, body := c.Get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "cannot converge") && strings.Contains(body, "limits.fuel")
	})
	judged(t, cat, "says v3")
	await(t, "platform nodes says so", func() bool {
		out, code := c.Bare("nodes", "--admin", a.Admin)
		return code == 0 && strings.Contains(out, "this node cannot judge with version")
	})
	drop(a, dirs[0], constantModule(abi.Deny, "says v5"), map[string]any{"version": "5"})
	judged(t, cat, "says v5")
	c.Awaits(http.StatusOK)

	// What was changed in Redis is refused, until a node that has the files writes
	// them anew.
	c.Stop()
	drop(a, dirs[0], constantModule(abi.Deny, "says v6"), map[string]any{"version": "6"})
	judged(t, bob, "says v6")
	source := status[struct {
		Plugins []struct{ Name, Source string }
	}](a, "/v1/plugins").Plugins[0].Source
	a.Stop()
	b.Stop()
	key := "parley:{objects}:o:" + source
	store.Do("HSET", key, "0", strings.Repeat("x", len(store.Do("HGET", key, "0"))))
	c.Start()
	await(t, "c says that it cannot converge", func() bool {
		_, body := c.Get("/readyz")
		return strings.Contains(body, "cannot converge") && strings.Contains(body, "not what its name says")
	})
	cat = enter(c, "cato")
	judged(t, cat, "says v5")
	a.Start()
	judged(t, cat, "says v6")
	b.Start()

	if err := os.Remove(filepath.Join(dirs[2], "p.wasm")); err != nil {
		t.Fatal(err)
	}
	judged(t, cat, "")
	ann = enter(a, "anna")
	judged(t, ann, "")
	for i, n := range nodes {
		if left, err := filepath.Glob(filepath.Join(dirs[i], "p.*")); err != nil || len(left) > 0 && i != 2 { // where the manifest was left in place
			t.Errorf("node %d: %v, %v are left", i, left, err)
		}
		n.Stop()
	}
}

// TestAPluginFolderInTheDataIsMade starts two nodes on empty data, as a volume
// is at first: what is dropped at one is judged by at the other, though nobody
// has made a folder there.
func TestAPluginFolderInTheDataIsMade(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t, redistest.Options{})
	var nodes []*node
	var dirs []string
	for i := range 2 {
		data := filepath.Join(t.TempDir(), "data")
		dirs = append(dirs, filepath.Join(data, "plugins"))
		nodes = append(nodes, startNode(t, unlimited(settings{"redis.url": store.URL(), "data_dir": data, "plugins.dir": dirs[i]})))
	}
	bob := visit(t, client.Options{URL: nodes[1].WSURL(), Guest: "bob"})
	bob.enters("lobby")
	drop(nodes[0], dirs[0], constantModule(abi.Deny, "says v1"), map[string]any{"version": "1"})
	judged(t, bob, "says v1")
	for _, n := range nodes {
		n.Stop()
	}
}
