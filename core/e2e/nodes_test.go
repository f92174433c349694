package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"parley/core/redis/redistest"
)

// nodesStatus is the part of /v1/policy/status about all nodes.
type nodesStatus struct {
	Revision string `json:"revision"`
	Git      struct {
		Pin *struct{ Revision, By string } `json:"pin"`
	} `json:"git"`
	Nodes []struct {
		Node     string `json:"node"`
		Revision string `json:"revision"`
		OnHead   bool   `json:"on_head"`
	} `json:"nodes"`
	CannotConverge *struct{ Revision, Why string } `json:"cannot_converge"`
}

// agree waits until every node says that all decide by the revision.
func agree(t *testing.T, revision string, nodes ...*node) {
	t.Helper()
	await(t, "all nodes are on "+revision, func() bool {
		for _, n := range nodes {
			st := status[nodesStatus](n, "/v1/policy/status")
			if st.Revision != revision || len(st.Nodes) != len(nodes) {
				return false
			}
			for _, x := range st.Nodes {
				if !x.OnHead || x.Revision != revision {
					return false
				}
			}
		}
		return true
	})
}

// TestThreeNodesOnePolicy runs three nodes on one Redis: one hears of merges by
// a webhook alone, one by polling, and one reaches no repository at all. What is
// merged decides on all, a pin at one holds on all, and what somebody puts into
// Redis by hand decides on none.
func TestThreeNodesOnePolicy(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t, redistest.Options{AppendOnly: true})
	r := newRepo(t)
	first := "git:" + r.commit(map[string]string{"parley.rego": openRules})
	keys := func(name, url, interval string) settings {
		return settings{"redis.url": store.URL(), "cluster.node_name": name, "policy.git.url": url, "policy.git.interval": interval, "policy.git.webhook.secret_file": secretFile(t)}
	}
	a := startNode(t, keys("hooked", r.dir, "24h"))
	b := startNode(t, keys("cut-off", filepath.Join(t.TempDir(), "nowhere.git"), "1s"))
	c := startNode(t, keys("also-hooked", r.dir, "24h"))
	agree(t, first, a, b, c)

	// A merge, and a call at one node.
	second := "git:" + r.commit(map[string]string{"parley.rego": quietRules})
	if got := hook(t, http.DefaultClient, "http://"+a.HTTP+"/v1/hooks/policy", `{"ref":"refs/heads/main"}`, hookSecret); got != http.StatusAccepted {
		t.Fatalf("got status %d, want 202", got)
	}
	out, code := b.Bare("policy", "status", "--admin", b.Admin, "--data-dir", b.Data(), "--wait", second)
	if code != 0 || !regexp.MustCompile(`^live on 3/3 in \d+ ms$`).MatchString(out) {
		t.Errorf("policy status --wait: got %d, %q", code, out)
	}
	agree(t, second, a, b, c)
	await(t, "node a says so in its log", func() bool { return a.Out.Has("live=3/3") })

	// What people see.
	out, code = c.Bare("nodes", "--admin", c.Admin)
	for _, want := range []string{"hooked", "cut-off", "also-hooked*", second[:16], "LEASE"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("platform nodes: got %d, without %q:\n%s", code, want, out)
		}
	}
	await(t, "policy status says the same", func() bool { // the time it took travels a moment later
		out, code := c.Bare("policy", "status", "--admin", c.Admin)
		return code == 0 && strings.Count(out, "on head") == 3 && strings.Contains(out, "live on 3/3")
	})
	for series, want := range map[string]float64{"parley_cluster_nodes": 3, "parley_cluster_policy_skew": 0, "parley_cluster_plugin_skew": 0, "parley_cluster_cannot_converge": 0} {
		if got := b.Metric(series); got != want {
			t.Errorf("%s: got %v, want %v", series, got, want)
		}
	}

	// An operator pins at one node.
	if out, code := c.Bare("policy", "pin", first, "--admin", c.Admin, "--data-dir", c.Data(), "--reason", "lock-out"); code != 0 {
		t.Fatalf("policy pin: got %d: %s", code, out)
	}
	agree(t, first, a, b, c)
	if p := status[nodesStatus](b, "/v1/policy/status").Git.Pin; p == nil || "git:"+p.Revision != first {
		t.Errorf("the node without a repository: got pin %+v", p)
	}
	if out, code := c.Bare("policy", "unpin", "--admin", c.Admin, "--data-dir", c.Data()); code != 0 {
		t.Fatalf("policy unpin: got %d: %s", code, out)
	}
	agree(t, second, a, b, c)

	// Somebody writes into Redis: an object that is not what its name says.
	parts := strings.SplitN(store.Do("HGET", "parley:{objects}:heads", "policy"), "\n", 3)
	object, alien := parts[1], strings.Repeat("ab", 20)
	fake := strings.Repeat("cd", 32)
	pack := []byte(store.Do("HGET", "parley:{objects}:o:"+object, "0"))
	pack[len(pack)/2] ^= 1
	store.Do("HSET", "parley:{objects}:o:"+fake, "kind", "policy", "size", fmt.Sprint(len(pack)), "done", fmt.Sprint(len(pack)), "0", string(pack))
	value := strings.ReplaceAll(strings.ReplaceAll(parts[2], object, fake), second[4:], alien)
	plant := func() { // again, should what the unpin set going come in between
		if !strings.Contains(store.Do("HGET", "parley:{objects}:heads", "policy"), fake) {
			store.Do("HSET", "parley:{objects}:heads", "policy", "77\n"+fake+"\n"+value)
		}
	}
	for _, n := range []*node{a, b, c} {
		await(t, "the object is refused", func() bool {
			plant()
			return status[nodesStatus](n, "/v1/policy/status").CannotConverge != nil
		})
		code, body := n.Get("/readyz")
		if code != http.StatusOK || !strings.Contains(body, "cannot converge: node ") || !strings.Contains(body, alien) || !strings.Contains(body, "not what its name says") {
			t.Errorf("/readyz: got %d: %s", code, body)
		}
		if st := status[nodesStatus](n, "/v1/policy/status"); st.Revision != second {
			t.Errorf("%s decides now", st.Revision)
		}
	}
	// The next merge takes its place.
	third := "git:" + r.commit(map[string]string{"parley.rego": openRules})
	hook(t, http.DefaultClient, "http://"+c.HTTP+"/v1/hooks/policy", "{}", hookSecret)
	agree(t, third, a, b, c)

	// Who is killed is gone for the others; who stops, at once.
	c.Kill()
	await(t, "the killed node is gone", func() bool { return b.Metric("parley_cluster_nodes") == 2 })
	a.Stop()
	await(t, "the stopped node is gone", func() bool { return b.Metric("parley_cluster_nodes") == 1 })
	b.Stop()
}

