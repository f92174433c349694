package journaltest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
)

var reviewCases = []testCase{
	{"a held message is stored without an entry", holdStores},
	{"a resend of a held nonce answers held again", holdRepeats},
	{"racing sends of one nonce hold once", holdRace},
	{"approval appends the entry and closes the review", approveAppends},
	{"rejection closes the review and erases the text", rejectErases},
	{"racing decisions decide once", decideRace},
	{"a review that is not open cannot be decided", notOpen},
	{"the decisions kept are bounded", decisionsBounded},
	{"reviews survive a reopen", reviewReopen},
	{"reviews survive a new epoch", reviewEpoch},
	{"requests that do not fit together store nothing", reviewMisfits},
	{"watch tells of reviews", reviewWatched},
	{"a review held on one node is approved on the other", reviewTwoNodes},
}

// held makes the request that puts a message in the queue.
func held(room chat.RoomID, from chat.UserID, nonce, text string) journal.Request {
	r := message(room, from, nonce, text)
	r.Entry.Outcome = chat.Held
	r.Review = &journal.Review{Entry: r.Entry, Record: "9f86d0"}
	return r
}

// decided makes the request that decides a review, as journal users do.
func decided(room chat.RoomID, v journal.Review, outcome chat.Outcome, by chat.UserID) journal.Request {
	e := v.Entry
	e.Outcome, e.Reasons = outcome, nil
	v.Entry = e
	v.Entry.Text, v.By, v.Decided = "", by, 1732000000456
	if outcome != chat.Accepted {
		e.Text = ""
	}
	return journal.Request{Room: room, Entry: e, Review: &v}
}

func mustReviews(t *testing.T, j journal.Journal, room chat.RoomID) (open, done []journal.Review) {
	t.Helper()
	open, done, err := j.Reviews(within(t), room)
	if err != nil {
		t.Fatalf("reviews of %s: %v", room, err)
	}
	return open, done
}

func wantReview(t *testing.T, what string, got []journal.Review, want ...journal.Review) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: got %d reviews, want %d", what, len(got), len(want))
	}
	for i := range got {
		g, w := got[i], want[i]
		if !equal(g.Entry, w.Entry) || g.Appeal != w.Appeal || g.Record != w.Record || g.By != w.By || g.Decided != w.Decided {
			t.Errorf("%s: review %d: got %+v, want %+v", what, i, g, w)
		}
	}
}

func holdStores(t *testing.T, s Store) {
	j := open(t, s)
	want := fill(t, j, "lobby", 2)
	before := mustInfo(t, j, "lobby")
	r := held("lobby", "ann", "h1", "hmm")
	r.Review.Appeal = true
	rc := mustAppend(t, j, r)
	if rc.Seq != 0 || rc.ID != r.Entry.ID || rc.Outcome != chat.Held || rc.Repeat || rc.Epoch != before.Top.Epoch || len(rc.Reasons) != 1 {
		t.Errorf("receipt: got %+v, want seq 0, held, in epoch %q", rc, before.Top.Epoch)
	}
	mustAppend(t, j, held("lobby2", "ann", "h1", "elsewhere"))
	opens, done := mustReviews(t, j, "lobby")
	wantReview(t, "open", opens, *r.Review)
	wantReview(t, "decided", done)
	_, got := readAll(t, j, "lobby", 0, 10)
	wantEntries(t, "the log", got, want)
	if after := mustInfo(t, j, "lobby"); after.Top != before.Top || len(after.State) != 0 {
		t.Errorf("info: got %+v, want %+v", after, before)
	}
	if next := mustAppend(t, j, message("lobby", "ann", "n9", "on")); next.Seq != 3 {
		t.Errorf("the next entry: got seq %d, want 3", next.Seq)
	}
	if opens, done := mustReviews(t, j, "nowhere"); len(opens)+len(done) != 0 {
		t.Errorf("a room that is not there: got %d and %d reviews, want none", len(opens), len(done))
	}
}

