// Package scrub overwrites what deleted records have left in a bbolt file.
//
// bbolt never writes over a page that is in use: a change goes to other pages,
// and the old ones are free, with their bytes, until they are used again. Free
// puts zeros there. What the file system, the disk or a backup keeps of them is
// out of its reach.
package scrub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	// portion is how many pages one look goes through, so that writers wait no
	// longer than for a commit.
	portion = 8192
	// firstWait and lastWait are pauses for readers to end, doubling.
	firstWait = time.Millisecond
	lastWait  = 100 * time.Millisecond
)

// Free overwrites every page of the open file that is free when it is met, and
// returns how many held something. It takes turns with writers.
//
// A page may count as free while a read transaction from before the last commit
// still looks at it. settle, called under the write lock, returns when every
// read transaction that had begun by then has ended; later ones see the newest
// commit, to which no free page belongs. With a nil settle Free waits for moments
// without any reader. It gives up when ctx ends.
func Free(ctx context.Context, db *bolt.DB, settle func()) (wiped int, err error) {
	file, err := os.OpenFile(db.Path(), os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("overwrite free pages: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	wait := firstWait
	for page := 2; page >= 0; { // behind the two meta pages
		next, n, err := some(db, file, page, settle)
		wiped += n
		switch {
		case errors.Is(err, errReaders):
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return wiped, fmt.Errorf("overwrite free pages: %w while others read", ctx.Err())
			}
			wait = min(2*wait, lastWait)
			continue
		case err != nil:
			return wiped, fmt.Errorf("overwrite free pages: %w", err)
		case ctx.Err() != nil:
			return wiped, fmt.Errorf("overwrite free pages: %w", ctx.Err())
		}
		page, wait = next, firstWait
	}
	if wiped == 0 {
		return 0, nil
	}
	if err := file.Sync(); err != nil {
		return wiped, fmt.Errorf("overwrite free pages: %w", err)
	}
	return wiped, nil
}

var errReaders = errors.New("somebody reads")

// some looks through a portion of the pages under the write lock, and returns
// where to go on, -1 at the end. A panic of bbolt, which met a page that makes
// no sense, is an error.
func some(db *bolt.DB, file *os.File, from int, settle func()) (next, wiped int, err error) {
	tx, err := db.Begin(true)
	if err != nil {
		return from, 0, err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("damaged page: %v", p)
		}
		err = errors.Join(err, tx.Rollback())
	}()
	if settle != nil {
		settle()
	} else if s := db.Stats(); s.OpenTxN > 0 {
		return from, 0, errReaders
	}
	size := db.Info().PageSize
	page, zero := make([]byte, size), make([]byte, size)
	for id := from; ; {
		if id-from >= portion {
			return id, wiped, nil
		}
		info, err := tx.Page(id)
		if err != nil || info == nil {
			return -1, wiped, err
		}
		if info.Type != "free" {
			id += 1 + info.OverflowCount
			continue
		}
		at := int64(id) * int64(size)
		if n, err := file.ReadAt(page, at); err != nil && n == 0 {
			return from, wiped, err
		}
		if !bytes.Equal(page, zero) {
			if _, err := file.WriteAt(zero, at); err != nil {
				return from, wiped, err
			}
			wiped++
		}
		id++
	}
}
