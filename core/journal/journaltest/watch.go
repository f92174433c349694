package journaltest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
)

var watchCases = []testCase{
	{"watch delivers every append of its room", watchDelivers},
	{"watchers of one room are independent", watchSeveral},
	{"a cancelled watcher hears nothing more", watchCancel},
	{"a repeat and a refusal are not delivered", watchQuiet},
	{"watch tells of the new epoch", watchEpoch},
	{"what is delivered can be read at once", watchDurable},
	{"watch on one node hears the other", watchTwoNodes},
}

// recorder is a Watcher that keeps what it hears.
type recorder struct {
	mu    sync.Mutex
	got   map[string]map[uint64]journal.Entry // by epoch and seq
	doubt bool
	calls int

	reviews []journal.Review
	heard   chan struct{} // one slot: something was heard since the last look
	on      func(epoch string, e *journal.Entry)
}

func newRecorder() *recorder {
	return &recorder{got: map[string]map[uint64]journal.Entry{}, heard: make(chan struct{}, 1)}
}

func (r *recorder) Appended(epoch string, e *journal.Entry) {
	if r.on != nil {
		r.on(epoch, e)
	}
	r.mu.Lock()
	r.calls++
	if r.got[epoch] == nil {
		r.got[epoch] = map[uint64]journal.Entry{}
	}
	r.got[epoch][e.Seq] = *e
	r.mu.Unlock()
	r.signal()
}

func (r *recorder) Reviewed(v *journal.Review) {
	r.mu.Lock()
	r.calls++
	r.reviews = append(r.reviews, *v)
	r.mu.Unlock()
	r.signal()
}

func (r *recorder) Doubt() {
	r.mu.Lock()
	r.calls++
	r.doubt = true
	r.mu.Unlock()
	r.signal()
}

func (r *recorder) signal() {
	select {
	case r.heard <- struct{}{}:
	default:
	}
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls
}

// await waits until the recorder has heard the seqs first to last of the
// epoch, reading what is missing whenever it was left in doubt, and returns
// them in order.
func (r *recorder) await(t *testing.T, j journal.Journal, room chat.RoomID, epoch string, first, last uint64) []journal.Entry {
	t.Helper()
	deadline := time.After(Patience)
	for {
		r.mu.Lock()
		doubt := r.doubt
		r.doubt = false
		r.mu.Unlock()
		if doubt {
			e, es := readAll(t, j, room, first-1, 100)
			for i := range es {
				r.Appended(e, &es[i])
			}
		}
		r.mu.Lock()
		var es []journal.Entry
		for seq := first; seq <= last; seq++ {
			if e, ok := r.got[epoch][seq]; ok {
				es = append(es, e)
			}
		}
		r.mu.Unlock()
		if len(es) == int(last-first+1) {
			return es
		}
		select {
		case <-r.heard:
		case <-deadline:
			t.Fatalf("watch %s: heard %d of the entries %d to %d within %v", room, len(es), first, last, Patience)
		}
	}
}

func watch(t *testing.T, j journal.Journal, room chat.RoomID, w journal.Watcher) (cancel func()) {
	t.Helper()
	cancel, err := j.Watch(within(t), room, w)
	if err != nil {
		t.Fatalf("watch %s: %v", room, err)
	}
	return cancel
}

func watchDelivers(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 3)
	r := newRecorder()
	cancel := watch(t, j, "lobby", r)
	defer cancel()
	var want []journal.Entry
	for i := range 50 {
		req := message("lobby", "ann", fmt.Sprintf("m%d", i), fmt.Sprintf("lobby %d", i))
		if i%10 == 0 {
			req.Entry.Changes = []journal.Change{{Key: "k", Value: []byte("v")}, {Key: "gone"}}
		}
		req.Entry.Seq = mustAppend(t, j, req).Seq
		want = append(want, req.Entry)
		mustAppend(t, j, message("lobby2", "ann", fmt.Sprintf("m%d", i), "elsewhere"))
	}
	epoch := mustInfo(t, j, "lobby").Top.Epoch
	wantEntries(t, "watch", r.await(t, j, "lobby", epoch, 4, 53), want)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.got) != 1 {
		t.Errorf("heard of %d epochs, want 1", len(r.got))
	}
	for seq, e := range r.got[epoch] {
		if !strings.HasPrefix(e.Text, "lobby") && !strings.HasPrefix(e.Text, "text") {
			t.Errorf("heard seq %d of another room: %q", seq, e.Text)
		}
	}
}