func holdRepeats(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 1)
	first := mustAppend(t, j, held("lobby", "ann", "h1", "hmm"))
	wantReceipt(t, "held again", mustAppend(t, j, held("lobby", "ann", "h1", "hmm")), first, true)
	wantReceipt(t, "sent again and passed this time", mustAppend(t, j, message("lobby", "ann", "h1", "hmm")), first, true)
	got, ok, err := j.Lookup(within(t), "lobby", "ann", "h1")
	if err != nil || !ok {
		t.Fatalf("lookup: got ok %v, error %v, want it found", ok, err)
	}
	wantReceipt(t, "lookup", got, first, true)
	if opens, _ := mustReviews(t, j, "lobby"); len(opens) != 1 {
		t.Errorf("got %d open reviews, want 1", len(opens))
	}
	// And the other way round: what was posted is not held.
	wantReceipt(t, "posted, then held", mustAppend(t, j, held("lobby", "ann", "n1", "text 1")),
		mustAppend(t, j, message("lobby", "ann", "n1", "text 1")), true)
}

func holdRace(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 1)
	ctx := within(t)
	ids := make([]chat.MessageID, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			rc, err := j.Append(ctx, held("lobby", "ann", "h1", "hmm"))
			if err != nil {
				t.Errorf("hold: %v", err)
			}
			ids[i] = rc.ID
		})
	}
	wg.Wait()
	opens, _ := mustReviews(t, j, "lobby")
	if len(opens) != 1 {
		t.Fatalf("got %d open reviews, want 1", len(opens))
	}
	for _, id := range ids {
		if id != opens[0].Entry.ID {
			t.Errorf("told id %s, want %s", id, opens[0].Entry.ID)
		}
	}
}

func approveAppends(t *testing.T, s Store) {
	j := open(t, s)
	want := fill(t, j, "lobby", 1)
	r := held("lobby", "ann", "h1", "hmm")
	mustAppend(t, j, r)
	ok := decided("lobby", *r.Review, chat.Accepted, "mod")
	ok.Entry.Changes = []journal.Change{{Key: "k", Value: []byte("v")}}
	rc := mustAppend(t, j, ok)
	if rc.Seq != 2 || rc.Repeat || rc.ID != r.Entry.ID || rc.Outcome != chat.Accepted {
		t.Errorf("receipt: got %+v, want seq 2 and accepted", rc)
	}
	ok.Entry.Seq = 2
	_, got := readAll(t, j, "lobby", 0, 10)
	wantEntries(t, "the log", got, append(want, ok.Entry))
	wantState(t, "state", mustInfo(t, j, "lobby").State, map[string]string{"k": "v"})
	opens, done := mustReviews(t, j, "lobby")
	wantReview(t, "open", opens)
	wantReview(t, "decided", done, *ok.Review)
	wantReceipt(t, "the author resends", mustAppend(t, j, held("lobby", "ann", "h1", "hmm")), rc, true)
}

func rejectErases(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 1)
	r := held("lobby", "ann", "h1", "hmm")
	mustAppend(t, j, r)
	no := decided("lobby", *r.Review, chat.Rejected, "mod")
	no.Entry.Reasons = []chat.Reason{{Code: "rejected", Text: "Not here."}}
	no.Review.Entry.Reasons = no.Entry.Reasons
	rc := mustAppend(t, j, no)
	if rc.Seq != 0 || rc.Outcome != chat.Rejected || rc.ID != r.Entry.ID || len(rc.Reasons) != 1 {
		t.Errorf("receipt: got %+v, want seq 0, rejected and the reason", rc)
	}
	opens, done := mustReviews(t, j, "lobby")
	wantReview(t, "open", opens)
	wantReview(t, "decided", done, *no.Review)
	wantReceipt(t, "the author resends", mustAppend(t, j, message("lobby", "ann", "h1", "hmm")), rc, true)
	_, es := readAll(t, j, "lobby", 0, 10)
	wantSeqs(t, "the log", es, 1, 1)
}

