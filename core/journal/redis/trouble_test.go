package redis_test

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"parley/core/chat"
	"parley/core/journal"
	journalredis "parley/core/journal/redis"

	"parley/core/redis/redistest"
)

// writers append to several rooms until they are told to stop, each message
// again and again with its nonce until it is taken. They count what they are
// told.
type writers struct {
	unavailable, overloaded, acked atomic.Int64
	stop                           context.CancelFunc
	done                           sync.WaitGroup
	mu                             sync.Mutex
	said                           map[chat.RoomID]map[chat.MessageID]uint64 // acked, with its seq
}

const troubleRooms = 20

func startWriters(t *testing.T, j journal.Journal) *writers {
	w := &writers{said: map[chat.RoomID]map[chat.MessageID]uint64{}}
	ctx, stop := context.WithCancel(t.Context())
	w.stop = stop
	for i := range troubleRooms {
		room := chat.RoomID(fmt.Sprintf("room%d", i))
		w.said[room] = map[chat.MessageID]uint64{}
		for k := range 4 {
			w.done.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					w.write(t, j, message(room, fmt.Sprintf("%d-%d", k, n)))
				}
			})
		}
	}
	t.Cleanup(func() { stop(); w.done.Wait() })
	return w
}

func (w *writers) write(t *testing.T, j journal.Journal, r journal.Request) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		began := time.Now()
		rc, err := j.Append(ctx, r)
		switch {
		case err == nil:
			w.mu.Lock()
			w.said[r.Room][r.Entry.ID] = rc.Seq
			w.mu.Unlock()
			w.acked.Add(1)
			return
		case ctx.Err() != nil:
			t.Errorf("append %s to %s: still %v after %v", r.Entry.Nonce, r.Room, err, patience)
			return
		case errors.Is(err, journal.ErrOverloaded):
			w.overloaded.Add(1)
			runtime.Gosched()
		case errors.Is(err, journal.ErrUnavailable):
			w.unavailable.Add(1)
		default:
			t.Errorf("append %s to %s: %v", r.Entry.Nonce, r.Room, err)
			return
		}
		if took := time.Since(began); took > patience/2 {
			t.Errorf("an append took %v", took)
		}
	}
}

// check ends the writers and compares what they were told with what is stored:
// each message once, at the seq that was acked.
func (w *writers) check(t *testing.T, j journal.Journal) {
	t.Helper()
	w.stop()
	w.done.Wait()
	total := 0
	for room, said := range w.said {
		_, all := ids(t, j, room)
		seqs := map[chat.MessageID]uint64{}
		for i, id := range all {
			if seqs[id] != 0 {
				t.Errorf("%s holds %s twice", room, id)
			}
			seqs[id] = uint64(i + 1)
		}
		for id, seq := range said {
			if seqs[id] != seq {
				t.Errorf("%s: %s was acked at %d and stands at %d", room, id, seq, seqs[id])
			}
		}
		total += len(said)
	}
	if total == 0 {
		t.Error("nothing was written")
	}
}

// progress waits until n more appends went through.
func (w *writers) progress(t *testing.T, n int64) {
	t.Helper()
	from := w.acked.Load()
	until(t, "appends to go through", func() bool { return w.acked.Load() >= from+n })
}

// A server that stands still for a while: calls end by their deadline, no more
// than a bound of them wait, and when it goes on every message is there once.
func TestServerThatStandsStill(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	cfg := quick(server.URL())
	cfg.CallTimeout, cfg.MaxQueued = 400*time.Millisecond, 30
	j := node(t, cfg, journalredis.Defaults())
	f := follow(t, j, "room3")
	w := startWriters(t, j)
	w.progress(t, 500)
	t.Run("shorter than a call may take", func(t *testing.T) {
		server.Pause()
		refused := w.overloaded.Load()
		until(t, "calls beyond the bound to be refused", func() bool { return w.overloaded.Load() > refused })
		server.Resume()
		w.progress(t, 500)
	})
	t.Run("longer", func(t *testing.T) {
		for range 3 {
			late := w.unavailable.Load()
			server.Pause()
			until(t, "deadlines", func() bool { return w.unavailable.Load() > late+40 })
			server.Resume()
			w.progress(t, 500)
		}
	})
	w.check(t, j)
	epoch, want := ids(t, j, "room3")
	f.await(t, epoch, want)
}

