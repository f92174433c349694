package scrub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"parley/core/scrub"
)

func fill(t *testing.T) (*bolt.DB, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "some.db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{InitialMmapSize: 64 << 20}) // no reader is in the way of growth
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	update(t, db, func(b *bolt.Bucket) error {
		for i := range 3000 {
			if err := b.Put(fmt.Appendf(nil, "%05d", i), bytes.Repeat(fmt.Appendf(nil, "secret-%d ", i%2), 100)); err != nil {
				return err
			}
		}
		return nil
	})
	return db, path
}

func update(t *testing.T, db *bolt.DB, f func(*bolt.Bucket) error) {
	t.Helper()
	if err := db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte("b"))
		if err != nil {
			return err
		}
		return f(b)
	}); err != nil {
		t.Fatal(err)
	}
}

func dropOdd(b *bolt.Bucket) error {
	for i := 1; i < 3000; i += 2 {
		if err := b.Delete(fmt.Appendf(nil, "%05d", i)); err != nil {
			return err
		}
	}
	return nil
}

func holds(t *testing.T, path, text string) bool {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(b, []byte(text))
}

func TestFree(t *testing.T) {
	db, path := fill(t)
	update(t, db, dropOdd)
	if !holds(t, path, "secret-1") {
		t.Fatal("bbolt has wiped the pages: this test shows nothing")
	}
	n, err := scrub.Free(t.Context(), db, nil)
	if err != nil || n == 0 {
		t.Fatalf("got %d pages, %v", n, err)
	}
	if holds(t, path, "secret-1") || !holds(t, path, "secret-0") {
		t.Error("what was deleted is there, or what was not is not")
	}
	if n, err := scrub.Free(t.Context(), db, nil); n != 0 || err != nil {
		t.Errorf("again: got %d pages, %v, want none", n, err)
	}
	if err := db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		if n := tx.Bucket([]byte("b")).Stats().KeyN; n != 1500 {
			t.Errorf("got %d keys, want 1500", n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// A reader keeps its pages, and keeps Free from ending.
func TestReadersAreNotDisturbed(t *testing.T) {
	db, path := fill(t)
	tx, err := db.Begin(false)
	if err != nil {
		t.Fatal(err)
	}
	update(t, db, dropOdd)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := scrub.Free(ctx, db, nil)
		done <- err
	}()
	c, n := tx.Bucket([]byte("b")).Cursor(), 0
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if !bytes.HasPrefix(v, fmt.Appendf(nil, "secret-%d ", n%2)) {
			t.Fatalf("%s: got %.20q", k, v)
		}
		n++
	}
	select {
	case err := <-done:
		t.Errorf("free ended while somebody reads: %v", err)
	default:
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's end", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, err := scrub.Free(t.Context(), db, nil); err != nil {
		t.Error(err)
	}
	if n != 3000 || holds(t, path, "secret-1") {
		t.Errorf("the reader saw %d records, want 3000, and nothing left after it", n)
	}
}

func TestFreeOfAFileThatIsGone(t *testing.T) {
	db, path := fill(t)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := scrub.Free(t.Context(), db, nil); err == nil {
		t.Error("got no error")
	}
}

// With settle Free waits for the readers of before, and not for those that come.
func TestSettle(t *testing.T) {
	db, path := fill(t)
	tx, err := db.Begin(false)
	if err != nil {
		t.Fatal(err)
	}
	update(t, db, dropOdd)
	var later *bolt.Tx
	n, err := scrub.Free(t.Context(), db, func() {
		if later != nil {
			return
		}
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
		if later, err = db.Begin(false); err != nil {
			t.Error(err)
		}
	})
	if err != nil || n == 0 || holds(t, path, "secret-1") {
		t.Errorf("got %d pages, %v", n, err)
	}
	if n := later.Bucket([]byte("b")).Stats().KeyN; n != 1500 {
		t.Errorf("the later reader sees %d keys, want 1500", n)
	}
	if err := later.Rollback(); err != nil {
		t.Fatal(err)
	}
}

func TestErrors(t *testing.T) {
	db, _ := fill(t)
	update(t, db, dropOdd)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := scrub.Free(ctx, db, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's end", err)
	}
	if _, err := scrub.Free(t.Context(), db, func() { panic("a page that makes no sense") }); err == nil {
		t.Error("a panic: got no error")
	}
	if _, err := scrub.Free(t.Context(), db, nil); err != nil { // the lock was let go
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := scrub.Free(t.Context(), db, nil); err == nil {
		t.Error("a closed file: got no error")
	}
}
