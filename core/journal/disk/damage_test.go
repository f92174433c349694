package disk_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"unsafe"

	bolt "go.etcd.io/bbolt"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/disk"
)

// span is where a record lies in the file.
type span struct{ off, len int64 }

// record finds the live record under a key of a bucket, in a file that nobody
// has open.
func record(t *testing.T, path, bucket string, key []byte) (k, v span) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	base := db.Info().Data
	at := func(b []byte) span {
		return span{int64(uintptr(unsafe.Pointer(unsafe.SliceData(b))) - base), int64(len(b))}
	}
	err = db.View(func(tx *bolt.Tx) error {
		gotKey, gotValue := tx.Bucket([]byte(bucket)).Cursor().Seek(key)
		if string(gotKey) != string(key) {
			return fmt.Errorf("no key %q in %s", key, bucket)
		}
		k, v = at(gotKey), at(gotValue)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return k, v
}

// entryKey is the documented key of an entry of a room's first epoch.
func entryKey(room string, seq byte) []byte {
	return append([]byte(room), 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, seq)
}

// flip flips one bit of the file.
func flip(t *testing.T, path string, off int64, bit int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << bit
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// fillRoom appends n messages and returns them as they must be read.
func fillRoom(t *testing.T, j *disk.Journal, room chat.RoomID, n int) []journal.Entry {
	t.Helper()
	var es []journal.Entry
	for i := range n {
		r := benchRequest(room, uint64(i))
		r.Entry.Text = fmt.Sprintf("%s %d", room, i)
		rc, err := j.Append(t.Context(), r)
		if err != nil {
			t.Fatalf("append: %v", err)
		}
		r.Entry.Seq = rc.Seq
		es = append(es, r.Entry)
	}
	return es
}

// makeFile makes a journal file with n messages in room "lobby" and a few in
// many others: bbolt copies the values of a bucket that fits in its parent's
// page, and then record could not find them.
func makeFile(t *testing.T, n int) (path string, es []journal.Entry) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "journal.db")
	j := open(t, config(path))
	fillRoom(t, j, "attic", 5)
	es = fillRoom(t, j, "lobby", n)
	fillRoom(t, j, "yard", 5)
	for i := range 40 {
		fillRoom(t, j, chat.RoomID(fmt.Sprintf("other-%d", i)), 1)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return path, es
}

// readUp reads a room upward, reading on behind damaged records, which it
// returns by seq.
func readUp(t *testing.T, j *disk.Journal, room chat.RoomID, limit int) (es []journal.Entry, damaged []uint64) {
	t.Helper()
	for after := uint64(0); ; {
		_, batch, err := j.Read(t.Context(), room, after, limit)
		var d *journal.DamagedError
		switch {
		case errors.As(err, &d):
			if !errors.Is(err, journal.ErrDamaged) || d.Room != room || d.Seq <= after || len(batch) > 0 {
				t.Fatalf("read after %d: got %d entries and %v", after, len(batch), err)
			}
			damaged = append(damaged, d.Seq)
			after = d.Seq
		case err != nil:
			t.Fatalf("read after %d: %v", after, err)
		case len(batch) == 0:
			return es, damaged
		default:
			es = append(es, batch...)
			after = batch[len(batch)-1].Seq
		}
	}
}

// readDown is readUp with ReadBefore.
func readDown(t *testing.T, j *disk.Journal, room chat.RoomID, limit int) (n int, damaged []uint64) {
	t.Helper()
	for before := uint64(0); ; {
		_, batch, err := j.ReadBefore(t.Context(), room, before, limit)
		var d *journal.DamagedError
		switch {
		case errors.As(err, &d):
			damaged = append(damaged, d.Seq)
			before = d.Seq
		case err != nil:
			t.Fatalf("read before %d: %v", before, err)
		case len(batch) == 0:
			return n, damaged
		default:
			n += len(batch)
			before = batch[0].Seq
		}
		if before == 1 {
			return n, damaged
		}
	}
}

func TestDamagedRecord(t *testing.T) {
	for _, bad := range [][]uint64{{1}, {7}, {20}, {6, 7, 8}, {1, 20}} {
		t.Run(fmt.Sprint(bad), func(t *testing.T) {
			path, want := makeFile(t, 20)
			for _, seq := range bad {
				_, v := record(t, path, "entries", entryKey("lobby", byte(seq)))
				flip(t, path, v.off+v.len/2, 3)
			}
			for range 2 { // the second time it is known already
				j := open(t, config(path))
				es, damaged := readUp(t, j, "lobby", 4)
				if !reflect.DeepEqual(damaged, bad) {
					t.Errorf("got damaged records %v, want %v", damaged, bad)
				}
				if len(es) != len(want)-len(bad) {
					t.Errorf("got %d entries, want %d", len(es), len(want)-len(bad))
				}
				for _, e := range es {
					if !reflect.DeepEqual(e, want[e.Seq-1]) {
						t.Errorf("got %+v, want %+v", e, want[e.Seq-1])
					}
				}
				if n, down := readDown(t, j, "lobby", 4); n != len(es) || len(down) != len(bad) {
					t.Errorf("downward: got %d entries and %v damaged, want %d and %d", n, down, len(es), len(bad))
				}
				if s := j.Stats(); s.Damaged != uint64(len(bad)) {
					t.Errorf("got %d damaged records counted, want %d", s.Damaged, len(bad))
				}
				// The next commit, at the latest, records them.
				if _, err := j.Append(t.Context(), benchRequest("yard", 1000+rand.Uint64N(1<<40))); err != nil {
					t.Fatalf("append beside damage: %v", err)
				}
				list, err := j.Quarantined(t.Context(), 100)
				if err != nil || len(list) != len(bad) {
					t.Fatalf("got quarantine %v, %v, want %d records", list, err, len(bad))
				}
				for i, q := range list {
					if q.Room != "lobby" || q.Seq != bad[i] || q.Detail == "" {
						t.Errorf("got quarantined %+v, want seq %d of lobby and why", q, bad[i])
					}
				}
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
			}
			// The room itself goes on.
			j := open(t, config(path))
			rc, err := j.Append(t.Context(), benchRequest("lobby", 1000))
			if err != nil || rc.Seq != 21 {
				t.Errorf("append to the damaged room: got %+v, %v, want seq 21", rc, err)
			}
		})
	}
}

// TestFlippedBits flips random bits of live records, one at a time, in values
// and in keys. Whatever is read must be what was written.
func TestFlippedBits(t *testing.T) {
	const entries, rounds = 60, 100
	path, want := makeFile(t, entries)
	rng := rand.New(rand.NewPCG(1, 2))
	caught := 0
	for range rounds {
		seq := 1 + rng.IntN(entries)
		k, v := record(t, path, "entries", entryKey("lobby", byte(seq)))
		where := v
		if rng.IntN(4) == 0 {
			where = k
		}
		off, bit := where.off+rng.Int64N(where.len), rng.IntN(8)
		flip(t, path, off, bit)
		j := open(t, config(path))
		es, damaged := readUp(t, j, "lobby", 10)
		for _, e := range es {
			if !reflect.DeepEqual(e, want[e.Seq-1]) {
				t.Fatalf("bit %d at %d flipped (record %d): served %+v, want %+v", bit, off, seq, e, want[e.Seq-1])
			}
			if int(e.Seq) == seq {
				t.Fatalf("bit %d at %d flipped: record %d was served", bit, off, seq)
			}
		}
		if len(damaged) > 0 && len(es)+len(damaged) == entries {
			caught++
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		flip(t, path, off, bit)
	}
	if caught != rounds {
		t.Errorf("got %d of %d flipped bits reported, want all", caught, rounds)
	}
}

// TestFlippedPages flips bits anywhere behind the two meta pages: in page
// headers, free pages and tree pages. Opening or reading may fail, but the
// process lives and nothing wrong is served.
func TestFlippedPages(t *testing.T) {
	const entries, rounds = 60, 150
	path, want := makeFile(t, entries)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := int64(0) // the file is grown in large steps
	for i, b := range good {
		if b != 0 {
			used = int64(i)
		}
	}
	page := int64(os.Getpagesize())
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range rounds {
		bad := filepath.Join(t.TempDir(), "journal.db")
		if err := os.WriteFile(bad, good[:(used/page+1)*page], 0o600); err != nil {
			t.Fatal(err)
		}
		off, bit := 2*page+rng.Int64N(used-2*page), rng.IntN(8)
		if i%3 == 0 {
			off = off / page * page // a page header, where it hurts most
			off += rng.Int64N(16)
		}
		flip(t, bad, off, bit)
		j, err := disk.Open(config(bad), nil)
		if err != nil {
			continue // refused, with a reason
		}
		for after := uint64(0); after < entries; after++ {
			_, es, err := j.Read(t.Context(), "lobby", after, 1)
			if err == nil && len(es) == 1 && !reflect.DeepEqual(es[0], want[es[0].Seq-1]) {
				t.Fatalf("bit %d at %d flipped: served %+v", bit, off, es[0])
			}
		}
		_, _ = j.Append(t.Context(), benchRequest("lobby", 5000)) // it may fail; it may not hang or crash
		if err := j.Close(); err != nil {
			t.Logf("close: %v", err)
		}
		if err := os.Remove(bad); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamagedHead(t *testing.T) {
	for _, c := range []struct {
		name    string
		buckets []string
		reset   bool // the epoch's name is lost
	}{
		{"span", []string{"rooms"}, false},
		{"lineage", []string{"epochs"}, true},
		{"both", []string{"rooms", "epochs"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, want := makeFile(t, 20)
			j := open(t, config(path))
			before, err := j.Info(t.Context(), "lobby")
			if err != nil {
				t.Fatal(err)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			for _, b := range c.buckets {
				_, v := record(t, path, b, []byte("lobby"))
				flip(t, path, v.off+3, 1)
			}
			j = open(t, config(path))
			es, damaged := readUp(t, j, "lobby", 7)
			if !reflect.DeepEqual(es, want) || damaged != nil {
				t.Errorf("got %d entries and damage %v, want all %d and none", len(es), damaged, len(want))
			}
			info, err := j.Info(t.Context(), "lobby")
			if err != nil || info.Top.Seq != 20 || info.Top.ID != want[19].ID || info.First != 1 {
				t.Errorf("got info %+v, %v, want top 20", info, err)
			}
			if got := info.Top.Epoch != before.Top.Epoch; got != c.reset {
				t.Errorf("got a new epoch %v, want %v", got, c.reset)
			}
			rc, err := j.Append(t.Context(), benchRequest("lobby", 1000))
			if err != nil || rc.Seq != 21 || rc.Epoch != info.Top.Epoch {
				t.Errorf("append: got %+v, %v, want seq 21 of %q", rc, err, info.Top.Epoch)
			}
		})
	}
}

func TestDamagedState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, config(path))
	r := benchRequest("lobby", 1)
	r.Entry.Changes = []journal.Change{{Key: "ban/bob", Value: []byte("for good")}}
	for i := range 60 {
		r.Entry.Changes = append(r.Entry.Changes, journal.Change{Key: fmt.Sprintf("role/%d", i), Value: []byte("some role or other")})
	}
	if _, err := j.Append(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	_, v := record(t, path, "state", []byte("lobby\x00ban/bob"))
	flip(t, path, v.off+2, 5)
	j = open(t, config(path))
	if info, err := j.Info(t.Context(), "lobby"); !errors.Is(err, journal.ErrDamaged) {
		t.Errorf("got %+v, %v, want %v: a room without its bans is worse than none", info, err, journal.ErrDamaged)
	}
	r = benchRequest("lobby", 2)
	r.Entry.Changes = []journal.Change{{Key: "ban/bob", Value: []byte("again")}}
	if _, err := j.Append(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if info, err := j.Info(t.Context(), "lobby"); err != nil || string(info.State["ban/bob"]) != "again" {
		t.Errorf("set again: got %q, %v, want it healed", info.State["ban/bob"], err)
	}
}

func TestDamagedReceipt(t *testing.T) {
	path, _ := makeFile(t, 20)
	_, v := record(t, path, "nonces", []byte{0, 0, 0, 0, 0, 0, 0, 6}) // lobby's first
	flip(t, path, v.off+4, 0)
	j := open(t, config(path))
	if rc, ok, err := j.Lookup(t.Context(), "lobby", "ann", "nonce-0"); ok || err != nil {
		t.Errorf("damaged receipt: got %+v, %v, %v, want it forgotten", rc, ok, err)
	}
	if rc, ok, err := j.Lookup(t.Context(), "lobby", "ann", "nonce-1"); !ok || err != nil || rc.Seq != 2 {
		t.Errorf("the next receipt: got %+v, %v, %v, want seq 2", rc, ok, err)
	}
}
