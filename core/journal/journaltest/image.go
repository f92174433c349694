package journaltest

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
)

var importCases = []testCase{
	{"import of a new room under its own epoch", importFresh},
	{"import in place of a room opens a new epoch", importReplaces},
	{"an import that is given up leaves nothing", importAborted},
	{"import refuses what does not fit", importRefuses},
	{"import beside appends to the room", importBesideAppends},
	{"imported reviews are open", importReviews},
	{"import of a room whose old entries are gone", importTail},
}

func mustImport(t *testing.T, j journal.Journal, room chat.RoomID, es []journal.Entry, img journal.Image) journal.Position {
	t.Helper()
	in, err := j.Import(within(t), room)
	if err != nil {
		t.Fatalf("import %s: %v", room, err)
	}
	for rest := es; len(rest) > 0; {
		n := min(7, len(rest))
		if err := in.Put(within(t), rest[:n]); err != nil {
			t.Fatalf("import %s: put: %v", room, err)
		}
		rest = rest[n:]
	}
	if len(es) > 0 {
		img.Top = journal.Position{Seq: es[len(es)-1].Seq, ID: es[len(es)-1].ID}
	}
	at, err := in.Commit(within(t), img)
	if err != nil {
		t.Fatalf("import %s: commit: %v", room, err)
	}
	if err := in.Abort(within(t)); err != nil {
		t.Errorf("abort after commit: %v", err)
	}
	return at
}

// entries are n messages, from seq first on.
func entries(first uint64, n int) (es []journal.Entry) {
	for i := range n {
		e := message("", "ann", fmt.Sprint("i", i), fmt.Sprint("imported ", i)).Entry
		e.Seq = first + uint64(i)
		es = append(es, e)
	}
	return es
}

