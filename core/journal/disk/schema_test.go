package disk

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// futureMigrations is the history with one more version.
func futureMigrations(text string) []migration {
	return append(migrations[:len(migrations):len(migrations)], migration{"mark every room", []step{{text, func(tx *bolt.Tx) error {
		return tx.Bucket(bucketMeta).Put([]byte("marked"), []byte("yes"))
	}}}})
}

func TestMigrations(t *testing.T) {
	future := futureMigrations("put meta marked=yes")
	for _, c := range []struct {
		name    string
		made    [][]migration // lists that open the file before, in turn
		list    []migration
		wantErr []string // parts of the error
	}{
		{"new file", nil, migrations, nil},
		{"same version", [][]migration{migrations}, migrations, nil},
		{"new file, two versions", nil, future, nil},
		{"upgrade", [][]migration{migrations}, future, nil},
		{"upgrade from the first version", [][]migration{migrations[:1]}, migrations, nil},
		{"same after upgrade", [][]migration{migrations, future}, future, nil},
		{"newer than the binary", [][]migration{future}, migrations,
			[]string{"schema is version 4", "knows versions up to 3", "newer binary"}},
		{"another migration of that number", [][]migration{future}, futureMigrations("put meta marked=no"),
			[]string{"migration 4 (mark every room)", "checksum", "another build"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.db")
			for _, list := range c.made {
				if err := prepare(path, list); err != nil {
					t.Fatalf("open before: %v", err)
				}
			}
			err := openAndClose(path, c.list)
			if (err != nil) != (len(c.wantErr) > 0) {
				t.Fatalf("got error %v, want one %v", err, len(c.wantErr) > 0)
			}
			for _, part := range append(c.wantErr, path) {
				if err != nil && !strings.Contains(err.Error(), part) {
					t.Errorf("got error %q, want it to say %q", err, part)
				}
			}
		})
	}
}

// prepare makes a file as a binary with that list of migrations would.
func prepare(path string, list []migration) error {
	db, err := openFile(path, list)
	if err != nil {
		return err
	}
	return db.Close()
}

func openAndClose(path string, list []migration) error {
	cfg := Defaults()
	cfg.Path = path
	c, err := load(cfg, slog.New(slog.DiscardHandler), list)
	if err != nil {
		return err
	}
	return c.j.db.Close()
}

// TestMigrationSum pins the checksum of every released migration.
func TestMigrationSum(t *testing.T) {
	released := []string{
		"d6cde4b23f17cdadc1378b03c98d6a40dd01ee607fc6c26054c8d62535511e2f",
		"513b7e3d99c80c4eed39b727131481aa5906f159bc22a0a51bfdaac972ca9f73",
		"9288457d374985f3db2a0c01c22a01d01b8471ee2d055dc7a5057c691c1798a5",
	}
	if len(migrations) != len(released) {
		t.Fatalf("got %d migrations, want %d: pin the new one here", len(migrations), len(released))
	}
	for i, want := range released {
		if got := migrations[i].sum(); got != want {
			t.Errorf("migration %d: got checksum %s, want %s: a released migration never changes", i+1, got, want)
		}
	}
}

func TestFailedMigrationChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	twice := append(migrations[:1:1], migration{"fail", []step{createBucket("new"), createBucket("rooms")}})
	err := prepare(path, twice)
	if err == nil || !strings.Contains(err.Error(), "migration 2 (fail): create bucket rooms") {
		t.Fatalf("got %v, want the failed step named", err)
	}
	good := append(migrations[:1:1], migration{"good", []step{createBucket("new")}})
	if err := prepare(path, good); err != nil {
		t.Errorf("after a failed migration: %v", err)
	}
}

func TestForeignFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := openAndClose(path, migrations); err == nil || !strings.Contains(err.Error(), "no journal") {
		t.Errorf("got %v, want a refusal that says it is no journal", err)
	}
}
