package plugins

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A child that a module has in its hands may leave a file of any size.
func TestTooLargeAFileOfAChildIsNotAdopted(t *testing.T) {
	scratch, cache := t.TempDir(), t.TempDir()
	h := &Host{cfg: Config{CacheDir: cache}}
	for name, size := range map[string]int64{"fits": 1, "large": maxCompiled + 1} {
		path := filepath.Join(scratch, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil { // takes no room on the disk
			t.Fatal(err)
		}
	}
	if err := h.move(scratch, "fits"); err != nil {
		t.Errorf("move a small file: %v", err)
	}
	if err := h.move(scratch, "large"); err == nil || !strings.Contains(err.Error(), "more than 268435456") {
		t.Errorf("move a large file: got %v, want it refused with the bound", err)
	}
	if _, err := os.Stat(filepath.Join(cache, "large")); !os.IsNotExist(err) {
		t.Errorf("the large file in the cache: got %v, want none", err)
	}
}
