package journaltest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

var appendCases = []testCase{
	{"seq is dense from 1 and entries come back whole", denseSeq},
	{"concurrent appends are dense and the same for all readers", concurrentAppends},
	{"a nonce seen before answers the first receipt", nonceRepeats},
	{"racing sends of one nonce append once", nonceRace},
	{"nonces survive a reopen", nonceReopen},
	{"create demands an empty log", create},
	{"racing creates succeed once", createRace},
	{"state changes with the entry", stateChanges},
	{"the last change of a key wins", stateOrder},
	{"what exceeds a bound is too large", tooLarge},
	{"what just fits is stored", justFits},
}

func denseSeq(t *testing.T, s Store) {
	j := open(t, s)
	want := fill(t, j, "lobby", 20)
	other := fill(t, j, "lobby2", 3) // a name that begins like the first
	epoch, got := readAll(t, j, "lobby", 0, 7)
	wantSeqs(t, "read lobby", got, 1, 20)
	wantEntries(t, "read lobby", got, want)
	_, got = readAll(t, j, "lobby2", 0, 7)
	wantEntries(t, "read lobby2", got, other)

	info := mustInfo(t, j, "lobby")
	if top := (journal.Position{Epoch: epoch, Seq: 20, ID: want[19].ID}); info.Top != top {
		t.Errorf("top: got %+v, want %+v", info.Top, top)
	}
	if epoch == "" || info.First != 1 {
		t.Errorf("got epoch %q and first %d, want an epoch and 1", epoch, info.First)
	}
}

func concurrentAppends(t *testing.T, s Store) {
	const writers, each = 8, 25
	nodes := []journal.Journal{open(t, s)}
	if s.Shared {
		nodes = append(nodes, open(t, s))
	}
	ctx := within(t)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			var last uint64
			for i := range each {
				name := fmt.Sprintf("w%d-%d", w, i)
				rc, err := nodes[w%len(nodes)].Append(ctx, message("lobby", chat.UserID(fmt.Sprintf("u%d", w)), name, name))
				if err != nil {
					t.Errorf("append %s: %v", name, err)
					return
				}
				if rc.Seq <= last {
					t.Errorf("append %s: got seq %d after %d, want a rising one", name, rc.Seq, last)
				}
				last = rc.Seq
			}
		})
	}
	wg.Wait()
	epoch, want := readAll(t, nodes[0], "lobby", 0, 1000)
	wantSeqs(t, "read", want, 1, writers*each)
	for _, j := range nodes {
		e, got := readAll(t, j, "lobby", 0, 13)
		if e != epoch {
			t.Errorf("got epoch %q on one node and %q on another", e, epoch)
		}
		wantEntries(t, "another reader", got, want)
	}
	texts := map[string]bool{}
	for _, e := range want {
		texts[e.Text] = true
	}
	if len(texts) != writers*each {
		t.Errorf("got %d distinct messages, want %d", len(texts), writers*each)
	}
}

