package journaltest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

var eraseCases = []testCase{
	{"erase leaves tombstones in their places", eraseTombstones},
	{"erase changes nothing else", eraseNothingElse},
	{"erase of what is not there", eraseMissing},
	{"an erased entry's nonce is answered as before", eraseNonce},
	{"erase outlasts a reopen", eraseReopen},
	{"erase beside appends, reads and another erase", eraseUnderLoad},
	{"erase takes the reasons out of decisions", eraseDecisions},
	{"an entry records what was erased", eraseRecorded},
}

func mustErase(t *testing.T, j journal.Journal, room chat.RoomID, want int, er journal.Erasure) {
	t.Helper()
	if er.Epoch == "" {
		er.Epoch = mustInfo(t, j, room).Top.Epoch
	}
	if n, err := j.Erase(within(t), room, er); err != nil || n != want {
		t.Fatalf("erase %v of %s: got %d, %v, want %d", er.Seqs, room, n, err, want)
	}
}

// tombstone is the entry as it must be once erased.
func tombstone(e journal.Entry) journal.Entry {
	e.Text, e.Reasons, e.Outcome = "", nil, chat.Erased
	return e
}

func eraseTombstones(t *testing.T, s Store) {
	j := open(t, s)
	es := fill(t, j, "lobby", 10)
	before := mustInfo(t, j, "lobby")
	mustErase(t, j, "lobby", 3, journal.Erasure{Seqs: []uint64{1, 4, 10}})
	for _, i := range []int{0, 3, 9} {
		es[i] = tombstone(es[i])
	}
	_, got := readAll(t, j, "lobby", 0, 3)
	wantEntries(t, "read", got, es)
	_, down, err := j.ReadBefore(within(t), "lobby", 0, 5)
	if err != nil {
		t.Fatal(err)
	}
	wantEntries(t, "read before", down, es[5:])
	if after := mustInfo(t, j, "lobby"); after.Top != before.Top || after.First != before.First {
		t.Errorf("got %+v after, want the top and first of %+v", after, before)
	}
	mustErase(t, j, "lobby", 0, journal.Erasure{Seqs: []uint64{1, 4, 10}}) // again
	rc := mustAppend(t, j, journal.Request{Room: "lobby", Entry: message("lobby", "ann", "later", "later").Entry, Known: before.Top})
	if rc.Seq != 11 || rc.Epoch != before.Top.Epoch {
		t.Errorf("the next entry got seq %d of %q, want 11 of %q", rc.Seq, rc.Epoch, before.Top.Epoch)
	}
}

func eraseNothingElse(t *testing.T, s Store) {
	j := open(t, s)
	other := fill(t, j, "attic", 5)
	r := message("lobby", "mia", "k", "please calm down")
	r.Entry.Kind, r.Entry.Changes = journal.KindKick, []journal.Change{{Key: "role/bob"}, {Key: "ban/ann", Value: []byte(`{"by":"mia"}`)}}
	r.Entry.Seq = mustAppend(t, j, r).Seq
	mustErase(t, j, "lobby", 1, journal.Erasure{Seqs: []uint64{1}})
	_, got := readAll(t, j, "lobby", 0, 10)
	wantEntries(t, "the changes stay", got, []journal.Entry{tombstone(r.Entry)})
	if st := mustInfo(t, j, "lobby").State; string(st["ban/ann"]) != `{"by":"mia"}` {
		t.Errorf("got state %q, want the ban", st)
	}
	_, got = readAll(t, j, "attic", 0, 10)
	wantEntries(t, "another room", got, other)
}

func eraseMissing(t *testing.T, s Store) {
	j := openWith(t, s, Options{MaxEntries: 10})
	fill(t, j, "lobby", 5)
	info := mustInfo(t, j, "lobby")
	mustErase(t, j, "lobby", 0, journal.Erasure{Seqs: []uint64{0, 6, 1 << 40}})
	mustErase(t, j, "lobby", 0, journal.Erasure{})
	_, err := j.Erase(within(t), "lobby", journal.Erasure{Epoch: "another", Seqs: []uint64{1}})
	wantErr(t, "another epoch", err, journal.ErrOtherEpoch)
	_, err = j.Erase(within(t), "nowhere", journal.Erasure{Epoch: info.Top.Epoch, Seqs: []uint64{1}})
	if err == nil {
		if _, es := readAll(t, j, "nowhere", 0, 10); len(es) > 0 {
			t.Errorf("got %d entries in a room that is not there", len(es))
		}
	}
	_, err = j.Erase(within(t), "lobby", journal.Erasure{Epoch: info.Top.Epoch, Seqs: make([]uint64, journal.MaxErasure+1)})
	wantErr(t, "too many", err, journal.ErrTooLarge)
	_, es := readAll(t, j, "lobby", 0, 10)
	wantSeqs(t, "nothing was erased", es, 1, 5)
	if es[0].Text == "" {
		t.Error("an entry was erased")
	}
}

func eraseNonce(t *testing.T, s Store) {
	j := open(t, s)
	r := message("lobby", "ann", "n1", "a secret")
	first := mustAppend(t, j, r)
	mustErase(t, j, "lobby", 1, journal.Erasure{Seqs: []uint64{1}})
	r.Entry.ID = newID()
	wantReceipt(t, "resend", mustAppend(t, j, r), first, true)
	rc, ok, err := j.Lookup(within(t), "lobby", "ann", "n1")
	if err != nil || !ok {
		t.Fatalf("look up: got %v, %v", ok, err)
	}
	wantReceipt(t, "look up", rc, first, true)
	_, es := readAll(t, j, "lobby", 0, 10)
	wantSeqs(t, "nothing was added", es, 1, 1)
}