func watchSeveral(t *testing.T, s Store) {
	j := open(t, s)
	rs := []*recorder{newRecorder(), newRecorder(), newRecorder()}
	for _, r := range rs {
		defer watch(t, j, "lobby", r)()
	}
	empty := newRecorder() // of a room nobody writes to
	defer watch(t, j, "attic", empty)()
	want := fill(t, j, "lobby", 10)
	epoch := mustInfo(t, j, "lobby").Top.Epoch
	for _, r := range rs {
		wantEntries(t, "watch", r.await(t, j, "lobby", epoch, 1, 10), want)
	}
	empty.mu.Lock()
	defer empty.mu.Unlock()
	if len(empty.got) != 0 {
		t.Errorf("watcher of a quiet room heard %v, want nothing", empty.got)
	}
}

func watchCancel(t *testing.T, s Store) {
	j := open(t, s)
	stays, goes := newRecorder(), newRecorder()
	defer watch(t, j, "lobby", stays)()
	cancel := watch(t, j, "lobby", goes)
	fill(t, j, "lobby", 5)
	epoch := mustInfo(t, j, "lobby").Top.Epoch
	goes.await(t, j, "lobby", epoch, 1, 5)
	cancel()
	cancel()
	before := goes.count()
	for i := range 20 {
		mustAppend(t, j, message("lobby", "bob", fmt.Sprint(i), "after cancel"))
	}
	stays.await(t, j, "lobby", epoch, 1, 25)
	if after := goes.count(); after != before {
		t.Errorf("heard %d calls after cancel returned, want none", after-before)
	}
	// Watching again after cancelling is an ordinary watch.
	again := newRecorder()
	defer watch(t, j, "lobby", again)()
	mustAppend(t, j, message("lobby", "bob", "again", "again"))
	again.await(t, j, "lobby", epoch, 26, 26)
}

func watchQuiet(t *testing.T, s Store) {
	j := open(t, s)
	r := newRecorder()
	mustAppend(t, j, message("lobby", "ann", "n1", "hi"))
	defer watch(t, j, "lobby", r)()
	mustAppend(t, j, message("lobby", "ann", "n1", "hi"))
	req := message("lobby", "bob", "n1", "hi")
	req.Create = true
	_, err := j.Append(within(t), req)
	wantErr(t, "create of a room with entries", err, journal.ErrExists)
	last := mustAppend(t, j, message("lobby", "ann", "n2", "the end"))
	r.await(t, j, "lobby", last.Epoch, 2, 2)
	r.mu.Lock()
	defer r.mu.Unlock()
	for seq, e := range r.got[last.Epoch] {
		if seq > 2 || e.From != "ann" {
			t.Errorf("heard seq %d from %s, want only what was appended", seq, e.From)
		}
	}
}

func watchEpoch(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 3)
	r := newRecorder()
	defer watch(t, j, "lobby", r)()
	rc := lose(t, j, "lobby", "x1", journal.Position{Epoch: "lost", Seq: 8, ID: newID()})
	es := r.await(t, j, "lobby", rc.Epoch, 4, 4)
	if es[0].ID != rc.ID {
		t.Errorf("got entry %s of the new epoch, want %s", es[0].ID, rc.ID)
	}
}

func watchDurable(t *testing.T, s Store) {
	j := open(t, s)
	type heard struct {
		epoch string
		seq   uint64
	}
	news := make(chan heard, 1024)
	r := newRecorder()
	r.on = func(epoch string, e *journal.Entry) {
		select {
		case news <- heard{epoch, e.Seq}:
		default: // a journal that repeats itself more than this is checked elsewhere
		}
	}
	defer watch(t, j, "lobby", r)()
	var wg sync.WaitGroup
	ctx := within(t)
	for w := range 4 {
		wg.Go(func() {
			for i := range 10 {
				if _, err := j.Append(ctx, message("lobby", "ann", fmt.Sprintf("%d-%d", w, i), "hi")); err != nil {
					t.Errorf("append: %v", err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	check := func(h heard) {
		epoch, es, err := j.Read(ctx, "lobby", h.seq-1, 1)
		if err != nil || len(es) != 1 || es[0].Seq != h.seq || epoch != h.epoch {
			t.Errorf("read of the delivered seq %d: got %d entries of %q, error %v", h.seq, len(es), epoch, err)
		}
	}
	for {
		select {
		case h := <-news:
			check(h)
			continue
		case <-done:
		}
		break
	}
	r.await(t, j, "lobby", mustInfo(t, j, "lobby").Top.Epoch, 1, 40)
}

func watchTwoNodes(t *testing.T, s Store) {
	a := open(t, s)
	b := a
	if s.Shared {
		b = open(t, s)
	}
	r := newRecorder()
	defer watch(t, b, "lobby", r)()
	want := fill(t, a, "lobby", 20)
	wantEntries(t, "watch on b", r.await(t, b, "lobby", mustInfo(t, a, "lobby").Top.Epoch, 1, 20), want)
}
