// Package starter begins a repository of rules: the default policy, a file for
// what is special in one's own house with its test and its data, a README and
// the checks that run on a pull request. What it writes passes its own tests.
package starter

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"

	"parley/policy/rego"
)

//go:embed all:files
var embedded embed.FS

// Files returns every file of a new repository by its path.
func Files() (map[string][]byte, error) {
	out := map[string][]byte{}
	for name, text := range rego.Files() {
		out[name] = text
	}
	err := fs.WalkDir(embedded, "files", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := embedded.ReadFile(name)
		out[name[len("files/"):]] = text
		return err
	})
	return out, err
}

// New writes the files into dir, which must not exist or be empty, and returns
// their paths.
func New(dir string) ([]string, error) {
	switch entries, err := os.ReadDir(dir); {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("begin a policy: %w", err)
		}
	case err != nil:
		return nil, fmt.Errorf("begin a policy: %w", err)
	case len(entries) > 0:
		return nil, fmt.Errorf("begin a policy: %s is not empty; name a folder that is, or that does not exist", dir)
	}
	files, err := Files()
	if err != nil {
		return nil, fmt.Errorf("begin a policy: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("begin a policy: %w", err)
	}
	defer root.Close()
	names := slices.Sorted(maps.Keys(files))
	for _, name := range names {
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return nil, fmt.Errorf("begin a policy: %w", err)
		}
		if err := root.WriteFile(name, files[name], 0o644); err != nil {
			return nil, fmt.Errorf("begin a policy: %w", err)
		}
	}
	return names, nil
}
