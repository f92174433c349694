package journaltest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
)

// queueCases are about what waits, and for how long.
var queueCases = []testCase{
	{"an open review keeps its nonce beyond the window", heldNonceStays},
	{"an open review keeps its nonce over a reopen", heldNonceReopen},
	{"an open review keeps its nonce in a new epoch", heldNonceEpoch},
	{"a decision gives the nonce a window", heldNonceLeaves},
	{"the queue is bounded", queueFull},
	{"the queue is bounded for each author", ownQueueFull},
	{"racing holds of one author keep to the bound", ownQueueRace},
	{"an expired review is closed, its text erased", expireErases},
	{"overdue reviews are listed, the oldest first", overdue},
	{"overdue reviews of both nodes are listed", overdueTwoNodes},
}

// brief is the shortest window that every implementation takes.
const brief = time.Millisecond

// awaitForgotten posts a message of its own and waits until its nonce has left
// the window, and so has any that was used before.
func awaitForgotten(t *testing.T, j journal.Journal, room chat.RoomID) {
	t.Helper()
	r := message(room, "clock", "tick "+string(newID()), "tick")
	mustAppend(t, j, r)
	for deadline := time.Now().Add(Patience); ; {
		_, ok, err := j.Lookup(within(t), room, "clock", r.Entry.Nonce)
		switch {
		case err != nil:
			t.Fatalf("lookup: %v", err)
		case !ok:
			return
		case time.Now().After(deadline):
			t.Fatalf("a nonce was remembered for %v, want %v", Patience, brief)
		}
	}
}

// wantHeld checks that every way to ask for the nonce of an open review is
// answered with its receipt, and that nothing is stored.
func wantHeld(t *testing.T, j journal.Journal, r journal.Request, first journal.Receipt) {
	t.Helper()
	before := mustInfo(t, j, r.Room).Top
	first.Epoch = before.Epoch
	wantReceipt(t, "sent again and passed this time", mustAppend(t, j, message(r.Room, r.Entry.From, r.Entry.Nonce, "hmm")), first, true)
	wantReceipt(t, "held again", mustAppend(t, j, held(r.Room, r.Entry.From, r.Entry.Nonce, "hmm")), first, true)
	got, ok, err := j.Lookup(within(t), r.Room, r.Entry.From, r.Entry.Nonce)
	if err != nil || !ok {
		t.Fatalf("lookup: got ok %v, error %v, want it found", ok, err)
	}
	wantReceipt(t, "lookup", got, first, true)
	if after := mustInfo(t, j, r.Room).Top; after != before {
		t.Errorf("the log: got its top at %+v, want %+v", after, before)
	}
	opens, _ := mustReviews(t, j, r.Room)
	wantReview(t, "open", opens, *r.Review)
}

func heldNonceStays(t *testing.T, s Store) {
	j := openWith(t, s, Options{NonceWindow: brief})
	r := held("lobby", "ann", "h1", "hmm")
	first := mustAppend(t, j, r)
	awaitForgotten(t, j, "lobby")
	wantHeld(t, j, r, first)
	// Others may have that nonce.
	mustAppend(t, j, message("lobby", "bob", "h1", "mine"))
	mustAppend(t, j, message("attic", "ann", "h1", "elsewhere"))
	rc := mustAppend(t, j, decided("lobby", *r.Review, chat.Accepted, "mod"))
	_, es := readAll(t, j, "lobby", 0, 10)
	wantSeqs(t, "the log", es, 1, 3)
	if rc.Seq != 3 || es[2].ID != r.Entry.ID {
		t.Errorf("approved: got %+v and %+v, want the held message at seq 3", rc, es[2])
	}
}

func heldNonceReopen(t *testing.T, s Store) {
	j := openWith(t, s, Options{NonceWindow: brief})
	r := held("lobby", "ann", "h1", "hmm")
	first := mustAppend(t, j, r)
	awaitForgotten(t, j, "lobby")
	if err := j.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	wantHeld(t, openWith(t, s, Options{NonceWindow: brief}), r, first)
}

func heldNonceEpoch(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 2)
	r := held("lobby", "ann", "h1", "hmm")
	first := mustAppend(t, j, r)
	old := mustInfo(t, j, "lobby").Top
	again := message("lobby", "ann", "h1", "hmm")
	again.Known = journal.Position{Epoch: old.Epoch, Seq: 9, ID: newID()}
	rc := mustAppend(t, j, again)
	if rc.Epoch == old.Epoch || rc.Epoch == "" {
		t.Errorf("sent by a caller that knows more: got %+v, want a new epoch", rc)
	}
	first.Epoch = rc.Epoch
	wantReceipt(t, "sent by a caller that knows more", rc, first, true)
	wantHeld(t, j, r, first)
	if rc := mustAppend(t, j, decided("lobby", *r.Review, chat.Accepted, "mod")); rc.Seq != 3 || rc.Epoch != first.Epoch {
		t.Errorf("approved: got %+v, want seq 3 of the new epoch", rc)
	}
}

