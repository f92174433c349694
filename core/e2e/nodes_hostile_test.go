package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/core/redis/redistest"
)

// signs makes the repository sign its commits with a new SSH key, and returns the
// file for policy.git.signers.
func (r *repo) signs() string {
	r.t.Helper()
	dir := r.t.TempDir()
	key := filepath.Join(dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		r.t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		r.t.Fatal(err)
	}
	list := filepath.Join(dir, "signers")
	if err := os.WriteFile(list, append([]byte("olga@example.org "), public...), 0o600); err != nil {
		r.t.Fatal(err)
	}
	for k, v := range map[string]string{"gpg.format": "ssh", "user.signingkey": key, "commit.gpgsign": "true"} {
		r.git("config", k, v)
	}
	return list
}

// offer puts a commit of the repository into Redis as a node would that had taken
// it, without any node's leave. flip damages the object.
func offer(t *testing.T, store *redistest.Server, r *repo, commit string, flip bool) {
	t.Helper()
	cmd := exec.Command("git", "pack-objects", "--revs", "--stdout", "-q")
	cmd.Dir, cmd.Stdin = r.dir, strings.NewReader(commit+"\n")
	pack, err := cmd.Output()
	if err != nil {
		t.Fatalf("git pack-objects: %v", err)
	}
	sum := sha256.Sum256(pack)
	digest := hex.EncodeToString(sum[:])
	if flip {
		pack[len(pack)/2] ^= 1
	}
	store.Do("HSET", "parley:{objects}:o:"+digest, "kind", "policy", "size", fmt.Sprint(len(pack)), "done", fmt.Sprint(len(pack)), "0", string(pack))
	value, err := json.Marshal(map[string]any{"format": 1, "ref": "main", "want": commit, "commit": commit, "object": digest, "node": "evil-00000000", "at": time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	store.Do("HSET", "parley:{objects}:heads", "policy", fmt.Sprintf("%d\n%s\n%s", time.Now().UnixMicro(), digest, value))
}

// TestHostileRevisionsInRedis has somebody with Redis's password offer revisions
// to three nodes that ask for signatures. What is good passes that way too; what
// is not is refused by each, which names it and the reason, and decides on as
// before.
func TestHostileRevisionsInRedis(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t, redistest.Options{})
	r := newRepo(t)
	signers := r.signs()
	first := r.commit(map[string]string{"parley.rego": openRules})
	secret := secretFile(t)
	var nodes []*node
	for i := range 3 {
		url := r.dir
		if i > 0 {
			url = filepath.Join(t.TempDir(), "nowhere.git")
		}
		nodes = append(nodes, startNode(t, settings{"redis.url": store.URL(), "cluster.node_name": fmt.Sprint("n", i), "policy.git.url": url,
			"policy.git.interval": "24h", "policy.git.signers": []string{signers}, "policy.git.webhook.secret_file": secret}))
	}
	agree(t, "git:"+first, nodes...)

	second := r.commit(map[string]string{"parley.rego": quietRules})
	offer(t, store, r, second, false) // the way itself works: it is signed, and a successor
	agree(t, "git:"+second, nodes...)

	r.git("config", "commit.gpgsign", "false")
	unsigned := r.commit(map[string]string{"parley.rego": openRules + "\n# not signed\n"})
	r.reset(second)
	r.git("config", "commit.gpgsign", "true")
	r.git("checkout", "--quiet", "--orphan", "other")
	alien := r.commit(map[string]string{"parley.rego": openRules + "\n# another history\n"})
	r.git("checkout", "--quiet", "main")
	for _, tt := range []struct {
		name, commit, want string
		flip               bool
	}{
		{"a flipped byte", unsigned, "is not what its name says", true},
		{"another history", alien, "does not descend", false},
		{"no signature", unsigned, "it is not signed", false},
	} {
		offer(t, store, r, tt.commit, tt.flip)
		for _, n := range nodes {
			await(t, tt.name+" is refused and named", func() bool {
				code, body := n.Get("/readyz")
				return code == http.StatusOK && strings.Contains(body, "cannot converge: node n") && strings.Contains(body, tt.commit) &&
					strings.Contains(body, "evil-00000000") && strings.Contains(body, tt.want)
			})
			if st := status[nodesStatus](n, "/v1/policy/status"); st.Revision != "git:"+second {
				t.Fatalf("%s: a node decides by %s", tt.name, st.Revision)
			}
		}
	}
	// The next merge, heard of by the one node that reaches the repository.
	third := r.commit(map[string]string{"parley.rego": openRules})
	hook(t, http.DefaultClient, "http://"+nodes[0].HTTP+"/v1/hooks/policy", "{}", hookSecret)
	agree(t, "git:"+third, nodes...)
	for _, n := range nodes {
		n.Stop()
	}
}
