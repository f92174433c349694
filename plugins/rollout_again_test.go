package plugins

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The interval of retries doubles up to its bound, a quarter more or less.
func TestRetryIntervals(t *testing.T) {
	r := Retry{First: time.Second, Most: 10 * time.Second}
	for tries, want := range []time.Duration{0, 1, 2, 4, 8, 10, 10} {
		if tries == 0 {
			continue
		}
		want *= time.Second
		shortest, longest := time.Hour, time.Duration(0)
		for range 1_000 {
			d := r.after(tries)
			shortest, longest = min(shortest, d), max(longest, d)
		}
		if shortest < want*3/4 || longest > want*5/4 || longest-shortest < want/3 {
			t.Errorf("after %d tries: got %v to %v, want about %v", tries, shortest, longest, want)
		}
	}
	if d := (&Retry{First: time.Hour, Most: time.Hour}).after(1 << 30); d > 75*time.Minute {
		t.Errorf("got %v after many tries", d)
	}
	for _, bad := range []Retry{{}, {First: time.Second}, {First: 2, Most: 1}} {
		if bad.check() == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// The cache keeps what was used last within its bounds, and leaves children at
// work alone.
func TestPruneCache(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes int64
		files int
		want  string
	}{
		{"fits", 300, 3, "a b c"},
		{"bytes", 299, 3, "b c"},
		{"files", 1_000, 1, "c"},
		{"nothing", 0, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			put := func(folder, name string, age time.Duration) {
				t.Helper()
				path := filepath.Join(dir, folder, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				at := time.Now().Add(-age)
				if err := errors.Join(os.WriteFile(path, make([]byte, 100), 0o600), os.Chtimes(path, at, at)); err != nil {
					t.Fatal(err)
				}
			}
			put(cachePrepared, "b", 2*time.Hour)
			put(cacheCompiled, "c", time.Hour)
			put(cacheTrials, "a", 3*time.Hour)
			put(filepath.Join(cacheOngoing, "1"), "x", 9*time.Hour)
			pruneCache(dir, c.bytes, c.files)
			var left []string
			for _, f := range []string{filepath.Join(cacheTrials, "a"), filepath.Join(cachePrepared, "b"), filepath.Join(cacheCompiled, "c")} {
				if _, err := os.Stat(filepath.Join(dir, f)); err == nil {
					left = append(left, filepath.Base(f))
				}
			}
			if got := strings.Join(left, " "); got != c.want {
				t.Errorf("got %q left, want %q", got, c.want)
			}
			if _, err := os.Stat(filepath.Join(dir, cacheOngoing, "1", "x")); err != nil {
				t.Errorf("a child's file is gone: %v", err)
			}
		})
	}
}
