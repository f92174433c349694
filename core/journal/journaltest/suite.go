// Package journaltest is the conformance suite of journal.Journal: what every
// implementation promises, as tests. An implementation calls Run from its own
// test package and hands over a way to open stores.
//
// The suite asserts promises, not speed, and never sleeps. Where a journal may
// deliver late (Watch under a lossy transport) it waits on a condition, for at
// most Patience.
package journaltest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
)

// Patience bounds every wait of the suite. It is far above what any
// implementation needs, so that a loaded machine does not fail a test.
const Patience = 30 * time.Second

// Options are what a case asks of the journal it opens; a zero field means the
// implementation's own default.
type Options struct {
	// MaxEntries is retention by count, per room. The default of an
	// implementation must be above 2,000. An implementation may hold somewhat
	// more than MaxEntries, never less.
	MaxEntries int
	// NonceWindow is how long a nonce is remembered. The default of an
	// implementation must be above Patience.
	NonceWindow time.Duration
}

// Store is one place where a journal keeps its rooms: a file, a key prefix.
type Store struct {
	// Open opens a journal on the store. The suite closes it and may then open
	// the same store again: everything acknowledged must be there.
	Open func(t *testing.T, o Options) journal.Journal
	// Shared says that several journals may be open on the store at once, as
	// the nodes of a cluster are.
	Shared bool
}

// Run runs the suite. newStore makes a new, empty store for each case and
// removes it with t.Cleanup.
func Run(t *testing.T, newStore func(t *testing.T) Store) {
	for _, c := range slices.Concat(appendCases, expectCases, epochCases, readCases, watchCases, lifeCases, reviewCases, queueCases, eraseCases, importCases) {
		t.Run(c.name, func(t *testing.T) { c.run(t, newStore(t)) })
	}
}

// testCase is one promise of the contract.
type testCase struct {
	name string
	run  func(t *testing.T, s Store)
}

// open opens the store with default options and closes it with the test.
func open(t *testing.T, s Store) journal.Journal {
	t.Helper()
	return openWith(t, s, Options{})
}

func openWith(t *testing.T, s Store, o Options) journal.Journal {
	t.Helper()
	j := s.Open(t, o)
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return j
}

// within returns a context that ends with Patience, so that an implementation
// that hangs fails the case instead of the whole run.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	return ctx
}

// newID makes a message id: 36 characters in the form of a UUIDv7.
func newID() chat.MessageID {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // crypto/rand documents that it never fails
	}
	b[6], b[8] = 0x70|b[6]&0x0f, 0x80|b[8]&0x3f // RFC 9562 section 5.7
	return chat.MessageID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

// message is an ordinary request with every field of an entry filled in.
func message(room chat.RoomID, from chat.UserID, nonce, text string) journal.Request {
	return journal.Request{Room: room, Entry: journal.Entry{
		ID: newID(), Kind: journal.KindMessage, From: from, Time: 1732000000123,
		Nonce: nonce, Text: text, Outcome: chat.Redacted,
		Reasons: []chat.Reason{{Code: "wordlist", Text: "A word was masked.", Source: "plugin:wordlist"}},
	}}
}

// mustAppend appends and fails the test on an error.
func mustAppend(t *testing.T, j journal.Journal, r journal.Request) journal.Receipt {
	t.Helper()
	rc, err := j.Append(within(t), r)
	if err != nil {
		t.Fatalf("append to %s: %v", r.Room, err)
	}
	return rc
}

// fill appends n messages, "text 1" to "text n", and returns the entries as
// the journal must hold them.
func fill(t *testing.T, j journal.Journal, room chat.RoomID, n int) []journal.Entry {
	t.Helper()
	var es []journal.Entry
	for i := range n {
		r := message(room, "ann", fmt.Sprintf("n%d", i+1), fmt.Sprintf("text %d", i+1))
		r.Entry.Seq = mustAppend(t, j, r).Seq
		es = append(es, r.Entry)
	}
	return es
}

func mustInfo(t *testing.T, j journal.Journal, room chat.RoomID) journal.Info {
	t.Helper()
	info, err := j.Info(within(t), room)
	if err != nil {
		t.Fatalf("info of %s: %v", room, err)
	}
	return info
}

// readAll reads the room from after to its top in batches of limit.
func readAll(t *testing.T, j journal.Journal, room chat.RoomID, after uint64, limit int) (string, []journal.Entry) {
	t.Helper()
	var all []journal.Entry
	for {
		epoch, es, err := j.Read(within(t), room, after, limit)
		if err != nil {
			t.Fatalf("read %s after %d: %v", room, after, err)
		}
		if len(es) > limit {
			t.Fatalf("read %s after %d: got %d entries, want at most %d", room, after, len(es), limit)
		}
		if len(es) == 0 {
			return epoch, all
		}
		all = append(all, es...)
		after = es[len(es)-1].Seq
	}
}

// wantSeqs checks that es are exactly the seqs from first to last.
func wantSeqs(t *testing.T, what string, es []journal.Entry, first, last uint64) {
	t.Helper()
	if got, want := len(es), int(last-first+1); got != want {
		t.Fatalf("%s: got %d entries, want %d (%d to %d)", what, got, want, first, last)
	}
	for i := range es {
		if want := first + uint64(i); es[i].Seq != want {
			t.Fatalf("%s: entry %d: got seq %d, want %d", what, i, es[i].Seq, want)
		}
	}
}

// wantEntries compares two lists of entries field by field.
func wantEntries(t *testing.T, what string, got, want []journal.Entry) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: got %d entries, want %d", what, len(got), len(want))
	}
	for i := range got {
		if !equal(got[i], want[i]) {
			t.Fatalf("%s: entry %d: got %+v, want %+v", what, i, got[i], want[i])
		}
	}
}

// equal compares entries; nil and empty lists are the same, nil and empty
// change values are not (nil deletes).
func equal(a, b journal.Entry) bool {
	return a.Seq == b.Seq && a.ID == b.ID && a.Kind == b.Kind && a.From == b.From && a.Time == b.Time &&
		a.Nonce == b.Nonce && a.Text == b.Text && a.Outcome == b.Outcome && slices.Equal(a.Erases, b.Erases) &&
		slices.Equal(a.Reasons, b.Reasons) &&
		slices.EqualFunc(a.Changes, b.Changes, func(x, y journal.Change) bool {
			return x.Key == y.Key && (x.Value == nil) == (y.Value == nil) && string(x.Value) == string(y.Value)
		})
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

// wantReceipt compares a receipt with the one that was first given for the
// same nonce.
func wantReceipt(t *testing.T, what string, got, first journal.Receipt, repeat bool) {
	t.Helper()
	if got.Epoch != first.Epoch || got.Seq != first.Seq || got.ID != first.ID || got.Outcome != first.Outcome ||
		!slices.Equal(got.Reasons, first.Reasons) {
		t.Errorf("%s: got receipt %+v, want that of %+v", what, got, first)
	}
	if got.Repeat != repeat {
		t.Errorf("%s: got Repeat %v, want %v", what, got.Repeat, repeat)
	}
}