func nonceRepeats(t *testing.T, s Store) {
	j := open(t, s)
	first := mustAppend(t, j, message("lobby", "ann", "n1", "hello"))
	if first.Repeat || first.Outcome != chat.Redacted || len(first.Reasons) != 1 {
		t.Errorf("first receipt: got %+v, want no repeat, the outcome and the reasons of the entry", first)
	}
	mustAppend(t, j, message("lobby", "ann", "n2", "between"))
	again := mustAppend(t, j, message("lobby", "ann", "n1", "hello, resent"))
	wantReceipt(t, "same nonce", again, first, true)
	got, ok, err := j.Lookup(within(t), "lobby", "ann", "n1")
	if err != nil || !ok {
		t.Fatalf("lookup of a known nonce: got ok %v, error %v, want it found", ok, err)
	}
	wantReceipt(t, "lookup", got, first, true)

	for _, c := range []struct {
		name string
		r    journal.Request
	}{
		{"another user", message("lobby", "bob", "n1", "bob's")},
		{"another room", message("attic", "ann", "n1", "elsewhere")},
		{"another nonce", message("lobby", "ann", "n11", "new")},
		{"no nonce", message("lobby", "ann", "", "new")},
		{"no nonce again", message("lobby", "ann", "", "new")},
		// Names joined without care would read the same as ann + n1.
		{"shifted names", message("lobby", "an", "nn1", "new")},
	} {
		if rc := mustAppend(t, j, c.r); rc.Repeat || rc.ID != c.r.Entry.ID {
			t.Errorf("%s: got %+v, want a new entry", c.name, rc)
		}
	}
	for _, c := range []struct {
		room  chat.RoomID
		user  chat.UserID
		nonce string
	}{{"lobby", "ann", "n3"}, {"lobby", "cat", "n1"}, {"nowhere", "ann", "n1"}, {"lobby", "ann", ""}} {
		if _, ok, err := j.Lookup(within(t), c.room, c.user, c.nonce); ok || err != nil {
			t.Errorf("lookup of unknown %+v: got ok %v, error %v, want neither", c, ok, err)
		}
	}
	_, es := readAll(t, j, "lobby", 0, 100)
	wantSeqs(t, "lobby", es, 1, 7)
}

func nonceRace(t *testing.T, s Store) {
	j := open(t, s)
	ctx := within(t)
	receipts := make([]journal.Receipt, 16)
	var wg sync.WaitGroup
	for i := range receipts {
		wg.Go(func() {
			var err error
			if receipts[i], err = j.Append(ctx, message("lobby", "ann", "n1", "hello")); err != nil {
				t.Errorf("append: %v", err)
			}
		})
	}
	wg.Wait()
	fresh := 0
	for _, rc := range receipts {
		if !rc.Repeat {
			fresh++
		}
		wantReceipt(t, "racing send", rc, receipts[0], rc.Repeat)
	}
	if fresh != 1 {
		t.Errorf("got %d receipts without Repeat, want 1", fresh)
	}
	if top := mustInfo(t, j, "lobby").Top.Seq; top != 1 {
		t.Errorf("got top %d, want 1", top)
	}
}

func nonceReopen(t *testing.T, s Store) {
	j := open(t, s)
	first := mustAppend(t, j, message("lobby", "ann", "n1", "hello"))
	fill(t, j, "attic", 50)
	if err := j.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	j = open(t, s)
	got, ok, err := j.Lookup(within(t), "lobby", "ann", "n1")
	if err != nil || !ok {
		t.Fatalf("lookup after reopen: got ok %v, error %v, want it found", ok, err)
	}
	wantReceipt(t, "lookup after reopen", got, first, true)
	wantReceipt(t, "append after reopen", mustAppend(t, j, message("lobby", "ann", "n1", "hello")), first, true)
	if rc := mustAppend(t, j, message("lobby", "ann", "n2", "next")); rc.Seq != 2 || rc.Epoch != first.Epoch {
		t.Errorf("append after reopen: got %+v, want seq 2 of epoch %q", rc, first.Epoch)
	}
}

func create(t *testing.T, s Store) {
	j := open(t, s)
	r := message("lobby", "ann", "n1", "")
	r.Create = true
	first := mustAppend(t, j, r)
	if first.Seq != 1 {
		t.Errorf("create: got seq %d, want 1", first.Seq)
	}
	r2 := message("lobby", "bob", "n1", "")
	r2.Create = true
	_, err := j.Append(within(t), r2)
	wantErr(t, "create a second time", err, journal.ErrExists)
	// The resend of the create that went through is a repeat, not a clash.
	wantReceipt(t, "create resent", mustAppend(t, j, r), first, true)
	if _, ok, err := j.Lookup(within(t), "lobby", "bob", "n1"); ok || err != nil {
		t.Errorf("lookup of a refused create: got ok %v, error %v, want neither", ok, err)
	}
	if top := mustInfo(t, j, "lobby").Top.Seq; top != 1 {
		t.Errorf("got top %d, want 1", top)
	}
}

