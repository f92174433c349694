package plugins

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"parley/core/moderation"
	"parley/core/watch"
)

// Catalog keeps the plugins of one folder loaded, and knows which version of
// each is in force and which is on trial. It satisfies moderation.Source.
//
// Locks: loading before saving before mu. mu is a leaf and held for memory
// only; a decision that crosses a guard takes it.
type Catalog struct {
	// Set at construction.
	cfg  Config
	log  *slog.Logger
	host *Host
	wake chan struct{} // holds a token when there is something to save

	set atomic.Pointer[set] // in force; replaced whole, by who holds mu

	loading sync.Mutex // one reload at a time
	closed  bool       // guarded by loading

	reviving chan struct{} // holds a token while a replaced version is loaded

	saving sync.Mutex // one write to disk at a time
	store  store      // guarded by saving

	mu     sync.Mutex
	absent map[string]savedState // guarded by mu; of names without an entry
}

// set is one immutable state of the catalog.
type set struct {
	judges  []moderation.Judge // sorted by name, a version on trial before the one in force
	entries []*entry           // of every file, sorted by name
	err     error              // why the folder could not be read, nil if it could
}

// entry is what became of one file. Immutable.
type entry struct {
	name      string
	source    sourceID   // of the files, as last tried; zero: to be tried again
	identity  string     // of the same, if they could be read
	plugin    *Plugin    // in force; nil if none ever loaded or was promoted
	cand      *candidate // on trial, nil if none
	refused   error      // why the files as they are now are neither, nil if they are
	tried     time.Time
	rollbacks []Rollback // oldest first
	stats     *stats     // handed on to the name's next entry
	seats     []moderation.Judge
}

// New returns a Catalog without plugins. It starts nothing; call Load, then
// Run.
func New(cfg Config, log *slog.Logger) (*Catalog, error) {
	host, err := NewHost(cfg, log)
	if err != nil {
		return nil, err
	}
	c := &Catalog{cfg: cfg, log: log, host: host, wake: make(chan struct{}, 1), store: store{dir: cfg.StateDir, rules: cfg.Replaced}, reviving: make(chan struct{}, 1)}
	c.set.Store(&set{})
	if c.absent, err = c.store.load(); err != nil {
		log.Error("the state of rollouts is lost: the versions in the folder are taken as if they were new", "err", err)
	}
	if c.absent == nil {
		c.absent = make(map[string]savedState)
	}
	return c, nil
}

// Judges returns the plugins in force and on trial, sorted by name. The slice
// is never changed; whoever keeps it may go on deciding with it after a swap.
func (c *Catalog) Judges() []moderation.Judge { return c.set.Load().judges }

// Load reads the folder once. A file that is refused does not keep the others
// from loading; the error joins one for each. Only an unreadable folder leaves
// everything as it was.
func (c *Catalog) Load(ctx context.Context) error {
	c.loading.Lock()
	defer c.loading.Unlock()
	return c.reloadLocked(ctx)
}

// Run watches the folder until ctx ends, loads what changes, and moves rollouts
// on when their time has come.
func (c *Catalog) Run(ctx context.Context) error {
	if c.cfg.Dir == "" {
		<-ctx.Done()
		return nil
	}
	cfg := c.cfg.Watch
	cfg.Dir = c.cfg.Dir
	w, err := watch.New(cfg, c.log, func(ctx context.Context) {
		_ = c.Load(ctx) // each error has been logged, and is in Status
	})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.attend(ctx) })
	return w.Run(ctx)
}

// Close frees all plugins. Call it after Run has returned and the last
// decision has ended. It may be called twice.
func (c *Catalog) Close() error {
	c.loading.Lock()
	defer c.loading.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.save() // a rollback that nobody attended to
	c.mu.Lock()
	c.set.Store(&set{})
	c.mu.Unlock()
	return c.host.Close()
}

// reloadLocked tries what is new in the folder and puts what came of it in its
// place, in one step.
func (c *Catalog) reloadLocked(ctx context.Context) error {
	if c.closed {
		return errors.New("plugins: the catalog is closed")
	}
	old := c.set.Load()
	names, err := c.list()
	if err != nil {
		err = fmt.Errorf("plugins: %w; the loaded ones stay in force", err)
		if old.err == nil || old.err.Error() != err.Error() {
			c.log.Error("plugin folder cannot be read", "dir", c.cfg.Dir, "err", err)
		}
		c.mu.Lock()
		now := c.set.Load()
		c.set.Store(&set{judges: now.judges, entries: now.entries, err: err})
		c.mu.Unlock()
		return err
	}
	var all []*attempt
	for _, name := range names {
		a := c.try(ctx, name, old.find(name))
		if ctx.Err() != nil {
			// Cut short: what was loaded is dropped, the old set stays.
			a.drop()
			for _, a := range all {
				a.drop()
			}
			return ctx.Err()
		}
		if a != nil {
			all = append(all, a) // else deleted meanwhile
		}
	}
	next := c.publish(all)
	c.keep(all)
	var errs []error
	for _, e := range next.entries {
		if e.refused != nil {
			errs = append(errs, fmt.Errorf("plugin %s: %w", e.name, e.refused))
		}
	}
	return errors.Join(errs...)
}

