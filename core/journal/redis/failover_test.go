package redis_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/redis"
	"parley/core/redis/redistest"
)

// failover is a primary that can be killed, and a replica that takes over.
type failover struct {
	url              string
	primary, replica *redistest.Server
	await            func()
	lies             func(chat.RoomID) bool // whether the primary has the room
}

// failovers are the ways in which a primary is replaced.
var failovers = map[string]func(*testing.T) failover{
	"sentinel": func(t *testing.T) failover {
		primary := redistest.Start(t, redistest.Options{})
		replica := redistest.StartReplica(t, primary, redistest.Options{})
		s := redistest.StartSentinels(t, 3, primary, replica)
		return failover{s.URL(), primary, replica, s.AwaitFailover, func(chat.RoomID) bool { return true }}
	},
	"cluster": func(t *testing.T) failover {
		c := redistest.StartCluster(t, 3, 1, redistest.Options{})
		primary, replica := c.Masters[1], c.Replicas[1][0]
		return failover{c.URL(), primary, replica, func() { replica.AwaitLog(0, "Failover election won") }, func(room chat.RoomID) bool {
			slot := redis.Slot("{" + string(room) + "}")
			return slot >= 16384/3 && slot < 2*16384/3
		}}
	},
}

// writer appends to one room until told to stop, and resends what got no
// answer, as a client does.
type writer struct {
	room  chat.RoomID
	acked []journal.Receipt
	count atomic.Int64
}

func (w *writer) run(t *testing.T, j journal.Journal, stop <-chan struct{}) {
	var known journal.Position
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		r := message(w.room, fmt.Sprintf("%s-%d", w.room, i))
		var rc journal.Receipt
		for {
			r.Known = known
			var err error
			if rc, err = j.Append(t.Context(), r); err == nil {
				break
			}
			if t.Context().Err() != nil {
				return
			}
		}
		known = journal.Position{Epoch: rc.Epoch, Seq: rc.Seq, ID: rc.ID}
		w.acked = append(w.acked, rc)
		w.count.Add(1)
	}
}

// await waits until every writer has so many more answers.
func await(t *testing.T, j journal.Journal, writers []*writer, more int64) {
	t.Helper()
	ctx := within(t)
	for _, w := range writers {
		for want := w.count.Load() + more; w.count.Load() < want; {
			if ctx.Err() != nil {
				t.Fatalf("%s: %d answers, want %d", w.room, w.count.Load(), want)
			}
			_, _ = j.Info(ctx, w.room) // a round trip between two looks
		}
	}
}

// TestPrimaryKilledUnderLoad kills a primary while nodes append to nine rooms.
// What was acknowledged is there, or the room has a new epoch and its followers
// have heard of it.
func TestPrimaryKilledUnderLoad(t *testing.T) {
	for name, start := range failovers {
		t.Run(name, func(t *testing.T) {
			f := start(t)
			nodes := []*journalredis.Journal{
				node(t, impatient(f.url), journalredis.Defaults()), node(t, impatient(f.url), journalredis.Defaults()),
			}
			var writers []*writer
			var followers []*follower
			stop := make(chan struct{})
			var running sync.WaitGroup
			for i := range 9 {
				w := &writer{room: chat.RoomID(fmt.Sprintf("room-%d", i))}
				writers = append(writers, w)
				followers = append(followers, follow(t, nodes[(i+1)%2], w.room))
				running.Go(func() { w.run(t, nodes[i%2], stop) })
			}
			await(t, nodes[0], writers, 50)
			f.primary.Kill()
			f.await()
			await(t, nodes[0], writers, 50)
			close(stop)
			running.Wait()
			lost, began := 0, 0
			for i, w := range writers {
				epoch, all := ids(t, nodes[0], w.room)
				followers[i].await(t, epoch, all)
				gone := w.check(t, epoch, all)
				lost += gone
				if first := w.acked[0].Epoch; first != epoch {
					began++
					if !f.lies(w.room) {
						t.Errorf("%s lies on another primary, and has a new epoch", w.room)
					}
				} else if gone > 0 {
					t.Errorf("%s: %d acknowledged entries are gone without a new epoch", w.room, gone)
				}
			}
			t.Logf("%d acknowledged entries lost with %d rooms begun anew", lost, began)
		})
	}
}

// check compares what was acknowledged with what is there, and returns how
// many entries are not.
func (w *writer) check(t *testing.T, epoch string, all []chat.MessageID) (lost int) {
	t.Helper()
	seen := make(map[chat.MessageID]bool)
	for i, id := range all {
		if seen[id] {
			t.Errorf("%s: %s is there twice, again at %d", w.room, id, i+1)
		}
		seen[id] = true
	}
	now, last := w.acked[0].Epoch, uint64(0)
	past := map[string]bool{}
	for _, rc := range w.acked {
		if rc.Epoch != now {
			past[now] = true
			if now, last = rc.Epoch, min(last, rc.Seq-1); past[now] {
				t.Errorf("%s: back in the epoch %s, which had ended", w.room, now)
			}
		}
		if rc.Seq <= last {
			t.Errorf("%s: acknowledged at %d after %d", w.room, rc.Seq, last)
		}
		last = rc.Seq
		survived := rc.Seq <= uint64(len(all)) && all[rc.Seq-1] == rc.ID
		if rc.Epoch != epoch && !survived {
			lost++
		} else if !survived && rc.Seq > uint64(len(all)) {
			t.Errorf("%s: %d of the present epoch is not there", w.room, rc.Seq)
		} else if !survived {
			t.Errorf("%s: %d is %s, acknowledged was %s", w.room, rc.Seq, all[rc.Seq-1], rc.ID)
		}
	}
	return lost
}

// TestLostTail has a replica take over that has missed the last entries: the
// next append says so, to everyone.
func TestLostTail(t *testing.T) {
	for name, start := range failovers {
		t.Run(name, func(t *testing.T) {
			f := start(t)
			room := chat.RoomID("room-0")
			for i := 1; !f.lies(room); i++ {
				room = chat.RoomID(fmt.Sprintf("room-%d", i))
			}
			j := node(t, impatient(f.url), journalredis.Defaults())
			far := follow(t, node(t, impatient(f.url), journalredis.Defaults()), room)
			far.awaitDoubt(t, 0)
			insist(t, j, message(room, "kept"))
			f.primary.AwaitReplica()
			f.replica.Pause()
			f.primary.Do("CLIENT", "KILL", "TYPE", "replica") // or the kernel keeps the entry for it
			lost := insist(t, j, message(room, "lost"))
			f.primary.Kill()
			f.replica.Resume()
			before := far.doubted()
			f.await()
			r := message(room, "after")
			r.Known = journal.Position{Epoch: lost.Epoch, Seq: lost.Seq, ID: lost.ID}
			rc := insist(t, j, r)
			if rc.Epoch == lost.Epoch || rc.Seq != 2 {
				t.Errorf("after the failover: got %d of %q, want 2 of an epoch other than %q", rc.Seq, rc.Epoch, lost.Epoch)
			}
			far.awaitDoubt(t, before)
			epoch, all := ids(t, j, room)
			if epoch != rc.Epoch || fmt.Sprint(all) != "[id-of-kept id-of-after]" {
				t.Errorf("got %q of %q, want what survived and the entry after the failover", all, epoch)
			}
			far.await(t, epoch, all)
		})
	}
}
