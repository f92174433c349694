package disk_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/disk"
)

func TestNonceWindow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	synctest.Test(t, func(t *testing.T) {
		j := open(t, config(path))
		known := func(want bool) {
			t.Helper()
			if rc, ok, err := j.Lookup(t.Context(), "lobby", "ann", "nonce-0"); ok != want || err != nil {
				t.Errorf("lookup after %v: got %+v, %v, %v, want found %v", time.Since(time.Time{}), rc, ok, err, want)
			}
		}
		fillRoom(t, j, "lobby", 3)
		time.Sleep(10*time.Minute - time.Second)
		known(true)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		j = open(t, config(path))
		known(true)
		if rc, err := j.Append(t.Context(), benchRequest("lobby", 0)); err != nil || !rc.Repeat {
			t.Errorf("inside the window: got %+v, %v, want a repeat", rc, err)
		}
		time.Sleep(2 * time.Second)
		known(false)
		if rc, err := j.Append(t.Context(), benchRequest("lobby", 0)); err != nil || rc.Repeat || rc.Seq != 4 {
			t.Errorf("past the window: got %+v, %v, want a new entry", rc, err)
		}
		known(true) // the new one
		if n := j.Stats().Nonces; n != 1 {
			t.Errorf("got %d nonces in memory, want 1", n)
		}
		// Nobody writes: maintenance forgets them.
		time.Sleep(11 * time.Minute)
		if n := j.Stats().Nonces; n != 0 {
			t.Errorf("got %d nonces in memory in the end, want none", n)
		}
	})
}

func TestMaxNonces(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "journal.db"))
	cfg.MaxNonces = 10
	j := open(t, cfg)
	fillRoom(t, j, "lobby", 50)
	for _, c := range []struct {
		nonce string
		want  bool
	}{{"nonce-0", false}, {"nonce-30", false}, {"nonce-45", true}, {"nonce-49", true}} {
		if _, ok, err := j.Lookup(t.Context(), "lobby", "ann", c.nonce); ok != c.want || err != nil {
			t.Errorf("lookup %s: got %v, %v, want %v", c.nonce, ok, err, c.want)
		}
	}
	if n := j.Stats().Nonces; n > 12 {
		t.Errorf("got %d nonces in memory, want about 10", n)
	}
}

// TestMaxAge: entries are dropped by age, in rooms that are written to and in
// rooms that are not.
func TestMaxAge(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "journal.db"))
	cfg.MaxAge = time.Hour
	synctest.Test(t, func(t *testing.T) {
		j := open(t, cfg)
		add := func(room chat.RoomID, n int) {
			t.Helper()
			for range n {
				r := benchRequest(room, 0)
				r.Entry.Nonce, r.Entry.Time = "", time.Now().UnixMilli()
				if _, err := j.Append(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
		}
		wantSpan := func(room chat.RoomID, first, top uint64) {
			t.Helper()
			info, err := j.Info(t.Context(), room)
			if err != nil || info.First != first || info.Top.Seq != top {
				t.Errorf("%s: got first %d, top %d, %v, want %d and %d", room, info.First, info.Top.Seq, err, first, top)
			}
			if es := readAll(t, j, room); len(es) != int(top-first+1) {
				t.Errorf("%s: got %d entries, want %d", room, len(es), top-first+1)
			}
		}
		add("busy", 5)
		add("idle", 300)
		time.Sleep(40 * time.Minute)
		add("busy", 5)
		wantSpan("busy", 1, 10)
		wantSpan("idle", 1, 300)
		time.Sleep(30 * time.Minute)
		add("busy", 1)
		wantSpan("busy", 6, 11)
		wantSpan("idle", 301, 300)
		time.Sleep(2 * time.Hour)
		wantSpan("busy", 12, 11)
		add("idle", 1)
		wantSpan("idle", 301, 301)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		j = open(t, cfg)
		wantSpan("busy", 12, 11)
		wantSpan("idle", 301, 301)
	})
}

// TestLowerMaxEntries: a bound that was lowered reaches every room, also where
// there are more of them than one round of maintenance handles.
func TestLowerMaxEntries(t *testing.T) {
	const rooms = 300
	cfg := config(filepath.Join(t.TempDir(), "journal.db"))
	synctest.Test(t, func(t *testing.T) {
		j := open(t, cfg)
		var wg sync.WaitGroup
		for i := range rooms {
			wg.Go(func() { fillRoom(t, j, chat.RoomID(fmt.Sprintf("room-%d", i)), 5) })
		}
		wg.Wait()
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.MaxEntries, cfg.MaxCachedRooms = 2, 10
		j = open(t, cfg)
		time.Sleep(time.Minute + time.Second) // not at the moment of a round, whose rooms are all in memory
		for i := range rooms {
			room := chat.RoomID(fmt.Sprintf("room-%d", i))
			if info, err := j.Info(t.Context(), room); err != nil || info.First != 4 {
				t.Fatalf("%s: got first %d, %v, want 4", room, info.First, err)
			}
		}
		if n := j.Stats().CachedRooms; n > cfg.MaxCachedRooms {
			t.Errorf("got %d rooms in memory, want at most %d", n, cfg.MaxCachedRooms)
		}
	})
}

// blocker is a watcher that holds up the committer, against all rules.
type blocker struct {
	entered chan struct{}
	leave   chan struct{}
}

func (b *blocker) Appended(string, *journal.Entry) {
	b.entered <- struct{}{}
	<-b.leave
}
func (b *blocker) Reviewed(*journal.Review) {}

func (b *blocker) Doubt() {}

func TestOverloaded(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit func(*disk.Config)
		say   string
	}{
		{"in number", func(c *disk.Config) { c.MaxPending = 4 }, "4 appends wait"},
		{"in bytes", func(c *disk.Config) { c.MaxPendingBytes = 4500 }, "bytes wait"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(filepath.Join(t.TempDir(), "journal.db"))
			c.limit(&cfg)
			synctest.Test(t, func(t *testing.T) {
				j := open(t, cfg)
				b := &blocker{make(chan struct{}), make(chan struct{})}
				cancel, err := j.Watch(t.Context(), "lobby", b)
				if err != nil {
					t.Fatal(err)
				}
				long := func(i int) journal.Request { // about 1,000 bytes encoded
					r := benchRequest("lobby", uint64(i))
					r.Entry.Text = strings.Repeat("x", 950)
					return r
				}
				var wg sync.WaitGroup
				send := func(i int) {
					wg.Go(func() {
						if _, err := j.Append(t.Context(), long(i)); err != nil {
							t.Errorf("append %d: %v", i, err)
						}
					})
				}
				send(0)
				<-b.entered // the committer is busy from here
				for i := range 4 {
					send(1 + i)
				}
				synctest.Wait()
				if n := j.Stats().Pending; n != 4 {
					t.Fatalf("got %d pending, want 4", n)
				}
				_, err = j.Append(t.Context(), long(99))
				if !errors.Is(err, journal.ErrOverloaded) || !strings.Contains(err.Error(), c.say) {
					t.Errorf("got %v, want %v that says %q", err, journal.ErrOverloaded, c.say)
				}

				// A caller that gives up leaves no trace if it was in time.
				ctx, stop := context.WithCancel(t.Context())
				stop()
				if _, err := j.Append(ctx, benchRequest("lobby", 98)); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v, want %v", err, context.Canceled)
				}

				// Cancel waits for the call under way.
				cancelled := make(chan struct{})
				go func() {
					cancel()
					close(cancelled)
				}()
				synctest.Wait()
				select {
				case <-cancelled:
					t.Error("cancel returned while the watcher was being called")
				default:
				}
				close(b.leave)
				<-cancelled
				wg.Wait()
				if es := readAll(t, j, "lobby"); len(es) != 5 {
					t.Errorf("got %d entries, want 5: the refused one was not stored", len(es))
				}
			})
		})
	}
}