func decideRace(t *testing.T, s Store) {
	nodes := []journal.Journal{open(t, s)}
	if s.Shared {
		nodes = append(nodes, open(t, s))
	}
	fill(t, nodes[0], "lobby", 1)
	const rounds, deciders = 10, 6
	ctx := within(t)
	approved := 0
	for round := range rounds {
		r := held("lobby", "ann", fmt.Sprint("h", round), "hmm")
		mustAppend(t, nodes[0], r)
		won := make([]chat.Outcome, deciders)
		var wg sync.WaitGroup
		for i := range won {
			wg.Go(func() {
				outcome := []chat.Outcome{chat.Accepted, chat.Rejected}[i%2]
				rc, err := nodes[i%len(nodes)].Append(ctx, decided("lobby", *r.Review, outcome, chat.UserID(fmt.Sprint("mod", i))))
				switch {
				case err == nil && !rc.Repeat:
					won[i] = outcome
				case !errors.Is(err, journal.ErrNotOpen):
					t.Errorf("decide: got %+v, %v, want success or %v", rc, err, journal.ErrNotOpen)
				}
			})
		}
		wg.Wait()
		winners := 0
		for _, outcome := range won {
			if outcome == "" {
				continue
			}
			winners++
			if outcome == chat.Accepted {
				approved++
			}
		}
		if winners != 1 {
			t.Fatalf("%d of %d decisions counted, want 1", winners, deciders)
		}
	}
	_, es := readAll(t, nodes[0], "lobby", 0, 100)
	wantSeqs(t, "the log", es, 1, uint64(1+approved))
	if opens, done := mustReviews(t, nodes[0], "lobby"); len(opens) != 0 || len(done) != rounds {
		t.Errorf("got %d open and %d decided, want 0 and %d", len(opens), len(done), rounds)
	}
}

func notOpen(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 1)
	r := held("lobby", "ann", "h1", "hmm")
	for _, outcome := range []chat.Outcome{chat.Accepted, chat.Rejected} {
		_, err := j.Append(within(t), decided("lobby", *r.Review, outcome, "mod"))
		wantErr(t, "deciding what was never held", err, journal.ErrNotOpen)
	}
	mustAppend(t, j, r)
	_, err := j.Append(within(t), decided("attic", *r.Review, chat.Accepted, "mod"))
	wantErr(t, "deciding in another room", err, journal.ErrNotOpen)
	if opens, done := mustReviews(t, j, "lobby"); len(opens) != 1 || len(done) != 0 {
		t.Errorf("got %d open and %d decided, want 1 and 0", len(opens), len(done))
	}
	_, es := readAll(t, j, "lobby", 0, 100)
	wantSeqs(t, "the log", es, 1, 1)
}

func decisionsBounded(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 1)
	var last chat.MessageID
	for i := range journal.MaxDecided + 3 {
		r := held("lobby", "ann", fmt.Sprint("h", i), "hmm")
		mustAppend(t, j, r)
		d := decided("lobby", *r.Review, chat.Rejected, "mod")
		d.Review.Decided += int64(i)
		mustAppend(t, j, d)
		last = r.Entry.ID
	}
	_, done := mustReviews(t, j, "lobby")
	if len(done) != journal.MaxDecided || done[0].Entry.ID != last {
		t.Errorf("got %d decisions, the newest %s, want %d and %s", len(done), done[0].Entry.ID, journal.MaxDecided, last)
	}
}

