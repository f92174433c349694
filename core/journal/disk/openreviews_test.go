package disk

import (
	"errors"
	"fmt"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

// queueNow commits ps together and returns how many were taken, and the last error.
func queueNow(c *committer, ps ...*pending) (taken int, err error) {
	c.commit(ps)
	for _, p := range ps {
		if <-p.done; p.err != nil {
			err = p.err
			continue
		}
		taken++
	}
	return taken, err
}

// TestQueueWithinACommit: what is opened and closed in one commit counts for
// what follows in the same.
func TestQueueWithinACommit(t *testing.T) {
	com := stopped(t)
	var ps []*pending
	for i := range journal.MaxOwnReviews + 1 {
		ps = append(ps, reviewAs(t, fmt.Sprint(i), chat.Held))
	}
	if taken, err := queueNow(com, ps...); taken != journal.MaxOwnReviews || !errors.Is(err, journal.ErrOwnQueueFull) {
		t.Errorf("got %d taken, %v, want %d and %v", taken, err, journal.MaxOwnReviews, journal.ErrOwnQueueFull)
	}
	more, again := reviewAs(t, "more", chat.Held), reviewAs(t, "1", chat.Held)
	if taken, err := queueNow(com, reviewAs(t, "0", chat.Rejected), more, again, reviewAs(t, "last", chat.Held)); taken != 3 || !errors.Is(err, journal.ErrOwnQueueFull) {
		t.Errorf("after one was rejected: got %d taken, %v, want one more to be taken, and a repeat", taken, err)
	}
	if again.receipt.Outcome != chat.Held || !again.receipt.Repeat {
		t.Errorf("one that waits: got %+v, want its receipt", again.receipt)
	}
	if n := len(com.j.pub.open.byRoom["lobby"]); n != journal.MaxOwnReviews || len(com.j.pub.open.byNonce) != n {
		t.Errorf("%d reviews and %d nonces are in memory, want %d", n, len(com.j.pub.open.byNonce), journal.MaxOwnReviews)
	}
}

// TestHeldNonceWithinACommit: a new epoch begins between a hold and a resend of
// its nonce, in one commit.
func TestHeldNonceWithinACommit(t *testing.T) {
	for name, order := range map[string][]chat.Outcome{"held": {chat.Held}, "held and rejected": {chat.Held, chat.Rejected}} {
		t.Run(name, func(t *testing.T) {
			com := stopped(t)
			appendNow(t, com, request("lobby", "a", journal.Position{}))
			epoch := com.j.pub.heads["lobby"].epoch
			var ps []*pending
			for _, o := range order {
				ps = append(ps, reviewOf(t, o))
			}
			resend := request("lobby", "x", journal.Position{Epoch: epoch, Seq: 9, ID: "lost"})
			appendNow(t, com, append(ps, resend)...)
			switch rc := resend.receipt; {
			case rc.Epoch == epoch:
				t.Errorf("got %+v, want a new epoch", rc)
			case len(order) == 1 && (rc.Outcome != chat.Held || !rc.Repeat || rc.Seq != 0):
				t.Errorf("got %+v, want it held still", rc)
			case len(order) == 2 && (rc.Outcome != chat.Rejected || !rc.Repeat || rc.Seq != 0):
				t.Errorf("got %+v, want it rejected still", rc)
			}
		})
	}
}

// TestApprovedThoughPosted approves a message whose nonce was posted beside the
// open review, as a file could have it that an older version has written.
func TestApprovedThoughPosted(t *testing.T) {
	for _, outcome := range []chat.Outcome{chat.Accepted, chat.Rejected} {
		t.Run(string(outcome), func(t *testing.T) {
			com := stopped(t)
			j := com.j
			appendNow(t, com, reviewOf(t, chat.Held))
			open, nonces := j.pub.open, j.pub.nonces
			j.pub.open, j.pub.nonces = newOpenReviews(), map[nonceHash]uint64{}
			posted := request("lobby", "x", journal.Position{})
			posted.req.Entry.ID, posted.req.Entry.Outcome = "other", chat.Accepted
			if err := posted.encode(); err != nil {
				t.Fatal(err)
			}
			appendNow(t, com, posted)
			for hash := range nonces {
				nonces[hash] = j.pub.nonces[hash]
			}
			j.pub.open, j.pub.nonces = open, nonces
			decision := reviewOf(t, outcome)
			appendNow(t, com, decision)
			want := journal.Receipt{Epoch: posted.receipt.Epoch, ID: "id-x", Outcome: chat.Rejected}
			if outcome == chat.Accepted {
				want = posted.receipt
				want.Repeat = true
			}
			if got := decision.receipt; got.Epoch != want.Epoch || got.Seq != want.Seq || got.ID != want.ID || got.Outcome != want.Outcome || got.Repeat != want.Repeat {
				t.Errorf("got %+v, want %+v", got, want)
			}
			wantRead(t, j, "lobby", "x")
			if waits, decided, err := j.Reviews(t.Context(), "lobby"); err != nil || len(waits) != 0 || len(decided) != 1 {
				t.Errorf("got %d open, %d decided, %v, want it decided", len(waits), len(decided), err)
			}
			if rc, ok, err := j.Lookup(t.Context(), "lobby", "ann", "x"); err != nil || !ok || rc.ID != "other" || rc.Seq != 1 {
				t.Errorf("lookup: got %+v, %v, %v, want the entry that stands there", rc, ok, err)
			}
		})
	}
}

// TestOpenReviewsAfterAFailure: a commit fails after its last write, and the
// next write makes it count. What memory knows of the queue is what the file
// says.
func TestOpenReviewsAfterAFailure(t *testing.T) {
	com := stopped(t)
	j := com.j
	appendNow(t, com, reviewAs(t, "old", chat.Held))
	write(t, com, reviewAs(t, "old", chat.Rejected), reviewAs(t, "new", chat.Held))
	if ws, err := j.Overdue(t.Context(), 1, 10); err != nil || len(ws) != 0 {
		t.Errorf("overdue, unsynced: got %+v, %v, want what is neither decided nor new", ws, err)
	}
	_ = com.failed(errors.New("input/output error"))
	com.probe()
	ws, err := j.Overdue(t.Context(), 1, 10)
	if err != nil || len(ws) != 1 || ws[0].Review.Entry.ID != "id-new" || ws[0].Room != "lobby" {
		t.Errorf("overdue: got %+v, %v, want the new one", ws, err)
	}
	if _, held, _ := j.pub.known(hashNonce("lobby", "ann", "old")); held != nil {
		t.Error("the nonce of what was rejected is still taken")
	}
	if _, held, _ := j.pub.known(hashNonce("lobby", "ann", "new")); held == nil {
		t.Error("the nonce of what is held is free")
	}
}

// TestDamagedReviewTakesNoPlace flips a bit of an open review and opens the
// file again: it does not count, and its nonce is free.
func TestDamagedReviewTakesNoPlace(t *testing.T) {
	com := stopped(t)
	appendNow(t, com, reviewOf(t, chat.Held), reviewAs(t, "y", chat.Held))
	damage := func(nonce string) {
		t.Helper()
		if err := com.transact(func(b *buckets) (bool, error) {
			key := reviewKey(nil, "lobby", chat.MessageID("id-"+nonce))
			rec := append([]byte(nil), b.reviews().Get(key)...)
			rec[len(rec)/2] ^= 8
			return true, b.reviews().Put(key, rec)
		}); err != nil {
			t.Fatal(err)
		}
	}
	damage("x") // while it is in memory
	if ws, err := com.j.Overdue(t.Context(), 1, 10); err != nil || len(ws) != 1 || ws[0].Review.Entry.ID != "id-y" {
		t.Errorf("overdue: got %+v, %v, want the sound one", ws, err)
	}
	com.j.pub.nonces = map[nonceHash]uint64{} // the window has passed
	if _, ok, err := com.j.Lookup(t.Context(), "lobby", "ann", "x"); ok || err != nil {
		t.Errorf("lookup: got %v, %v, want the nonce forgotten", ok, err)
	}
	if err := com.j.view(com.loadNonces); err != nil {
		t.Fatal(err)
	}
	if all := com.j.pub.open.byRoom["lobby"]; len(all) != 1 || all[0].id != "id-y" {
		t.Errorf("read again: got %d reviews, want the sound one", len(all))
	}
}
