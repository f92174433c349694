package archive_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/absent"
	"parley/core/archive"
	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/disk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, maxEntries int) *disk.Journal {
	t.Helper()
	cfg := disk.Defaults()
	cfg.Path = filepath.Join(t.TempDir(), "parley.db")
	cfg.MaxEntries = maxEntries
	j, err := disk.Open(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

func entry(id string) journal.Entry {
	return journal.Entry{ID: chat.MessageID(id), Kind: journal.KindMessage, From: "ann", Time: 1732000000123, Nonce: id, Text: "text of " + id, Outcome: chat.Accepted}
}

func post(t testing.TB, j journal.Journal, room chat.RoomID, e journal.Entry) journal.Receipt {
	t.Helper()
	rc, err := j.Append(t.Context(), journal.Request{Room: room, Entry: e})
	if err != nil {
		t.Fatal(err)
	}
	return rc
}

// fill makes two rooms with all that a room can have.
func fill(t testing.TB, j journal.Journal) {
	t.Helper()
	e := entry("first")
	e.Kind, e.Changes = journal.KindSettings, []journal.Change{{Key: "settings", Value: []byte(`{"mode":"open"}`)}, {Key: "role/ann", Value: []byte(`"owner"`)}}
	post(t, j, "lobby", e)
	for i := range 600 {
		post(t, j, "lobby", entry(fmt.Sprint("m", i)))
	}
	post(t, j, "attic", entry("alone"))
	for _, id := range []string{"h1", "h2"} {
		held := entry(id)
		held.Outcome = chat.Held
		if _, err := j.Append(t.Context(), journal.Request{Room: "lobby", Entry: held, Review: &journal.Review{Entry: held}}); err != nil {
			t.Fatal(err)
		}
	}
	no := entry("h2")
	no.Text, no.Outcome = "", chat.Rejected
	if _, err := j.Append(t.Context(), journal.Request{Room: "lobby", Entry: no, Review: &journal.Review{Entry: no, By: "mia", Decided: 1732000000999}}); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, j journal.Journal) ([]byte, archive.Summary) {
	t.Helper()
	var b bytes.Buffer
	sum, err := archive.Write(t.Context(), j, nil, &b, archive.Header{Created: time.Unix(1732000000, 0), Server: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), sum
}

func all(t testing.TB, j journal.Journal, room chat.RoomID) (epoch string, all []journal.Entry) {
	t.Helper()
	for {
		after := uint64(0)
		if len(all) > 0 {
			after = all[len(all)-1].Seq
		}
		e, es, err := j.Read(t.Context(), room, after, 500)
		if err != nil {
			t.Fatal(err)
		}
		if epoch = e; len(es) == 0 {
			return epoch, all
		}
		all = append(all, es...)
	}
}

func TestBackupAndRestore(t *testing.T) {
	from := open(t, 0)
	fill(t, from)
	b, sum := write(t, from)
	want := archive.Summary{Rooms: 2, Entries: 602, Reviews: 1}
	if sum != want {
		t.Errorf("wrote %+v, want %+v", sum, want)
	}
	if h, sum, err := archive.Verify(bytes.NewReader(b)); err != nil || sum != want || h.Server != "test" || h.Created.Unix() != 1732000000 {
		t.Errorf("verify: got %+v, %+v, %v", h, sum, err)
	}
	to := open(t, 0)
	post(t, to, "lobby", entry("other"))
	post(t, to, "own", entry("kept"))
	was, err := to.Info(t.Context(), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	if sum, err := archive.Restore(t.Context(), bytes.NewReader(b), to, archive.Options{}); err != nil || sum != want {
		t.Fatalf("restore: got %+v, %v", sum, err)
	}
	oldEpoch, want1 := all(t, from, "lobby")
	epoch, got := all(t, to, "lobby")
	if len(got) != len(want1) || got[300].ID != want1[300].ID || got[300].Text != want1[300].Text {
		t.Errorf("got %d entries, want the %d of the archive", len(got), len(want1))
	}
	if epoch == was.Top.Epoch || epoch == oldEpoch {
		t.Errorf("got epoch %q, want a new one", epoch)
	}
	info, err := to.Info(t.Context(), "lobby")
	if err != nil || string(info.State["role/ann"]) != `"owner"` || info.Top.Seq != 601 {
		t.Errorf("got %+v, %v", info, err)
	}
	held, decided, err := to.Reviews(t.Context(), "lobby")
	if err != nil || len(held) != 1 || held[0].Entry.ID != "h1" || len(decided) != 1 || decided[0].Entry.ID != "h2" {
		t.Errorf("got reviews %+v and %+v, %v", held, decided, err)
	}
	if _, es := all(t, to, "own"); len(es) != 1 || es[0].ID != "kept" {
		t.Errorf("a room that is not in the archive: got %+v", es)
	}
}

// TestEveryByteCounts changes and cuts every byte of an archive, and nothing of
// it is ever put in place of a room.
func TestEveryByteCounts(t *testing.T) {
	from := open(t, 0)
	for i := range 3 {
		post(t, from, "lobby", entry(fmt.Sprint("m", i)))
	}
	b, _ := write(t, from)
	for i := range b {
		for what, bad := range map[string][]byte{
			"flipped": append(append(bytes.Clone(b[:i]), b[i]^1), b[i+1:]...),
			"cut off": b[:i],
			"doubled": append(append(bytes.Clone(b[:i+1]), b[i]), b[i+1:]...),
		} {
			_, _, err := archive.Verify(bytes.NewReader(bad))
			var e *archive.Error
			if bytes.Equal(bad, b) {
				continue
			}
			if !errors.As(err, &e) || e.Offset < 0 || e.Offset > int64(len(bad)) {
				t.Fatalf("byte %d %s: got %v, want an error that names the byte", i, what, err)
			}
			if what == "cut off" && !strings.Contains(err.Error(), fmt.Sprint("after byte ", i)) {
				t.Fatalf("cut off at %d: got %v, want that byte named", i, err)
			}
		}
	}
	if _, _, err := archive.Verify(bytes.NewReader(append(bytes.Clone(b), 'x'))); err == nil || !strings.Contains(err.Error(), "follows the trailer") {
		t.Errorf("more than an archive: got %v", err)
	}
	to := open(t, 0)
	fill(t, to)
	_, before := all(t, to, "lobby")
	if sum, err := archive.Restore(t.Context(), bytes.NewReader(b[:len(b)/2]), to, archive.Options{}); err == nil || sum.Rooms != 0 {
		t.Errorf("restore of half an archive: got %+v, %v", sum, err)
	}
	if _, after := all(t, to, "lobby"); len(after) != len(before) {
		t.Errorf("got %d entries after that, want the %d from before", len(after), len(before))
	}
}

func TestBackupUnderLoad(t *testing.T) {
	j := open(t, 400) // so that the log is trimmed meanwhile
	for i := range 500 {
		post(t, j, "lobby", entry(fmt.Sprint("m", i)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			e := entry(fmt.Sprint("more", i))
			e.Changes = []journal.Change{{Key: "count", Value: fmt.Append(nil, i)}}
			if _, err := j.Append(ctx, journal.Request{Room: "lobby", Entry: e}); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	defer wg.Wait()
	defer cancel()
	for range 10 {
		b, _ := write(t, j)
		to := open(t, 0)
		if _, err := archive.Restore(t.Context(), bytes.NewReader(b), to, archive.Options{}); err != nil {
			t.Fatal(err)
		}
		// The state is the fold of the log up to the top, and of nothing more.
		_, es := all(t, to, "lobby")
		info, err := to.Info(t.Context(), "lobby")
		last := es[len(es)-1]
		if err != nil || last.Seq != info.Top.Seq || len(last.Changes) > 0 && string(last.Changes[0].Value) != string(info.State["count"]) {
			t.Fatalf("got top %+v with state %q and the entry %+v, %v", info.Top, info.State, last, err)
		}
	}
}

func TestCopy(t *testing.T) {
	from, to := open(t, 0), open(t, 0)
	fill(t, from)
	var done []archive.Copied
	told := func(c archive.Copied) { done = append(done, c) }
	if sum, err := archive.Copy(t.Context(), from, to, told); err != nil || sum.Rooms != 2 || sum.Entries != 602 {
		t.Fatalf("got %+v, %v", sum, err)
	}
	for _, room := range []chat.RoomID{"attic", "lobby"} {
		a, err := from.Info(t.Context(), room)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := to.Info(t.Context(), room); err != nil || b.Top != a.Top {
			t.Errorf("room %s: got %+v, %v, want the place %+v", room, b.Top, err, a.Top)
		}
	}
	if len(done) != 2 || done[0].Already || done[0].Room != "attic" {
		t.Errorf("told %+v", done)
	}
	done = nil
	if _, err := archive.Copy(t.Context(), from, to, told); err != nil || len(done) != 2 || !done[1].Already {
		t.Errorf("again: got %+v, %v", done, err)
	}
	post(t, to, "lobby", entry("further"))
	if _, err := archive.Copy(t.Context(), from, to, told); err == nil || !strings.Contains(err.Error(), "room lobby") {
		t.Errorf("a room that has gone on: got %v, want an error that names it", err)
	}
}

type failing struct{ left int }

func (f *failing) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

func TestErrorsOfBothEnds(t *testing.T) {
	j := open(t, 0)
	fill(t, j)
	if _, err := archive.Write(t.Context(), j, nil, &failing{left: 10}, archive.Header{}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("write: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := archive.Write(ctx, j, nil, io.Discard, archive.Header{}); !errors.Is(err, context.Canceled) {
		t.Errorf("write: got %v, want the context's end", err)
	}
	b, _ := write(t, j)
	if _, err := archive.Restore(ctx, bytes.NewReader(b), j, archive.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("restore: got %v, want the context's end", err)
	}
	if _, err := archive.Restore(t.Context(), bytes.NewReader(b), j, archive.Options{Fresh: true}); !errors.Is(err, journal.ErrExists) {
		t.Errorf("restore of rooms that are there: got %v", err)
	}
}

// TestDamagedEntries: what the store cannot read has a tombstone in the copy.
func TestDamagedEntries(t *testing.T) {
	j := open(t, 0)
	for i := range 10 {
		post(t, j, "lobby", entry(fmt.Sprint("m", i)))
	}
	b, sum := write(t, holed{j, map[uint64]bool{1: true, 5: true, 10: true}})
	if sum.Entries != 7 || sum.Missing != 3 {
		t.Errorf("wrote %+v, want 7 entries and 3 missing", sum)
	}
	to := open(t, 0)
	if _, err := archive.Restore(t.Context(), bytes.NewReader(b), to, archive.Options{}); err != nil {
		t.Fatal(err)
	}
	_, es := all(t, to, "lobby")
	if len(es) != 10 || es[4].Outcome != chat.Erased || es[4].Text != "" || es[5].Text == "" || es[9].Outcome != chat.Erased {
		t.Errorf("got %+v", es)
	}
}

// holed is a journal in which some entries are damaged.
type holed struct {
	journal.Journal
	bad map[uint64]bool
}

func (h holed) Read(ctx context.Context, room chat.RoomID, after uint64, limit int) (string, []journal.Entry, error) {
	epoch, es, err := h.Journal.Read(ctx, room, after, limit)
	for i := range es {
		if h.bad[es[i].Seq] {
			if i == 0 {
				return epoch, nil, &journal.DamagedError{Room: room, Seq: es[i].Seq}
			}
			return epoch, es[:i], nil
		}
	}
	return epoch, es, err
}

func FuzzVerify(f *testing.F) {
	j := open(f, 0)
	post(f, j, "lobby", entry("m"))
	b, _ := write(f, j)
	f.Add(b)
	f.Add(b[:len(b)-10])
	noted, err := os.ReadFile("testdata/v2.backup")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(noted)
	f.Add([]byte(archive.Magic + "\x01\x00H\xff\xff\xff\xff\x0f"))
	f.Add([]byte(archive.Magic + "\x02\x00"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, err := archive.Verify(bytes.NewReader(b))
		var e *archive.Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("got %v, want an error that names the byte", err)
		}
	})
}

var update = flag.Bool("update", false, "write testdata/v2.backup: only until that version is released")

// TestVersion1 reads an archive as it was written when the format was new: what
// was backed up once can be restored later.
func TestVersion1(t *testing.T) {
	restoreOld(t, "testdata/v1.backup", open(t, 0), archive.Options{KeepEpoch: true}, archive.Summary{Rooms: 2, Entries: 603, Reviews: 1})
}

// TestVersion2 does the same of the format with what waits for absent people.
func TestVersion2(t *testing.T) {
	const name = "testdata/v2.backup"
	if *update {
		j := open(t, 0)
		fill(t, j)
		e := entry("e")
		e.Kind, e.Erases = journal.KindErase, []uint64{2}
		post(t, j, "attic", e)
		info, err := j.Info(t.Context(), "attic")
		if err != nil {
			t.Fatal(err)
		}
		n := absent.Note{Entry: absent.Entry{Room: "attic", Epoch: info.Top.Epoch, Seq: 1, ID: "alone", From: "ann", User: "bob", Kind: journal.NoticeMention, Time: 5, Text: "hi", Texted: true}}
		dead := n
		dead.User, dead.Dead = "cid", &absent.Death{Reason: "410 Gone", Tries: 1, Died: time.Unix(1732000000, 0).UTC()}
		var b bytes.Buffer
		if _, err := archive.Write(t.Context(), j, &shelf{n, dead}, &b, archive.Header{Created: time.Unix(1732000000, 0), Server: "test"}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var got shelf
	restoreOld(t, name, open(t, 0), archive.Options{KeepEpoch: true, Notes: &got}, archive.Summary{Rooms: 2, Entries: 603, Reviews: 1, Notes: 2})
	if len(got) != 2 || got[0].User != "bob" || got[0].Text != "hi" || got[0].Dead != nil || got[1].Dead == nil || got[1].Dead.Reason != "410 Gone" {
		t.Errorf("got %+v", got)
	}
}

// restoreOld restores an archive of an earlier version.
func restoreOld(t *testing.T, name string, to *disk.Journal, o archive.Options, want archive.Summary) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if sum, err := archive.Restore(t.Context(), bytes.NewReader(b), to, o); err != nil || sum != want {
		t.Fatalf("got %+v, %v, want %+v", sum, err, want)
	}
	_, es := all(t, to, "attic")
	if len(es) != 2 || es[0].Text != "text of alone" || len(es[1].Erases) != 1 {
		t.Errorf("got %+v", es)
	}
}

// shelf is a store of messages for absent people.
type shelf []absent.Note

func (s *shelf) EachNote(_ context.Context, f func(*absent.Note) error) error {
	for i := range *s {
		if err := f(&(*s)[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *shelf) PutNotes(_ context.Context, notes []absent.Note) error {
	if len(notes) > 64 {
		return fmt.Errorf("%d at a time", len(notes))
	}
	*s = append(*s, notes...)
	return nil
}

// TestNotes: what waits for absent people is in the archive, and is put back
// where that is asked for, at the places that the messages have now.
func TestNotes(t *testing.T) {
	from := open(t, 0)
	fill(t, from)
	info, err := from.Info(t.Context(), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	note := func(room chat.RoomID, epoch string, seq uint64) absent.Note {
		return absent.Note{Entry: absent.Entry{Room: room, Epoch: epoch, Seq: seq, ID: chat.MessageID(fmt.Sprint("m", seq)), From: "ann", User: "bob",
			Kind: journal.NoticeMention, Text: "hi", Texted: true}}
	}
	var waits shelf
	for i := range 100 {
		waits = append(waits, note("lobby", info.Top.Epoch, uint64(i+1)))
	}
	dead := note("lobby", "an epoch before", 7)
	dead.Dead = &absent.Death{Reason: "no", Tries: 3, Died: time.Unix(1732000000, 0).UTC()}
	waits = append(waits, dead, note("lobby", info.Top.Epoch, info.Top.Seq+1), note("cellar", "e", 1)) // the last two: written meanwhile
	var b bytes.Buffer
	wrote, err := archive.Write(t.Context(), from, &waits, &b, archive.Header{})
	if err != nil || wrote.Notes != 103 {
		t.Fatalf("got %+v, %v, want 103 notes", wrote, err)
	}
	to := open(t, 0)
	if sum, err := archive.Restore(t.Context(), bytes.NewReader(b.Bytes()), to, archive.Options{}); err != nil || sum.Notes != 0 || sum.Rooms != wrote.Rooms {
		t.Errorf("without: got %+v, %v", sum, err)
	}
	var got shelf
	sum, err := archive.Restore(t.Context(), bytes.NewReader(b.Bytes()), to, archive.Options{Notes: &got})
	if err != nil || sum.Notes != 101 || len(got) != 101 {
		t.Fatalf("with: got %+v, %v and %d notes, want 101", sum, err, len(got))
	}
	now, err := to.Info(t.Context(), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		want := waits[i]
		want.Epoch = now.Top.Epoch
		if got[i] != want {
			t.Fatalf("got %+v\nwant %+v", got[i], want)
		}
	}
	if last := got[100]; last.Entry != dead.Entry || *last.Dead != *dead.Dead {
		t.Errorf("got %+v\nwant %+v", last, dead)
	}
	if _, err := archive.Write(t.Context(), from, broken{}, io.Discard, archive.Header{}); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("got %v, want the error of what cannot be read", err)
	}
	if sum, err := archive.Restore(t.Context(), bytes.NewReader(b.Bytes()), to, archive.Options{Notes: broken{}}); !errors.Is(err, io.ErrNoProgress) || sum.Notes != 0 || sum.Rooms != wrote.Rooms {
		t.Errorf("got %+v, %v, want the error of what cannot be put back", sum, err)
	}
}

type broken struct{}

func (broken) EachNote(context.Context, func(*absent.Note) error) error { return io.ErrNoProgress }
func (broken) PutNotes(context.Context, []absent.Note) error            { return io.ErrNoProgress }