func eraseReopen(t *testing.T, s Store) {
	j := s.Open(t, Options{})
	es := fill(t, j, "lobby", 3)
	mustErase(t, j, "lobby", 1, journal.Erasure{Seqs: []uint64{2}})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	es[1] = tombstone(es[1])
	_, got := readAll(t, open(t, s), "lobby", 0, 10)
	wantEntries(t, "after a reopen", got, es)
}

// eraseUnderLoad erases while others append, read, and erase.
func eraseUnderLoad(t *testing.T, s Store) {
	j := open(t, s)
	const before, more = 1500, 300
	fill(t, j, "lobby", before)
	epoch := mustInfo(t, j, "lobby").Top.Epoch
	ctx := within(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range more {
			if _, err := j.Append(ctx, message("lobby", "bob", fmt.Sprint("m", i), "more")); err != nil {
				t.Errorf("append: %v", err)
				return
			}
		}
	})
	for w := range 2 {
		wg.Go(func() {
			for i := range 5 {
				seqs := []uint64{uint64(1 + w + 2*i), uint64(1000 + w + 2*i)}
				if n, err := j.Erase(ctx, "lobby", journal.Erasure{Epoch: epoch, Seqs: seqs}); err != nil || n != 2 {
					t.Errorf("erase %v: got %d, %v", seqs, n, err)
				}
			}
		})
	}
	wg.Go(func() {
		if err := readThrough(ctx, j, before); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	_, es := readAll(t, j, "lobby", 0, 500)
	wantSeqs(t, "all", es, 1, before+more)
	for i := range es {
		seq := es[i].Seq
		erased := seq <= 10 || seq >= 1000 && seq < 1010
		if (es[i].Outcome == chat.Erased) != erased || erased != (es[i].Text == "") {
			t.Fatalf("entry %d: got outcome %q and text %q, want erased %v", seq, es[i].Outcome, es[i].Text, erased)
		}
	}
}

func readThrough(ctx context.Context, j journal.Journal, n uint64) error {
	for range 20 {
		for after := uint64(0); after < n; {
			_, es, err := j.Read(ctx, "lobby", after, 200)
			if err != nil {
				return err
			}
			for i := range es {
				if after++; es[i].Seq != after {
					return fmt.Errorf("read entry %d where %d should be", es[i].Seq, after)
				}
			}
			if len(es) == 0 {
				return fmt.Errorf("read nothing after %d", after)
			}
		}
	}
	return nil
}

func eraseDecisions(t *testing.T, s Store) {
	j := open(t, s)
	quote := []chat.Reason{{Code: "rejected", Text: "you wrote a secret", Source: "moderator"}}
	decide := func(user chat.UserID, nonce string, outcome chat.Outcome) chat.MessageID {
		r := message("lobby", user, nonce, "a secret")
		e := r.Entry
		e.Outcome, e.Reasons = chat.Held, nil
		mustAppend(t, j, journal.Request{Room: "lobby", Entry: e, Review: &journal.Review{Entry: e}})
		done := e
		done.Outcome, done.Reasons, done.Text = outcome, quote, ""
		e.Outcome, e.Reasons = outcome, quote
		if outcome != chat.Accepted {
			e.Text = ""
		}
		mustAppend(t, j, journal.Request{Room: "lobby", Entry: e, Review: &journal.Review{Entry: done, By: "mia", Decided: 1732000000999}})
		return e.ID
	}
	posted := decide("ann", "1", chat.Accepted)
	decide("ann", "2", chat.Rejected)
	decide("bob", "3", chat.Rejected)
	left := func() (got string) {
		_, decided, err := j.Reviews(within(t), "lobby")
		if err != nil || len(decided) != 3 {
			t.Fatalf("got %d decisions, %v, want 3", len(decided), err)
		}
		for _, r := range decided {
			for _, reason := range r.Entry.Reasons {
				got += fmt.Sprint(r.Entry.From, " ", r.Entry.ID == posted, " ", reason.Text, "; ")
			}
		}
		return got
	}
	mustErase(t, j, "lobby", 1, journal.Erasure{Seqs: []uint64{1}})
	if got := left(); strings.Contains(got, "true") || strings.Count(got, "ann") != 1 {
		t.Errorf("of the erased entry: got %q", got)
	}
	mustErase(t, j, "lobby", 0, journal.Erasure{Author: "ann"})
	if got := left(); strings.Contains(got, "ann") || !strings.Contains(got, "bob") {
		t.Errorf("of an author: got %q", got)
	}
}

func eraseRecorded(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 3)
	w := newRecorder()
	defer watch(t, j, "lobby", w)()
	r := message("lobby", "mia", "e", "by request")
	r.Entry.Kind, r.Entry.Erases = journal.KindErase, []uint64{1, 3}
	r.Entry.Seq = mustAppend(t, j, r).Seq
	_, es := readAll(t, j, "lobby", 3, 10)
	wantEntries(t, "the record", es, []journal.Entry{r.Entry})
	wantEntries(t, "what was heard", w.await(t, j, "lobby", mustInfo(t, j, "lobby").Top.Epoch, 4, 4), []journal.Entry{r.Entry})
	mustErase(t, j, "lobby", 0, journal.Erasure{Seqs: []uint64{4}}) // what erased is not erased
	r.Entry.Nonce, r.Entry.Erases = "e2", make([]uint64, journal.MaxErases+1)
	_, err := j.Append(within(t), r)
	wantErr(t, "too many", err, journal.ErrTooLarge)
}
