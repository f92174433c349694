package journaltest

import (
	"fmt"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

var readCases = []testCase{
	{"read pages upward", readPages},
	{"read before pages downward", readBeforePages},
	{"a batch is bounded in bytes but never empty", readBytes},
	{"an empty room reads as empty", readEmpty},
	{"a limit below one reads nothing", readNoLimit},
	{"asking for an unknown room does not create it", infoUnknown},
	{"retention drops the oldest and first follows", retention},
	{"rooms are listed sorted in pages", roomsPages},
	{"everything is there after a reopen", reopen},
	{"what one node appends another reads", twoNodes},
}

func readPages(t *testing.T, s Store) {
	j := open(t, s)
	want := fill(t, j, "lobby", 25)
	fill(t, j, "lobbz", 2) // the next room in key order must not leak in
	for _, c := range []struct {
		after       uint64
		limit       int
		first, last uint64
	}{{0, 10, 1, 10}, {10, 10, 11, 20}, {20, 10, 21, 25}, {24, 10, 25, 25}, {7, 1, 8, 8}, {0, 1000, 1, 25}} {
		_, es, err := j.Read(within(t), "lobby", c.after, c.limit)
		if err != nil {
			t.Fatalf("read after %d: %v", c.after, err)
		}
		wantEntries(t, fmt.Sprintf("read %d after %d", c.limit, c.after), es, want[c.first-1:c.last])
	}
	for _, after := range []uint64{25, 26, 1 << 40, 1<<64 - 1} {
		epoch, es, err := j.Read(within(t), "lobby", after, 10)
		if err != nil || len(es) != 0 || epoch == "" {
			t.Errorf("read after %d: got %d entries of epoch %q, error %v, want none and the epoch", after, len(es), epoch, err)
		}
	}
}

func readBeforePages(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobba", 2) // the room before in key order must not leak in
	want := fill(t, j, "lobby", 25)
	fill(t, j, "lobbz", 2)
	for _, c := range []struct {
		before      uint64
		limit       int
		first, last uint64
	}{{0, 10, 16, 25}, {16, 10, 6, 15}, {6, 10, 1, 5}, {26, 3, 23, 25}, {1 << 40, 3, 23, 25}, {0, 1000, 1, 25}, {2, 5, 1, 1}} {
		epoch, es, err := j.ReadBefore(within(t), "lobby", c.before, c.limit)
		if err != nil || epoch == "" {
			t.Fatalf("read before %d: got epoch %q, error %v", c.before, epoch, err)
		}
		wantEntries(t, fmt.Sprintf("read %d before %d", c.limit, c.before), es, want[c.first-1:c.last])
	}
	if _, es, err := j.ReadBefore(within(t), "lobby", 1, 10); err != nil || len(es) != 0 {
		t.Errorf("read before 1: got %d entries, error %v, want none", len(es), err)
	}
}

func readBytes(t *testing.T, s Store) {
	const n, size = 12, 60 << 10
	j := open(t, s)
	for i := range n {
		mustAppend(t, j, message("lobby", "ann", fmt.Sprint(i), strings.Repeat("x", size)))
	}
	_, up, err := j.Read(within(t), "lobby", 0, n)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if len(up) == 0 || len(up)*size > journal.MaxBatchBytes {
		t.Errorf("read: got %d entries of %d bytes, want some and at most %d bytes", len(up), size, journal.MaxBatchBytes)
	}
	wantSeqs(t, "read", up, 1, uint64(len(up)))
	_, down, err := j.ReadBefore(within(t), "lobby", 0, n)
	if err != nil {
		t.Fatalf("read before: %v", err)
	}
	if len(down) == 0 || len(down)*size > journal.MaxBatchBytes {
		t.Errorf("read before: got %d entries of %d bytes, want some and at most %d bytes", len(down), size, journal.MaxBatchBytes)
	}
	wantSeqs(t, "read before", down, n-uint64(len(down))+1, n)
	_, all := readAll(t, j, "lobby", 0, n)
	wantSeqs(t, "read on", all, 1, n)

	// One entry is returned whatever its size.
	mustAppend(t, j, message("attic", "ann", "n1", strings.Repeat("x", journal.MaxEntryBytes-4096)))
	_, all = readAll(t, j, "attic", 0, n)
	wantSeqs(t, "one large entry", all, 1, 1)
}

func readEmpty(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 2)
	if _, es, err := j.Read(within(t), "attic", 0, 10); err != nil || len(es) != 0 {
		t.Errorf("read: got %d entries, error %v, want none", len(es), err)
	}
	if _, es, err := j.ReadBefore(within(t), "attic", 0, 10); err != nil || len(es) != 0 {
		t.Errorf("read before: got %d entries, error %v, want none", len(es), err)
	}
}

func readNoLimit(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 2)
	for _, limit := range []int{0, -1} {
		if _, es, err := j.Read(within(t), "lobby", 0, limit); err != nil || len(es) != 0 {
			t.Errorf("read with limit %d: got %d entries, error %v, want none", limit, len(es), err)
		}
		if _, es, err := j.ReadBefore(within(t), "lobby", 0, limit); err != nil || len(es) != 0 {
			t.Errorf("read before with limit %d: got %d entries, error %v, want none", limit, len(es), err)
		}
		if rooms, err := j.Rooms(within(t), "", limit); err != nil || len(rooms) != 0 {
			t.Errorf("rooms with limit %d: got %v, error %v, want none", limit, rooms, err)
		}
	}
}

