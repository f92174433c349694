package disk

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/moderation"
	"parley/sdk/abi"
)

// decided is the record of a decision without its input.
func decided(id string, at int64, room chat.RoomID, user chat.UserID) evidence.Record {
	r := record(id, at, room, user)
	r.Input, r.Verdict, r.Context = nil, "allow", &evidence.Context{Roles: []string{"member"}, Signals: abi.Signals{Repeats: 2}}
	r.Plugins = []moderation.Vote{{Name: "p", Digest: "d", Verdict: "allow", Fuel: 3}}
	return r
}

func putDecisions(t *testing.T, s *Store, rs ...evidence.Record) {
	t.Helper()
	if err := s.PutDecisions(rs); err != nil {
		t.Fatal(err)
	}
}

func known(s *Store, all ...string) (got string) {
	for _, id := range all {
		if _, err := s.Get(chat.MessageID(id)); err == nil {
			got += id
		}
	}
	return got
}

func TestDecisions(t *testing.T) {
	s, _, cfg := store(t, 1<<20)
	a, b, c := decided("a", 10, "lobby", "ann"), decided("b", 20, "lobby", "bob"), decided("c", 30, "attic", "ann")
	putDecisions(t, s, b, a)
	putDecisions(t, s, c)
	for _, want := range []evidence.Record{a, b, c} {
		if r, err := s.Get(want.ID); err != nil || !reflect.DeepEqual(r, want) {
			t.Errorf("got %+v, %v, want %+v", r, err, want)
		}
	}
	if _, err := s.Get("x"); !errors.Is(err, evidence.ErrNotFound) {
		t.Errorf("got %v, want not found", err)
	}
	put(t, s, record("b", 20, "lobby", "bob"))
	if r, err := s.Get("b"); err != nil || len(r.Input) == 0 {
		t.Errorf("got %+v, %v, want the original", r, err)
	}
	got, _ := ids(t, s, evidence.Query{})
	wantIDs(t, "list, which is of originals", got, "b")
	n, size := s.DecisionSize()
	if n != 3 || size == 0 {
		t.Errorf("got %d decisions of %d bytes", n, size)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg, new(bytes.Buffer))
	if n2, size2 := s.DecisionSize(); n2 != n || size2 != size {
		t.Errorf("after a reopen: got %d of %d bytes, want %d of %d", n2, size2, n, size)
	}
}

func TestEraseDecisions(t *testing.T) {
	s, _, _ := store(t, 1<<20)
	fill := func() {
		put(t, s, record("a", 10, "lobby", "ann"))
		putDecisions(t, s, decided("a", 10, "lobby", "ann"), decided("b", 20, "lobby", "bob"))
		putDecisions(t, s, decided("c", 30, "attic", "ann"), decided("d", 40, "attic", "bob"))
	}
	for _, tt := range []struct {
		name string
		sel  evidence.Selection
		n    int
		left string
	}{
		{"nothing", evidence.Selection{Only: evidence.Decisions}, 0, "abcd"},
		{"id", evidence.Selection{ID: "b"}, 1, "acd"},
		{"id with an original", evidence.Selection{ID: "a"}, 2, "bcd"},
		{"unknown id", evidence.Selection{ID: "x"}, 0, "abcd"},
		{"user", evidence.Selection{User: "ann"}, 3, "bd"},
		{"decisions of a user", evidence.Selection{User: "ann", Only: evidence.Decisions}, 2, "abd"},
		{"originals of a user", evidence.Selection{User: "ann", Only: evidence.Originals}, 1, "abcd"},
		{"room", evidence.Selection{Room: "attic"}, 2, "ab"},
		{"too old, whole blocks", evidence.Selection{Before: 21}, 3, "cd"},
		{"too old, not all of a block", evidence.Selection{Before: 20, Only: evidence.Decisions}, 0, "abcd"},
		{"too old, of a user", evidence.Selection{Before: 35, User: "bob"}, 1, "acd"},
	} {
		fill()
		n, err := s.Erase(tt.sel)
		if got := known(s, "a", "b", "c", "d"); n != tt.n || err != nil || got != tt.left {
			t.Errorf("%s: got %d erased, %v, %q left, want %d and %q", tt.name, n, err, got, tt.n, tt.left)
		}
		if _, err := s.Erase(evidence.Selection{Before: 1000}); err != nil {
			t.Fatal(err)
		}
		if n, size := s.DecisionSize(); n != 0 || size != 0 {
			t.Fatalf("%s: got %d decisions of %d bytes in the end, want none", tt.name, n, size)
		}
	}
	for i := range eraseBlocks + 5 {
		putDecisions(t, s, decided(fmt.Sprint(i), int64(i), "lobby", "ann"))
	}
	if n, err := s.Erase(evidence.Selection{User: "ann"}); n != eraseBlocks+5 || err != nil {
		t.Errorf("erase in many blocks: got %d, %v", n, err)
	}
}

