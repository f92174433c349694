// Package watch tells when the files of one folder have changed.
//
// A Watcher calls back once the folder has been quiet for a moment, so a burst
// of writes (an editor's save, a copy, a checkout) is one call. File-system
// events make it fast; a slow rescan that compares size, time and identity of
// every file makes it certain: an event the kernel dropped, a folder that
// appears late or a network file system without events only delays the call
// until the next rescan.
//
// The callback gets no list of changes on purpose: whoever watches reads the
// folder anew and decides by content what is different. New starts nothing;
// Run blocks and is the only goroutine that calls back, so calls never overlap.
// It is the only package that imports fsnotify.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Config says what to watch and how patiently.
type Config struct {
	// Dir is the folder. It need not exist yet.
	Dir string
	// Tree includes the folders below Dir. Symbolic links to folders are not
	// followed, except Dir itself.
	Tree bool
	// Quiet is how long the folder must be still before a call.
	Quiet time.Duration
	// Rescan is how often the folder is compared even without an event.
	Rescan time.Duration
	// Poll switches file-system events off: only Rescan finds changes. For
	// network file systems, which send none.
	Poll bool
	// MaxFiles bounds how many files and folders are compared; those beyond
	// it change unseen by the rescan, which is logged once.
	MaxFiles int
}

// Defaults returns a Config with everything but Dir set.
func Defaults() Config {
	return Config{
		Quiet:    100 * time.Millisecond, // longer than between two writes of one copy
		Rescan:   5 * time.Second,
		MaxFiles: 10_000,
	}
}

// burstLimit is how many Quiet periods a never-ending burst of events may
// postpone a call.
const burstLimit = 20

// Watcher watches one folder. Make one with New.
type Watcher struct {
	// Set at construction.
	cfg     Config
	log     *slog.Logger
	changed func(context.Context)
	nudge   chan struct{} // one slot

	// Owned by Run.
	events  *fsnotify.Watcher // nil while polling
	watched map[string]bool   // folders the kernel tells about
	last    snapshot
	warned  bool // MaxFiles was logged
}

// New returns a Watcher that will call changed from Run's goroutine. It starts
// nothing.
func New(cfg Config, log *slog.Logger, changed func(context.Context)) (*Watcher, error) {
	switch {
	case cfg.Dir == "":
		return nil, errors.New("watch: no folder given")
	case cfg.Quiet <= 0 || cfg.Rescan <= 0:
		return nil, fmt.Errorf("watch %s: quiet %v and rescan %v must be above zero", cfg.Dir, cfg.Quiet, cfg.Rescan)
	case cfg.MaxFiles <= 0:
		return nil, fmt.Errorf("watch %s: max files %d must be above zero", cfg.Dir, cfg.MaxFiles)
	}
	cfg.Dir = filepath.Clean(cfg.Dir)
	return &Watcher{cfg: cfg, log: log, changed: changed, nudge: make(chan struct{}, 1)}, nil
}

// Nudge has Run call back soon, whether anything has changed or not. Any
// goroutine may call it.
func (w *Watcher) Nudge() {
	select {
	case w.nudge <- struct{}{}:
	default:
	}
}