func importFresh(t *testing.T, s Store) {
	j := s.Open(t, Options{})
	es := entries(1, 30)
	state := map[string][]byte{"settings": []byte(`{"mode":"open"}`), "role/ann": []byte(`"owner"`)}
	at := mustImport(t, j, "lobby", es, journal.Image{Epoch: "e1", Past: []string{"e0"}, Fresh: true, State: state})
	want := journal.Position{Epoch: "e1", Seq: 30, ID: es[29].ID}
	if at != want {
		t.Errorf("got %+v, want %+v", at, want)
	}
	check := func(j journal.Journal) {
		t.Helper()
		info := mustInfo(t, j, "lobby")
		if info.Top != want || info.First != 1 || !maps.EqualFunc(info.State, state, func(a, b []byte) bool { return string(a) == string(b) }) {
			t.Errorf("got %+v, want top %+v and state %q", info, want, state)
		}
		epoch, got := readAll(t, j, "lobby", 0, 11)
		wantEntries(t, "entries", got, es)
		if epoch != "e1" {
			t.Errorf("got epoch %q, want e1", epoch)
		}
	}
	check(j)
	if rooms, err := j.Rooms(within(t), "", 10); err != nil || len(rooms) != 1 || rooms[0] != "lobby" {
		t.Errorf("got rooms %v, %v", rooms, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, s)
	check(j)
	r := message("lobby", "bob", "after", "after")
	r.Known = want
	if rc := mustAppend(t, j, r); rc.Epoch != "e1" || rc.Seq != 31 {
		t.Errorf("an append that knows the top: got %d of %q, want 31 of e1", rc.Seq, rc.Epoch)
	}
	r = message("lobby", "bob", "behind", "behind")
	r.Known = journal.Position{Epoch: "e0", Seq: 900, ID: "x"}
	if rc := mustAppend(t, j, r); rc.Epoch != "e1" || rc.Seq != 32 {
		t.Errorf("an append that knows a past epoch: got %d of %q, want 32 of e1", rc.Seq, rc.Epoch)
	}
}

func importReplaces(t *testing.T, s Store) {
	j := open(t, s)
	r := message("lobby", "ann", "n1", "before")
	r.Entry.Changes = []journal.Change{{Key: "ban/bob", Value: []byte("1")}}
	first := mustAppend(t, j, r)
	fill(t, j, "lobby", 3)
	known := mustInfo(t, j, "lobby").Top
	w := newRecorder()
	defer watch(t, j, "lobby", w)()
	if s.Shared { // the link is up
		w.awaitDoubt(t)
		w.mu.Lock()
		w.doubt = false
		w.mu.Unlock()
	}
	es := entries(1, 12)
	at := mustImport(t, j, "lobby", es, journal.Image{Past: []string{"backed-up"}, State: map[string][]byte{"role/ann": []byte("2")}})
	if at.Epoch == known.Epoch || at.Epoch == "" || at.Seq != 12 {
		t.Errorf("got %+v, want 12 of a new epoch", at)
	}
	w.awaitDoubt(t)
	_, got := readAll(t, j, "lobby", 0, 100)
	wantEntries(t, "entries", got, es)
	if st := mustInfo(t, j, "lobby").State; len(st) != 1 || string(st["role/ann"]) != "2" {
		t.Errorf("got state %q, want that of the image", st)
	}
	for i, k := range []journal.Position{known, {Epoch: "backed-up", Seq: 99, ID: "x"}} {
		r := message("lobby", "bob", fmt.Sprint("later", i), "later")
		r.Known = k
		if rc := mustAppend(t, j, r); rc.Epoch != at.Epoch || rc.Seq != uint64(13+i) {
			t.Errorf("an append that knows %q: got %d of %q, want %d of %q", k.Epoch, rc.Seq, rc.Epoch, 13+i, at.Epoch)
		}
	}
	r.Entry.ID, r.Entry.Changes = newID(), nil
	if rc := mustAppend(t, j, r); rc.Repeat {
		t.Errorf("the nonce of %d of the epoch before is answered with %+v", first.Seq, rc)
	}
}

func importAborted(t *testing.T, s Store) {
	j := s.Open(t, Options{})
	es := fill(t, j, "lobby", 5)
	in, err := j.Import(within(t), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Put(within(t), entries(1, 40)); err != nil {
		t.Fatal(err)
	}
	if err := in.Abort(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := in.Abort(within(t)); err != nil {
		t.Errorf("abort twice: %v", err)
	}
	if _, err := in.Commit(within(t), journal.Image{}); err == nil {
		t.Error("commit after abort: got no error")
	}
	in, err = j.Import(within(t), "lobby") // and one that the end of the process gives up
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Put(within(t), entries(1, 40)); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, s)
	_, got := readAll(t, j, "lobby", 0, 100)
	wantEntries(t, "the room as it was", got, es)
	more := entries(1, 8)
	mustImport(t, j, "lobby", more, journal.Image{})
	_, got = readAll(t, j, "lobby", 0, 100)
	wantEntries(t, "after another import", got, more)
}

func importRefuses(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 1)
	begin := func(room chat.RoomID, es []journal.Entry) journal.Import {
		in, err := j.Import(within(t), room)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = in.Abort(within(t)) })
		if err := in.Put(within(t), es); err != nil {
			t.Fatal(err)
		}
		return in
	}
	es := entries(1, 3)
	top := journal.Position{Seq: 3, ID: es[2].ID}
	if err := begin("new", es).Put(within(t), entries(5, 1)); err == nil {
		t.Error("a hole: got no error")
	}
	for name, img := range map[string]journal.Image{
		"another top": {Top: journal.Position{Seq: 4, ID: es[2].ID}},
		"another id":  {Top: journal.Position{Seq: 3, ID: "x"}},
		"a review":    {Top: top, Open: []journal.Review{{Decided: 1}}},
		"a decision":  {Top: top, Decided: []journal.Review{{}}},
		"many":        {Top: top, Open: make([]journal.Review, journal.MaxReviews+1)},
		"state":       {Top: top, State: map[string][]byte{"x": make([]byte, journal.MaxChangeValue+1)}},
	} {
		if _, err := begin("new", es).Commit(within(t), img); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	_, err := begin("lobby", es).Commit(within(t), journal.Image{Top: top, Fresh: true})
	wantErr(t, "a room that is there", err, journal.ErrExists)
	if info := mustInfo(t, j, "new"); info.Top.Seq != 0 {
		t.Errorf("got a room with %d entries", info.Top.Seq)
	}
	if _, err := j.Import(within(t), "No Room"); err == nil {
		t.Error("a name that is none: got no error")
	}
}

