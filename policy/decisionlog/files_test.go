package decisionlog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/gate"
	"parley/policy/decisionlog"
)

// A page after the other shows every record once, wherever it lies.
func TestPaging(t *testing.T) {
	dir := t.TempDir()
	l := open(t, in(dir), func(c *decisionlog.Config) { c.Entries, c.MaxBytes = 1024, 4<<20 })
	stop := run(t, l)
	var want []string
	for range 2000 {
		want = append(want, add(l, question("ann", "lobby"), refusal("banned")))
		if len(want)%500 == 0 { // the writer keeps up: nothing is dropped
			waitWritten(t, l, uint64(len(want)))
		}
	}
	stop()
	if st := l.Stats(); st.Files < 5 || st.Dropped > 0 {
		t.Fatalf("got %+v, want several files and nothing dropped", st)
	}
	var got []string
	q := decisionlog.Query{Limit: 123}
	for {
		page, err := l.Find(q)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range slices.Backward(page.Records) {
			got = append(got, r.ID)
		}
		if q.Before = page.Next; q.Before == "" {
			break
		}
	}
	slices.Reverse(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %d records, want the %d that were added, in order", len(got), len(want))
	}
	if !slices.IsSorted(want) {
		t.Error("ids do not grow")
	}
}

// waitWritten waits until n records are written; the log wakes its writer for
// each, so polling its counter ends.
func waitWritten(t testing.TB, l *decisionlog.Log, n uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for l.Stats().Written < n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%+v: want %d written", l.Stats(), n)
		}
	}
}

func TestFilesAreBounded(t *testing.T) {
	dir := t.TempDir()
	l := open(t, in(dir), func(c *decisionlog.Config) { c.Entries, c.MaxBytes = 4096, 1<<20 })
	stop := run(t, l)
	n := uint64(0)
	for range 5000 {
		add(l, question("ann", "lobby"), refusal("banned"))
		if n++; n%1000 == 0 {
			waitWritten(t, l, n)
		}
	}
	stop()
	var total int64
	names, err := filepath.Glob(filepath.Join(dir, "decisions-*.jsonl"))
	if err != nil || len(names) < 2 {
		t.Fatalf("got %v, %v, want several files", names, err)
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v, want it readable by its owner alone", name, info.Mode())
		}
	}
	if total > 1<<20 {
		t.Errorf("got %d bytes, want at most 1 MiB", total)
	}
	if st := l.Stats(); st.Bytes != total || st.Files != len(names) || st.Written != n {
		t.Errorf("got %+v, want what there is: %d files of %d bytes", st, len(names), total)
	}
}

func TestOldFilesGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := open(t, in(dir), func(c *decisionlog.Config) { c.Retention = 16 * time.Hour })
		stop := run(t, l)
		old := add(l, question("ann", "lobby"), refusal("banned"))
		time.Sleep(2 * time.Hour) // in the bubble's time: a sixteenth of the retention makes a new file
		add(l, question("ann", "lobby"), refusal("muted"))
		time.Sleep(17 * time.Hour)
		fresh := add(l, question("ann", "lobby"), refusal("archived"))
		time.Sleep(2 * time.Minute)
		stop()
		again := open(t, in(dir))
		if got := find(t, again, decisionlog.Query{ID: old}); len(got) != 0 {
			t.Errorf("got %v, want the old record gone with its file", got)
		}
		if got := find(t, again, decisionlog.Query{ID: fresh}); len(got) != 1 {
			t.Errorf("got %v, want the fresh record", got)
		}
	})
}

// A folder that vanishes stops no decision; it is counted and said once.
func TestDiskFailure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	var said bytes.Buffer
	cfg := decisionlog.Defaults()
	cfg.Entries, cfg.Dir = 64, dir
	l, err := decisionlog.New(cfg, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	stop := run(t, l)
	for range 50 {
		add(l, question("ann", "lobby"), refusal("banned"))
	}
	stop()
	if st := l.Stats(); st.Failed != 50 || st.Added != 50 {
		t.Errorf("got %+v, want all failures counted", st)
	}
	if n := strings.Count(said.String(), "cannot be written"); n != 1 {
		t.Errorf("it was said %d times, want once:\n%s", n, said.String())
	}
	if got := len(find(t, open(t), decisionlog.Query{})); got != 0 {
		t.Errorf("got %d, want none", got)
	}
}

// What a crash leaves behind is passed over.
func TestDamagedFiles(t *testing.T) {
	dir := t.TempDir()
	l := open(t, in(dir))
	stop := run(t, l)
	kept := add(l, question("ann", "lobby"), refusal("banned"))
	stop()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("got %v, %v, want one file", names, err)
	}
	f, err := os.OpenFile(names[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "{}\n"+strings.Repeat("x", 200_000)+"\n{\"id\":\""); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, in(dir))
	if got := find(t, again, decisionlog.Query{}); len(got) != 1 || got[0].ID != kept {
		t.Errorf("got %v, want the one whole record", got)
	}
	stop = run(t, again)
	next := add(again, question("ann", "lobby"), refusal("banned"))
	stop()
	if next <= kept {
		t.Errorf("got id %s after %s, want them to grow", next, kept)
	}
	if got := find(t, open(t, in(dir)), decisionlog.Query{}); len(got) != 2 || got[1].ID != next {
		t.Errorf("got %v, want both", got)
	}
}

func TestReadTellsOfBadLines(t *testing.T) {
	var bad int
	err := decisionlog.Read(strings.NewReader("\n{}\nnot json\n"+strings.Repeat("y", 70_000)+"\n"), func(r *decisionlog.Record, err error) bool {
		if err != nil {
			bad++
		}
		return true
	})
	if err != nil || bad != 3 {
		t.Errorf("got %d, %v, want three bad lines", bad, err)
	}
}

func FuzzDecode(f *testing.F) {
	l, err := decisionlog.New(decisionlog.Defaults(), quiet)
	if err != nil {
		f.Fatal(err)
	}
	slow := 3
	l.Decided(decisionlog.Made{Input: question("ann", "lobby"), Decision: &gate.Decision{Revision: "r", Allow: true, Obligations: gate.Obligations{SlowModeS: &slow}}})
	l.Happened(decisionlog.EventRefused, "r2", "", "why")
	page, err := l.Find(decisionlog.Query{Limit: 10})
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range page.Records {
		b, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"id":"0000000000000000","input":{"subject":{"roles":null}}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := decisionlog.Decode(line)
		if err != nil {
			return
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		again, err := decisionlog.Decode(b)
		if err != nil {
			if len(b) > decisionlog.MaxRecordBytes {
				return // escapes made it longer
			}
			t.Fatalf("decode it again: %v", err)
		}
		if !again.Time.Equal(r.Time) || again.ID != r.ID || !reflect.DeepEqual(again.Input, r.Input) {
			t.Errorf("got %+v, want %+v", again, r)
		}
	})
}
