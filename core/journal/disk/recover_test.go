package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"parley/core/chat"
	"parley/core/journal"
)

// stopped opens a journal whose committer does not run, so that a test can be
// the committer and stop at any point of a commit.
func stopped(t *testing.T) *committer {
	t.Helper()
	cfg := Defaults()
	cfg.Path = filepath.Join(t.TempDir(), "journal.db")
	c, err := load(cfg, slog.New(slog.DiscardHandler), migrations)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.j.db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

// request makes a pending append as Append does.
func request(room chat.RoomID, nonce string, known journal.Position) *pending {
	p := (&Journal{}).newPending(journal.Request{Room: room, Known: known, Entry: journal.Entry{
		ID: chat.MessageID("id-" + nonce), Kind: journal.KindMessage, From: "ann", Nonce: nonce,
		Changes: []journal.Change{{Key: "last", Value: []byte(nonce)}},
	}})
	if err := p.encode(); err != nil {
		panic(err)
	}
	p.hash = hashNonce(room, "ann", nonce)
	return p
}

// write brings appends into the file but does not publish them, as a commit
// does that is about to sync or whose last sync failed.
func write(t *testing.T, c *committer, ps ...*pending) {
	t.Helper()
	if err := c.transact(func(b *buckets) (bool, error) { return c.stageAll(b, ps) }); err != nil {
		t.Fatalf("transact: %v", err)
	}
}

// appendNow is a whole commit.
func appendNow(t *testing.T, c *committer, ps ...*pending) {
	t.Helper()
	c.commit(ps)
	for _, p := range ps {
		<-p.done
		if p.err != nil {
			t.Fatalf("append: %v", p.err)
		}
	}
}

func wantRead(t *testing.T, j *Journal, room chat.RoomID, want ...string) {
	t.Helper()
	_, es, err := j.Read(t.Context(), room, 0, 100)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	var got []string
	for _, e := range es {
		got = append(got, e.Nonce)
	}
	if !slices.Equal(got, want) {
		t.Errorf("read %s: got %v, want %v", room, got, want)
	}
	_, es, err = j.ReadBefore(t.Context(), room, 0, 100)
	if err != nil || len(es) != len(want) {
		t.Errorf("read before: got %d entries, error %v, want %d", len(es), err, len(want))
	}
}

// doubter counts what it hears.
type doubter struct{ appended, doubts int }

func (d *doubter) Appended(string, *journal.Entry) { d.appended++ }
func (d *doubter) Reviewed(*journal.Review)        {}
func (d *doubter) Doubt()                          { d.doubts++ }

// TestUnsyncedIsUnseen stops between the last write of a commit and its sync.
func TestUnsyncedIsUnseen(t *testing.T) {
	for _, c := range []struct {
		name  string
		known journal.Position // of the commit that is not synced
		room  chat.RoomID
		seen  []string // before the sync
		then  []string // after it
	}{
		{"an entry more", journal.Position{}, "lobby", []string{"a", "b"}, []string{"a", "b", "x"}},
		{"a new epoch", journal.Position{Epoch: "lost", Seq: 9}, "lobby", []string{"a", "b"}, []string{"a", "b", "x"}},
		{"a new room", journal.Position{}, "attic", nil, []string{"x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			com := stopped(t)
			j := com.j
			appendNow(t, com, request("lobby", "a", journal.Position{}), request("lobby", "b", journal.Position{}))
			var w doubter
			cancel, err := j.Watch(t.Context(), c.room, &w)
			if err != nil {
				t.Fatal(err)
			}
			defer cancel()
			write(t, com, request(c.room, "x", c.known))
			wantRead(t, j, c.room, c.seen...)
			if _, ok, err := j.Lookup(t.Context(), c.room, "ann", "x"); ok || err != nil {
				t.Errorf("lookup before the sync: got %v, %v, want neither", ok, err)
			}

			// Info waits; the sync fails; it says so.
			infos := make(chan error)
			go func() {
				_, err := j.Info(t.Context(), c.room)
				infos <- err
			}()
			_ = com.failed(errors.New("input/output error"))
			if err := <-infos; !errors.Is(err, journal.ErrUnavailable) {
				t.Errorf("info while in doubt: got %v, want %v", err, journal.ErrUnavailable)
			}
			if err := j.Healthy(t.Context()); !errors.Is(err, journal.ErrUnavailable) {
				t.Errorf("healthy: got %v, want %v", err, journal.ErrUnavailable)
			}
			if _, err := j.Append(t.Context(), journal.Request{Room: "lobby"}); !errors.Is(err, journal.ErrUnavailable) {
				t.Errorf("append while in doubt: got %v, want %v", err, journal.ErrUnavailable)
			}
			wantRead(t, j, c.room, c.seen...)

			// The next write makes it durable.
			com.probe()
			wantRead(t, j, c.room, c.then...)
			if w.appended != 0 || w.doubts != 1 {
				t.Errorf("watcher: got %d entries and %d doubts, want 0 and 1", w.appended, w.doubts)
			}
			rc, ok, err := j.Lookup(t.Context(), c.room, "ann", "x")
			if !ok || err != nil || rc.ID != "id-x" {
				t.Errorf("lookup after the sync: got %+v, %v, %v, want it", rc, ok, err)
			}
			info, err := j.Info(t.Context(), c.room)
			if err != nil || string(info.State["last"]) != "x" || info.Top.ID != "id-x" {
				t.Errorf("info after the sync: got %+v, %v, want it to know x", info, err)
			}
			again := request(c.room, "x", journal.Position{})
			appendNow(t, com, again, request(c.room, "y", journal.Position{}))
			if !again.receipt.Repeat {
				t.Errorf("resend: got %+v, want a repeat", again.receipt)
			}
			wantRead(t, j, c.room, append(c.then, "y")...)
			if err := j.Healthy(t.Context()); err != nil {
				t.Errorf("healthy: %v", err)
			}
		})
	}
}

// TestInfoWaits: Info during a commit answers after it, with state and top of
// one moment.
func TestInfoWaits(t *testing.T) {
	c := stopped(t)
	appendNow(t, c, request("lobby", "a", journal.Position{}))
	write(t, c, request("lobby", "b", journal.Position{}))
	infos := make(chan journal.Info)
	go func() {
		info, err := c.j.Info(t.Context(), "lobby")
		if err != nil {
			t.Errorf("info: %v", err)
		}
		infos <- info
	}()
	c.publish()
	if info := <-infos; info.Top.Seq != 2 || string(info.State["last"]) != "b" {
		t.Errorf("got top %d with state %q, want 2 with b", info.Top.Seq, info.State["last"])
	}
}

// TestGarbage: the entries of a log that was replaced are deleted in the commits
// that follow, and no others.
func TestGarbage(t *testing.T) {
	c := stopped(t)
	for i := range 100 {
		appendNow(t, c, request("lobby", fmt.Sprint("old", i), journal.Position{}), request("lobby2", fmt.Sprint(i), journal.Position{}))
	}
	replace := request("lobby", "new", journal.Position{})
	replace.do = func(c *committer, b *buckets, w *work, p *pending) error { // as an import does
		c.garbage = true
		if err := b.garbage().Put(genPrefix(nil, w.room, w.h.gen), []byte{recordVersion}); err != nil {
			return err
		}
		w.h = head{gen: w.h.gen + 1, epoch: "restored", first: 1}
		w.changed, w.lineage = true, true
		return c.put(b, w, p)
	}
	appendNow(t, c, replace)
	if n := c.countEntries(t); n != 201 {
		t.Fatalf("got %d entries right after the replacement, want all 201", n)
	}
	for i := range 20 {
		appendNow(t, c, request("lobby", fmt.Sprint("more", i), journal.Position{}))
	}
	if n := c.countEntries(t); n != 121 {
		t.Errorf("got %d entries after 20 more commits, want 121", n)
	}
	if c.garbage {
		t.Error("got garbage left, want none")
	}
}

func (c *committer) countEntries(t *testing.T) (n int) {
	t.Helper()
	err := c.j.view(func(b *buckets) error {
		n = b.entries().Stats().KeyN
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDamagedPage: a page that bbolt cannot follow fails the appends that need
// it, and none of those committed beside them.
func TestDamagedPage(t *testing.T) {
	c := stopped(t)
	for _, room := range []chat.RoomID{"aaa", "zzz"} {
		for i := range 40 {
			p := request(room, fmt.Sprint(i), journal.Position{})
			p.req.Entry.Text = strings.Repeat("x", 1000)
			if err := p.encode(); err != nil {
				t.Fatal(err)
			}
			appendNow(t, c, p)
		}
	}
	c.breakPage(t, entryKey(nil, "zzz", 1, 40))
	for _, both := range []bool{true, false} {
		bad := request("zzz", fmt.Sprint("bad", both), journal.Position{})
		good := request("aaa", fmt.Sprint("good", both), journal.Position{})
		ps := []*pending{bad}
		if both {
			ps = append(ps, good)
		}
		c.commit(ps)
		for _, p := range ps {
			<-p.done
		}
		if !errors.Is(bad.err, journal.ErrDamaged) {
			t.Errorf("append to the damaged page: got %v, want %v", bad.err, journal.ErrDamaged)
		}
		if both && (good.err != nil || good.receipt.Seq != 41) {
			t.Errorf("append beside it: got %+v, %v, want seq 41", good.receipt, good.err)
		}
	}
	if _, _, err := c.j.Read(t.Context(), "zzz", 39, 1); !errors.Is(err, journal.ErrDamaged) {
		t.Errorf("read of the damaged page: got %v, want %v", err, journal.ErrDamaged)
	}
	if _, es, err := c.j.Read(t.Context(), "aaa", 40, 1); err != nil || len(es) != 1 {
		t.Errorf("read beside it: got %d entries, %v, want 1", len(es), err)
	}
	if err := c.j.Healthy(t.Context()); err != nil {
		t.Errorf("healthy: %v", err)
	}
}

// breakPage clears the type of the page that holds the entry with that key.
func (c *committer) breakPage(t *testing.T, key []byte) {
	t.Helper()
	info := c.j.db.Info()
	var off int64
	err := c.j.view(func(b *buckets) error {
		k, _ := b.entries().Cursor().Seek(key)
		off = int64(uintptr(unsafe.Pointer(unsafe.SliceData(k))) - info.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(c.j.cfg.Path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	page := off / int64(info.PageSize) * int64(info.PageSize)
	if _, err := f.WriteAt([]byte{0, 0}, page+8); err != nil { // the flags follow the id
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