func heldNonceLeaves(t *testing.T, s Store) {
	j := openWith(t, s, Options{NonceWindow: brief})
	for _, outcome := range []chat.Outcome{chat.Accepted, chat.Rejected, chat.Expired} {
		r := held("lobby", "ann", "h1", "hmm")
		if rc := mustAppend(t, j, r); rc.Repeat {
			t.Fatalf("%s: held: got %+v, want the nonce to be new", outcome, rc)
		}
		mustAppend(t, j, decided("lobby", *r.Review, outcome, "mod"))
		awaitForgotten(t, j, "lobby")
	}
	if rc := mustAppend(t, j, message("lobby", "ann", "h1", "hmm")); rc.Repeat || rc.Seq == 0 {
		t.Errorf("got %+v, want the nonce to be new", rc)
	}
}

// fillQueue has authors hold as many messages as one may, until n wait.
func fillQueue(t *testing.T, j journal.Journal, room chat.RoomID, n int) (last journal.Request) {
	t.Helper()
	for i := range n {
		last = held(room, chat.UserID(fmt.Sprint("user", i/journal.MaxOwnReviews)), fmt.Sprint("h", i), "hmm")
		mustAppend(t, j, last)
	}
	return last
}

func queueFull(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 1)
	last := fillQueue(t, j, "lobby", journal.MaxReviews)
	_, err := j.Append(within(t), held("lobby", "ann", "one more", "hmm"))
	wantErr(t, "one more", err, journal.ErrQueueFull)
	if _, ok, err := j.Lookup(within(t), "lobby", "ann", "one more"); ok || err != nil {
		t.Errorf("lookup of what was refused: got ok %v, error %v, want neither", ok, err)
	}
	if rc := mustAppend(t, j, last); !rc.Repeat {
		t.Errorf("one that waits, sent again: got %+v, want its receipt", rc)
	}
	mustAppend(t, j, held("attic", "ann", "other", "another room has room"))
	mustAppend(t, j, decided("lobby", *last.Review, chat.Rejected, "mod"))
	mustAppend(t, j, held("lobby", "ann", "one more", "hmm"))
	_, err = j.Append(within(t), held("lobby", "ann", "and one", "hmm"))
	wantErr(t, "and one", err, journal.ErrQueueFull)
}

func ownQueueFull(t *testing.T, s Store) {
	j := open(t, s)
	last := fillQueue(t, j, "lobby", journal.MaxOwnReviews)
	author := last.Entry.From
	_, err := j.Append(within(t), held("lobby", author, "one more", "hmm"))
	wantErr(t, "one more", err, journal.ErrOwnQueueFull)
	if rc := mustAppend(t, j, last); !rc.Repeat {
		t.Errorf("one that waits, sent again: got %+v, want its receipt", rc)
	}
	mustAppend(t, j, held("lobby", "ann", "other", "another author"))
	mustAppend(t, j, held("attic", author, "other", "another room"))
	for i, outcome := range []chat.Outcome{chat.Rejected, chat.Accepted, chat.Expired} {
		mustAppend(t, j, decided("lobby", *last.Review, outcome, "mod"))
		last = held("lobby", author, fmt.Sprint("after ", i), "hmm")
		mustAppend(t, j, last)
		_, err := j.Append(within(t), held("lobby", author, "one more", "hmm"))
		wantErr(t, "one more after "+string(outcome), err, journal.ErrOwnQueueFull)
	}
	if err := j.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	_, err = open(t, s).Append(within(t), held("lobby", author, "one more", "hmm"))
	wantErr(t, "one more after a reopen", err, journal.ErrOwnQueueFull)
}

func ownQueueRace(t *testing.T, s Store) {
	nodes := []journal.Journal{open(t, s)}
	if s.Shared {
		nodes = append(nodes, open(t, s))
	}
	fill(t, nodes[0], "lobby", 1)
	ctx := within(t)
	var taken atomic.Int32
	var wg sync.WaitGroup
	for i := range 3 * journal.MaxOwnReviews {
		wg.Go(func() {
			_, err := nodes[i%len(nodes)].Append(ctx, held("lobby", "ann", fmt.Sprint("h", i), "hmm"))
			switch {
			case err == nil:
				taken.Add(1)
			case !errors.Is(err, journal.ErrOwnQueueFull):
				t.Errorf("hold: got %v, want success or %v", err, journal.ErrOwnQueueFull)
			}
		})
	}
	wg.Wait()
	opens, _ := mustReviews(t, nodes[0], "lobby")
	if n := taken.Load(); n != journal.MaxOwnReviews || len(opens) != journal.MaxOwnReviews {
		t.Errorf("%d were taken and %d wait, want %d", n, len(opens), journal.MaxOwnReviews)
	}
}

