package room

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/wire"
)

// lossy is a journal whose deliveries are dropped, repeated and swapped, as
// pub/sub does, until calm is called. The log itself is the real one.
type lossy struct {
	journal.Journal
	mu   sync.Mutex
	rng  *rand.Rand
	held []func()
	all  []journal.Watcher
}

type lossyWatcher struct {
	l *lossy
	w journal.Watcher
}

func (l *lossy) Watch(ctx context.Context, room chat.RoomID, w journal.Watcher) (func(), error) {
	l.mu.Lock()
	l.all = append(l.all, w)
	l.mu.Unlock()
	return l.Journal.Watch(ctx, room, lossyWatcher{l, w})
}

func (x lossyWatcher) Reviewed(r *journal.Review) { x.w.Reviewed(r) }

func (x lossyWatcher) Doubt() { x.w.Doubt() }

func (x lossyWatcher) Appended(epoch string, e *journal.Entry) {
	l := x.l
	l.mu.Lock()
	var now []func()
	deliver := func() { x.w.Appended(epoch, e) }
	switch l.rng.IntN(4) {
	case 0: // lost
	case 1: // late
		l.held = append(l.held, deliver)
	case 2: // twice
		now = append(now, deliver, deliver)
	default:
		now = append(now, deliver)
	}
	if len(l.held) > 3 {
		now, l.held = append(now, l.held...), nil
	}
	l.mu.Unlock()
	for _, f := range now {
		f()
	}
}

// doubt tells the watchers that they may have missed something, as the Redis
// journal does when its link comes back.
func (l *lossy) doubt() {
	l.mu.Lock()
	all := l.all
	l.mu.Unlock()
	for _, w := range all {
		w.Doubt()
	}
}

func TestLostRepeatedAndSwappedDeliveriesLeaveNoTrace(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			l := &lossy{rng: rand.New(rand.NewPCG(seed, 1))}
			w := newWorld(t, small, func(j journal.Journal) journal.Journal { l.Journal = j; return l })
			w.post("lobby", 1)
			awaitHeadOrDoubt(t, w.room("lobby"), 1, l)
			a, b := newSink(-1), newSink(200)
			w.join("lobby", a, nil)
			w.join("lobby", b, nil)
			w.post("lobby", 200)
			b.open(-1)
			l.doubt()
			for _, s := range []*sink{a, b} {
				s.awaitSeq(t, 201)
				s.checkRun(t, 2, 201)
			}
		})
	}
}

func awaitHeadOrDoubt(t *testing.T, r *Room, seq uint64, l *lossy) {
	t.Helper()
	l.doubt()
	awaitHead(t, r, seq)
}

