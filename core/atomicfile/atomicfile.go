// Package atomicfile puts a file in place whole or not at all, also when the
// machine loses power meanwhile: it writes a hidden file in the same folder,
// syncs it, gives it its name in one step and syncs the folder. When a function
// returns nil the file is on disk under its name; otherwise nothing is left
// behind, and what had the name before still has it (unless only the sync of the
// folder failed, which the error says).
//
// Any goroutine and any process may write the same name: one of them is last,
// or with Create first. It imports the standard library alone.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write puts a file with content b and permissions mode (whatever the umask
// is) at path, in place of the one that may be there. The folder must exist.
func Write(path string, b []byte, mode fs.FileMode) error {
	return put(path, b, mode, os.Rename)
}

// Create does the same where nothing has the name, and returns fs.ErrExist where
// something has. The file system must know hard links.
func Create(path string, b []byte, mode fs.FileMode) error {
	return put(path, b, mode, func(from, to string) error {
		if err := os.Link(from, to); err != nil {
			return err
		}
		return os.Remove(from)
	})
}

// put writes aside and has name give the result its name.
func put(path string, b []byte, mode fs.FileMode, name func(from, to string) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = name(f.Name(), path)
	}
	if err != nil {
		if e := os.Remove(f.Name()); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
		return err
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("%s is written, but its folder is not synced: %w", path, err)
	}
	return nil
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
