package disk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/chat"
	"parley/core/journal"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	// lockPatience is how long Open waits for another process to let go of
	// the file: long enough for one that is shutting down.
	lockPatience = 1500 * time.Millisecond
	// initialMmap is address space, not memory. A file within it is never
	// remapped, and a remap waits for every open reader.
	initialMmap = 256 << 20
)

// Journal is a journal.Journal in one file. See the package comment.
type Journal struct {
	cfg Config
	log *slog.Logger
	db  *bolt.DB

	reading sync.RWMutex // held for reading by every read transaction, from before it begins

	queue    queue
	pendings sync.Pool
	pub      published
	watch    watchers
	damage   damage
	counts   counters
	closing  sync.Once
	wiper    wiper
	closeTo  error         // what Close answers; set inside closing
	closed   atomic.Bool   // Close has begun
	stopped  chan struct{} // closed when the committer has ended
}

var _ journal.Journal = (*Journal)(nil)

// Open opens the journal file, creating it when it is missing, brings its
// schema up to date and starts the committer; Close ends it. A nil log
// discards. A file that another process holds is an error within two seconds.
func Open(cfg Config, log *slog.Logger) (*Journal, error) {
	c, err := load(cfg, log, migrations)
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(c.j.stopped)
		c.run()
	}()
	return c.j, nil
}

// load opens the file and returns the journal's committer, which does not run
// yet.
func load(cfg Config, log *slog.Logger, list []migration) (*committer, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	db, err := openFile(cfg.Path, list)
	if err != nil {
		return nil, fmt.Errorf("open journal file %s: %w", cfg.Path, err)
	}
	j := &Journal{cfg: cfg, log: log, db: db, stopped: make(chan struct{})}
	j.queue.wake = make(chan struct{}, 1)
	j.queue.target = 1
	j.wiper.slot = make(chan struct{}, 1)
	j.pub.heads = map[chat.RoomID]*head{}
	j.damage.log, j.damage.wake = log, j.queue.signal
	c := newCommitter(j)
	if err := j.view(c.loadNonces); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal file %s: read the nonce window: %w", cfg.Path, err), db.Close())
	}
	return c, nil
}

// openFile opens the file and migrates it. The freelist is synced with every
// commit: without that, opening (and every failed commit) scans the whole
// file.
func openFile(path string, list []migration) (db *bolt.DB, err error) {
	var file *os.File
	defer func() {
		var page *pageError
		if errors.As(err, &page) { // bbolt did not get as far as closing it
			err = errors.Join(err, file.Close())
		}
	}()
	defer rescue(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	db, err = bolt.Open(path, 0o600, &bolt.Options{
		Timeout:         lockPatience,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: initialMmap,
		OpenFile: func(name string, flag int, perm os.FileMode) (_ *os.File, err error) {
			file, err = os.OpenFile(name, flag, perm)
			return file, err
		},
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, errors.New("another process holds it; stop that one or choose another data folder")
	}
	if err != nil {
		return nil, err
	}
	if err := migrate(db, list); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// syncDir makes a new file's name durable; fsync of the file does not
// (fsync(2)).
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close commits what is queued, stops the committer and closes the file. It
// may be called twice and from any goroutine but a watcher's.
func (j *Journal) Close() error {
	j.closing.Do(func() {
		j.closed.Store(true)
		j.queue.close()
		<-j.stopped
		j.closeTo = j.db.Close()
	})
	return j.closeTo
}

// Healthy returns nil, or an ErrUnavailable that says why the journal cannot
// append at present.
func (j *Journal) Healthy(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return j.queue.unusable()
}

// usable answers what ends every method before it begins.
func (j *Journal) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if j.closed.Load() {
		return errClosed
	}
	return nil
}

var errClosed = fmt.Errorf("%w: it is closed", journal.ErrUnavailable)

// view runs fn in a read transaction. bbolt panics, or reads outside its
// mapping, where a page is damaged; that becomes an error. fn copies what it
// needs: an open reader holds up the committer whenever the file is remapped.
func (j *Journal) view(fn func(b *buckets) error) (err error) {
	defer rescue(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	j.reading.RLock()
	defer j.reading.RUnlock()
	tx, err := j.db.Begin(false)
	if err != nil {
		return fmt.Errorf("%w: %w", journal.ErrUnavailable, err)
	}
	defer func() {
		if e := tx.Rollback(); err == nil && e != nil {
			err = e
		}
	}()
	return fn(&buckets{tx: tx})
}

// pageError is a panic of bbolt: it met a page that makes no sense.
type pageError struct{ cause any }

func (e *pageError) Error() string { return fmt.Sprintf("journal: damaged page: %v", e.cause) }

func (e *pageError) Is(target error) bool { return target == journal.ErrDamaged }

// rescue turns a panic into a *pageError. It is deferred where bbolt reads
// pages, and nowhere else.
func rescue(err *error) {
	if p := recover(); p != nil {
		*err = &pageError{p}
	}
}

// Stats are counters since Open, and sizes at present.
type Stats struct {
	Appended, Repeats, Refused uint64 // appends by what became of them
	Commits, Failures          uint64 // transactions, and those that failed
	Damaged                    uint64 // damaged records met
	Pending                    int    // appends that wait for the committer
	CachedRooms, Nonces        int    // held in memory
}

// counters are the parts of Stats that the committer counts.
type counters struct {
	appended, repeats, refused, commits, failures atomic.Uint64
}

// Stats returns the journal's counters.
func (j *Journal) Stats() Stats {
	s := Stats{
		Appended: j.counts.appended.Load(), Repeats: j.counts.repeats.Load(), Refused: j.counts.refused.Load(),
		Commits: j.counts.commits.Load(), Failures: j.counts.failures.Load(),
		Damaged: j.damage.count(), Pending: j.queue.len(),
	}
	s.CachedRooms, s.Nonces = j.pub.sizes()
	return s
}
