package auth_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"parley/core/auth"
	"parley/core/chat"
)

func openKnown(t testing.TB, path string) *auth.KnownUsers {
	t.Helper()
	k, err := auth.OpenKnownUsers(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func TestKnownUsersSurviveRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known-users")
	k := openKnown(t, path)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := k.Add(chat.UserID(fmt.Sprintf("User-%d", i%10))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := k.Add("user-3"); err != nil {
		t.Error(err)
	}
	if err := k.Add("no good"); err == nil {
		t.Error("got no error for a malformed name")
	}
	if err := errors.Join(k.Close(), k.Close()); err != nil {
		t.Error(err)
	}
	if err := k.Add("late"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: got %v, want ErrClosed", err)
	}
	again := openKnown(t, path)
	if n, damaged := again.Len(); n != 10 || damaged != 0 {
		t.Errorf("got %d names and %d damaged, want 10 and 0", n, damaged)
	}
	if !again.Known("user-3") || again.Known("User-3") || again.Known("user-10") {
		t.Error("want user-3 known in its folded form, and nobody else")
	}
}

func TestDamagedRecordCostsItselfOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known-users")
	k := openKnown(t, path)
	for _, u := range []chat.UserID{"ann", "bob", "carl"} {
		if err := k.Add(u); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte("bob"), []byte("rob"), 1) // fails its checksum
	data = append(data, "\n"+strings.Repeat("x", 200<<10)...)   // absurdly long
	data = append(data, "\n1234"...)                            // cut short by a crash
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	k = openKnown(t, path)
	if err := k.Add("dora"); err != nil {
		t.Fatal(err)
	}
	k = openKnown(t, path)
	if n, damaged := k.Len(); n != 3 || damaged != 3 {
		t.Errorf("got %d names and %d damaged, want 3 and 3", n, damaged)
	}
	for _, u := range []string{"ann", "carl", "dora"} {
		if !k.Known(u) {
			t.Errorf("%s is lost", u)
		}
	}
}

func TestOpenKnownUsersFails(t *testing.T) {
	if _, err := auth.OpenKnownUsers(t.TempDir(), nil); err == nil {
		t.Error("a folder: got no error")
	}
	path := filepath.Join(t.TempDir(), "known-users")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<30)); err != nil { // sparse
		t.Fatal(err)
	}
	if _, err := auth.OpenKnownUsers(path, nil); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a huge file: got %v, want the bound", err)
	}
}

// FuzzKnownUsers: any file opens, and what was added to it is found again.
func FuzzKnownUsers(f *testing.F) {
	f.Add([]byte("\n9bb62ac4 ann\n"))
	f.Add([]byte("garbage"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, "known-users")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := auth.OpenKnownUsers(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(k.Add("zoe"), k.Close()); err != nil {
			t.Fatal(err)
		}
		if k, err = auth.OpenKnownUsers(path, nil); err != nil || !k.Known("zoe") {
			t.Fatalf("got known %t, %v, want zoe", k.Known("zoe"), err)
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
