package chaos

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/e2e/rig"
	"parley/core/wire"
)

// TestNodesAreKilled kills one of three nodes with kill -9, again and again,
// while messages are on their way through it.
func TestNodesAreKilled(t *testing.T) {
	t.Parallel()
	w := begin(t, "kill -9 of one of three nodes", plan{nodes: 3, clients: 9, talkers: 6})
	// A kill may find no message on its way through that node: then there is another.
	rounds := often(3, 50)
	done := 0
	for ; done < rounds || w.crowd.Resent() == 0 && done < 10*rounds; done++ {
		n := w.nodes[rand.IntN(len(w.nodes))]
		w.crowd.Midway()
		n.Kill()
		w.goesOn(30)
		n.Start()
		w.goesOn(30)
	}
	if rep := w.settle(done, 0); rep.Resends == 0 {
		t.Errorf("no message was sent again, so %d kills hit nothing", done)
	}
}

// TestANodeIsKilledInTheMiddleOfABroadcast kills the node that everyone listens
// at, when the first of them has got a message and the last has not.
func TestANodeIsKilledInTheMiddleOfABroadcast(t *testing.T) {
	t.Parallel()
	subscribers, rounds := often(200, 1000), often(1, 20)
	const talkers = 2
	heard := make(chan struct{}, 1)
	w := begin(t, fmt.Sprintf("kill -9 mid-broadcast to %d subscribers", subscribers), plan{
		clients: talkers + subscribers, talkers: talkers, every: 400 * time.Millisecond, rooms: []chat.RoomID{"hall"},
		// A thousand clients in one process answer late when all resume at once.
		settings: rig.Settings{"liveness.ping": 0, "limits.handshake_timeout": rig.Patience.String()},
		member: func(i int, opt *client.ResilientOptions) {
			// Everyone begins at the first node and moves together.
			if i%2 == 1 {
				opt.URLs[0], opt.URLs[1] = opt.URLs[1], opt.URLs[0]
			}
			opt.MinBackoff, opt.MaxBackoff, opt.Timeout = 100*time.Millisecond, time.Second, rig.Patience
			opt.OnEvent = func(ev any) {
				if _, ok := ev.(*wire.EntryEvent); ok && i >= talkers {
					select {
					case heard <- struct{}{}:
					default:
					}
				}
			}
		},
	})
	for range rounds {
		w.goesOn(5)
		victim := w.fullest()
		select {
		case <-heard: // of some time ago
		default:
		}
		select {
		case <-heard:
		case <-rig.Within(t).Done():
			t.Fatal("nobody hears anything any more")
		}
		victim.Kill()
		w.goesOn(5)
		victim.Start()
	}
	w.goesOn(5)
	w.settle(rounds, 0)
}

// fullest is the node with the most connections.
func (w *world) fullest() *rig.Node {
	w.t.Helper()
	best := w.nodes[0]
	for _, n := range w.nodes[1:] {
		if n.Metric("parley_connections") > best.Metric("parley_connections") {
			best = n
		}
	}
	return best
}

// TestNodesAreDrained ends a node by SIGTERM under load.
func TestNodesAreDrained(t *testing.T) {
	t.Parallel()
	w := begin(t, "SIGTERM of a node", plan{})
	rounds := often(2, 20)
	for k := range rounds {
		n := w.nodes[k%len(w.nodes)]
		w.crowd.Midway()
		n.Signal(syscall.SIGTERM)
		if code := n.Ended(); code != 0 {
			t.Errorf("after SIGTERM: got exit code %d, want 0", code)
		}
		w.goesOn(20)
		n.Start()
		w.goesOn(20)
	}
	w.settle(rounds, 0)
}
