package atomicfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"parley/core/atomicfile"
)

// only says what is wrong if dir holds anything but name with want in it.
func only(t *testing.T, dir, name string, want []byte, mode fs.FileMode) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Fatalf("the folder holds %v, %v, want %s alone", entries, err, name)
	}
	got, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %.40q, %v, want %.40q", got, err, want)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode().Perm() != mode {
		t.Errorf("got mode %v, %v, want %v", info.Mode().Perm(), err, mode)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	for i, mode := range []fs.FileMode{0o600, 0o644, 0o666} { // the last is beyond any usual umask
		b := bytes.Repeat([]byte{byte(i)}, 1<<i)
		if err := atomicfile.Write(path, b, mode); err != nil {
			t.Fatal(err)
		}
		only(t, dir, "a", b, mode)
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	if err := atomicfile.Create(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Create(path, []byte("two"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want fs.ErrExist", err)
	}
	only(t, dir, "key", []byte("one"), 0o600)
}

// What fails leaves the old file and nothing else.
func TestFailureLeavesNothing(t *testing.T) {
	if err := atomicfile.Write(filepath.Join(t.TempDir(), "none", "a"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v without a folder, want fs.ErrNotExist", err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	if err := os.MkdirAll(filepath.Join(path, "below"), 0o700); err != nil { // no file can take its name
		t.Fatal(err)
	}
	for name, put := range map[string]func(string, []byte, fs.FileMode) error{"write": atomicfile.Write, "create": atomicfile.Create} {
		if err := put(path, []byte("x"), 0o600); err == nil {
			t.Errorf("%s: got no error in place of a folder", name)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("%s: left %v, %v", name, entries, err)
		}
	}
}

// Many writers of one name: whoever reads meanwhile finds one of their files,
// whole.
func TestWriteIsWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	content := func(i int) []byte { return bytes.Repeat([]byte(fmt.Sprintf("%04d", i)), 2_000) }
	if err := atomicfile.Write(path, content(0), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 10 {
				if err := atomicfile.Write(path, content(100*w+i), 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 100 {
		b, err := os.ReadFile(path)
		if err != nil || len(b) != 8_000 || !bytes.Equal(b, bytes.Repeat(b[:4], 2_000)) {
			t.Fatalf("got %d bytes, %v, want one writer's file", len(b), err)
		}
	}
	wg.Wait()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left %v, %v", entries, err)
	}
}
