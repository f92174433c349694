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

// Catalog keeps the plugins of one folder loaded. It satisfies
// moderation.Source.
type Catalog struct {
	// Set at construction.
	cfg  Config
	log  *slog.Logger
	host *Host

	set atomic.Pointer[set] // in force; replaced whole

	mu     sync.Mutex // one reload at a time; never held by readers of set
	closed bool       // guarded by mu
}

// set is one immutable state of the catalog.
type set struct {
	judges  []moderation.Judge // sorted by name
	entries []*entry           // of every file, sorted by name
	err     error              // why the folder could not be read, nil if it could
}

// entry is what became of one file. Immutable.
type entry struct {
	name    string
	source  [sha256.Size]byte // of module and manifest, as last tried
	plugin  *Plugin           // in force; nil if none ever loaded
	refused error             // why the file as it is now is not in force, nil if it is
	tried   time.Time
}

// New returns a Catalog without plugins. It starts nothing; call Load, then
// Run.
func New(cfg Config, log *slog.Logger) (*Catalog, error) {
	host, err := NewHost(cfg, log)
	if err != nil {
		return nil, err
	}
	c := &Catalog{cfg: cfg, log: log, host: host}
	c.set.Store(&set{})
	return c, nil
}

// Judges returns the plugins in force, sorted by name. The slice is never
// changed; whoever keeps it may go on deciding with it after a swap.
func (c *Catalog) Judges() []moderation.Judge { return c.set.Load().judges }

// Load reads the folder once. A file that is refused does not keep the others
// from loading; the error joins one for each. Only an unreadable folder leaves
// everything as it was.
func (c *Catalog) Load(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reloadLocked(ctx)
}

// Run watches the folder until ctx ends and loads what changes.
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
	return w.Run(ctx)
}

// Close frees all plugins. Call it after Run has returned and the last
// decision has ended. It may be called twice.
func (c *Catalog) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.set.Store(&set{})
	return c.host.Close()
}

// reloadLocked builds a new set from the folder and puts it in force.
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
		c.set.Store(&set{judges: old.judges, entries: old.entries, err: err})
		return err
	}
	next := &set{}
	var errs []error
	for _, name := range names {
		e := c.load(ctx, name, old.find(name))
		if ctx.Err() != nil {
			// Cut short: what was loaded is dropped, the old set stays.
			return ctx.Err()
		}
		if e == nil {
			continue // deleted meanwhile
		}
		next.entries = append(next.entries, e)
		if e.plugin != nil {
			next.judges = append(next.judges, e.plugin)
		}
		if e.refused != nil {
			errs = append(errs, fmt.Errorf("plugin %s: %w", e.name, e.refused))
		}
	}
	c.set.Store(next)
	for _, e := range old.entries {
		now := next.find(e.name)
		if now == nil {
			c.log.Info("plugin removed", "plugin", e.name)
		}
		if e.plugin != nil && (now == nil || now.plugin != e.plugin) {
			e.plugin.retire()
		}
	}
	return errors.Join(errs...)
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

// load returns the entry for one file: old itself if nothing changed, a new
// version if it loads, else the old version with the reason. It returns nil if
// the file is gone.
func (c *Catalog) load(ctx context.Context, name string, old *entry) *entry {
	e := &entry{name: name, tried: time.Now()}
	file, manifest, err := readPlugin(c.cfg.Dir, name, c.cfg.Module.FileBytes)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		e.source = sha256.Sum256([]byte(err.Error()))
	default:
		e.source = sourceDigest(file, manifest)
	}
	if old != nil {
		if old.source == e.source {
			return old // loaded or refused, it would be so again
		}
		e.plugin = old.plugin
	}
	var p *Plugin
	if err == nil {
		p, err = loadSources(ctx, c.host, name, file, manifest)
	}
	if ctx.Err() != nil {
		if p != nil {
			p.retire()
		}
		return nil
	}
	if err != nil {
		e.refused = err
		c.log.Error("plugin refused", "plugin", name, "old_version_stays", e.plugin != nil, "err", err)
		return e
	}
	e.plugin = p
	return e
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
func sourceDigest(file, manifest []byte) [sha256.Size]byte {
	d := sha256.New()
	fmt.Fprintf(d, "%d %t\n", len(file), manifest != nil)
	d.Write(file)
	d.Write(manifest)
	return [sha256.Size]byte(d.Sum(nil))
}