func infoUnknown(t *testing.T, s Store) {
	j := open(t, s)
	info := mustInfo(t, j, "ghost")
	if info.Top.Seq != 0 || info.Top.ID != "" || info.First != 1 || len(info.State) != 0 {
		t.Errorf("got %+v, want an empty log with first 1 and no state", info)
	}
	if rooms, err := j.Rooms(within(t), "", 10); err != nil || len(rooms) != 0 {
		t.Errorf("rooms after asking: got %v, error %v, want none", rooms, err)
	}
	// Whatever epoch was told is a position like any other.
	r := message("ghost", "ann", "n1", "hi")
	r.Create, r.Known = true, info.Top
	if rc := mustAppend(t, j, r); rc.Seq != 1 {
		t.Errorf("create after asking: got seq %d, want 1", rc.Seq)
	}
}

func retention(t *testing.T, s Store) {
	const keep, n = 20, 400
	j := openWith(t, s, Options{MaxEntries: keep})
	change(t, j, "lobby", journal.Change{Key: "role/ann", Value: []byte(`"owner"`)})
	fill(t, j, "lobby", n-1)
	fill(t, j, "attic", keep)
	info := mustInfo(t, j, "lobby")
	if info.Top.Seq != n {
		t.Fatalf("got top %d, want %d", info.Top.Seq, n)
	}
	if held := n - info.First + 1; held < keep || held > n/2 {
		t.Errorf("got %d entries held (first %d), want at least %d and at most %d", held, info.First, keep, n/2)
	}
	wantState(t, "set by an entry that is gone", info.State, map[string]string{"role/ann": `"owner"`})
	_, es := readAll(t, j, "lobby", 0, 7)
	wantSeqs(t, "read from the start", es, info.First, n)
	_, es, err := j.ReadBefore(within(t), "lobby", info.First, 10)
	if err != nil || len(es) != 0 {
		t.Errorf("read before first: got %d entries, error %v, want none", len(es), err)
	}
	_, es, err = j.ReadBefore(within(t), "lobby", 0, n)
	if err != nil {
		t.Fatalf("read before: %v", err)
	}
	wantSeqs(t, "read before", es, info.First, n)
	if first := mustInfo(t, j, "attic").First; first != 1 {
		t.Errorf("a room within its bound: got first %d, want 1", first)
	}
	// The answer to a nonce outlives its entry.
	rc := mustAppend(t, j, message("lobby", "ann", "n1", "resent"))
	if !rc.Repeat || rc.Seq != 2 {
		t.Errorf("nonce of a dropped entry: got %+v, want a repeat of seq 2", rc)
	}
}

func roomsPages(t *testing.T, s Store) {
	j := open(t, s)
	want := []chat.RoomID{"0", "a", "a-b", "a.b", "a:b", "aa", "b"}
	for _, i := range []int{3, 0, 6, 1, 5, 2, 4} {
		fill(t, j, want[i], 2)
	}
	for _, limit := range []int{1, 3, 7, 100} {
		var got []chat.RoomID
		after := chat.RoomID("")
		for {
			rooms, err := j.Rooms(within(t), after, limit)
			if err != nil {
				t.Fatalf("rooms after %q: %v", after, err)
			}
			if len(rooms) > limit {
				t.Fatalf("rooms after %q: got %d, want at most %d", after, len(rooms), limit)
			}
			if len(rooms) == 0 {
				break
			}
			got = append(got, rooms...)
			after = rooms[len(rooms)-1]
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("in pages of %d: got %v, want %v", limit, got, want)
		}
	}
	// A name that is not there is a place to begin like any other.
	if rooms, err := j.Rooms(within(t), "a-c", 2); err != nil || fmt.Sprint(rooms) != "[a.b a:b]" {
		t.Errorf("rooms after a-c: got %v, error %v, want [a.b a:b]", rooms, err)
	}
}

func reopen(t *testing.T, s Store) {
	j := open(t, s)
	want := fill(t, j, "lobby", 40)
	top := mustInfo(t, j, "lobby").Top
	for range 2 {
		if err := j.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		j = open(t, s)
		epoch, got := readAll(t, j, "lobby", 0, 100)
		if epoch != top.Epoch {
			t.Errorf("got epoch %q after reopen, want %q", epoch, top.Epoch)
		}
		wantEntries(t, "after reopen", got, want)
		r := message("lobby", "ann", newNonce(), "more")
		r.Known = top
		rc := mustAppend(t, j, r)
		if rc.Seq != top.Seq+1 || rc.Epoch != top.Epoch {
			t.Errorf("append after reopen: got seq %d of %q, want %d of %q", rc.Seq, rc.Epoch, top.Seq+1, top.Epoch)
		}
		r.Entry.Seq = rc.Seq
		want, top = append(want, r.Entry), journal.Position{Epoch: rc.Epoch, Seq: rc.Seq, ID: rc.ID}
	}
}

func newNonce() string { return string(newID()) }

func twoNodes(t *testing.T, s Store) {
	a := open(t, s)
	b := a
	if s.Shared {
		b = open(t, s)
	}
	first := mustAppend(t, a, message("lobby", "ann", "n1", "from a"))
	r := message("lobby", "bob", "n1", "from b")
	r.Known = mustInfo(t, b, "lobby").Top
	if rc := mustAppend(t, b, r); rc.Seq != 2 || rc.Epoch != first.Epoch {
		t.Errorf("append on b: got seq %d of %q, want 2 of %q", rc.Seq, rc.Epoch, first.Epoch)
	}
	wantReceipt(t, "resend to b", mustAppend(t, b, message("lobby", "ann", "n1", "from a")), first, true)
	_, es := readAll(t, a, "lobby", 0, 10)
	wantSeqs(t, "read on a", es, 1, 2)
}
