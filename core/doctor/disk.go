package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	syncs    = 31 // an odd number has a middle
	syncTime = 3 * time.Second
	// one commit of the embedded store that carries a few messages
	syncBytes = 4096

	slowSync = 10 * time.Millisecond  // from here acks are felt to be slow
	deadSync = 100 * time.Millisecond // from here a busy room cannot be served

	warnFree, badFree = 1 << 30, 64 << 20 // bytes
	leastInodes       = 1000
)

// disk measures how long a durable write takes where the data is or will be,
// and how much room is left.
func (c Config) disk(ctx context.Context) []Check {
	const syncName, spaceName = "disk sync", "disk space"
	dir, err := existing(c.DataDir)
	if err != nil {
		return []Check{unknown(syncName, err), unknown(spaceName, err)}
	}
	median, n, err := timeSync(ctx, dir)
	sync := Check{Name: syncName, State: Bad}
	if err != nil {
		sync.Found = err.Error()
		sync.Change = "a data_dir that this user may write to"
		sync.Command = "chown \"$USER\" " + dir
	} else {
		sync = judgeSync(median, n, dir)
	}
	space := unknown(spaceName, errors.ErrUnsupported)
	if v, err := statVolume(dir); err == nil {
		space = judgeSpace(v, dir)
		if v.volatile {
			if sync.State != Bad {
				sync.State = Warn
			}
			sync.Change = dir + " is in memory (tmpfs): a restart of the machine loses everything; choose a data_dir on a disk"
		}
	}
	return []Check{sync, space}
}

// existing returns dir or the nearest folder above it that exists: data_dir is
// made by the first start.
func existing(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("data_dir: %w", err)
	}
	for {
		info, err := os.Stat(dir)
		switch {
		case err == nil && info.IsDir():
			return dir, nil
		case err == nil:
			return "", fmt.Errorf("data_dir: %s is not a folder", dir)
		case !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir):
			return "", fmt.Errorf("data_dir: %w", err)
		}
		dir = filepath.Dir(dir)
	}
}

// timeSync overwrites and syncs a small file again and again, as the embedded
// store does, and returns the median time and how many there were.
func timeSync(ctx context.Context, dir string) (median time.Duration, n int, err error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return 0, 0, fmt.Errorf("time a sync: %w", err)
	}
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}()
	page := make([]byte, syncBytes)
	var times []time.Duration
	for began := time.Now(); len(times) < syncs && (len(times) == 0 || time.Since(began) < syncTime && ctx.Err() == nil); {
		page[0]++
		if _, err := f.WriteAt(page, 0); err != nil {
			return 0, 0, fmt.Errorf("time a sync: %w", err)
		}
		start := time.Now()
		if err := dataSync(f); err != nil {
			return 0, 0, fmt.Errorf("time a sync: %w", err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	return times[len(times)/2], len(times), nil
}

func judgeSync(median time.Duration, n int, dir string) Check {
	check := Check{Name: "disk sync", State: OK, Found: fmt.Sprintf("%v, the median of %d in %s", median.Round(10*time.Microsecond), n, dir)}
	switch {
	case median >= deadSync:
		check.State = Bad
	case median >= slowSync:
		check.State = Warn
	default:
		return check
	}
	check.Change = "a disk that syncs in less than " + slowSync.String() + ": an acknowledged message is on disk, so each ack waits for one sync (those under way share it)"
	return check
}

// volume is what is known of a file system.
type volume struct {
	free, size  uint64 // bytes; free for this user
	inodes      uint64 // free
	countsNodes bool   // it has a fixed number of inodes
	volatile    bool   // kept in memory
}

func judgeSpace(v volume, dir string) Check {
	check := Check{Name: "disk space", State: OK, Found: fmt.Sprintf("%d MiB of %d MiB free in %s", v.free>>20, v.size>>20, dir)}
	switch {
	case v.free < badFree:
		check.State = Bad
	case v.free < warnFree:
		check.State = Warn
	case v.countsNodes && v.inodes < leastInodes:
		check.State = Warn
		check.Found += fmt.Sprintf(", but only %d files more", v.inodes)
	default:
		return check
	}
	check.Change = "room: on a full disk nothing can be posted until there is some again; journal.retention_entries and journal.retention_age bound what is kept"
	check.Command = "du -xsh " + dir
	return check
}
