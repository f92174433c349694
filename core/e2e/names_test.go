package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"parley/core/client"
	"parley/core/redis/redistest"
)

// TestGuestsOnTwoNodes gives a guest a name at one node: another cannot have it
// at the other, and when the first node is killed the guest is the same person
// at the second.
func TestGuestsOnTwoNodes(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t, redistest.Options{})
	key := filepath.Join(t.TempDir(), "jwt.key")
	keys := unlimited(settings{"redis.url": store.URL(), "auth.jwt.key_file": key})
	olga := token(t, key, "olga") // makes the key
	a, b := startNode(t, keys), startNode(t, keys)
	await(t, "both nodes know the guests' key", func() bool {
		for _, n := range []*node{a, b} {
			if n.Out.Has("guests can come back at this node alone") {
				return false
			}
		}
		return true
	})
	ann := visit(t, client.Options{URL: a.WSURL(), Guest: "ann"})
	ann.enters("lobby")
	ann.says("lobby", "hello from a")
	if _, err := tryVisit(t, client.Options{URL: b.WSURL(), Guest: "ann"}); err == nil || !strings.Contains(err.Error(), "name_taken") {
		t.Errorf("another ann at the other node: got %v, want name_taken", err)
	}
	secret := ann.Welcome().Secret
	a.Kill()
	again := visit(t, client.Options{URL: b.TCPURL(), Guest: "ann", Secret: secret})
	if w := again.Welcome(); w.User != "ann" || w.Secret != secret {
		t.Errorf("ann came back as %s", w.User)
	}
	again.enters("lobby")
	again.says("lobby", "hello from b")

	// A registered user takes the name from a guest of any node.
	a.Start()
	visit(t, client.Options{URL: a.WSURL(), Token: olga})
	if _, err := tryVisit(t, client.Options{URL: b.WSURL(), Guest: "olga"}); err == nil || !strings.Contains(err.Error(), "registered user") {
		t.Errorf("a guest named like a registered user: got %v", err)
	}
	a.Stop()
	b.Stop()
}