func importBesideAppends(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 3)
	in, err := j.Import(within(t), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	es := entries(1, 5)
	if err := in.Put(within(t), es[:2]); err != nil {
		t.Fatal(err)
	}
	r := message("lobby", "bob", "beside", "beside")
	r.Known = journal.Position{Epoch: "lost", Seq: 900, ID: "x"} // opens an epoch meanwhile
	between := mustAppend(t, j, r)
	if between.Seq != 1 {
		t.Fatalf("got %+v, want the first of a new epoch", between)
	}
	if err := in.Put(within(t), es[2:]); err != nil {
		t.Fatal(err)
	}
	at, err := in.Commit(within(t), journal.Image{Top: journal.Position{Seq: 5, ID: es[4].ID}})
	if err != nil {
		t.Fatal(err)
	}
	_, got := readAll(t, j, "lobby", 0, 100)
	wantEntries(t, "entries", got, es)
	r = message("lobby", "bob", "then", "then")
	r.Known = journal.Position{Epoch: between.Epoch, Seq: 1, ID: between.ID}
	if rc := mustAppend(t, j, r); rc.Epoch != at.Epoch || rc.Seq != 6 {
		t.Errorf("got %d of %q, want 6 of %q", rc.Seq, rc.Epoch, at.Epoch)
	}
}

func importReviews(t *testing.T, s Store) {
	j := open(t, s)
	hold := func(nonce string) journal.Review {
		e := message("lobby", "ann", nonce, "wait").Entry
		e.Outcome, e.Time = chat.Held, time.Now().UnixMilli()-1000
		return journal.Review{Entry: e}
	}
	old := hold("old")
	mustAppend(t, j, journal.Request{Room: "lobby", Entry: old.Entry, Review: &old})
	v, done := hold("kept"), hold("done")
	done.Entry.Text, done.Entry.Outcome, done.By, done.Decided = "", chat.Rejected, "mia", done.Entry.Time
	mustImport(t, j, "lobby", entries(1, 2), journal.Image{Open: []journal.Review{v}, Decided: []journal.Review{done}})
	open, decided, err := j.Reviews(within(t), "lobby")
	if err != nil || len(open) != 1 || open[0].Entry.ID != v.Entry.ID || open[0].Entry.Text != "wait" || len(decided) != 1 || decided[0].Entry.ID != done.Entry.ID {
		t.Fatalf("got %+v and %+v, %v", open, decided, err)
	}
	over, err := j.Overdue(within(t), time.Now().UnixMilli(), 10)
	if err != nil || len(over) != 1 || over[0].Review.Entry.ID != v.Entry.ID {
		t.Errorf("overdue: got %+v, %v, want the imported one alone", over, err)
	}
	rc, ok, err := j.Lookup(within(t), "lobby", "ann", "kept")
	if err != nil || !ok || rc.Outcome != chat.Held || rc.ID != v.Entry.ID {
		t.Errorf("its nonce: got %+v, %v, %v", rc, ok, err)
	}
	if rc, ok, err := j.Lookup(within(t), "lobby", "ann", "old"); err != nil || ok {
		t.Errorf("the nonce of a review that was replaced: got %+v, %v", rc, err)
	}
	posted := v.Entry
	posted.Outcome, posted.Reasons = chat.Accepted, nil
	verdict := journal.Review{Entry: posted, By: "mia", Decided: time.Now().UnixMilli()}
	verdict.Entry.Text = ""
	if rc := mustAppend(t, j, journal.Request{Room: "lobby", Entry: posted, Review: &verdict}); rc.Seq != 3 {
		t.Errorf("approve: got %+v, want seq 3", rc)
	}
}

func importTail(t *testing.T, s Store) {
	j := open(t, s)
	es := entries(41, 5)
	mustImport(t, j, "tail", es, journal.Image{Epoch: "e1"})
	if info := mustInfo(t, j, "tail"); info.First != 41 || info.Top.Seq != 45 {
		t.Errorf("got %+v, want 41 to 45", info)
	}
	_, got := readAll(t, j, "tail", 0, 100)
	wantEntries(t, "entries", got, es)
	mustImport(t, j, "empty", nil, journal.Image{Epoch: "e2", Top: journal.Position{Seq: 9, ID: "nine"}})
	if info := mustInfo(t, j, "empty"); info.First != 10 || info.Top != (journal.Position{Epoch: "e2", Seq: 9, ID: "nine"}) {
		t.Errorf("got %+v, want nothing after 9", info)
	}
	if rc := mustAppend(t, j, message("empty", "ann", "n", "ten")); rc.Seq != 10 {
		t.Errorf("got %+v, want seq 10", rc)
	}
}