func reviewReopen(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 1)
	waits, gone := held("lobby", "ann", "h1", "hmm"), held("lobby", "bob", "h1", "no")
	first := mustAppend(t, j, waits)
	mustAppend(t, j, gone)
	no := decided("lobby", *gone.Review, chat.Rejected, "mod")
	refused := mustAppend(t, j, no)
	if err := j.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	j = open(t, s)
	opens, done := mustReviews(t, j, "lobby")
	wantReview(t, "open", opens, *waits.Review)
	wantReview(t, "decided", done, *no.Review)
	wantReceipt(t, "held", mustAppend(t, j, waits), first, true)
	wantReceipt(t, "rejected", mustAppend(t, j, gone), refused, true)
	if rc := mustAppend(t, j, decided("lobby", *waits.Review, chat.Accepted, "mod")); rc.Seq != 2 {
		t.Errorf("approval after a reopen: got seq %d, want 2", rc.Seq)
	}
}

func reviewEpoch(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 5)
	r := held("lobby", "ann", "h1", "hmm")
	mustAppend(t, j, r)
	old := mustInfo(t, j, "lobby").Top
	ok := decided("lobby", *r.Review, chat.Accepted, "mod")
	ok.Known = journal.Position{Epoch: old.Epoch, Seq: 9, ID: newID()}
	if rc := mustAppend(t, j, ok); rc.Seq != 6 || rc.Epoch == old.Epoch {
		t.Errorf("approval of a caller that knows more: got %+v, want seq 6 of a new epoch", rc)
	}
	second := mustInfo(t, j, "lobby").Top
	late := held("lobby", "ann", "h2", "hmm")
	late.Known = journal.Position{Epoch: "foreign", Seq: 9, ID: newID()}
	if rc := mustAppend(t, j, late); rc.Seq != 0 || rc.Epoch == "" || rc.Epoch == second.Epoch {
		t.Errorf("held by a caller that knows more: got %+v, want seq 0 of a new epoch", rc)
	}
	if top := mustInfo(t, j, "lobby").Top; top.Seq != second.Seq || top.ID != second.ID || top.Epoch == second.Epoch {
		t.Errorf("the new epoch: got its top at %+v, want that of the one before, %+v", top, second)
	}
	if rc := mustAppend(t, j, message("lobby", "ann", "n", "first")); rc.Seq != 7 {
		t.Errorf("the first entry after a held message: got %+v, want seq 7", rc)
	}
	opens, done := mustReviews(t, j, "lobby")
	wantReview(t, "open", opens, *late.Review)
	wantReview(t, "decided", done, *ok.Review)
}

func reviewMisfits(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 1)
	for name, spoil := range map[string]func(r *journal.Request){
		"another id":     func(r *journal.Request) { r.Review.Entry.ID = newID() },
		"another author": func(r *journal.Request) { r.Entry.From = "bob" },
		"another nonce":  func(r *journal.Request) { r.Entry.Nonce = "x" },
		"no nonce":       func(r *journal.Request) { r.Entry.Nonce, r.Review.Entry.Nonce = "", "" },
		"create":         func(r *journal.Request) { r.Create = true },
		"two outcomes":   func(r *journal.Request) { r.Entry.Outcome = chat.Accepted },
		"open, accepted": func(r *journal.Request) { r.Entry.Outcome, r.Review.Entry.Outcome = chat.Accepted, chat.Accepted },
		"changes":        func(r *journal.Request) { r.Entry.Changes = []journal.Change{{Key: "k"}} },
		"text kept": func(r *journal.Request) {
			*r = decided("lobby", *r.Review, chat.Accepted, "m")
			r.Review.Entry.Text = "hmm"
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := held("lobby", "ann", "h1", "hmm")
			spoil(&r)
			if rc, err := j.Append(within(t), r); err == nil {
				t.Errorf("got %+v, want an error", rc)
			}
		})
	}
	if opens, done := mustReviews(t, j, "lobby"); len(opens)+len(done) != 0 {
		t.Errorf("got %d open and %d decided, want none", len(opens), len(done))
	}
}

// awaitReviews waits until the recorder has heard of n reviews.
func (r *recorder) awaitReviews(t *testing.T, n int) []journal.Review {
	t.Helper()
	deadline := time.After(Patience)
	for {
		r.mu.Lock()
		got := append([]journal.Review(nil), r.reviews...)
		r.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-r.heard:
		case <-deadline:
			t.Fatalf("heard of %d reviews within %v, want %d", len(got), Patience, n)
		}
	}
}

