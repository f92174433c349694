package e2e

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/redis/redistest"
)

// TestTwoNodesOneKilled runs two nodes on one Redis with clients on both, and
// kills one node after the other under load: their clients go on elsewhere,
// and everyone has seen one order without a gap or a duplicate.
func TestTwoNodesOneKilled(t *testing.T) {
	store := redistest.Start(t, redistest.Options{AppendOnly: true})
	key := filepath.Join(t.TempDir(), "jwt.key") // one for both, so that a token counts at each
	shared := unlimited(settings{"redis.url": store.URL(), "auth.jwt.key_file": key})
	tokens := make([]string, 6)
	for i := range tokens {
		tokens[i] = token(t, key, chat.UserID(fmt.Sprintf("user%d", i)))
	}
	a, b := startNode(t, shared), startNode(t, shared)

	c := newCrowd(t, "lobby", "kitchen")
	for i := range 6 {
		first, second := a, b
		if i%2 == 1 {
			first, second = b, a
		}
		c.Add(fmt.Sprintf("client %d", i), client.ResilientOptions{
			Options: client.Options{Token: tokens[i]},
			URLs:    []string{first.URL(i / 2), second.URL(i / 2)},
		})
	}
	c.Talk(4, 20*time.Millisecond)
	for _, n := range []*node{a, b, a, b, a} {
		c.More(60)
		n.Kill()
		c.More(60)
		n.Start()
	}
	c.More(60)
	rep := c.Settle(client.Options{URL: a.WSURL(), Token: tokens[0]})
	if rep.Resets > 0 || rep.Refused > 0 || rep.Unknown > 0 {
		t.Errorf("got %d resets, %d refused and %d unknown, want none: Redis lost nothing and everyone kept asking", rep.Resets, rep.Refused, rep.Unknown)
	}
	a.Stop()
	b.Stop()
}