func createRace(t *testing.T, s Store) {
	j := open(t, s)
	ctx := within(t)
	errs := make([]error, 16)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			r := message("lobby", chat.UserID(fmt.Sprintf("u%d", i)), "n1", "")
			r.Create = true
			_, errs[i] = j.Append(ctx, r)
		})
	}
	wg.Wait()
	ok := 0
	for _, err := range errs {
		if err == nil {
			ok++
		} else {
			wantErr(t, "losing create", err, journal.ErrExists)
		}
	}
	if ok != 1 {
		t.Errorf("got %d creates, want 1", ok)
	}
}

// change appends one entry with the changes.
func change(t *testing.T, j journal.Journal, room chat.RoomID, cs ...journal.Change) journal.Entry {
	t.Helper()
	r := journal.Request{Room: room, Entry: journal.Entry{
		ID: newID(), Kind: journal.KindRole, From: "ann", Time: 1732000000123, Changes: cs,
	}}
	r.Entry.Seq = mustAppend(t, j, r).Seq
	return r.Entry
}

func wantState(t *testing.T, what string, got map[string][]byte, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: got %d keys (%q), want %d", what, len(got), got, len(want))
	}
	for k, v := range want {
		if g, ok := got[k]; !ok || string(g) != v {
			t.Errorf("%s: key %s: got %q, want %q", what, k, g, v)
		}
	}
}

func stateChanges(t *testing.T, s Store) {
	j := open(t, s)
	var want []journal.Entry
	want = append(want,
		change(t, j, "lobby", journal.Change{Key: "settings", Value: []byte(`{"mode":"open"}`)}, journal.Change{Key: "role/ann", Value: []byte(`"owner"`)}),
		change(t, j, "lobby", journal.Change{Key: "ban/bob", Value: []byte("\x00\xff binary")}, journal.Change{Key: "role/žaneta", Value: []byte(`"member"`)}),
	)
	change(t, j, "lobby2", journal.Change{Key: "ban/dan", Value: []byte(`{}`)})
	state := map[string]string{"settings": `{"mode":"open"}`, "role/ann": `"owner"`, "ban/bob": "\x00\xff binary", "role/žaneta": `"member"`}
	info := mustInfo(t, j, "lobby")
	wantState(t, "after two entries", info.State, state)
	if info.Top.Seq != 2 {
		t.Errorf("got top %d with that state, want 2", info.Top.Seq)
	}

	want = append(want, change(t, j, "lobby", journal.Change{Key: "ban/bob"}, journal.Change{Key: "ban/nobody"}))
	delete(state, "ban/bob")
	wantState(t, "after a delete", mustInfo(t, j, "lobby").State, state)

	// A repeat and a refusal change nothing.
	r := message("lobby", "ann", "n1", "hi")
	mustAppend(t, j, r)
	want = append(want, r.Entry)
	want[3].Seq = 4
	r.Entry.Changes = []journal.Change{{Key: "role/eve", Value: []byte(`"owner"`)}}
	mustAppend(t, j, r)
	r.Create, r.Entry.Nonce = true, "n2"
	_, err := j.Append(within(t), r)
	wantErr(t, "create of a room with entries", err, journal.ErrExists)
	wantState(t, "after a repeat and a refusal", mustInfo(t, j, "lobby").State, state)

	_, got := readAll(t, j, "lobby", 0, 100)
	wantEntries(t, "entries with changes", got, want)
	if err := j.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	j = open(t, s)
	wantState(t, "after reopen", mustInfo(t, j, "lobby").State, state)
	wantState(t, "the other room after reopen", mustInfo(t, j, "lobby2").State, map[string]string{"ban/dan": `{}`})
}

