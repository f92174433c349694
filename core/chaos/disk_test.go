package chaos

import (
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"parley/core/chat"
	"parley/core/redis/redistest"
)

// aofSize is how many bytes the largest file of Redis's log has.
func aofSize(t *testing.T, s *redistest.Server) uint64 {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Dir(), "appendonlydir", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("find the log of redis: %v in %s", err, s.Dir())
	}
	var largest int64
	for _, name := range files {
		if st, err := os.Stat(name); err == nil {
			largest = max(largest, st.Size())
		}
	}
	return uint64(largest)
}

// full bounds the files that Redis may write, so that a write fails as on a
// full disk (EFBIG for ENOSPC; Redis treats them alike).
func full(t *testing.T, s *redistest.Server, bytes uint64) {
	t.Helper()
	if err := unix.Prlimit(s.PID(), unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}, nil); err != nil {
		t.Fatalf("bound the files of redis: %v", err)
	}
}

// ignoreFileSize lets redis-servers that are started from now on live on when
// they reach the bound of full: what this process ignores, they do too.
func ignoreFileSize() { signal.Ignore(syscall.SIGXFSZ) }

// TestTheDiskUnderTheLogIsFull leaves no room for Redis's append-only file.
// With fsync always Redis ends itself, as a supervisor would see it, and is
// started again when there is room; with everysec it refuses writes meanwhile.
func TestTheDiskUnderTheLogIsFull(t *testing.T) {
	ignoreFileSize()
	for _, fsync := range []string{"always", "everysec"} {
		t.Run(fsync, func(t *testing.T) {
			t.Parallel()
			w := begin(t, "disk full, fsync "+fsync, plan{store: redistest.Options{AppendFsync: fsync}})
			rounds := often(1, 5)
			for range rounds {
				w.crowd.Midway()
				full(t, w.store, aofSize(t, w.store)+1000)
				told := w.crowd.Told(chat.CodeUnavailable)
				await(t, "senders are told that the store is unavailable", func() bool { return w.crowd.Told(chat.CodeUnavailable) >= told+20 })
				if fsync == "always" {
					w.store.Ended()
					w.store.Restart()
				} else {
					full(t, w.store, unix.RLIM_INFINITY)
				}
				w.goesOn(40)
			}
			w.settle(rounds, 0)
		})
	}
}
