package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"parley/core/chat"
	"parley/core/checker"
	"parley/core/client"
	"parley/core/wire"
)

// follower is one fast reader: it logs and tells when it has all it waits for.
type follower struct {
	log  *checker.Log
	left atomic.Int64
	all  chan struct{}
}

func (f *follower) observe(ev any) {
	f.log.Observe(ev)
	if e, ok := ev.(*wire.EntryEvent); ok && e.Type == "message" && f.left.Add(-1) == 0 {
		close(f.all)
	}
}

// TestAStalledReaderHurtsNobody puts a client that reads nothing beside 1,000
// that do. All of those get everything in order; the stalled one is closed as
// a slow consumer or catches up when it wakes, and misses nothing either way.
func TestAStalledReaderHurtsNobody(t *testing.T) {
	const readers, messages = 1000, 100
	const room = chat.RoomID("stadium")
	n := startNode(t, unlimited(settings{"limits.lag_bytes": "128KiB", "limits.connections_per_ip": 0, "limits.history_entries": 1000}))

	var run checker.Run
	followers := make([]*follower, readers)
	var dialing sync.WaitGroup
	slots := make(chan struct{}, 32)
	for i := range followers {
		f := &follower{log: checker.NewLog(fmt.Sprintf("reader %d", i)), all: make(chan struct{})}
		f.left.Store(messages)
		followers[i] = f
		run.Logs = append(run.Logs, f.log)
		slots <- struct{}{}
		dialing.Go(func() {
			defer func() { <-slots }()
			conn, err := client.Dial(within(t), client.Options{URL: n.url(i), OnEvent: f.observe})
			if err != nil {
				t.Errorf("reader %d: %v", i, err)
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			if _, err := conn.Join(within(t), room, nil); err != nil {
				t.Errorf("reader %d: %v", i, err)
			}
		})
	}
	dialing.Wait()
	if t.Failed() {
		t.FailNow()
	}
	stalled := stall(t, n, room)
	run.Logs = append(run.Logs, stalled.log)

	speaker := visit(t, client.Options{URL: n.wsURL(), Guest: "speaker"})
	text := strings.Repeat("goal! ", 600) // 100 of these exceed lag_bytes and every socket buffer in between
	for range messages {
		speaker.says(room, text)
	}
	for i, f := range followers {
		select {
		case <-f.all:
			f.log.Settles(room)
		case <-within(t).Done():
			t.Fatalf("reader %d still waits for %d messages", i, f.left.Load())
		}
	}
	stalled.wake()

	epoch, entries, err := speaker.HistoryAll(within(t), room)
	if err != nil {
		t.Fatal(err)
	}
	run.Histories = []checker.History{{Room: room, Epoch: epoch, Entries: entries}}
	if stalled.catchUp(entries[len(entries)-1].Seq) && n.metric("parley_slow_consumers_total") == 0 {
		t.Error("the stalled reader was closed and parley_slow_consumers_total says 0")
	}
	rep := checker.Check(run)
	t.Log(rep)
	if err := rep.Err(); err != nil {
		t.Error(err)
	}
	if rep.Resets > 0 {
		t.Errorf("got %d resets, want none", rep.Resets)
	}
	n.stop()
}

// sleeper is a client that stops reading once it has joined.
type sleeper struct {
	t     *testing.T
	node  *node
	room  chat.RoomID
	log   *checker.Log
	conn  *client.Conn
	opt   client.Options
	gate  chan struct{} // closed on waking
	stall atomic.Bool
}

func stall(t *testing.T, n *node, room chat.RoomID) *sleeper {
	t.Helper()
	s := &sleeper{t: t, node: n, room: room, log: checker.NewLog("the stalled reader"), gate: make(chan struct{})}
	s.opt = client.Options{
		URL: n.wsURL(), Guest: "sleepy",
		NetDial: smallWindow,
		OnEvent: func(ev any) {
			if s.stall.Load() {
				<-s.gate
			}
			s.log.Observe(ev)
		},
	}
	conn, err := client.Dial(within(t), s.opt)
	if err != nil {
		t.Fatal(err)
	}
	s.conn = conn
	if _, err := conn.Join(within(t), room, nil); err != nil {
		t.Fatal(err)
	}
	s.stall.Store(true)
	t.Cleanup(func() {
		s.stall.Store(false)
		select {
		case <-s.gate:
		default:
			close(s.gate)
		}
		s.conn.Cut()
	})
	return s
}

// smallWindow connects with the smallest receive buffer the kernel gives, so
// that the server feels the stall early.
func smallWindow(ctx context.Context, network, address string) (net.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return nc, nc.(*net.TCPConn).SetReadBuffer(1)
}

func (s *sleeper) wake() { close(s.gate) }

// catchUp waits until the sleeper stands at top, on its own connection or,
// when that was closed as too slow, on one that resumes. A socket that takes
// nothing takes no close frame either, so the close may show as a broken
// connection.
func (s *sleeper) catchUp(top uint64) (wasClosed bool) {
	s.t.Helper()
	at := func() uint64 { p, _ := s.conn.Position(s.room); return p.Seq }
	await(s.t, "the stalled reader has everything or was closed", func() bool {
		select {
		case <-s.conn.Done():
			return true
		default:
			return at() >= top
		}
	})
	if wasClosed = at() < top; wasClosed {
		var ce *client.CloseError
		if !errors.As(s.conn.Err(), &ce) || !ce.Code.Reconnect() {
			s.t.Fatalf("the stalled reader's connection ended with %v, want slow_consumer (%d) or another code that asks to come again", s.conn.Err(), wire.CloseSlow)
		}
		s.t.Logf("the stalled reader was closed at seq %d: %v", at(), ce)
		since, _ := s.conn.Position(s.room)
		opt := s.opt
		opt.Secret = s.conn.Welcome().Secret
		conn, err := client.Dial(within(s.t), opt)
		if err != nil {
			s.t.Fatal(err)
		}
		s.conn = conn
		j, err := conn.Join(within(s.t), s.room, &since)
		if err != nil {
			s.t.Fatal(err)
		}
		if !j.Recovered {
			s.t.Errorf("the stalled reader could not resume from %+v", since)
		}
		await(s.t, "the stalled reader resumes to the top", func() bool { return at() >= top })
	}
	s.log.Settles(s.room)
	return wasClosed
}
