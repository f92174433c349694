package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/core/client"
	"parley/core/redis/redistest"
	"parley/sdk/abi"
)

// TestSealed runs two nodes with a secret of theirs and has somebody write to
// their Redis who does not have it: a pin is not ended, a plugin is not removed or
// taken back, and each attempt is counted and undone.
func TestSealed(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t, redistest.Options{AppendOnly: true})
	r := newRepo(t)
	first := "git:" + r.commit(map[string]string{"parley.rego": openRules})
	second := "git:" + r.commit(map[string]string{"parley.rego": quietRules})
	secret := filepath.Join(t.TempDir(), "cluster.secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("0123456789abcdef", 4)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dirs := []string{t.TempDir(), t.TempDir()}
	keys := func(dir string) settings {
		return unlimited(settings{"redis.url": store.URL(), "cluster.secret_file": secret, "plugins.dir": dir, "policy.git.url": r.dir, "policy.git.interval": "24h"})
	}
	a, b := startNode(t, keys(dirs[0])), startNode(t, keys(dirs[1]))
	agree(t, second, a, b)
	pin := func(args ...string) {
		t.Helper()
		if out, code := a.Bare(append(append([]string{"policy"}, args...), "--admin", a.Admin, "--data-dir", a.Data())...); code != 0 {
			t.Fatalf("policy %v: got %d: %s", args, code, out)
		}
	}
	const heads = "parley:{objects}:heads"
	unpinned := store.Do("HGET", heads, "policy")
	pin("pin", first, "--reason", "lock-out")
	agree(t, first, a, b)
	bob := visit(t, client.Options{URL: b.WSURL(), Guest: "bob"})
	bob.enters("lobby")
	drop(a, dirs[0], constantModule(abi.Deny, "says v1"), map[string]any{"version": "1"})
	judged(t, bob, "says v1")
	before := store.Do("HGET", heads, "plugins")
	drop(a, dirs[0], constantModule(abi.Deny, "says v2"), map[string]any{"version": "2"})
	judged(t, bob, "says v2")

	refused := func(why string) float64 {
		return a.Metric(`parley_cluster_heads_refused_total{why="`+why+`"}`) + b.Metric(`parley_cluster_heads_refused_total{why="`+why+`"}`)
	}
	for i, tt := range []struct{ head, text, why string }{
		{"policy", unpinned, "stale"},
		{"policy", unpinned[:strings.LastIndexByte(unpinned, '\n')], "unsealed"},
		{"plugins", before, "stale"},
		{"plugins", "7\n\n{\"format\":1,\"plugins\":{}}", "unsealed"},
		{"rollouts", "7\n\n{\"format\":1,\"plugins\":{}}", "unsealed"},
		{"plugins", unpinned, "wrong_seal"},
	} {
		was := refused(tt.why)
		store.Do("HSET", heads, tt.head, tt.text)
		await(t, tt.head+" put back", func() bool {
			return store.Do("HGET", heads, tt.head) != tt.text && refused(tt.why) > was &&
				a.Metric("parley_cluster_heads_restored_total")+b.Metric("parley_cluster_heads_restored_total") == float64(i+1)
		})
	}
	agree(t, first, a, b)
	judged(t, bob, "says v2")
	if p := status[nodesStatus](b, "/v1/policy/status").Git.Pin; p == nil || "git:"+p.Revision != first {
		t.Errorf("got pin %+v", p)
	}
	if got := a.Metric("parley_cluster_sealed"); got != 1 {
		t.Errorf("parley_cluster_sealed: got %v", got)
	}
	// The operator's own word still counts.
	pin("unpin")
	agree(t, second, a, b)
	// A secret that is none stops the start, and check says so.
	if err := os.WriteFile(secret, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"check", "run"} {
		if out, code := a.Platform(command); code == 0 || !strings.Contains(out, "cluster.secret_file: read the secret of the nodes: "+secret+": secret 1 has 5 bytes") {
			t.Errorf("platform %s: got %d: %s", command, code, out)
		}
	}
}
