package disk_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/disk"
)

// logWaiter is a slog.Handler that tells of one message.
type logWaiter struct {
	slog.Handler
	message string
	seen    chan struct{} // one slot
}

func (h logWaiter) Enabled(context.Context, slog.Level) bool { return true }

func (h logWaiter) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.message {
		select {
		case h.seen <- struct{}{}:
		default:
		}
	}
	return nil
}

// limitFileSize makes the kernel refuse to write behind n bytes of any file
// (EFBIG), as it refuses on a full disk (ENOSPC), until free is called.
func limitFileSize(t *testing.T, n uint64) (free func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ) // else the first refusal ends the process
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDiskFull fills the disk under a journal and makes room again: first the
// file cannot grow, then pages inside it cannot be written.
func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	recovered := logWaiter{slog.DiscardHandler, "journal writes again", make(chan struct{}, 1)}
	j, err := disk.Open(config(path), slog.New(recovered))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	var want []string
	appendOne := func() error {
		r := benchRequest("lobby", uint64(len(want)))
		r.Entry.Text = fmt.Sprintf("%0250000d", len(want))
		rc, err := j.Append(t.Context(), r)
		if err != nil {
			return err
		}
		if rc.Repeat {
			t.Fatalf("got a repeat for message %d, want it new", len(want))
		}
		want = append(want, string(rc.ID))
		return nil
	}
	for _, inside := range []bool{false, true} {
		for range 10 {
			if err := appendOne(); err != nil {
				t.Fatalf("append with room: %v", err)
			}
		}
		limit := uint64(64 << 10)
		if !inside {
			fi, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			limit = uint64(fi.Size()) + 1<<20
		}
		free := limitFileSize(t, limit)
		var err error
		for err == nil {
			err = appendOne()
		}
		if !errors.Is(err, journal.ErrUnavailable) || !strings.Contains(err.Error(), syscall.EFBIG.Error()) {
			t.Errorf("append without room: got %v, want %v with the reason", err, journal.ErrUnavailable)
		}
		if err := j.Healthy(t.Context()); !errors.Is(err, journal.ErrUnavailable) {
			t.Errorf("healthy without room: got %v, want %v", err, journal.ErrUnavailable)
		}
		if err := appendOne(); !errors.Is(err, journal.ErrUnavailable) {
			t.Errorf("append without room: got %v, want %v", err, journal.ErrUnavailable)
		}
		wantIDs(t, j, want) // reading goes on
		rc, ok, err := j.Lookup(t.Context(), "lobby", "ann", "nonce-0")
		if !ok || err != nil || rc.Seq != 1 {
			t.Errorf("lookup without room: got %+v, %v, %v, want seq 1", rc, ok, err)
		}
		free()
		<-recovered.seen
		if err := j.Healthy(t.Context()); err != nil {
			t.Errorf("healthy with room again: %v", err)
		}
		wantIDs(t, j, want)
		// The refused message is new when it is sent again.
		if err := appendOne(); err != nil {
			t.Fatalf("append with room again: %v", err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	wantIDs(t, open(t, config(path)), want)
}

func wantIDs(t *testing.T, j *disk.Journal, want []string) {
	t.Helper()
	es := readAll(t, j, "lobby")
	if len(es) != len(want) {
		t.Fatalf("got %d entries, want %d", len(es), len(want))
	}
	for i, e := range es {
		if e.Seq != uint64(i+1) || e.ID != chat.MessageID(want[i]) {
			t.Fatalf("entry %d: got seq %d, id %s, want id %s", i, e.Seq, e.ID, want[i])
		}
	}
}

// TestFullAtClose: what cannot be written is refused, and Close ends.
func TestFullAtClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, config(path))
	if _, err := j.Append(t.Context(), benchRequest("lobby", 0)); err != nil {
		t.Fatal(err)
	}
	free := limitFileSize(t, 4096)
	defer free()
	if _, err := j.Append(t.Context(), benchRequest("lobby", 1)); !errors.Is(err, journal.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, journal.ErrUnavailable)
	}
	if err := j.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}