func TestTheOldestDecisionsMakeWay(t *testing.T) {
	cfg := Config{Path: filepath.Join(t.TempDir(), "evidence.db"), MaxBytes: 1 << 20, DecisionBytes: 2000}
	s := open(t, cfg, new(bytes.Buffer))
	put(t, s, record("original", 1, "lobby", "ann"))
	for i := range 50 {
		putDecisions(t, s, decided(fmt.Sprintf("%02d", i), int64(i), "lobby", "ann"))
		if _, size := s.DecisionSize(); size > 2000 {
			t.Fatalf("%d bytes are kept, at most 2000 are allowed", size)
		}
	}
	n, _ := s.DecisionSize()
	if got := known(s, "00", "49", "original"); n == 0 || n == 50 || got != "49original" {
		t.Errorf("got %d decisions and %q, want the newest, and originals left alone", n, got)
	}
	var many []evidence.Record
	for i := range 2*evidence.MaxBlockRecords + 1 {
		many = append(many, decided(fmt.Sprint("m", i), int64(100+i), "lobby", "ann"))
	}
	putDecisions(t, s, many...) // the oldest of them make way at once
	if got := known(s, "m0", "m2048"); got != "m2048" {
		t.Errorf("got %q, want the newest", got)
	}
}

// Where the decisions of a block say too much to be kept together, there are
// more blocks.
func TestVerboseDecisions(t *testing.T) {
	s, log, _ := store(t, 64<<20)
	long := strings.Repeat("x", evidence.MaxBlockBytes/evidence.MaxBlockRecords)
	var rs []evidence.Record
	for i := range evidence.MaxBlockRecords {
		r := decided(fmt.Sprint("v", i), int64(i), "lobby", "ann")
		r.Plugins[0].Error = fmt.Sprint(i, long)
		rs = append(rs, r)
	}
	huge := decided("huge", 5000, "lobby", "ann")
	huge.Plugins[0].Error = strings.Repeat("x", evidence.MaxBlockBytes)
	putDecisions(t, s, append(rs, huge)...)
	if got := known(s, "v0", "v511", "v512", "v1023", "huge"); got != "v0v511v512v1023" {
		t.Errorf("got %q, want all but the one that fits nowhere", got)
	}
	if n, _ := s.DecisionSize(); n != evidence.MaxBlockRecords || !strings.Contains(log.String(), "left out") {
		t.Errorf("got %d decisions, and the log says %q", n, log)
	}
}

func TestDamagedBlock(t *testing.T) {
	s, log, _ := store(t, 1<<20)
	putDecisions(t, s, decided("a", 10, "lobby", "ann"))
	if err := s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketBlocks)
		k, v := b.Cursor().First()
		k, v = bytes.Clone(k), bytes.Clone(v)
		v[len(v)-1] ^= 4
		return b.Put(k, v)
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("a"); err == nil || errors.Is(err, evidence.ErrNotFound) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v, want the damage named", err)
	}
	if n, err := s.Erase(evidence.Selection{User: "ann"}); n != 0 || err != nil || !strings.Contains(log.String(), "damaged") {
		t.Errorf("erase: got %d, %v; the log says %s", n, err, log)
	}
	if n, err := s.Erase(evidence.Selection{Before: 100}); n != 1 || err != nil {
		t.Errorf("erase by age: got %d, %v, want 1", n, err)
	}
	if _, err := Open(Config{Path: "x", MaxBytes: 1, DecisionBytes: -1}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a bound below 0: got no error")
	}
}

// What a second's worth of decisions costs to write.
func BenchmarkPutDecisions(b *testing.B) {
	s, err := Open(Config{Path: filepath.Join(b.TempDir(), "evidence.db"), MaxBytes: 16 << 20}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var rs []evidence.Record
	for i := range 1000 {
		r := decided(fmt.Sprintf("0197c5f0-%04x-7d4c-ae5f-6c2a1b3d5e7f", i), int64(i), "lobby", chat.UserID(fmt.Sprint("user-", i%100)))
		r.Text = strings.Repeat("ab", 32)
		rs = append(rs, r)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.PutDecisions(rs); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(rs)), "ns/record")
}

// TestEraseMessages: everything about some messages goes from the file, together.
func TestEraseMessages(t *testing.T) {
	s, _, cfg := store(t, 1<<20)
	a, b := record("a", 10, "lobby", "ann"), record("b", 20, "lobby", "bob")
	a.Input, b.Input = []byte("the-secret-0451 of a"), []byte("what stays, of b")
	put(t, s, a, b)
	putDecisions(t, s, decided("a", 10, "lobby", "ann"), decided("b", 20, "lobby", "bob"))
	putDecisions(t, s, decided("c", 30, "attic", "ann"), decided("d", 40, "attic", "bob"))
	holds := func(text string) bool {
		f, err := os.ReadFile(cfg.Path)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(f, []byte(text))
	}
	if !holds("the-secret-0451") {
		t.Fatal("the file never held the text: this test shows nothing")
	}
	if n, err := s.EraseMessages(nil); n != 0 || err != nil {
		t.Errorf("nothing: got %d, %v", n, err)
	}
	if n, err := s.EraseMessages([]chat.MessageID{"a", "", "x", "d"}); n != 3 || err != nil {
		t.Errorf("got %d, %v, want the original and two decisions", n, err)
	}
	if got := known(s, "a", "b", "c", "d"); got != "bc" {
		t.Errorf("%q are left, want bc", got)
	}
	if holds("the-secret-0451") || !holds("what stays") {
		t.Error("the file holds what was erased, or not what was not")
	}
}