// TestAbandoned: an append whose caller gives up while it is queued.
func TestAbandoned(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "journal.db"))
	synctest.Test(t, func(t *testing.T) {
		j := open(t, cfg)
		b := &blocker{make(chan struct{}), make(chan struct{})}
		cancel, err := j.Watch(t.Context(), "lobby", b)
		if err != nil {
			t.Fatal(err)
		}
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := j.Append(t.Context(), benchRequest("lobby", 0)); err != nil {
				t.Errorf("append: %v", err)
			}
		})
		<-b.entered
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := j.Append(ctx, benchRequest("attic", 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
		close(b.leave)
		wg.Wait()
		if _, err := j.Append(t.Context(), benchRequest("yard", 2)); err != nil {
			t.Errorf("append after an abandoned one: %v", err)
		}
		if rooms, err := j.Rooms(t.Context(), "", 10); err != nil || len(rooms) != 2 {
			t.Errorf("got rooms %v, %v, want lobby and yard", rooms, err)
		}
	})
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*disk.Config)
		say  string
	}{
		{"path", func(c *disk.Config) { c.Path = "" }, "path"},
		{"folder", func(c *disk.Config) { c.Path = "/nonexistent-folder/journal.db" }, "/nonexistent-folder/journal.db"},
		{"window", func(c *disk.Config) { c.CommitWindow = time.Hour }, "commit window 1h0m0s"},
		{"nonce window", func(c *disk.Config) { c.NonceWindow = 0 }, "nonce window 0s"},
		{"max nonces", func(c *disk.Config) { c.MaxNonces = 0 }, "max nonces 0"},
		{"max entries", func(c *disk.Config) { c.MaxEntries = -1 }, "max entries -1"},
		{"max age", func(c *disk.Config) { c.MaxAge = -1 }, "max age"},
		{"max pending", func(c *disk.Config) { c.MaxPending = 0 }, "max pending 0"},
		{"max pending bytes", func(c *disk.Config) { c.MaxPendingBytes = 0 }, "max pending bytes 0"},
		{"max cached rooms", func(c *disk.Config) { c.MaxCachedRooms = 0 }, "max cached rooms 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(filepath.Join(t.TempDir(), "journal.db"))
			c.set(&cfg)
			j, err := disk.Open(cfg, nil)
			if err == nil {
				_ = j.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.say) {
				t.Errorf("got %v, want an error that says %q", err, c.say)
			}
		})
	}
}

func TestBadRoomName(t *testing.T) {
	j := open(t, config(filepath.Join(t.TempDir(), "journal.db")))
	fillRoom(t, j, "lobby", 2)
	for _, room := range []chat.RoomID{"", "lobby\x00\x00\x00\x00\x01", "Lobby", "a room"} {
		if _, err := j.Append(t.Context(), benchRequest(room, 9)); err == nil {
			t.Errorf("append to %q: got no error", room)
		}
		if info, err := j.Info(t.Context(), room); err != nil || info.Top.Seq != 0 || len(info.State) > 0 {
			t.Errorf("info of %q: got %+v, %v, want an empty room", room, info, err)
		}
		if _, es, err := j.Read(t.Context(), room, 0, 10); err != nil || len(es) > 0 {
			t.Errorf("read of %q: got %d entries, %v, want none", room, len(es), err)
		}
	}
}
