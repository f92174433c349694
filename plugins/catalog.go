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

	board    Board  // nil: this node decides alone
	onChange func() // nil: nobody wants to know

	set atomic.Pointer[set] // in force; replaced whole, by who holds mu

	placed chan struct{} // holds a token when an entry has changed

	// Ends with Run, or by Close: what an order began ends with it. It is kept because orders come
	// with contexts of their own.
	life context.Context
	end  context.CancelFunc

	loading sync.Mutex // one reload at a time
	loaded  bool       // guarded by loading; the folder has been read once
	closed  bool       // guarded by loading

	reviving chan struct{} // holds a token while a replaced version is loaded

	saving sync.Mutex // one write to disk at a time
	store  store      // guarded by saving

	mu     sync.Mutex
	absent map[string]savedState // guarded by mu; of names without an entry

	followed map[string]progress // guarded by mu; by name
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
	again     *again     // when the same files are tried again; nil: not until they change
	before    savedState // what was in force and on trial before the process was started and could not be loaded yet
	absence   *absence   // of a version in force; nil if there is one or nobody misses it
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
	c := &Catalog{cfg: cfg, log: log, host: host, wake: make(chan struct{}, 1), placed: make(chan struct{}, 1), store: store{dir: cfg.StateDir, rules: cfg.Replaced}, reviving: make(chan struct{}, 1), followed: make(map[string]progress)}
	c.life, c.end = context.WithCancel(context.Background())
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

// Open is Load for a server that is about to begin. It loads what is known, and of
// names that had nothing to load then it tries what is not known, for
// Config.StartTrials at most. Run does the rest. Meanwhile what was in force
// before judges, and where that cannot be loaded the plugin's on_error decides.
func (c *Catalog) Open(ctx context.Context) error {
	c.loading.Lock()
	defer c.loading.Unlock()
	return c.reloadLocked(ctx, c.cfg.StartTrials)
}

// Load reads the folder once and tries whatever is new. A file that is refused does not
// keep the others from loading; the error joins one for each. An
// unreadable folder leaves everything as it was. When ctx ends, what has been loaded
// so far counts.
func (c *Catalog) Load(ctx context.Context) error {
	c.loading.Lock()
	defer c.loading.Unlock()
	return c.reloadLocked(ctx, 0)
}

// Run watches the folder until ctx ends, loads what changes, tries again what
// another try may let pass, and moves rollouts on when their time has come. The
// end of ctx stops a trial that is under way.
func (c *Catalog) Run(ctx context.Context) error {
	defer c.end()
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
	wg.Go(func() { c.tryAgain(ctx) })
	return w.Run(ctx)
}

// Close frees all plugins. Call it after Run has returned and the last
// decision has ended. It may be called twice.
func (c *Catalog) Close() error {
	c.end()
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
	if e.plugin != nil {
		e.absence, e.before.InForce = nil, ""
	}
	if e.cand != nil {
		e.before.Candidate = nil
	}
	if old != nil && old.plugin == e.plugin && old.cand == e.cand && old.absence == e.absence {
		e.seats = old.seats
		return e
	}
	e.seats = nil
	if e.cand != nil {
		e.seats = append(e.seats, &seat{Plugin: e.cand.plugin, catalog: c, cand: e.cand, trial: true})
	}
	if e.plugin != nil {
		e.seats = append(e.seats, &seat{Plugin: e.plugin, catalog: c, cand: e.cand})
	} else if e.absence != nil {
		e.seats = append(e.seats, &vacancy{absence: e.absence, name: e.name, cand: e.cand, stats: e.stats})
	}
	for _, p := range e.versions() {
		if p.stats != e.stats { // it is new, nobody else has it yet
			p.stats = e.stats
		}
	}
	return e
}

func (s *set) find(name string) *entry {
	i, ok := s.index(name)
	if !ok {
		return nil
	}
	return s.entries[i]
}

// index is where the name's entry is, or would be.
func (s *set) index(name string) (int, bool) {
	return slices.BinarySearchFunc(s.entries, name, func(e *entry, name string) int { return strings.Compare(e.name, name) })
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

// SourceDigest names a plugin's two files, in hex: manifest is nil where there is
// none. It tells whether they have changed, and which files a server judges with.
func SourceDigest(file, manifest []byte) string { return sourceDigest(file, manifest).String() }

// sourceDigest tells whether a plugin's files have changed.
func sourceDigest(file, manifest []byte) sourceID {
	d := sha256.New()
	fmt.Fprintf(d, bundleHead, len(file), manifest != nil)
	d.Write(file)
	d.Write(manifest)
	return sourceID(d.Sum(nil))
}