// newEpoch makes the store open a new epoch, as it does when it has lost what
// the caller knows.
func newEpoch(t *testing.T, w *world, id chat.RoomID) journal.Receipt {
	t.Helper()
	w.n++
	top := w.room(id).Position()
	top.Seq += 1000
	rec, err := w.j.Append(t.Context(), journal.Request{Room: id, Entry: message(w.n), Known: top})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestNewEpochResetsEveryMember(t *testing.T) {
	w := newWorld(t, func(c *Config) { small(c); c.LagBytes, c.LagTime = 0, 0 }, nil)
	w.post("lobby", 20)
	awaitHead(t, w.room("lobby"), 20)
	old := w.room("lobby").Position()
	live, stalled := newSink(-1), newSink(100)
	w.join("lobby", live, nil)
	w.join("lobby", stalled, nil)
	w.post("lobby", 30)
	live.awaitSeq(t, 50)
	rec := newEpoch(t, w, "lobby")
	if rec.Epoch == old.Epoch || rec.Seq != 51 {
		t.Fatalf("got %+v, want seq 51 of a new epoch", rec)
	}
	stalled.open(-1)
	for name, s := range map[string]*sink{"live": live, "stalled": stalled} {
		s.await(t, name+": a reset", func(s *sink) bool {
			for _, e := range s.events(t) {
				if e.Type == "reset" && e.Epoch == rec.Epoch {
					return true
				}
			}
			return false
		})
	}
	awaitHead(t, w.room("lobby"), 51)
	w.post("lobby", 5)
	for name, s := range map[string]*sink{"live": live, "stalled": stalled} {
		s.awaitSeq(t, 56)
		var after, resetAt uint64
		seen := false
		for _, e := range s.events(t) {
			switch {
			case e.Type == "reset":
				seen, resetAt, after = true, e.Seq, e.Seq
			case e.Type == "message" && seen:
				if after++; e.Seq != after {
					t.Fatalf("%s: got seq %d after the reset at %d, want %d", name, e.Seq, resetAt, after)
				}
			}
		}
	}
	// An old position must not be resumed from.
	s := newSink(-1)
	w.join("lobby", s, &old)
	s.await(t, "joined", func(s *sink) bool { return len(s.events(t)) > 0 })
	if s.events(t)[0].Recovered {
		t.Error("a position of the old epoch was recovered")
	}
	if w.hub.Stats().Resets.Load() == 0 {
		t.Error("the reset was not counted")
	}
}

func TestEntriesAheadOfTheirTurnAreBounded(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.post("lobby", 1)
	r := w.room("lobby")
	awaitHead(t, r, 1)
	epoch := r.Position().Epoch
	for i := range uint64(2 * maxPending) {
		e := message(int(i) + 10)
		e.Seq = i + 10
		r.Appended(epoch, &e)
	}
	r.mu.Lock()
	n := len(r.pending)
	r.mu.Unlock()
	if n > maxPending {
		t.Errorf("got %d waiting entries, at most %d may be", n, maxPending)
	}
	if got := r.Position().Seq; got != 1 {
		t.Errorf("room moved to %d without the entries between", got)
	}
}

func TestRingHoldsTheNewest(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 7))
		r := ring{first: 1, maxSlots: 8 << rng.IntN(4), maxBytes: 100 + rng.IntN(4000)}
		if rng.IntN(2) == 0 {
			r.restart(rng.Uint64N(1000))
		}
		start := r.head
		var bytes []int
		for i := range 1 + rng.IntN(200) {
			f := wire.Encode(wire.PingEvent{Type: wire.Pong, TS: rng.Int64N(1 << 40)})
			r.push(slot{frame: f, id: chat.MessageID(fmt.Sprint(start + uint64(i) + 1))})
			bytes = append(bytes, f.Len())
			if r.head != start+uint64(i)+1 || r.first > r.head {
				t.Fatalf("seed %d: got first %d head %d after %d pushes from %d", seed, r.first, r.head, i+1, start)
			}
			sum := 0
			for seq := r.first; seq <= r.head; seq++ {
				if got, want := string(r.at(seq).id), fmt.Sprint(seq); got != want {
					t.Fatalf("seed %d: slot %d holds %s", seed, seq, got)
				}
				sum += bytes[seq-start-1]
			}
			if sum != r.bytes || (sum > r.maxBytes && r.first < r.head) || int(r.head-r.first+1) > r.maxSlots {
				t.Fatalf("seed %d: got %d bytes (counted %d) in %d slots, bounds are %d and %d", seed, sum, r.bytes, r.head-r.first+1, r.maxBytes, r.maxSlots)
			}
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"ring entries": func(c *Config) { c.RingEntries = 1 },
		"ring bytes":   func(c *Config) { c.RingBytes = 0 },
		"reply bytes":  func(c *Config) { c.ReplyBytes = 0 },
		"negative":     func(c *Config) { c.LagBytes = -1 },
	} {
		c := Defaults()
		change(&c)
		if _, err := New(c, nil, nil); err == nil {
			t.Errorf("%s: a bad value was taken", name)
		}
	}
}
