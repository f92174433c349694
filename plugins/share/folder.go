package share

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"parley/core/atomicfile"
	"parley/plugins"
)

// folder is the plugin folder of this node, and where what lost is kept aside. One
// goroutine at a time uses it.
type folder struct {
	dir, aside string
	cfg        plugins.Config
	seen       map[string]seen
}

// seen is what a name's files were when they were last read.
type seen struct {
	wasm, json os.FileInfo // json is nil where there is none
	source     string
	at         time.Time
}

const (
	maxAside = 64 // modules
	// settle is how old a file's time must be to say that its content is the same:
	// file systems count it in steps.
	settle = 2 * time.Second
)

// list returns the names of modules in the folder.
func (f *folder) list() ([]string, error) {
	files, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("read the plugin folder: %w", err)
	}
	var names []string
	for _, e := range files {
		if name, ok := strings.CutSuffix(e.Name(), ".wasm"); ok && plugins.ValidName(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// source names the files that a name has. It reads them only when they have
// changed.
func (f *folder) source(name string) (string, error) {
	now := seen{at: time.Now()}
	var err error
	if now.wasm, err = os.Stat(filepath.Join(f.dir, name+".wasm")); err != nil {
		return "", err
	}
	if now.json, err = os.Stat(filepath.Join(f.dir, name+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if old, ok := f.seen[name]; ok && unchanged(old.wasm, now.wasm, old.at) && unchanged(old.json, now.json, old.at) {
		return old.source, nil
	}
	file, manifest, err := plugins.ReadFiles(f.dir, name, f.cfg)
	if err != nil {
		return "", err
	}
	now.source = plugins.SourceDigest(file, manifest)
	f.seen[name] = now
	return now.source, nil
}

// unchanged reports whether a file that was read at a time has the same content
// now.
func unchanged(old, now os.FileInfo, read time.Time) bool {
	if old == nil || now == nil {
		return old == nil && now == nil
	}
	return os.SameFile(old, now) && old.Size() == now.Size() && old.ModTime().Equal(now.ModTime()) && read.Sub(now.ModTime()) > settle
}

// bundle reads a name's files; they must be those of the source.
func (f *folder) bundle(name, source string) ([]byte, error) {
	file, manifest, err := plugins.ReadFiles(f.dir, name, f.cfg)
	if err != nil {
		return nil, err
	}
	if plugins.SourceDigest(file, manifest) != source {
		return nil, fmt.Errorf("the files of plugin %s change just now", name)
	}
	return plugins.Bundle(file, manifest), nil
}

// put makes the files of a bundle those of the name. A manifest comes before its module
// and goes after it, as installing does.
func (f *folder) put(name string, bundle []byte) error {
	file, manifest, err := plugins.Unbundle(bundle)
	if err != nil {
		return err
	}
	sidecar := filepath.Join(f.dir, name+".json")
	if manifest != nil {
		if err := atomicfile.Write(sidecar, manifest, 0o644); err != nil {
			return err
		}
	}
	if err := atomicfile.Write(filepath.Join(f.dir, name+".wasm"), file, 0o644); err != nil {
		return err
	}
	if manifest == nil {
		return gone(os.Remove(sidecar))
	}
	return nil
}

// remove takes the files of a name away.
func (f *folder) remove(name string) error {
	if err := gone(os.Remove(filepath.Join(f.dir, name+".wasm"))); err != nil {
		return err
	}
	return gone(os.Remove(filepath.Join(f.dir, name+".json")))
}

func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// keepAside copies the files of a name to where a person finds them, and returns
// the path of the module. The oldest copies make room.
func (f *folder) keepAside(name, source string) (string, error) {
	file, manifest, err := plugins.ReadFiles(f.dir, name, f.cfg)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(f.aside, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(f.aside, name+"."+source[:12])
	if manifest != nil {
		if err := atomicfile.Write(path+".json", manifest, 0o600); err != nil {
			return "", err
		}
	}
	if err := atomicfile.Write(path+".wasm", file, 0o600); err != nil {
		return "", err
	}
	return path + ".wasm", f.thin()
}

// thin removes the oldest of what was kept aside.
func (f *folder) thin() error {
	all, err := filepath.Glob(filepath.Join(f.aside, "*.wasm"))
	if err != nil || len(all) <= maxAside {
		return err
	}
	age := func(path string) int64 {
		if info, err := os.Stat(path); err == nil {
			return info.ModTime().UnixNano()
		}
		return 0
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Compare(age(a), age(b)) })
	for _, path := range all[:len(all)-maxAside] {
		if err := errors.Join(gone(os.Remove(path)), gone(os.Remove(strings.TrimSuffix(path, ".wasm")+".json"))); err != nil {
			return err
		}
	}
	return nil
}

// readFile reads a file of at most most bytes.
func readFile(path string, most int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err == nil && len(b) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return b, err
}
