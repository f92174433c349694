package disk_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

// TestErasedTextLeavesTheFile looks for the text itself: bbolt leaves the pages
// as they were that an overwritten record was on.
func TestErasedTextLeavesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, config(path))
	const secret, kept = "the-secret-0451", "what-stays-1984"
	var seqs []uint64
	var epoch string
	for i := range 200 {
		id := fmt.Sprint("id-", i)
		r := journal.Request{Room: "lobby", Entry: journal.Entry{ID: chat.MessageID(id), Kind: journal.KindMessage, From: "ann", Nonce: id, Text: kept}}
		if i%7 == 0 {
			r.Entry.Text = strings.Repeat(secret+" ", 300) // more than a page
		}
		if i%10 == 3 {
			r.Entry.Text = secret
		}
		rc, err := j.Append(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(r.Entry.Text, secret) {
			seqs = append(seqs, rc.Seq)
		}
		epoch = rc.Epoch
	}
	if !holds(t, path, secret) {
		t.Fatal("the file never held the text: this test shows nothing")
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 { // whose transactions hold pages back
		readers.Go(func() {
			for {
				if _, _, err := j.Read(t.Context(), "lobby", 0, 200); err != nil {
					t.Errorf("read: %v", err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	n, err := j.Erase(t.Context(), "lobby", journal.Erasure{Epoch: epoch, Seqs: seqs})
	close(stop)
	readers.Wait()
	if err != nil || n != len(seqs) {
		t.Fatalf("erase: got %d, %v, want %d", n, err, len(seqs))
	}
	if holds(t, path, secret) {
		t.Error("the file still holds the text")
	}
	if !holds(t, path, kept) {
		t.Error("the file has lost what was not erased")
	}
	if _, es, err := j.Read(t.Context(), "lobby", 0, 300); err != nil || len(es) != 200 {
		t.Errorf("read: got %d entries, %v, want 200", len(es), err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, config(path))
	if q, err := j.Quarantined(t.Context(), 10); err != nil || len(q) > 0 {
		t.Errorf("got %v, %v quarantined, want none", q, err)
	}
	if _, es, err := j.Read(t.Context(), "lobby", 0, 300); err != nil || len(es) != 200 {
		t.Errorf("read after a reopen: got %d entries, %v, want 200", len(es), err)
	}
}

func holds(t *testing.T, path, text string) bool {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(b, []byte(text))
}
