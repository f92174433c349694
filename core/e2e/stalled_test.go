package e2e

import (
	"errors"
	"fmt"
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
	conn *client.Conn
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

// The rooms of the stalled reader: one it shares with a thousand, and one of
// its own, which alone carries more than the kernel's buffers hold (tcp_wmem
// and tcp_rmem end at 4 and 6 MiB by default), so that it falls behind for
// sure and the thousand need not read all that.
const (
	stadium = chat.RoomID("stadium")
	gallery = chat.RoomID("gallery")
)

// TestAStalledReaderHurtsNobody puts a client that reads nothing beside 1,000
// that do. All of those get everything in order; the stalled one is closed as
// a slow consumer, and when it comes back it has missed nothing either.
func TestAStalledReaderHurtsNobody(t *testing.T) {
	const readers, messages, gossip = 1000, 100, 4000
	n := startNode(t, unlimited(settings{
		"limits.lag_bytes": "2MiB", "limits.lag_seconds": 0, "limits.connections_per_ip": 0, "limits.history_entries": 1000,
		// A thousand clients in one process on a busy machine may answer late,
		// and the stalled one must be found by its lag and nothing else.
		"liveness.ping": 0, "liveness.user_timeout": 0,
	}))

	var run checker.Run
	followers := follow(t, n, readers, messages)
	for _, f := range followers {
		run.Logs = append(run.Logs, f.log)
	}
	stalled := stall(t, n, stadium, gallery)
	run.Logs = append(run.Logs, stalled.log)

	speaker := visit(t, client.Options{URL: n.WSURL(), Guest: "speaker"})
	flood(t, speaker, gallery, gossip, strings.Repeat("psst! ", 600))
	for i := range messages {
		speaker.says(stadium, fmt.Sprintf("goal number %d!", i))
	}
	for i, f := range followers {
		select {
		case <-f.all:
			f.log.Settles(stadium)
		case <-f.conn.Done():
			t.Fatalf("reader %d waits for %d messages and its connection has ended: %v", i, f.left.Load(), f.conn.Err())
		case <-within(t).Done():
			t.Fatalf("reader %d still waits for %d messages", i, f.left.Load())
		}
	}
	await(t, "the stalled reader is closed as a slow consumer", func() bool { return n.Metric("parley_slow_consumers_total") > 0 })
	stalled.wake()

	for _, room := range []chat.RoomID{stadium, gallery} {
		epoch, entries, err := speaker.HistoryAll(within(t), room)
		if err != nil {
			t.Fatal(err)
		}
		run.Histories = append(run.Histories, checker.History{Room: room, Epoch: epoch, Entries: entries})
		stalled.top[room] = entries[len(entries)-1].Seq
	}
	stalled.comeBack()
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

// follow connects fast readers to the stadium, each of which waits for a
// number of messages.
func follow(t *testing.T, n *node, readers, messages int) []*follower {
	t.Helper()
	followers := make([]*follower, readers)
	var dialing sync.WaitGroup
	slots := make(chan struct{}, 32)
	for i := range followers {
		f := &follower{log: checker.NewLog(fmt.Sprintf("reader %d", i)), all: make(chan struct{})}
		f.left.Store(int64(messages))
		followers[i] = f
		slots <- struct{}{}
		dialing.Go(func() {
			defer func() { <-slots }()
			conn, err := client.Dial(within(t), client.Options{URL: n.URL(i), OnEvent: f.observe})
			if err != nil {
				t.Errorf("reader %d: %v", i, err)
				return
			}
			f.conn = conn
			t.Cleanup(func() { _ = conn.Close() })
			if _, err := conn.Join(within(t), stadium, nil); err != nil {
				t.Errorf("reader %d: %v", i, err)
			}
		})
	}
	dialing.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return followers
}

// flood sends many messages without waiting for each, and waits for all.
func flood(t *testing.T, v *visitor, room chat.RoomID, count int, text string) {
	t.Helper()
	slots := make(chan struct{}, 64)
	for range count {
		slots <- struct{}{}
		err := v.SendAsync(room, client.NewNonce(), text, func(_ *wire.AckEvent, err error) {
			if err != nil {
				t.Errorf("flood %s: %v", room, err)
			}
			<-slots
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
}

// sleeper is a client that stops reading once it has joined its rooms.
type sleeper struct {
	t     *testing.T
	rooms []chat.RoomID
	log   *checker.Log
	conn  *client.Conn
	opt   client.Options
	gate  chan struct{} // closed on waking
	stall atomic.Bool
	top   map[chat.RoomID]uint64
}

func stall(t *testing.T, n *node, rooms ...chat.RoomID) *sleeper {
	t.Helper()
	return stallWith(t, "the stalled reader", client.Options{URL: n.WSURL(), Guest: "sleepy"}, rooms...)
}

func stallWith(t *testing.T, name string, opt client.Options, rooms ...chat.RoomID) *sleeper {
	t.Helper()
	s := &sleeper{t: t, rooms: rooms, log: checker.NewLog(name), gate: make(chan struct{}), top: make(map[chat.RoomID]uint64), opt: opt}
	s.opt.OnEvent = func(ev any) {
		if s.stall.Load() {
			<-s.gate
		}
		s.log.Observe(ev)
	}
	conn, err := client.Dial(within(t), s.opt)
	if err != nil {
		t.Fatal(err)
	}
	s.conn = conn
	for _, room := range rooms {
		if _, err := conn.Join(within(t), room, nil); err != nil {
			t.Fatal(err)
		}
	}
	s.stall.Store(true)
	t.Cleanup(func() {
		select {
		case <-s.gate:
		default:
			s.wake()
		}
		s.conn.Cut()
	})
	return s
}

func (s *sleeper) wake() { close(s.gate) }

// comeBack reads what the closed connection still holds, connects again and
// resumes to the top of its rooms. A socket that takes nothing takes no close
// frame either, so the close may show as a broken connection.
func (s *sleeper) comeBack() {
	s.t.Helper()
	select {
	case <-s.conn.Done():
	case <-within(s.t).Done():
		s.t.Fatal("the stalled reader's connection did not end")
	}
	var ce *client.CloseError
	if !errors.As(s.conn.Err(), &ce) || (ce.Code != wire.CloseSlow && ce.Code != 1006) {
		s.t.Fatalf("the stalled reader's connection ended with %v, want slow_consumer (%d), or broken", s.conn.Err(), wire.CloseSlow)
	}
	var rooms []wire.JoinRoom
	for _, room := range s.rooms {
		since, _ := s.conn.Position(room)
		rooms = append(rooms, wire.JoinRoom{Room: room, Since: &since})
	}
	s.opt.Secret = s.conn.Welcome().Secret
	conn, err := client.Dial(within(s.t), s.opt)
	if err != nil {
		s.t.Fatal(err)
	}
	s.conn = conn
	joined, refused, err := conn.JoinAll(within(s.t), rooms)
	if err != nil || len(refused) > 0 {
		s.t.Fatalf("the stalled reader could not join again: %v, %v", refused, err)
	}
	for _, room := range s.rooms {
		if !joined[room].Recovered {
			s.t.Errorf("the stalled reader could not resume %s", room)
		}
		await(s.t, fmt.Sprintf("the stalled reader has resumed %s to the top", room), func() bool {
			at, _ := conn.Position(room)
			select {
			case <-conn.Done():
				s.t.Fatalf("the connection that resumes ended at seq %d of %d in %s: %v", at.Seq, s.top[room], room, conn.Err())
			default:
			}
			return at.Seq >= s.top[room]
		})
		s.log.Settles(room)
	}
}
