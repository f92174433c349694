package journaltest

import (
	"fmt"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

var epochCases = []testCase{
	{"a known top that the store holds changes nothing", knownHeld},
	{"a known top above the store's opens a new epoch", knownAhead},
	{"a known epoch foreign to the store opens a new epoch", knownForeign},
	{"a known top of a room the store lost opens a new epoch", knownLost},
	{"callers that lost the same epoch share the new one", knownShared},
	{"a new epoch keeps the room's state", epochState},
	{"a resend that knows the same lost position is a repeat", knownRepeat},
	{"create is refused in a new epoch that kept entries", knownCreate},
	{"an answer of an epoch that was left holds while its entry is there", knownAnswers},
	{"the new epoch survives a reopen", epochReopen},
}

// lose appends with a Known that the store cannot match.
func lose(t *testing.T, j journal.Journal, room chat.RoomID, nonce string, known journal.Position) journal.Receipt {
	t.Helper()
	r := message(room, "ann", nonce, "after the loss")
	r.Known = known
	return mustAppend(t, j, r)
}

// wantLog checks that the room holds the entries 1 to n, all in that epoch.
func wantLog(t *testing.T, j journal.Journal, room chat.RoomID, epoch string, n uint64) {
	t.Helper()
	e, es := readAll(t, j, room, 0, 100)
	if e != epoch {
		t.Errorf("read: got epoch %q, want %q", e, epoch)
	}
	wantSeqs(t, "read in the new epoch", es, 1, n)
	info := mustInfo(t, j, room)
	if info.Top.Epoch != epoch || info.Top.Seq != n || info.First != 1 || info.Top.ID != es[n-1].ID {
		t.Errorf("info: got %+v first %d, want seq %d of epoch %q and first 1", info.Top, info.First, n, epoch)
	}
	if e, es, err := j.ReadBefore(within(t), room, 0, 100); err != nil || e != epoch || len(es) != int(n) {
		t.Errorf("read before: got %d entries of epoch %q, error %v, want %d of %q", len(es), e, err, n, epoch)
	}
}

func knownHeld(t *testing.T, s Store) {
	j := open(t, s)
	es := fill(t, j, "lobby", 3)
	top := mustInfo(t, j, "lobby").Top
	for i, known := range []journal.Position{
		{},                                       // none
		{Epoch: top.Epoch, Seq: 1, ID: es[0].ID}, // behind
		{Epoch: top.Epoch},                       // saw the empty room
	} {
		if rc := lose(t, j, "lobby", fmt.Sprint(i), known); rc.Epoch != top.Epoch || rc.Seq != uint64(4+i) {
			t.Errorf("known %+v: got seq %d of epoch %q, want %d of %q", known, rc.Seq, rc.Epoch, 4+i, top.Epoch)
		}
	}
	top = mustInfo(t, j, "lobby").Top
	if rc := lose(t, j, "lobby", "exact", top); rc.Epoch != top.Epoch || rc.Seq != top.Seq+1 {
		t.Errorf("known top: got seq %d of epoch %q, want %d of %q", rc.Seq, rc.Epoch, top.Seq+1, top.Epoch)
	}
}

func knownAhead(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 5)
	fill(t, j, "lobby2", 2)
	old := mustInfo(t, j, "lobby").Top
	rc := lose(t, j, "lobby", "x1", journal.Position{Epoch: old.Epoch, Seq: 9, ID: newID()})
	if rc.Seq != 6 || rc.Epoch == old.Epoch || rc.Epoch == "" {
		t.Fatalf("got seq %d of epoch %q, want 6 of an epoch other than %q", rc.Seq, rc.Epoch, old.Epoch)
	}
	wantLog(t, j, "lobby", rc.Epoch, 6)
	e, es := readAll(t, j, "lobby", 4, 100)
	if e != rc.Epoch || es[0].ID != old.ID {
		t.Errorf("got entry %s at seq 5 of epoch %q, want %s of %q", es[0].ID, e, old.ID, rc.Epoch)
	}
	if top := mustInfo(t, j, "lobby2").Top; top.Seq != 2 {
		t.Errorf("the other room: got top %d, want 2", top.Seq)
	}
}

func knownForeign(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 5)
	old := mustInfo(t, j, "lobby").Top
	rc := lose(t, j, "lobby", "x1", journal.Position{Epoch: "a-foreign-epoch", Seq: 2, ID: newID()})
	if rc.Seq != 6 || rc.Epoch == old.Epoch || rc.Epoch == "a-foreign-epoch" {
		t.Fatalf("got seq %d of epoch %q, want 6 of a new epoch", rc.Seq, rc.Epoch)
	}
	wantLog(t, j, "lobby", rc.Epoch, 6)
}

func knownLost(t *testing.T, s Store) {
	j := open(t, s)
	rc := lose(t, j, "lobby", "x1", journal.Position{Epoch: "the-lost-epoch", Seq: 40, ID: newID()})
	if rc.Seq != 1 || rc.Epoch == "the-lost-epoch" {
		t.Fatalf("got seq %d of epoch %q, want 1 of a new epoch", rc.Seq, rc.Epoch)
	}
	wantLog(t, j, "lobby", rc.Epoch, 1)
}

