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

// unlimited lets a few clients make the load of many.
func unlimited(extra settings) settings {
	s := settings{"limits.commands_per_second": 0, "limits.accepts_per_second": 0}
	for k, v := range extra {
		s[k] = v
	}
	return s
}

// TestKill9LosesNothing kills the server again and again under about 200
// messages a second. What was acknowledged must be there, once, in order, and
// what was not must not be there twice.
func TestKill9LosesNothing(t *testing.T) {
	n := startNode(t, unlimited(nil))
	c := newCrowd(t, "lobby", "kitchen")
	const talkers = 4
	for i := range talkers + 2 { // two more only listen
		c.add(fmt.Sprintf("client %d", i), client.ResilientOptions{
			Options: client.Options{URL: n.url(i), Guest: fmt.Sprintf("guest%d", i)},
		})
	}
	c.talk(talkers, 20*time.Millisecond)
	for range rounds {
		c.more(30 + rand.IntN(40))
		c.midway()
		n.kill()
		n.start()
	}
	c.more(30)
	rep := c.settle(client.Options{URL: n.wsURL(), Guest: "judge"})
	if rep.Resets > 0 || rep.Refused > 0 || rep.Unknown > 0 {
		t.Errorf("got %d resets, %d refused and %d unknown, want none: the store lost nothing and everyone kept asking", rep.Resets, rep.Refused, rep.Unknown)
	}
	if rep.Resends == 0 {
		t.Error("no message was resent, so the kills hit nothing")
	}
	n.stop()
}