func expireErases(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 1)
	r := held("lobby", "ann", "h1", "hmm")
	mustAppend(t, j, r)
	late := decided("lobby", *r.Review, chat.Expired, "")
	rc := mustAppend(t, j, late)
	if rc.Seq != 0 || rc.Outcome != chat.Expired || rc.ID != r.Entry.ID {
		t.Errorf("receipt: got %+v, want seq 0 and expired", rc)
	}
	opens, done := mustReviews(t, j, "lobby")
	wantReview(t, "open", opens)
	wantReview(t, "decided", done, *late.Review)
	wantReceipt(t, "the author resends", mustAppend(t, j, message("lobby", "ann", "h1", "hmm")), rc, true)
	_, err := j.Append(within(t), decided("lobby", *r.Review, chat.Accepted, "mod"))
	wantErr(t, "approving what has expired", err, journal.ErrNotOpen)
	_, es := readAll(t, j, "lobby", 0, 10)
	wantSeqs(t, "the log", es, 1, 1)
}

// heldAt is held at a time.
func heldAt(room chat.RoomID, nonce string, at int64) journal.Request {
	r := held(room, "ann", nonce, "hmm")
	r.Entry.Time, r.Review.Entry.Time = at, at
	return r
}

func mustOverdue(t *testing.T, j journal.Journal, before int64, limit int) []journal.Waiting {
	t.Helper()
	ws, err := j.Overdue(within(t), before, limit)
	if err != nil {
		t.Fatalf("overdue before %d: %v", before, err)
	}
	return ws
}

func wantWaiting(t *testing.T, what string, got []journal.Waiting, want ...journal.Request) {
	t.Helper()
	var rs, ws []journal.Review
	for i := range got {
		if rs = append(rs, got[i].Review); i < len(want) && got[i].Room != want[i].Room {
			t.Errorf("%s: review %d: got room %s, want %s", what, i, got[i].Room, want[i].Room)
		}
	}
	for i := range want {
		ws = append(ws, *want[i].Review)
	}
	wantReview(t, what, rs, ws...)
}

func overdue(t *testing.T, s Store) {
	j := open(t, s)
	wantWaiting(t, "an empty store", mustOverdue(t, j, 1000, 10))
	rs := []journal.Request{heldAt("lobby", "h1", 300), heldAt("attic", "h2", 100), heldAt("lobby", "h3", 200), heldAt("lobby", "h4", 400)}
	for _, r := range rs {
		mustAppend(t, j, r)
	}
	wantWaiting(t, "before 400", mustOverdue(t, j, 400, 10), rs[1], rs[2], rs[0])
	wantWaiting(t, "before 400, two", mustOverdue(t, j, 400, 2), rs[1], rs[2])
	wantWaiting(t, "before 100", mustOverdue(t, j, 100, 10))
	wantWaiting(t, "none", mustOverdue(t, j, 400, 0))
	mustAppend(t, j, decided("attic", *rs[1].Review, chat.Expired, ""))
	mustAppend(t, j, decided("lobby", *rs[0].Review, chat.Accepted, "mod"))
	wantWaiting(t, "without the decided", mustOverdue(t, j, 1000, 10), rs[2], rs[3])
	if err := j.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	wantWaiting(t, "after a reopen", mustOverdue(t, open(t, s), 1000, 10), rs[2], rs[3])
}

func overdueTwoNodes(t *testing.T, s Store) {
	a := open(t, s)
	b := a
	if s.Shared {
		b = open(t, s)
	}
	old, young := heldAt("lobby", "h1", 100), heldAt("attic", "h1", 200)
	mustAppend(t, b, young)
	mustAppend(t, a, old)
	for _, j := range slices.Compact([]journal.Journal{a, b}) {
		wantWaiting(t, "on every node", mustOverdue(t, j, 300, 10), old, young)
	}
	mustAppend(t, a, decided("attic", *young.Review, chat.Expired, ""))
	wantWaiting(t, "once one has expired", mustOverdue(t, b, 300, 10), old)
	_, err := b.Append(within(t), decided("attic", *young.Review, chat.Expired, ""))
	wantErr(t, "expiring what the other node has expired", err, journal.ErrNotOpen)
}
