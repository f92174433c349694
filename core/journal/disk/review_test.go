package disk

import (
	"errors"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

// reviewOf prepares an append about the review of id x: it is held, or decided.
func reviewOf(t *testing.T, outcome chat.Outcome) *pending { return reviewAs(t, "x", outcome) }

func reviewAs(t *testing.T, nonce string, outcome chat.Outcome) *pending {
	t.Helper()
	e := journal.Entry{ID: chat.MessageID("id-" + nonce), Kind: journal.KindMessage, From: "ann", Nonce: nonce, Text: "hmm", Outcome: outcome}
	v := &journal.Review{Entry: e}
	if outcome != chat.Held {
		v.Entry.Text, v.Decided = "", 5
	}
	p := &pending{req: journal.Request{Room: "lobby", Entry: e, Review: v}, done: make(chan struct{}, 1), hash: hashNonce("lobby", "ann", nonce)}
	if err := errors.Join(p.req.Check(), p.encode()); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestUnsyncedReviewIsUnseen stops between the last write of a commit about a
// review and its sync, which fails: whoever asks waits and is told, and the next
// write makes it count.
func TestUnsyncedReviewIsUnseen(t *testing.T) {
	for _, c := range []struct {
		outcome       chat.Outcome
		open, decided int // after the sync
	}{{chat.Held, 1, 0}, {chat.Rejected, 0, 1}, {chat.Accepted, 0, 1}} {
		t.Run(string(c.outcome), func(t *testing.T) {
			com := stopped(t)
			j := com.j
			appendNow(t, com, request("lobby", "a", journal.Position{}))
			if c.outcome != chat.Held {
				appendNow(t, com, reviewOf(t, chat.Held))
			}
			var w doubter
			cancel, err := j.Watch(t.Context(), "lobby", &w)
			if err != nil {
				t.Fatal(err)
			}
			defer cancel()
			write(t, com, reviewOf(t, c.outcome))
			asked := make(chan error)
			go func() {
				_, _, err := j.Reviews(t.Context(), "lobby")
				asked <- err
			}()
			_ = com.failed(errors.New("input/output error"))
			if err := <-asked; !errors.Is(err, journal.ErrUnavailable) {
				t.Errorf("reviews while in doubt: got %v, want %v", err, journal.ErrUnavailable)
			}
			com.probe()
			open, decided, err := j.Reviews(t.Context(), "lobby")
			if err != nil || len(open) != c.open || len(decided) != c.decided {
				t.Errorf("after the sync: got %d open, %d decided, %v, want %d and %d", len(open), len(decided), err, c.open, c.decided)
			}
			if w.doubts != 1 {
				t.Errorf("the watcher heard %d doubts, want 1", w.doubts)
			}
			if rc, ok, err := j.Lookup(t.Context(), "lobby", "ann", "x"); !ok || err != nil || rc.Outcome != c.outcome {
				t.Errorf("lookup: got %+v, %v, %v, want what the author was told last", rc, ok, err)
			}
		})
	}
}

// TestDamagedReviewIsLeftOut flips a bit of one of two reviews.
func TestDamagedReviewIsLeftOut(t *testing.T) {
	com := stopped(t)
	appendNow(t, com, request("lobby", "a", journal.Position{}), reviewOf(t, chat.Held))
	if err := com.transact(func(b *buckets) (bool, error) {
		key := reviewKey(nil, "lobby", "id-x")
		rec := append([]byte(nil), b.reviews().Get(key)...)
		rec[len(rec)/2] ^= 8
		return true, b.reviews().Put(key, rec)
	}); err != nil {
		t.Fatal(err)
	}
	if open, _, err := com.j.Reviews(t.Context(), "lobby"); err != nil || len(open) != 0 {
		t.Errorf("got %d reviews, %v, want the damaged one left out", len(open), err)
	}
}
