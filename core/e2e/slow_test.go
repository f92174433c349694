package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"parley/core/chat"
	"parley/core/checker"
	"parley/core/client"
)

// many returns short in a usual run and long where PARLEY_LONG is set.
func many(short, long int) int {
	if os.Getenv("PARLEY_LONG") != "" {
		return long
	}
	return short
}

// dialSmall dials with a receive buffer of a few KiB, so that a reader that
// stalls is soon noticed. It must be set before the handshake, which announces
// the window (tcp(7), SO_RCVBUF).
func dialSmall(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) (err error) {
		if cerr := rc.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	return d.DialContext(ctx, network, address)
}

// TestManyStalledReadersHurtNobody puts readers that have stalled into one
// room with as many that have not. The fast ones get everything; of the
// stalled ones half wake in time and are served from the journal, half are
// closed as slow consumers and resume. Nobody misses, repeats or reorders an
// entry, and what the server holds for them is bounded.
func TestManyStalledReadersHurtNobody(t *testing.T) {
	fast, slow := many(50, 1000), many(100, 1000)
	const burst = 1200 // entries; the ring holds 1,024
	n := startNode(t, unlimited(settings{
		"limits.lag_bytes": "512KiB", "limits.lag_seconds": 0, "limits.send_buffer_bytes": "16KiB",
		"limits.connections_per_ip": 0, "limits.history_entries": 1000,
		"liveness.ping": 0, "liveness.user_timeout": 0, // the stalled are to be found by their lag and nothing else
	}))
	var run checker.Run
	followers := follow(t, n, fast, 2*burst)
	for _, f := range followers {
		run.Logs = append(run.Logs, f.log)
	}
	early, late := stallMany(t, n, slow/2), stallMany(t, n, slow-slow/2)
	for _, s := range append(early[:len(early):len(early)], late...) {
		run.Logs = append(run.Logs, s.log)
	}
	before := n.Metric("process_resident_memory_bytes")
	speaker := visit(t, client.Options{URL: n.WSURL(), Guest: "speaker"})
	text := strings.Repeat("goal! ", 30)
	flood(t, speaker, stadium, burst, text)
	top := speaker.position(t, stadium)
	for _, s := range early {
		s.wake()
	}
	for _, s := range early {
		s.reaches(stadium, top)
	}
	if got := n.Metric("parley_slow_consumers_total"); got != 0 {
		t.Errorf("got %v slow consumers closed, though no reader was behind by the limit", got)
	}
	if n.Metric("parley_catch_ups_total") == 0 {
		t.Error("no reader was served from the journal")
	}
	flood(t, speaker, stadium, burst, text)
	await(t, "the readers that still stall are closed as slow consumers", func() bool {
		return int(n.Metric("parley_slow_consumers_total")) == len(late)
	})
	grown := n.Metric("process_resident_memory_bytes") - before
	t.Logf("%d fast readers beside %d stalled ones: the server grew by %.1f MB", fast, slow, grown/1e6)
	if bound := 100e6 + float64(slow)*64e3; grown > bound {
		t.Errorf("the server grew by %.0f bytes for %d stalled readers, at most %.0f are expected", grown, slow, bound)
	}
	for i, f := range followers {
		select {
		case <-f.all:
			f.log.Settles(stadium)
		case <-f.conn.Done():
			t.Fatalf("reader %d: connection ended: %v", i, f.conn.Err())
		case <-within(t).Done():
			t.Fatalf("reader %d still waits for %d messages", i, f.left.Load())
		}
	}
	top = speaker.position(t, stadium)
	for _, s := range late {
		s.top[stadium] = top
		s.wake()
	}
	for _, s := range late {
		s.comeBack()
	}
	epoch, entries, err := speaker.HistoryAll(within(t), stadium)
	if err != nil {
		t.Fatal(err)
	}
	run.Histories = append(run.Histories, checker.History{Room: stadium, Epoch: epoch, Entries: entries})
	for _, s := range early {
		s.reaches(stadium, top)
		s.log.Settles(stadium)
	}
	rep := checker.Check(run)
	t.Log(rep)
	if err := rep.Err(); err != nil {
		t.Error(err)
	}
	if rep.Resets > 0 {
		t.Errorf("got %d resets, want none", rep.Resets)
	}
	n.Stop()
}

// stallMany connects readers with small buffers, alternately over WebSocket
// and TCP, that stall once they have joined the stadium.
func stallMany(t *testing.T, n *node, count int) []*sleeper {
	t.Helper()
	all := make([]*sleeper, count)
	for i := range all {
		all[i] = stallWith(t, fmt.Sprintf("sleeper %d", i), client.Options{URL: n.URL(i), NetDial: dialSmall}, stadium)
	}
	return all
}

// position returns the newest seq of the room.
func (v *visitor) position(t *testing.T, room chat.RoomID) uint64 {
	t.Helper()
	h, err := v.History(within(t), room, 0, 0, 1)
	if err != nil || len(h.Entries) != 1 {
		t.Fatalf("the newest entry of %s: %+v, %v", room, h, err)
	}
	return h.Entries[0].Seq
}

// reaches waits until the reader has got everything up to top.
func (s *sleeper) reaches(room chat.RoomID, top uint64) {
	s.t.Helper()
	await(s.t, fmt.Sprintf("a reader that woke has got %s to the top", room), func() bool {
		at, _ := s.conn.Position(room)
		select {
		case <-s.conn.Done():
			s.t.Fatalf("the connection of a reader that woke ended at seq %d of %d: %v", at.Seq, top, s.conn.Err())
		default:
		}
		return at.Seq >= top
	})
}
