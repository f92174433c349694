package disk

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// migration is one numbered step of the file format. Once released it never
// changes: the file records the checksum of each migration it went through,
// and a binary that knows another one of that number refuses the file.
type migration struct {
	name  string
	steps []step
}

// step is one change. The text is what the checksum covers, so it says
// everything that run depends on.
type step struct {
	text string
	run  func(tx *bolt.Tx) error
}

// migrations is the history of the format; the first is version 1.
var migrations = []migration{
	{"create the buckets", []step{
		createBucket("rooms"), createBucket("epochs"), createBucket("entries"), createBucket("state"),
		createBucket("nonces"), createBucket("garbage"), createBucket("quarantine"),
	}},
	// An older binary would take a receipt without seq, and a span that counts
	// reviews, for damaged; so it must refuse the file.
	{"reviews; receipts without seq; spans that count reviews", []step{createBucket("reviews"), createBucket("decided")}},
	// An older binary would take an entry that erases others for damaged.
	{"entries that erase", []step{{"entries of the kind erase name seqs", func(*bolt.Tx) error { return nil }}}},
}

func createBucket(name string) step {
	return step{"create bucket " + name, func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket([]byte(name))
		return err
	}}
}

// sum is the checksum of a migration: SHA-256 over its name and the texts of
// its steps.
func (m migration) sum() string {
	h := sha256.New()
	fmt.Fprintln(h, m.name)
	for _, s := range m.steps {
		fmt.Fprintln(h, s.text)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func migrationKey(version int) []byte {
	return fmt.Appendf(nil, "migration/%04d", version)
}

// migrate checks the migrations a file records against the list and runs
// those it has not seen, each in a transaction of its own.
func migrate(db *bolt.DB, list []migration) error {
	var version int
	err := db.View(func(tx *bolt.Tx) (err error) {
		version, err = checkSchema(tx, list)
		return err
	})
	if err != nil {
		return err
	}
	for ; version < len(list); version++ {
		m := list[version]
		if err := db.Update(func(tx *bolt.Tx) error { return m.apply(tx, version+1) }); err != nil {
			return fmt.Errorf("migration %d (%s): %w", version+1, m.name, err)
		}
	}
	return nil
}

func (m migration) apply(tx *bolt.Tx, version int) error {
	for _, s := range m.steps {
		if err := s.run(tx); err != nil {
			return fmt.Errorf("%s: %w", s.text, err)
		}
	}
	meta, err := tx.CreateBucketIfNotExists(bucketMeta)
	if err != nil {
		return err
	}
	return meta.Put(migrationKey(version), []byte(m.sum()+" "+m.name))
}

// checkSchema returns the version of the file, or says why this binary must
// not touch it.
func checkSchema(tx *bolt.Tx, list []migration) (int, error) {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		if name, _ := tx.Cursor().First(); name != nil {
			return 0, fmt.Errorf("it is a bbolt file but no journal (it begins with bucket %q); choose another path", name)
		}
		return 0, nil
	}
	version := 0
	for rec := meta.Get(migrationKey(1)); rec != nil; rec = meta.Get(migrationKey(version + 1)) {
		version++
		if version > len(list) {
			continue // count on, to name the version
		}
		sum, name, _ := strings.Cut(string(rec), " ")
		if want := list[version-1].sum(); sum != want {
			return 0, fmt.Errorf("migration %d (%s) has checksum %.12s in the file and %.12s in this binary: "+
				"the file was written by another build; use that build or restore a backup", version, name, sum, want)
		}
	}
	if version > len(list) {
		return 0, fmt.Errorf("its schema is version %d and this binary knows versions up to %d: "+
			"use a newer binary or restore a backup", version, len(list))
	}
	return version, nil
}
