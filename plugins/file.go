package plugins

import (
	"path/filepath"
	"strings"
)

// LogStderr is the message under which a guest's writing to its standard error
// is logged; the attribute "text" holds a line of it.
const LogStderr = "plugin wrote to stderr"

// NameRule says in words what ValidName accepts.
const NameRule = nameRule

// ValidName reports whether a plugin may be called s.
func ValidName(s string) bool { return validName(s) }

// ReadFiles reads a plugin's module and its manifest, nil if there is none, from a
// folder, under the bounds of a Catalog.
func ReadFiles(dir, name string, cfg Config) (file, manifest []byte, err error) {
	return readPlugin(dir, name, cfg.Module.FileBytes)
}

// File is a module as it lies on disk, with its manifest.
type File struct {
	Name     string
	Wasm     []byte
	Sidecar  []byte // of NAME.json; nil if there is none
	Manifest Manifest
}

// ReadFile reads the module at path, NAME.wasm, with the manifest beside or
// within it, under the bounds of a Catalog. It runs nothing; Host.Load does.
func ReadFile(path string, cfg Config) (File, error) {
	f := File{Name: strings.TrimSuffix(filepath.Base(path), ".wasm")}
	var err error
	if f.Wasm, f.Sidecar, err = readPlugin(filepath.Dir(path), f.Name, cfg.Module.FileBytes); err != nil {
		return f, err
	}
	f.Manifest, err = manifestOf(f.Name, f.Wasm, f.Sidecar)
	return f, err
}