func knownShared(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 5)
	old := mustInfo(t, j, "lobby").Top
	known := journal.Position{Epoch: old.Epoch, Seq: 90, ID: newID()}
	ctx := within(t)
	receipts := make([]journal.Receipt, 8)
	var wg sync.WaitGroup
	for i := range receipts {
		wg.Go(func() {
			r := message("lobby", "ann", fmt.Sprintf("x%d", i), "after the loss")
			r.Known = known
			var err error
			if receipts[i], err = j.Append(ctx, r); err != nil {
				t.Errorf("append: %v", err)
			}
		})
	}
	wg.Wait()
	for _, rc := range receipts {
		if rc.Epoch == old.Epoch || rc.Epoch != receipts[0].Epoch {
			t.Fatalf("got epochs %q and %q, want one new epoch for all", receipts[0].Epoch, rc.Epoch)
		}
	}
	// A caller that is behind by the whole epoch, later: still the same one.
	known.Seq = 5
	if rc := lose(t, j, "lobby", "late", known); rc.Epoch != receipts[0].Epoch || rc.Seq != 14 {
		t.Errorf("late caller: got seq %d of epoch %q, want 14 of %q", rc.Seq, rc.Epoch, receipts[0].Epoch)
	}
	wantLog(t, j, "lobby", receipts[0].Epoch, 14)
	// Losing the new epoch as well opens a third.
	rc := lose(t, j, "lobby", "x9", journal.Position{Epoch: receipts[0].Epoch, Seq: 90, ID: newID()})
	if rc.Seq != 15 || rc.Epoch == receipts[0].Epoch || rc.Epoch == old.Epoch {
		t.Errorf("second loss: got seq %d of epoch %q, want 15 of a third epoch", rc.Seq, rc.Epoch)
	}
	wantLog(t, j, "lobby", rc.Epoch, 15)
}

func epochState(t *testing.T, s Store) {
	j := open(t, s)
	change(t, j, "lobby", journal.Change{Key: "ban/bob", Value: []byte("b")}, journal.Change{Key: "settings", Value: []byte("s1")})
	r := message("lobby", "ann", "x1", "")
	r.Known = journal.Position{Epoch: "foreign", Seq: 1}
	r.Entry.Changes = []journal.Change{{Key: "settings", Value: []byte("s2")}}
	mustAppend(t, j, r)
	wantState(t, "in the new epoch", mustInfo(t, j, "lobby").State, map[string]string{"ban/bob": "b", "settings": "s2"})
}

func knownRepeat(t *testing.T, s Store) {
	j := open(t, s)
	first := lose(t, j, "lobby", "x1", journal.Position{Epoch: "lost", Seq: 4, ID: newID()})
	again := lose(t, j, "lobby", "x1", journal.Position{Epoch: "lost", Seq: 4, ID: newID()})
	wantReceipt(t, "resend with the same lost position", again, first, true)
	wantLog(t, j, "lobby", first.Epoch, 1)
}

func knownCreate(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 2)
	r := message("lobby", "ann", "x1", "")
	r.Create, r.Known = true, journal.Position{Epoch: "lost", Seq: 4, ID: newID()}
	_, err := j.Append(within(t), r)
	wantErr(t, "create of a room that kept entries", err, journal.ErrExists)
	_, es := readAll(t, j, "lobby", 0, 100)
	wantSeqs(t, "after the refusal", es, 1, 2)
}

func knownAnswers(t *testing.T, s Store) {
	j := open(t, s)
	r := message("lobby", "ann", "said", "said before the loss")
	first := mustAppend(t, j, r)
	rc := lose(t, j, "lobby", "x1", journal.Position{Epoch: first.Epoch, Seq: 9, ID: newID()})
	if rc.Epoch == first.Epoch {
		t.Fatalf("got epoch %q, want another", rc.Epoch)
	}
	first.Epoch = rc.Epoch // the entry is in this one by now
	wantReceipt(t, "resend of what survived", mustAppend(t, j, r), first, true)
	got, ok, err := j.Lookup(within(t), "lobby", "ann", "said")
	if !ok || err != nil {
		t.Fatalf("lookup of what survived: got %v, %v, want it", ok, err)
	}
	wantReceipt(t, "lookup of what survived", got, first, true)
	wantLog(t, j, "lobby", rc.Epoch, 2)
}

func epochReopen(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 30)
	old := mustInfo(t, j, "lobby").Top
	rc := lose(t, j, "lobby", "x1", journal.Position{Epoch: old.Epoch, Seq: 41, ID: newID()})
	if err := j.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	j = open(t, s)
	wantLog(t, j, "lobby", rc.Epoch, 31)
	if late := lose(t, j, "lobby", "x2", old); late.Epoch != rc.Epoch || late.Seq != 32 {
		t.Errorf("late caller after reopen: got seq %d of epoch %q, want 32 of %q", late.Seq, late.Epoch, rc.Epoch)
	}
	wantLog(t, j, "lobby", rc.Epoch, 32)
}
