package watch_test

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/watch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quietLog = slog.New(slog.NewTextHandler(io.Discard, nil))

// start runs a watcher and returns the channel its calls arrive on. The call
// at the start has been received already.
func start(t *testing.T, cfg watch.Config) <-chan struct{} {
	t.Helper()
	calls := make(chan struct{}, 1000)
	w, err := watch.New(cfg, quietLog, func(context.Context) { calls <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	})
	<-calls
	return calls
}

func config(dir string) watch.Config {
	cfg := watch.Defaults()
	cfg.Dir = dir
	cfg.Quiet = 5 * time.Millisecond
	return cfg
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Each change must be followed by a call; the test's own timeout ends a wait
// in vain. Rescan is set so long that only an event can be the cause.
func TestEvents(t *testing.T) {
	dir := t.TempDir()
	file, other := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	cfg := config(dir)
	cfg.Rescan = time.Hour
	calls := start(t, cfg)
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"create", func() { write(t, file, "1") }},
		{"write", func() { write(t, file, "2") }},
		{"rename", func() { must(t, os.Rename(file, other)) }},
		{"replace by rename", func() { write(t, file, "3"); must(t, os.Rename(file, other)) }},
		{"delete", func() { must(t, os.Remove(other)) }},
	} {
		drain(calls)
		step.do()
		t.Log("waiting after", step.name)
		<-calls
	}
}

func drain(calls <-chan struct{}) {
	for {
		select {
		case <-calls:
		default:
			return
		}
	}
}

// The rescan alone must find every kind of change.
func TestPoll(t *testing.T) {
	dir := t.TempDir()
	file, other := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	cfg := config(dir)
	cfg.Poll, cfg.Tree = true, true
	cfg.Rescan = 2 * time.Millisecond
	calls := start(t, cfg)
	old := time.Unix(1_000_000, 0)
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"create", func() { write(t, file, "1") }},
		{"grow", func() { write(t, file, "22") }},
		{"same size, other time", func() { must(t, os.Chtimes(file, old, old)) }},
		{"same size and time, other file", func() {
			tmp := filepath.Join(t.TempDir(), "a")
			write(t, tmp, "33")
			must(t, os.Chtimes(tmp, old, old))
			must(t, os.Rename(tmp, file))
		}},
		{"mode", func() { must(t, os.Chmod(file, 0o600)) }},
		{"rename", func() { must(t, os.Rename(file, other)) }},
		{"folder", func() { must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755)) }},
		{"file in folder", func() { write(t, filepath.Join(dir, "sub", "x"), "x") }},
		{"delete all", func() { must(t, os.RemoveAll(dir)) }},
		// With a file: an empty folder of the same inode number may look as it
		// did in the middle of the step before.
		{"come back", func() { must(t, os.Mkdir(dir, 0o755)); write(t, other, "back") }},
	} {
		drain(calls)
		step.do()
		t.Log("waiting after", step.name)
		<-calls
	}
}

func TestTreeListensToNewFolders(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	cfg.Tree = true
	cfg.Rescan = time.Hour
	calls := start(t, cfg)
	deep := filepath.Join(dir, "a", "b")
	must(t, os.MkdirAll(deep, 0o755))
	<-calls // the scan before this call listens to a and b
	drain(calls)
	write(t, filepath.Join(deep, "x"), "x")
	<-calls
}

// below watches a tree with one folder in it, without rescans.
func below(t *testing.T, quiet time.Duration) (sub string, calls <-chan struct{}) {
	t.Helper()
	dir := t.TempDir()
	sub = filepath.Join(dir, "sub")
	must(t, os.Mkdir(sub, 0o755))
	cfg := config(dir)
	cfg.Tree, cfg.Quiet, cfg.Rescan = true, quiet, time.Hour
	return sub, start(t, cfg)
}

// A folder that is deleted and made again is another one to the kernel.
func TestFolderMadeAgain(t *testing.T) {
	sub, calls := below(t, config("").Quiet)
	for range 3 {
		drain(calls)
		must(t, os.Remove(sub))
		<-calls
		drain(calls)
		must(t, os.Mkdir(sub, 0o755))
		<-calls
		drain(calls)
		must(t, os.Chmod(sub, 0o700)) // no change of content
		write(t, filepath.Join(sub, "x"), "x")
		<-calls
		must(t, os.Remove(filepath.Join(sub, "x")))
		<-calls
	}
}

// Deleted and made again between two looks, a folder may have the inode number
// that it had, and is another one to the kernel all the same.
func TestFolderMadeAgainUnseen(t *testing.T) {
	sub, calls := below(t, 50*time.Millisecond)
	for range 3 {
		must(t, os.Remove(sub))
		must(t, os.Mkdir(sub, 0o755))
		<-calls
		drain(calls)
		write(t, filepath.Join(sub, "x"), "x")
		<-calls
		must(t, os.Remove(filepath.Join(sub, "x")))
		<-calls
	}
}

// A folder replaced by another of the same name is listened to anew.
func TestFolderReplaced(t *testing.T) {
	parent := t.TempDir()
	dir, next := filepath.Join(parent, "dir"), filepath.Join(parent, "next")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.Mkdir(next, 0o755))
	cfg := config(dir)
	cfg.Rescan = 5 * time.Millisecond
	calls := start(t, cfg)
	must(t, os.Rename(dir, filepath.Join(parent, "old")))
	must(t, os.Rename(next, dir))
	<-calls
	drain(calls)
	write(t, filepath.Join(dir, "x"), "x")
	<-calls
}

// A folder that appears after Run is found by the rescan and then listened to.
func TestLateFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "late")
	cfg := config(dir)
	cfg.Rescan = 2 * time.Millisecond
	calls := start(t, cfg)
	must(t, os.Mkdir(dir, 0o755))
	<-calls
	write(t, filepath.Join(dir, "x"), "x")
	<-calls
}

// A link swapped to another target is a change, as mounted config maps do it.
func TestSwappedLink(t *testing.T) {
	dir, data := t.TempDir(), t.TempDir()
	write(t, filepath.Join(data, "v1"), "1")
	write(t, filepath.Join(data, "v2"), "2")
	link := filepath.Join(dir, "current")
	must(t, os.Symlink(filepath.Join(data, "v1"), link))
	cfg := config(dir)
	cfg.Poll = true
	cfg.Rescan = 2 * time.Millisecond
	calls := start(t, cfg)
	must(t, os.Symlink(filepath.Join(data, "v2"), link+".new"))
	must(t, os.Rename(link+".new", link))
	<-calls
}

func TestTooManyFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "c", "d"} {
		write(t, filepath.Join(dir, name), name)
	}
	cfg := config(dir)
	cfg.Poll, cfg.MaxFiles = true, 3
	cfg.Rescan = 2 * time.Millisecond
	calls := start(t, cfg)
	write(t, filepath.Join(dir, "a"), "still compared")
	<-calls
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*watch.Config)
		want string
	}{
		{"no folder", func(c *watch.Config) { c.Dir = "" }, "no folder"},
		{"no quiet", func(c *watch.Config) { c.Quiet = 0 }, "quiet"},
		{"no rescan", func(c *watch.Config) { c.Rescan = -1 }, "rescan"},
		{"no files", func(c *watch.Config) { c.MaxFiles = 0 }, "max files"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config("x")
			c.edit(&cfg)
			_, err := watch.New(cfg, quietLog, func(context.Context) {})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error naming %q", err, c.want)
			}
		})
	}
}