// publish puts what was tried in its place. Meanwhile a guard or an operator
// may have moved rollouts on, so it goes from the present set, not from the one
// the attempts began with.
func (c *Catalog) publish(all []*attempt) *set {
	c.mu.Lock()
	cur, next := c.set.Load(), &set{}
	for _, a := range all {
		e := cur.find(a.name)
		if !a.unchanged {
			e = a.settle(c, e, c.absent[a.name].Rollbacks)
		}
		next.entries = append(next.entries, e)
		delete(c.absent, a.name)
	}
	for name, saved := range c.absent { // removed while nobody looked
		c.forgetLocked(name, saved.Rollbacks)
	}
	for _, e := range cur.entries {
		if next.find(e.name) == nil {
			c.log.Info("plugin removed", "plugin", e.name)
			c.forgetLocked(e.name, e.rollbacks)
		}
	}
	next.seat()
	c.set.Store(next)
	c.mu.Unlock()
	retire(cur, next)
	return next
}

// maxAbsent bounds the names without a file whose rollbacks are remembered.
const maxAbsent = 1_000

// forgetLocked keeps of a name without a file what was rolled back, so that the
// same module does not get in by being copied again.
func (c *Catalog) forgetLocked(name string, rollbacks []Rollback) {
	delete(c.absent, name)
	if len(rollbacks) > 0 && len(c.absent) < maxAbsent {
		c.absent[name] = savedState{Rollbacks: rollbacks}
	}
}

// seat lists the judges of the entries.
func (s *set) seat() {
	for _, e := range s.entries {
		s.judges = append(s.judges, e.seats...)
	}
}

// retire frees what is in from and not in to.
func retire(from, to *set) {
	stays := make(map[*Plugin]bool)
	for _, e := range to.entries {
		for _, p := range e.versions() {
			stays[p] = true
		}
	}
	for _, e := range from.entries {
		for _, p := range e.versions() {
			if !stays[p] {
				p.retire()
			}
		}
	}
}

// versions lists what the entry holds.
func (e *entry) versions() (all []*Plugin) {
	if e.plugin != nil {
		all = append(all, e.plugin)
	}
	if e.cand != nil {
		all = append(all, e.cand.plugin)
	}
	return all
}

// seated sets the judges, which stay the same as those of old where nothing
// about them has changed.
func (e *entry) seated(c *Catalog, old *entry) *entry {
	if old != nil && old.plugin == e.plugin && old.cand == e.cand {
		e.seats = old.seats
		return e
	}
	e.seats = nil
	if e.cand != nil {
		e.seats = append(e.seats, &seat{Plugin: e.cand.plugin, catalog: c, cand: e.cand, trial: true})
	}
	if e.plugin != nil {
		e.seats = append(e.seats, &seat{Plugin: e.plugin, catalog: c, cand: e.cand})
	}
	for _, p := range e.versions() {
		if p.stats != e.stats { // it is new, nobody else has it yet
			p.stats = e.stats
		}
	}
	return e
}

func (s *set) find(name string) *entry {
	i, ok := slices.BinarySearchFunc(s.entries, name, func(e *entry, name string) int { return strings.Compare(e.name, name) })
	if !ok {
		return nil
	}
	return s.entries[i]
}

// list returns the names of the modules in the folder, sorted.
func (c *Catalog) list() ([]string, error) {
	if c.cfg.Dir == "" {
		return nil, nil
	}
	dir, err := os.Open(c.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	defer dir.Close()
	var names []string
	for {
		files, err := dir.ReadDir(256)
		for _, f := range files {
			if name, ok := strings.CutSuffix(f.Name(), ".wasm"); ok && !strings.HasPrefix(name, ".") {
				names = append(names, name)
			}
		}
		if len(names) > c.cfg.MaxPlugins {
			return nil, fmt.Errorf("%s has more than %d modules (plugins.max_plugins)", c.cfg.Dir, c.cfg.MaxPlugins)
		}
		if err == io.EOF {
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read folder: %w", err)
		}
	}
}

// loadSources builds a plugin from the bytes of its two files.
func loadSources(ctx context.Context, h *Host, name string, file, manifest []byte) (*Plugin, error) {
	m, err := manifestOf(name, file, manifest)
	if err != nil {
		return nil, err
	}
	return h.Load(ctx, name, file, m)
}

// readPlugin reads a module and its manifest, which is nil if there is none.
func readPlugin(dir, name string, most int) (file, manifest []byte, err error) {
	if file, err = readBounded(filepath.Join(dir, name+".wasm"), most); err != nil {
		return nil, nil, err
	}
	manifest, err = readBounded(filepath.Join(dir, name+".json"), maxManifestBytes)
	if errors.Is(err, os.ErrNotExist) {
		return file, nil, nil
	}
	return file, manifest, err
}

// readBounded reads a regular file of at most most bytes.
func readBounded(path string, most int) ([]byte, error) {
	info, err := os.Stat(path) // before opening: a named pipe would block
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", filepath.Base(path))
	}
	// It may have been swapped since, so opening must not wait, and what counts
	// is what has been opened.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file any more", filepath.Base(path)))
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Base(path), err)
	}
	if len(b) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", filepath.Base(path), most)
	}
	return b, nil
}

// sourceDigest tells whether a plugin's files have changed.
func sourceDigest(file, manifest []byte) sourceID {
	d := sha256.New()
	fmt.Fprintf(d, "%d %t\n", len(file), manifest != nil)
	d.Write(file)
	d.Write(manifest)
	return sourceID(d.Sum(nil))
}