func stateOrder(t *testing.T, s Store) {
	j := open(t, s)
	change(t, j, "lobby",
		journal.Change{Key: "a", Value: []byte("1")}, journal.Change{Key: "a", Value: []byte("2")},
		journal.Change{Key: "b", Value: []byte("1")}, journal.Change{Key: "b"},
		journal.Change{Key: "c"}, journal.Change{Key: "c", Value: []byte("1")},
		journal.Change{Key: "empty", Value: []byte{}})
	wantState(t, "within one entry", mustInfo(t, j, "lobby").State, map[string]string{"a": "2", "c": "1", "empty": ""})
	change(t, j, "lobby", journal.Change{Key: "a", Value: []byte("3")}, journal.Change{Key: "c"})
	wantState(t, "across entries", mustInfo(t, j, "lobby").State, map[string]string{"a": "3", "empty": ""})
}

func tooLarge(t *testing.T, s Store) {
	j := open(t, s)
	withChanges := func(cs ...journal.Change) journal.Request {
		r := message("lobby", "ann", "n1", "")
		r.Entry.Changes = cs
		return r
	}
	longID := message("lobby", "ann", "n1", "")
	longID.Entry.ID = chat.MessageID(strings.Repeat("i", journal.MaxID+1))
	manyReasons := message("lobby", "ann", "n1", "")
	manyReasons.Entry.Reasons = make([]chat.Reason, journal.MaxReasons+1)
	for _, c := range []struct {
		name string
		r    journal.Request
	}{
		{"id", longID},
		{"number of reasons", manyReasons},
		{"entry", message("lobby", "ann", "n1", strings.Repeat("x", journal.MaxEntryBytes+1))},
		{"number of changes", withChanges(make([]journal.Change, journal.MaxChanges+1)...)},
		{"change key", withChanges(journal.Change{Key: strings.Repeat("k", journal.MaxChangeKey+1)})},
		{"change value", withChanges(journal.Change{Key: "k", Value: make([]byte, journal.MaxChangeValue+1)})},
		{"changes together", func() journal.Request {
			var cs []journal.Change
			for i := range journal.MaxEntryBytes/journal.MaxChangeValue + 1 {
				cs = append(cs, journal.Change{Key: fmt.Sprint(i), Value: make([]byte, journal.MaxChangeValue)})
			}
			return withChanges(cs...)
		}()},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := j.Append(within(t), c.r)
			wantErr(t, "append", err, journal.ErrTooLarge)
			if info := mustInfo(t, j, "lobby"); info.Top.Seq != 0 || len(info.State) != 0 {
				t.Errorf("got top %d and %d keys after a refused append, want an empty room", info.Top.Seq, len(info.State))
			}
		})
	}
}

func justFits(t *testing.T, s Store) {
	j := open(t, s)
	long := message("lobby", "ann", "n1", strings.Repeat("é", 64<<10))
	long.Entry.Seq = mustAppend(t, j, long).Seq
	r := message("lobby", "ann", "n2", "")
	for i := range journal.MaxChanges {
		key := fmt.Sprintf("%02d%s", i, strings.Repeat("k", journal.MaxChangeKey-2))
		r.Entry.Changes = append(r.Entry.Changes, journal.Change{Key: key, Value: []byte("v")})
	}
	r.Entry.Changes[0].Value = bytes.Repeat([]byte{'v'}, journal.MaxChangeValue)
	r.Entry.Seq = mustAppend(t, j, r).Seq
	_, got := readAll(t, j, "lobby", 0, 10)
	wantEntries(t, "read", got, []journal.Entry{long.Entry, r.Entry})
	if n := len(mustInfo(t, j, "lobby").State); n != journal.MaxChanges {
		t.Errorf("got %d keys of state, want %d", n, journal.MaxChanges)
	}
	if _, err := j.Append(within(t), long); err != nil && !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("repeat of a long message: %v", err)
	}
}
