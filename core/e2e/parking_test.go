package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley/core/checker"
	"parley/core/client"
)

// wires are the connections of a crowd, to be cut.
type wires struct {
	mu    sync.Mutex
	conns []net.Conn // by member, the newest
}

// dial is the NetDial of member i.
func (w *wires) dial(i int) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.conns[i] = c
		}
		return c, err
	}
}

// cut ends the connection of member i.
func (w *wires) cut(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.conns[i].Close()
}

// TestParkedConnectionsLoseNothing has connections wait in epoll: while a crowd
// talks, so that each rests and is woken again and again, while members are
// cut off, beside one that reads nothing, and through a drain.
func TestParkedConnectionsLoseNothing(t *testing.T) {
	const members, talkers, cuts = 16, 12, 12
	n := startNode(t, unlimited(settings{
		"transport.parking": true, "shutdown.reconnect_jitter": "1s",
		"limits.lag_bytes": "512KiB", "limits.send_buffer_bytes": "16KiB", "limits.history_entries": 1000,
	}))
	w := &wires{conns: make([]net.Conn, members)}
	c := newCrowd(t, "lobby", "kitchen")
	for i := range members {
		c.Add(fmt.Sprintf("client %d", i), client.ResilientOptions{
			Options: client.Options{URL: n.URL(i), Guest: fmt.Sprintf("guest%d", i), NetDial: w.dial(i)},
		})
	}
	everyoneRests := func(count float64) {
		t.Helper()
		await(t, "every connection is parked", func() bool {
			return n.Metric("parley_connections") == count && n.Metric("parley_parked_connections") == count
		})
	}
	everyoneRests(members)
	c.Talk(talkers, 30*time.Millisecond)
	for range cuts {
		c.More(100)
		w.cut(rand.IntN(members))
	}
	c.More(100)
	aSleeperComesBack(t, n)

	n.Signal(syscall.SIGTERM)
	if code := n.Ended(); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
	n.Start()
	c.More(500)
	c.Hush()
	everyoneRests(members)
	rep := c.Settle(client.Options{URL: n.WSURL(), Guest: "judge"})
	if rep.Resets > 0 || rep.Refused > 0 || rep.Unknown > 0 {
		t.Errorf("got %d resets, %d refused and %d unknown, want none", rep.Resets, rep.Refused, rep.Unknown)
	}
	n.Stop()
}

// aSleeperComesBack has a reader stall until it is closed as a slow consumer,
// and resume.
func aSleeperComesBack(t *testing.T, n *node) {
	t.Helper()
	s := stallWith(t, "sleeper", client.Options{URL: n.TCPURL(), NetDial: dialSmall}, gallery)
	speaker := visit(t, client.Options{URL: n.WSURL(), Guest: "speaker"})
	flood(t, speaker, gallery, 2400, strings.Repeat("psst! ", 50)) // the ring's 1,024 entries are below the bound on lag
	await(t, "the stalled reader is closed as a slow consumer", func() bool { return n.Metric("parley_slow_consumers_total") > 0 })
	s.wake()
	epoch, entries, err := speaker.HistoryAll(within(t), gallery)
	if err != nil {
		t.Fatal(err)
	}
	s.top[gallery] = entries[len(entries)-1].Seq
	s.comeBack()
	rep := checker.Check(checker.Run{Logs: []*checker.Log{s.log}, Histories: []checker.History{{Room: gallery, Epoch: epoch, Entries: entries}}})
	if err := rep.Err(); err != nil || rep.Resets > 0 {
		t.Errorf("got %v and %d resets, want none", err, rep.Resets)
	}
	_ = speaker.Close()
}
