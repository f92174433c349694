package share

import (
	"cmp"
	"errors"
	"fmt"
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
	node       string // whose files aside are not another node's with the same folder
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
	readyEnd = ".ready" // of files that are about to get their name
	maxAside = 64       // modules
	// settle is how old a file's time must be to say that its content is the same:
	// file systems count it in steps.
	settle = 2 * time.Second
)

// sweep removes what a process that was killed left.
func (f *folder) sweep() {
	left, _ := filepath.Glob(filepath.Join(f.dir, ".*"+readyEnd))
	for _, path := range left {
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > time.Hour {
			_ = os.Remove(path) // the next start tries again
		}
	}
}

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

// errTouched is of a name whose files a person has changed in this moment.
var errTouched = errors.New("its files change just now")

// put makes the files of a bundle those of the name, if those of before are still
// there: old, "" for none. Both are written aside first, so that little time
// passes between the look and the change. A manifest comes before its module and goes
// after it, as installing does.
func (f *folder) put(name, old string, bundle []byte) error {
	file, manifest, err := plugins.Unbundle(bundle)
	if err != nil {
		return err
	}
	wasm, sidecar := filepath.Join(f.dir, name+".wasm"), filepath.Join(f.dir, name+".json")
	ready := func(path string) string { return filepath.Join(f.dir, "."+filepath.Base(path)+"."+f.node+readyEnd) }
	defer os.Remove(ready(wasm)) // where it did not get its name
	defer os.Remove(ready(sidecar))
	if manifest != nil {
		if err := atomicfile.Write(ready(sidecar), manifest, 0o644); err != nil {
			return err
		}
	}
	if err := atomicfile.Write(ready(wasm), file, 0o644); err != nil {
		return err
	}
	if err := f.still(name, old); err != nil {
		return err
	}
	if manifest != nil {
		if err := os.Rename(ready(sidecar), sidecar); err != nil {
			return err
		}
	}
	if err := os.Rename(ready(wasm), wasm); err != nil {
		return err
	}
	if manifest == nil {
		return gone(os.Remove(sidecar))
	}
	return nil
}

// still returns nil if the name has the files of that source, "" for none.
func (f *folder) still(name, source string) error {
	delete(f.seen, name)
	now, err := f.source(name)
	if errors.Is(err, fs.ErrNotExist) {
		now, err = "", nil
	}
	if err == nil && now != source {
		err = errTouched
	}
	return err
}

// remove takes the files of a name away, if they are still those of old.
func (f *folder) remove(name, old string) error {
	if err := f.still(name, old); err != nil {
		return err
	}
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