// awaitLink waits until what is appended reaches the watcher: a review is a
// hint, and a watch that is not subscribed yet misses it.
func awaitLink(t *testing.T, j journal.Journal, w *recorder) {
	t.Helper()
	rc := mustAppend(t, j, message("lobby", "ann", "", "is anybody listening"))
	w.await(t, j, "lobby", rc.Epoch, rc.Seq, rc.Seq)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reviews = nil
}

func reviewWatched(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 1)
	w := newRecorder()
	defer watch(t, j, "lobby", w)()
	if s.Shared {
		w.awaitDoubt(t)
	}
	awaitLink(t, j, w)
	r := held("lobby", "ann", "h1", "hmm")
	mustAppend(t, j, r)
	wantReview(t, "heard", w.awaitReviews(t, 1), *r.Review)
	ok := decided("lobby", *r.Review, chat.Accepted, "mod")
	rc := mustAppend(t, j, ok)
	wantReview(t, "heard", w.awaitReviews(t, 2), *r.Review, *ok.Review)
	es := w.await(t, j, "lobby", rc.Epoch, rc.Seq, rc.Seq)
	if es[0].ID != r.Entry.ID || es[0].Text != "hmm" {
		t.Errorf("entry heard: got %+v, want the approved one", es[0])
	}
}

// awaitDoubt waits for the Doubt that says that a shared store's link is up.
func (r *recorder) awaitDoubt(t *testing.T) {
	t.Helper()
	deadline := time.After(Patience)
	for {
		r.mu.Lock()
		doubt := r.doubt
		r.mu.Unlock()
		if doubt {
			return
		}
		select {
		case <-r.heard:
		case <-deadline:
			t.Fatalf("the watch was not subscribed within %v", Patience)
		}
	}
}

func reviewTwoNodes(t *testing.T, s Store) {
	if !s.Shared {
		reviewTwoHandles(t, open(t, s))
		return
	}
	a, b := open(t, s), open(t, s)
	fill(t, a, "lobby", 1)
	w := newRecorder()
	defer watch(t, a, "lobby", w)()
	w.awaitDoubt(t)
	r := held("lobby", "ann", "h1", "hmm")
	mustAppend(t, a, r)
	opens, _ := mustReviews(t, b, "lobby")
	wantReview(t, "on the other node", opens, *r.Review)
	ok := decided("lobby", opens[0], chat.Accepted, "mod")
	rc := mustAppend(t, b, ok)
	w.awaitReviews(t, 2)
	es := w.await(t, a, "lobby", rc.Epoch, rc.Seq, rc.Seq)
	if es[0].Nonce != "h1" || es[0].From != "ann" {
		t.Errorf("the entry on the first node: got %+v, want ann's with nonce h1", es[0])
	}
	_, err := a.Append(within(t), decided("lobby", opens[0], chat.Rejected, "mod2"))
	wantErr(t, "rejecting what the other node approved", err, journal.ErrNotOpen)
	wantReceipt(t, "the author resends", mustAppend(t, a, r), rc, true)
}

// reviewTwoHandles is the same promise where one journal is all there is: what
// one caller read, another may have decided meanwhile.
func reviewTwoHandles(t *testing.T, j journal.Journal) {
	fill(t, j, "lobby", 1)
	r := held("lobby", "ann", "h1", "hmm")
	mustAppend(t, j, r)
	opens, _ := mustReviews(t, j, "lobby")
	rc := mustAppend(t, j, decided("lobby", opens[0], chat.Accepted, "mod"))
	_, err := j.Append(within(t), decided("lobby", opens[0], chat.Rejected, "mod2"))
	wantErr(t, "rejecting what was approved", err, journal.ErrNotOpen)
	wantReceipt(t, "the author resends", mustAppend(t, j, r), rc, true)
}
