package auth_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

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

// TestKnownUsersRememberSince when: the first time counts, over restarts, and
// records of earlier versions say nothing of it.
func TestKnownUsersRememberSince(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known-users")
	old := fmt.Sprintf("\n%08x ann", crc32.Checksum([]byte("ann"), crc32.MakeTable(crc32.Castagnoli)))
	first := fmt.Sprintf("\n%08x bob 1000", crc32.Checksum([]byte("bob 1000"), crc32.MakeTable(crc32.Castagnoli)))
	again := fmt.Sprintf("\n%08x bob 2000", crc32.Checksum([]byte("bob 2000"), crc32.MakeTable(crc32.Castagnoli)))
	bad := fmt.Sprintf("\n%08x carl soon", crc32.Checksum([]byte("carl soon"), crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(path, []byte(old+first+again+bad), 0o600); err != nil {
		t.Fatal(err)
	}
	k := openKnown(t, path)
	before := time.Now().Truncate(time.Second)
	if err := errors.Join(k.Add("ann"), k.Add("bob"), k.Add("dora")); err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	for _, k := range []*auth.KnownUsers{k, openKnown(t, path)} {
		if n, damaged := k.Len(); n != 3 || damaged != 1 {
			t.Errorf("got %d names and %d damaged, want 3 and 1", n, damaged)
		}
		if got := k.Since("ann"); !got.IsZero() {
			t.Errorf("ann: got %v, want it not known", got)
		}
		if got := k.Since("bob"); got.Unix() != 1000 {
			t.Errorf("bob: got %v, want the first time", got)
		}
		if got := k.Since("dora"); got.Before(before) || got.After(time.Now()) {
			t.Errorf("dora: got %v, want this moment", got)
		}
		if got := k.Since("carl"); !got.IsZero() || k.Known("carl") {
			t.Errorf("carl: got %v, want nobody", got)
		}
	}
}
