package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"

	"parley/core/chat"
	"parley/core/client"
	"parley/plugins"
	"parley/sdk/abi"
)

// people are connections of as many guests, each of whom sends one message at
// a time.
type people struct {
	t   *testing.T
	all []*visitor
}

func gather(t *testing.T, n *node, count int) *people {
	t.Helper()
	p := &people{t: t}
	for i := range count {
		v := visit(t, client.Options{URL: n.TCPURL(), Guest: fmt.Sprintf("user%d", i)})
		v.enters("lobby")
		p.all = append(p.all, v)
	}
	return p
}

// ask has everybody send a message and returns who decided about it: the words
// of the refusal, "" where it was let through.
func (p *people) ask() []string {
	p.t.Helper()
	who := make([]string, len(p.all))
	for i, v := range p.all {
		if _, err := v.Send(within(p.t), "lobby", client.NewNonce(), "hello"); err != nil {
			said := refusal(p.t, err)
			if said.Code != chat.CodeDenied || len(said.Reasons) != 1 {
				p.t.Fatalf("user %d: got %+v, want one plugin's refusal or none", i, said)
			}
			who[i] = said.Reasons[0].Text
		}
	}
	return who
}

// count counts who is there.
func count(who []string, name string) (n int) {
	for _, w := range who {
		if w == name {
			n++
		}
	}
	return n
}

// rollout gives an order to the node.
func rollout(n *node, plugin string, order map[string]any) {
	n.T.Helper()
	if code, body := n.Ask(http.MethodPost, "/v1/plugins/"+plugin+"/rollout", order); code != http.StatusOK {
		n.T.Fatalf("order %v: got status %d: %s", order, code, body)
	}
}

// drop installs a version of plugin p, its manifest first, and returns when the
// node has looked at both: in between it may judge with the new manifest and the
// old module.
func drop(n *node, dir string, module []byte, manifest map[string]any) {
	n.T.Helper()
	b, err := json.Marshal(manifest)
	if err != nil {
		n.T.Fatal(err)
	}
	install(n.T, filepath.Join(dir, "p.json"), b)
	install(n.T, filepath.Join(dir, "p.wasm"), module)
	source := plugins.SourceDigest(module, b)
	await(n.T, "the node looks at what was dropped", func() bool {
		p := pluginOf(n, "p")
		return p.Source == source || p.ErrorSource == source || p.Candidate != nil && p.Candidate.Source == source
	})
}

// TestAPluginComesIntoForceStepByStep takes one version by shadow and canary
// into force, and has another, which denies everything, take itself back.
func TestAPluginComesIntoForceStepByStep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := startNode(t, unlimited(settings{"plugins.dir": dir}))
	drop(n, dir, constantModule(abi.Deny, "says v1"), map[string]any{"version": "1"})
	await(t, "v1 is in force", func() bool { return pluginOf(n, "p").State == "active" })
	const many = 200
	crowd := gather(t, n, many)
	if who := crowd.ask(); count(who, "says v1") != many {
		t.Fatalf("under v1: got %d of %d messages decided by it", count(who, "says v1"), many)
	}

	// v2 lets everything through, which v1 does not: they never agree.
	tolerant := map[string]any{"disagreement": 0}
	drop(n, dir, constantModule(abi.Allow, ""), map[string]any{"version": "2", "rollout": map[string]any{"stage": "shadow", "guards": tolerant}})
	onTrial := func(version string) func() bool {
		return func() bool {
			p := pluginOf(n, "p")
			return p.Candidate != nil && p.Candidate.Version == version
		}
	}
	await(t, "v2 is on trial", onTrial("2"))
	if who := crowd.ask(); count(who, "says v1") != many {
		t.Errorf("with v2 in shadow: got %d of %d messages decided by v1", count(who, "says v1"), many)
	}
	if p := pluginOf(n, "p"); p.Version != "1" || p.Candidate.Stage != "shadow" || p.Candidate.Compared != many || p.Candidate.Disagreed != many {
		t.Errorf("got %+v with %+v, want every message compared and none agreed on", p, p.Candidate)
	}

	rollout(n, "p", map[string]any{"action": "set", "stage": "canary", "percent": 5, "reason": "looks good"})
	first := crowd.ask()
	if by2 := count(first, ""); by2 == 0 || by2 > many/5 || by2+count(first, "says v1") != many {
		t.Errorf("at 5 percent: got %d of %d messages decided by v2", by2, many)
	}
	for i, who := range crowd.ask() {
		if who != first[i] {
			t.Errorf("user %d was judged by one version and then by the other", i)
		}
	}
	rollout(n, "p", map[string]any{"action": "set", "percent": 30})
	more := crowd.ask()
	for i := range more {
		if first[i] == "" && more[i] != "" {
			t.Errorf("user %d was in the smaller canary and is not in the larger", i)
		}
	}
	if count(more, "") <= count(first, "") {
		t.Errorf("at 30 percent: got %d messages decided by v2, at 5 percent %d", count(more, ""), count(first, ""))
	}
	rollout(n, "p", map[string]any{"action": "promote"})
	if who := crowd.ask(); count(who, "") != many {
		t.Errorf("with v2 promoted: got %d of %d messages decided by it", count(who, ""), many)
	}

	drop(n, dir, constantModule(abi.Deny, "says v3"), map[string]any{"version": "3", "rollout": map[string]any{"stage": "canary", "percent": 50}})
	await(t, "v3 is on trial", onTrial("3"))
	if who := crowd.ask(); count(who, "says v3") != 21 {
		t.Errorf("v3 denied %d messages before it was taken back, want 21: one more than 20 percent of 100", count(who, "says v3"))
	}
	takenBack := func() {
		t.Helper()
		p := pluginOf(n, "p")
		if r := p.LastRollback; p.Version != "2" || p.State != "active" || p.Candidate != nil || r == nil || r.Version != "3" || r.By != "guard" || r.Stage != "canary" {
			t.Fatalf("got %+v, want v2 in force and v3 taken back", p)
		} else if want := "deny_rate: 21 of 21 decisions were denials; at most 20 % of 100 may"; r.Reason != want {
			t.Errorf("got the reason %q, want %q", r.Reason, want)
		}
	}
	takenBack()
	if got := n.Metric(`parley_plugin_rollbacks_total{plugin="p"}`); got != 1 {
		t.Errorf("the metrics count %v rollbacks, want 1", got)
	}
	n.Logs("plugin rolled back")
	n.Stop()
	n.Start()
	takenBack()
	crowd = gather(t, n, many)
	if who := crowd.ask(); count(who, "") != many {
		t.Errorf("after a restart: got %d of %d messages decided by v2", count(who, ""), many)
	}
	rollout(n, "p", map[string]any{"action": "retry"})
	if !onTrial("3")() {
		t.Errorf("got %+v after a retry, want v3 on trial again", pluginOf(n, "p"))
	}
	n.Stop()
}
