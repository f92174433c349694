package sdk_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/sdk"
)

// carried are the folders a project may need, and what a source file's name
// ends with there.
var carried = map[string]string{"abi": ".go", "plugin": ".go", "c": ".h", "rust/src": ".rs", "assemblyscript/assembly": ".ts"}

// TestEverySourceIsCarried: a file that is added to an SDK must be added to
// the list of embedded ones, or new projects would not compile.
func TestEverySourceIsCarried(t *testing.T) {
	for folder, suffix := range carried {
		found := 0
		err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
			if e != nil && e.IsDir() && e.Name() == "conformance" { // the guest that the SDK is tested with
				return fs.SkipDir
			}
			if err != nil || e.IsDir() || !strings.HasSuffix(path, suffix) || strings.HasSuffix(path, "_test.go") {
				return err
			}
			found++
			want, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			got, err := fs.ReadFile(sdk.Source(), filepath.ToSlash(path))
			if errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is not embedded: add it to embed.go", path)
				return nil
			}
			if err != nil || string(got) != string(want) {
				t.Errorf("%s: the embedded copy differs (%v)", path, err)
			}
			return nil
		})
		if err != nil || found == 0 {
			t.Errorf("%s: %d files, %v", folder, found, err)
		}
	}
}