func TestServerAbsentAtStart(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	server.Stop()
	j := node(t, quick(server.URL()), journalredis.Defaults())
	f := follow(t, j, "lobby")
	if _, err := j.Append(within(t), message("lobby", "1")); !errors.Is(err, journal.ErrUnavailable) {
		t.Errorf("append: got %v, want ErrUnavailable", err)
	}
	if _, err := j.Info(within(t), "lobby"); !errors.Is(err, journal.ErrUnavailable) {
		t.Errorf("info: got %v, want ErrUnavailable", err)
	}
	if err := j.Healthy(within(t)); !errors.Is(err, journal.ErrUnavailable) {
		t.Errorf("healthy: got %v, want ErrUnavailable", err)
	}
	server.Restart()
	rc := insist(t, j, message("lobby", "1"))
	f.awaitDoubt(t, 0)
	f.await(t, rc.Epoch, []chat.MessageID{"id-of-1"})
}

// The server at its maxmemory while many write: what is refused is not stored,
// and all goes on when there is room.
func TestFullServerUnderLoad(t *testing.T) {
	server := redistest.Start(t, redistest.Options{MaxMemory: "64mb"})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	w := startWriters(t, j)
	w.progress(t, 500)
	server.Do("CONFIG", "SET", "maxmemory", "1")
	until(t, "refusals", func() bool { return w.overloaded.Load() > 500 })
	if n := w.unavailable.Load(); n != 0 {
		t.Errorf("%d appends were told that the outcome is unknown, want ErrOverloaded alone", n)
	}
	server.Do("CONFIG", "SET", "maxmemory", "0")
	w.progress(t, 500)
	w.check(t, j)
}

// limitFiles sets the size above which a process cannot write to a file, which
// is what a full disk is to it; 0 takes the limit away.
func limitFiles(t *testing.T, pid int, size uint64) {
	t.Helper()
	if size == 0 {
		size = ^uint64(0)
	}
	limit := syscall.Rlimit{Cur: size, Max: ^uint64(0)}
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), syscall.RLIMIT_FSIZE, uintptr(unsafe.Pointer(&limit)), 0, 0, 0); errno != 0 {
		t.Fatalf("limit the size of files: %v", errno)
	}
}

// A full disk under the append-only file: with everysec Redis refuses what
// writes (MISCONF) and works again by itself when there is room; with always it
// ends itself. Either way what was acked is in the file.
func TestDiskFullUnderTheServer(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ) // as the server inherits it: a write fails in place of killing it
	t.Cleanup(func() { signal.Reset(syscall.SIGXFSZ) })
	for _, fsync := range []string{"everysec", "always"} {
		t.Run(fsync, func(t *testing.T) {
			server := redistest.Start(t, redistest.Options{AppendOnly: true, AppendFsync: fsync})
			var pid int
			for line := range strings.Lines(server.Do("INFO", "server")) {
				if digits, ok := strings.CutPrefix(strings.TrimSpace(line), "process_id:"); ok {
					pid, _ = strconv.Atoi(digits)
				}
			}
			j := node(t, quick(server.URL()), journalredis.Defaults())
			w := startWriters(t, j)
			w.progress(t, 500)
			limitFiles(t, pid, 1)
			until(t, "writes to fail", func() bool { return w.unavailable.Load() > 500 })
			if fsync == "everysec" {
				if err := j.Healthy(within(t)); !errors.Is(err, journal.ErrUnavailable) || !strings.Contains(err.Error(), "MISCONF") {
					t.Errorf("healthy: got %v, want ErrUnavailable that says MISCONF", err)
				}
				if _, err := j.Info(within(t), "room1"); err != nil {
					t.Errorf("reading goes on: got %v", err)
				}
				limitFiles(t, pid, 0)
			} else {
				server.Restart()
			}
			w.progress(t, 500)
			w.check(t, j)
			server.Stop()
			server.Restart()
			w.check(t, node(t, quick(server.URL()), journalredis.Defaults()))
		})
	}
}