// TestNodesWithoutACluster shows the one node there is.
func TestNodesWithoutACluster(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	first := r.commit(map[string]string{"parley.rego": openRules})
	n := startNode(t, settings{"policy.git.url": r.dir, "cluster.node_name": "alone"})
	out, code := n.Bare("nodes", "--admin", n.Admin)
	if code != 0 || !strings.Contains(out, "alone*") || !strings.Contains(out, first[:12]) || strings.Count(out, "\n") != 1 {
		t.Errorf("platform nodes: got %d:\n%s", code, out)
	}
	out, code = n.Bare("policy", "status", "--admin", n.Admin, "--wait", first)
	if code != 0 || !regexp.MustCompile(`^live on 1/1 in \d+ ms$`).MatchString(out) {
		t.Errorf("policy status --wait: got %d, %q", code, out)
	}
	out, code = n.Bare("policy", "status", "--admin", n.Admin, "--wait", strings.Repeat("a", 40), "--wait-timeout", "200ms")
	if code == 0 || !strings.Contains(out, "0 of 1 nodes decide by") {
		t.Errorf("policy status --wait for what never comes: got %d, %q", code, out)
	}
	n.Stop()
}

// TestANodeThatIsLeftBehind has a guard that refuses what the others take: it says
// so, and gets no clients.
func TestANodeThatIsLeftBehind(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t, redistest.Options{})
	r := newRepo(t)
	first := "git:" + r.commit(map[string]string{"parley.rego": openRules})
	keys := func(more settings) settings {
		s := settings{"redis.url": store.URL(), "policy.git.url": r.dir, "policy.git.interval": "1s"}
		for k, v := range more {
			s[k] = v
		}
		return s
	}
	a, b := startNode(t, keys(nil)), startNode(t, keys(nil))
	c := startNode(t, keys(settings{"policy.guard.keep": []string{"role:member message.send"}}))
	agree(t, first, a, b, c)
	second := "git:" + r.commit(map[string]string{"parley.rego": quietRules})
	await(t, "two have gone on", func() bool {
		return status[nodesStatus](a, "/v1/policy/status").Revision == second && status[nodesStatus](b, "/v1/policy/status").Revision == second
	})
	await(t, "the third says that it is left behind", func() bool {
		code, body := c.Get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "cannot converge: node ") && strings.Contains(body, second)
	})
	await(t, "the others know", func() bool {
		out, code := a.Bare("nodes", "--admin", a.Admin)
		return code == 0 && strings.Contains(out, "cannot converge: it refuses "+second[:16]) && a.Metric("parley_cluster_policy_skew") == 1
	})
	// A word at any node lets it pass at all, by name.
	if out, code := c.Bare("policy", "accept", second, "--by", "olga", "--admin", c.Admin, "--data-dir", c.Data()); code != 0 {
		t.Fatalf("policy accept: got %d: %s", code, out)
	}
	agree(t, second, a, b, c)
	await(t, "it is ready again", func() bool { code, _ := c.Get("/readyz"); return code == http.StatusOK })
}
