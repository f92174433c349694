package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"parley/core/client"
)

// rounds of kill -9, each after some tens of messages more.
const rounds = 20

// TestKill9LosesNothing kills the server again and again under about 200
// messages a second. What was acknowledged must be there, once, in order, and
// what was not must not be there twice.
func TestKill9LosesNothing(t *testing.T) {
	n := startNode(t, unlimited(nil))
	c := newCrowd(t, "lobby", "kitchen")
	const talkers = 4
	for i := range talkers + 2 { // two more only listen
		c.Add(fmt.Sprintf("client %d", i), client.ResilientOptions{
			Options: client.Options{URL: n.URL(i), Guest: fmt.Sprintf("guest%d", i)},
		})
	}
	c.Talk(talkers, 20*time.Millisecond)
	for range rounds {
		c.More(30 + rand.IntN(40))
		c.Midway()
		n.Kill()
		n.Start()
	}
	c.More(30)
	rep := c.Settle(client.Options{URL: n.WSURL(), Guest: "judge"})
	if rep.Resets > 0 || rep.Refused > 0 || rep.Unknown > 0 {
		t.Errorf("got %d resets, %d refused and %d unknown, want none: the store lost nothing and everyone kept asking", rep.Resets, rep.Refused, rep.Unknown)
	}
	if rep.Resends == 0 {
		t.Error("no message was resent, so the kills hit nothing")
	}
	n.Stop()
}
