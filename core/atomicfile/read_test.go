package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRead reads a file up to its bound, and names one that is longer.
func TestRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, most := range []int{5, 6} {
		if b, err := Read(name, most); err != nil || string(b) != "12345" {
			t.Errorf("at most %d: got %q, %v", most, b, err)
		}
	}
	if b, err := Read(name, 4); err == nil || b != nil || !strings.Contains(err.Error(), name+" has more than 4 bytes") {
		t.Errorf("beyond the bound: got %q, %v", b, err)
	}
	if _, err := Read(name+"x", 4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
	if _, err := Read(filepath.Dir(name), 4); err == nil {
		t.Error("a folder was read")
	}
}
