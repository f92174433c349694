package disk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

// stocked opens a journal with a lobby of n entries.
func stocked(t testing.TB, n int) (j *Journal, epoch string) {
	t.Helper()
	cfg := Defaults()
	cfg.Path, cfg.MaxEntries = filepath.Join(t.TempDir(), "journal.db"), 0
	j, err := Open(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	in, err := j.Import(t.Context(), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	es := make([]journal.Entry, n)
	for i := range es {
		es[i] = journal.Entry{Seq: uint64(i + 1), ID: chat.MessageID(fmt.Sprintf("01890a5d-ac96-774b-bcce-%012x", i)), Kind: journal.KindMessage,
			From: "ann", Time: 1732000000123, Text: strings.Repeat("x", 120), Outcome: chat.Accepted}
	}
	if err := in.Put(t.Context(), es); err != nil {
		t.Fatal(err)
	}
	at, err := in.Commit(t.Context(), journal.Image{Top: journal.Position{Seq: uint64(n), ID: es[n-1].ID}})
	if err != nil {
		t.Fatal(err)
	}
	return j, at.Epoch
}

// TestErasuresShareAPass: the file is gone through for many erasures together,
// and each waits for a pass that began after its own commit.
func TestErasuresShareAPass(t *testing.T) {
	const people = 64
	j, epoch := stocked(t, 5000)
	j.wiper.slot <- struct{}{} // a pass that takes long: a disk may sync more slowly than a file is gone through
	var wg sync.WaitGroup
	for i := range people {
		wg.Go(func() {
			seqs := []uint64{uint64(i + 1), uint64(4000 + i)}
			if n, err := j.Erase(t.Context(), "lobby", journal.Erasure{Epoch: epoch, Seqs: seqs}); err != nil || n != 2 {
				t.Errorf("got %d, %v, want 2", n, err)
			}
		})
	}
	for last := uint64(4000); last < 4000+people; { // all records are rewritten
		_, es, err := j.Read(t.Context(), "lobby", last-1, 1)
		if err != nil || len(es) == 0 {
			t.Fatalf("read: got %d entries, %v", len(es), err)
		}
		if es[0].Outcome == chat.Erased {
			last++
		}
	}
	<-j.wiper.slot
	wg.Wait()
	if n := j.wiper.begun.Load(); n == 0 || n > people/2 {
		t.Errorf("%d passes for %d erasures", n, people)
	}
}

// TestEraseAHistory erases more than one commit takes.
func TestEraseAHistory(t *testing.T) {
	j, epoch := stocked(t, 3000)
	var seqs []uint64
	for seq := uint64(1); seq <= 3000; seq += 2 {
		seqs = append(seqs, seq)
	}
	before := j.counts.commits.Load()
	if n, err := j.Erase(t.Context(), "lobby", journal.Erasure{Epoch: epoch, Seqs: seqs}); err != nil || n != len(seqs) {
		t.Fatalf("got %d, %v, want %d", n, err, len(seqs))
	}
	if commits, passes := j.counts.commits.Load()-before, j.wiper.begun.Load(); commits < 1500/erasedTogether || passes != 1 {
		t.Errorf("got %d commits and %d passes, want at least %d and 1", commits, passes, 1500/erasedTogether)
	}
	for after := uint64(0); after < 3000; {
		_, es, err := j.Read(t.Context(), "lobby", after, 500)
		if err != nil || len(es) == 0 {
			t.Fatalf("read: got %d entries, %v", len(es), err)
		}
		for i := range es {
			after++
			if e := &es[i]; e.Seq != after || (e.Text == "") != (e.Seq%2 == 1) {
				t.Fatalf("got %+v where entry %d should be", e, after)
			}
		}
	}
}

// TestEraseWaitsForAPass: whoever goes while others overwrite pages is told that
// it is not done.
func TestEraseWaitsForAPass(t *testing.T) {
	j, epoch := stocked(t, 10)
	j.wiper.slot <- struct{}{} // a pass that takes long
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := j.Erase(ctx, "lobby", journal.Erasure{Epoch: epoch, Seqs: []uint64{1}})
		done <- err
	}()
	for { // the record is rewritten
		_, es, err := j.Read(t.Context(), "lobby", 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		if es[0].Outcome == chat.Erased {
			break
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's end", err)
	}
	<-j.wiper.slot
	if n, err := j.Erase(t.Context(), "lobby", journal.Erasure{Epoch: epoch, Seqs: []uint64{1}}); err != nil || n != 0 || j.wiper.ended.Load() != 1 {
		t.Errorf("again: got %d, %v and %d passes, want what is left of it done", n, err, j.wiper.ended.Load())
	}
}