// Run watches until ctx ends and returns nil then. It calls back once at the
// start, when it has begun to listen, so that a change between an earlier read
// of the folder and Run is never missed. Run may be called once.
func (w *Watcher) Run(ctx context.Context) error {
	if !w.cfg.Poll {
		events, err := fsnotify.NewWatcher()
		if err != nil {
			// Out of inotify instances, most likely: slower, not blind.
			w.log.Warn("no file-system events, polling instead", "dir", w.cfg.Dir, "every", w.cfg.Rescan, "err", err)
		} else {
			w.events = events
			defer events.Close()
		}
	}
	w.watched = make(map[string]bool)
	w.last = w.scan()
	w.changed(ctx)

	rescan := time.NewTicker(w.cfg.Rescan)
	defer rescan.Stop()
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	var since time.Time // first event of the present burst; zero when none
	events, errs := w.channels()
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-events:
			if ev.Op == fsnotify.Chmod {
				continue // content is the same; the rescan sees a new mode's effect
			}
			if ev.Op.Has(fsnotify.Remove) || ev.Op.Has(fsnotify.Rename) {
				w.forget(ev.Name)
			}
			now := time.Now()
			if since.IsZero() {
				since = now
			}
			quiet.Reset(max(0, min(w.cfg.Quiet, time.Until(since.Add(burstLimit*w.cfg.Quiet)))))
		case err := <-errs:
			// An overflow dropped events: compare at once.
			w.log.Warn("file-system events lost, comparing the folder", "dir", w.cfg.Dir, "err", err)
			if since.IsZero() {
				since = time.Now()
			}
			quiet.Reset(w.cfg.Quiet)
		case <-w.nudge:
			w.last = w.scan()
			w.changed(ctx)
		case <-quiet.C:
			since = time.Time{}
			w.last = w.scan()
			w.changed(ctx)
		case <-rescan.C:
			if !since.IsZero() {
				continue // a call is due anyway
			}
			if now := w.scan(); !now.equal(w.last) {
				w.last = now
				w.changed(ctx)
			}
		}
	}
}

// channels returns the event channels, nil ones while polling.
func (w *Watcher) channels() (<-chan fsnotify.Event, <-chan error) {
	if w.events == nil {
		return nil, nil
	}
	return w.events.Events, w.events.Errors
}

// forget stops listening to a folder that was deleted or renamed: what has its
// name by the next scan is another one, also where it has got the same inode
// number.
func (w *Watcher) forget(dir string) {
	if !w.watched[dir] {
		return
	}
	_ = w.events.Remove(dir) // the kernel may have removed it already
	delete(w.watched, dir)
}

// listen asks the kernel about dir, once.
func (w *Watcher) listen(dir string) {
	if w.events == nil || w.watched[dir] {
		return
	}
	if err := w.events.Add(dir); err != nil {
		w.log.Debug("no events for this folder, the rescan covers it", "dir", dir, "err", err)
		return
	}
	w.watched[dir] = true
}

// snapshot is what the files looked like, by path.
type snapshot map[string]os.FileInfo

func (s snapshot) equal(o snapshot) bool {
	if len(s) != len(o) {
		return false
	}
	for path, a := range s {
		b, ok := o[path]
		if !ok || a.Mode() != b.Mode() || !os.SameFile(a, b) {
			return false
		}
		// A folder's own time and size tell nothing its entries do not.
		if !a.IsDir() && (a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime())) {
			return false
		}
	}
	return true
}

// scan reads the folder and starts listening to folders it had not seen.
// Errors are part of what the folder looks like: a file that cannot be read
// is not in the snapshot.
func (w *Watcher) scan() snapshot {
	s := make(snapshot)
	w.scanDir(s, w.cfg.Dir)
	for dir := range w.watched {
		if _, ok := s[dir]; !ok {
			w.forget(dir) // if it comes back it is another one
		}
	}
	return s
}

func (w *Watcher) scanDir(s snapshot, dir string) {
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() {
		return
	}
	if old, ok := w.last[dir]; ok && w.watched[dir] && !os.SameFile(old, info) {
		w.forget(dir) // another folder took the name
	}
	s[dir] = info
	w.listen(dir) // before reading: what is created from here on sends an event
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if len(s) >= w.cfg.MaxFiles {
			if !w.warned {
				w.warned = true
				w.log.Warn("too many files to compare; changes to the rest may go unseen", "dir", w.cfg.Dir, "max_files", w.cfg.MaxFiles)
			}
			return
		}
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			if w.cfg.Tree {
				w.scanDir(s, path)
			}
			continue
		}
		if info, err := os.Stat(path); err == nil { // follows links: a swapped link is a change
			s[path] = info
		}
	}
}
