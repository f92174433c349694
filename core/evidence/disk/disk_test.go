package disk

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/moderation"
)

func record(id string, at int64, room chat.RoomID, user chat.UserID) evidence.Record {
	return evidence.Record{Decision: moderation.Decision{ID: chat.MessageID(id), Room: room, User: user, Time: at, Verdict: "deny", Plugins: []moderation.Vote{}},
		Input: bytes.Repeat([]byte{'x'}, 100)}
}

// store is a Store in a new file; the log says what was left out.
func store(t *testing.T, max int64) (*Store, *bytes.Buffer, Config) {
	t.Helper()
	cfg := Config{Path: filepath.Join(t.TempDir(), "evidence.db"), MaxBytes: max}
	log := new(bytes.Buffer)
	return open(t, cfg, log), log, cfg
}

func open(t *testing.T, cfg Config, log *bytes.Buffer) *Store {
	t.Helper()
	s, err := Open(cfg, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func put(t *testing.T, s *Store, rs ...evidence.Record) {
	t.Helper()
	if err := s.Put(rs); err != nil {
		t.Fatal(err)
	}
}

func ids(t *testing.T, s *Store, q evidence.Query) (got []string, next string) {
	t.Helper()
	p, err := s.List(q)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range p.Records {
		got = append(got, string(r.ID))
	}
	return got, p.Next
}

func wantIDs(t *testing.T, what string, got []string, want string) {
	t.Helper()
	if strings.Join(got, " ") != want {
		t.Errorf("%s: got %q, want %q", what, strings.Join(got, " "), want)
	}
}

func TestStore(t *testing.T) {
	s, _, cfg := store(t, 1<<20)
	put(t, s, record("c", 30, "attic", "bob"), record("a", 10, "lobby", "ann"))
	put(t, s, record("b", 20, "lobby", "bob"), record("d", 40, "lobby", "ann"))
	got, next := ids(t, s, evidence.Query{})
	wantIDs(t, "all", got, "a b c d")
	if next != "" {
		t.Errorf("there is more after everything: %q", next)
	}
	got, _ = ids(t, s, evidence.Query{Room: "lobby", Since: 15})
	wantIDs(t, "lobby since 15", got, "b d")
	var pages []string
	for after := ""; ; {
		page, next := ids(t, s, evidence.Query{Limit: 1, After: after})
		pages = append(pages, page...)
		if after = next; next == "" {
			break
		}
	}
	wantIDs(t, "in pages of one", pages, "a b c d")
	for _, bad := range []string{"%", "YQ", strings.Repeat("A", 1000)} {
		if _, err := s.List(evidence.Query{After: bad}); !errors.Is(err, evidence.ErrCursor) {
			t.Errorf("cursor %q: got %v, want ErrCursor", bad, err)
		}
	}
	want := record("a", 10, "lobby", "ann")
	if r, err := s.Get("a"); err != nil || !reflect.DeepEqual(r, want) {
		t.Errorf("got %+v, %v, want %+v", r, err, want)
	}
	for _, id := range []chat.MessageID{"", "e"} {
		if _, err := s.Get(id); !errors.Is(err, evidence.ErrNotFound) {
			t.Errorf("get %q: got %v, want ErrNotFound", id, err)
		}
	}
	put(t, s, record("a", 15, "lobby", "ann")) // judged again under the same id
	n, size := s.Size()
	if n != 4 {
		t.Errorf("got %d records, want 4", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg, new(bytes.Buffer))
	if n2, size2 := s.Size(); n2 != n || size2 != size {
		t.Errorf("after a reopen: got %d records of %d bytes, want %d of %d", n2, size2, n, size)
	}
}

func TestErase(t *testing.T) {
	s, _, _ := store(t, 1<<20)
	put(t, s, record("a", 10, "lobby", "ann"), record("b", 20, "lobby", "bob"), record("c", 30, "attic", "ann"), record("d", 40, "attic", "bob"))
	for _, tt := range []struct {
		name string
		sel  evidence.Selection
		n    int
		left string
	}{
		{"nothing", evidence.Selection{}, 0, "a b c d"},
		{"unknown id", evidence.Selection{ID: "x"}, 0, "a b c d"},
		{"id of another user", evidence.Selection{ID: "a", User: "bob"}, 0, "a b c d"},
		{"id", evidence.Selection{ID: "a"}, 1, "b c d"},
		{"user in a room", evidence.Selection{User: "bob", Room: "attic"}, 1, "b c"},
		{"too old", evidence.Selection{Before: 30}, 1, "c"},
		{"user", evidence.Selection{User: "ann"}, 1, ""},
	} {
		n, err := s.Erase(tt.sel)
		if n != tt.n || err != nil {
			t.Errorf("%s: got %d, %v, want %d", tt.name, n, err, tt.n)
		}
		got, _ := ids(t, s, evidence.Query{})
		wantIDs(t, "left after "+tt.name, got, tt.left)
	}
	if n, size := s.Size(); n != 0 || size != 0 {
		t.Errorf("got %d records of %d bytes, want none", n, size)
	}
	var many []evidence.Record
	for i := range eraseBatch + 5 {
		many = append(many, record(fmt.Sprintf("m%05d", i), int64(i), "lobby", "ann"))
	}
	put(t, s, many...)
	if n, err := s.Erase(evidence.Selection{Room: "lobby"}); n != len(many) || err != nil {
		t.Errorf("erase of a whole room: got %d, %v, want %d", n, err, len(many))
	}
}

func TestTheOldestMakeWay(t *testing.T) {
	s, _, _ := store(t, 2000)
	for i := range 20 {
		put(t, s, record(fmt.Sprintf("%02d", i), int64(i), "lobby", "ann"))
		if _, size := s.Size(); size > 2000 {
			t.Fatalf("%d bytes are kept, at most 2000 are allowed", size)
		}
	}
	got, _ := ids(t, s, evidence.Query{})
	if len(got) == 0 || len(got) == 20 || got[len(got)-1] != "19" {
		t.Errorf("got %v, want the newest", got)
	}
	if _, err := s.Get("00"); !errors.Is(err, evidence.ErrNotFound) {
		t.Errorf("the oldest: got %v, want it gone", err)
	}
}

// TestDamage flips one bit of each record in turn: none is served, the others
// are.
func TestDamage(t *testing.T) {
	s, log, _ := store(t, 1<<20)
	put(t, s, record("a", 10, "lobby", "ann"), record("b", 20, "lobby", "bob"))
	spoil := func(key []byte, at int) {
		if err := s.db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketRecords)
			v := bytes.Clone(b.Get(key))
			v[at] ^= 4
			return b.Put(key, v)
		}); err != nil {
			t.Fatal(err)
		}
	}
	key := keyOf(10, "a")
	for _, at := range []int{0, 4, 20, 150} {
		spoil(key, at)
		got, _ := ids(t, s, evidence.Query{})
		wantIDs(t, fmt.Sprintf("bit in byte %d flipped", at), got, "b")
		if _, err := s.Get("a"); err == nil || errors.Is(err, evidence.ErrNotFound) {
			t.Errorf("byte %d: get of a damaged record: got %v", at, err)
		}
		spoil(key, at)
	}
	if !strings.Contains(log.String(), "damaged") {
		t.Errorf("the log says nothing of it: %s", log)
	}
	spoil(key, 20)
	if n, err := s.Erase(evidence.Selection{User: "ann"}); n != 0 || err != nil {
		t.Errorf("whose a damaged record is cannot be known: erased %d, %v", n, err)
	}
	if n, err := s.Erase(evidence.Selection{ID: "a"}); n != 1 || err != nil {
		t.Errorf("erase by id: got %d, %v, want 1", n, err)
	}
	put(t, s, record("a", 10, "lobby", "ann"))
	spoil(key, 20)
	if n, err := s.Erase(evidence.Selection{Before: 15}); n != 1 || err != nil {
		t.Errorf("erase by age: got %d, %v, want 1", n, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	s, _, cfg := store(t, 1<<20)
	if err := s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put([]byte("schema"), []byte("9")) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "schema is version 9") {
		t.Errorf("a later schema: got %v", err)
	}
	if _, err := Open(Config{Path: cfg.Path}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("no bound: got no error")
	}
	held, _, cfg := store(t, 1<<20)
	_ = held
	if _, err := Open(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a file that is in use: got %v", err)
	}
	long := record("x", 1, "lobby", "ann")
	long.Input = make([]byte, evidence.MaxRecordBytes+1)
	if err := held.Put([]evidence.Record{long, record("y", 2, "lobby", "ann")}); err != nil {
		t.Errorf("put with a record beyond the bound: %v", err)
	}
	if n, _ := held.Size(); n != 1 {
		t.Errorf("got %d records, want the one that fits", n)
	}
}
