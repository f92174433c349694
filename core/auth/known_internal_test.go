package auth

import (
	"path/filepath"
	"testing"
)

// A name is protected from the moment its user is seen, also when the disk
// refuses the record, and the next Add tries again.
func TestKnownEvenWhenTheWriteFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known-users")
	k, err := OpenKnownUsers(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	broken, err := OpenKnownUsers(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := broken.file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := broken.Add("ann"); err == nil {
		t.Error("got no error from a file that cannot be written")
	}
	if !broken.Known("ann") {
		t.Error("ann is not known although her token was good")
	}
	broken.file = k.file // the disk works again
	if err := broken.Add("ann"); err != nil {
		t.Errorf("second attempt: %v", err)
	}
	if !broken.saved["ann"].onDisk {
		t.Error("ann is not on disk after the second attempt")
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}
