package plugins

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Loading goes through the folder twice. First comes what needs no trial: it is
// put in place at once, name by name. Then come the trials of strangers, which may take
// minutes: first those of names of which nothing judges yet, each put in place when it is
// done. A message is judged by one set all the same.

// reloadLocked tries what is new in the folder and puts what comes of it in its
// place. most bounds the time of the trials of names of which nothing judges, and leaves those of
// others for later; 0: all are done.
func (c *Catalog) reloadLocked(ctx context.Context, most time.Duration) error {
	if c.closed {
		return errors.New("plugins: the catalog is closed")
	}
	if ctx.Err() != nil { // it ended while another reload was under way
		return ctx.Err()
	}
	f, err := c.list()
	if err != nil {
		old := c.set.Load()
		if len(old.judges) > 0 {
			err = fmt.Errorf("plugins: %w; the loaded ones stay in force", err)
		} else {
			err = fmt.Errorf("plugins: %w; no plugin judges until it can be read: is plugins.dir right?", err)
		}
		if old.err == nil || old.err.Error() != err.Error() {
			c.log.Error("plugin folder cannot be read", "dir", c.cfg.Dir, "err", err)
		}
		c.setErr(err)
		return err
	}
	first := !c.loaded
	c.loaded = true
	var untried []string
	for _, name := range f.names {
		a := c.try(ctx, name, c.set.Load().find(name), true)
		if ctx.Err() != nil {
			a.drop()
			return ctx.Err()
		}
		if a == nil {
			continue // deleted meanwhile
		}
		if a.untried {
			untried = append(untried, name)
			if !first { // what there is stays until its trial has ended
				a.drop()
				continue
			}
		}
		c.place(a)
	}
	for _, name := range f.excess {
		c.place(c.tooMany(name, c.set.Load().find(name)))
	}
	c.finish(f)
	if err := c.tryStrangers(ctx, untried, most); err != nil {
		return err
	}
	c.host.prune()
	var errs []error
	for _, e := range c.set.Load().entries {
		if e.refused != nil {
			errs = append(errs, fmt.Errorf("plugin %s: %w", e.name, e.refused))
		}
	}
	if f.more > 0 {
		errs = append(errs, c.set.Load().err)
	}
	return errors.Join(errs...)
}

// tryStrangers tries modules that need a trial.
func (c *Catalog) tryStrangers(ctx context.Context, names []string, most time.Duration) error {
	judged := func(name string) int {
		if e := c.set.Load().find(name); e != nil && len(e.versions()) > 0 {
			return 1
		}
		return 0
	}
	tries := func(name string) int { // what is tried again lets what is new go first
		if e := c.set.Load().find(name); e != nil && e.again != nil {
			return e.again.tries
		}
		return 0
	}
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(judged(a), judged(b)), cmp.Compare(tries(a), tries(b)))
	})
	limited, cancel := ctx, context.CancelFunc(func() {})
	if most > 0 {
		limited, cancel = context.WithTimeout(ctx, most)
	}
	defer cancel()
	for i, name := range names {
		if most > 0 && judged(name) == 1 {
			return nil // what judges can go on doing so
		}
		a := c.try(limited, name, c.set.Load().find(name), false)
		if limited.Err() != nil {
			a.drop()
			if ctx.Err() == nil {
				c.log.Warn("not all plugins could be tried in time; the trials go on while the server runs", "after", most, "left", names[i:])
			}
			return ctx.Err()
		}
		if a != nil {
			c.place(a)
		}
	}
	return nil
}

// place puts what came of one file in its place. Meanwhile a guard or an
// operator may have moved the rollout on, so it goes from the present set.
func (c *Catalog) place(a *attempt) {
	if a.unchanged {
		return
	}
	c.mu.Lock()
	cur := c.set.Load()
	e := a.settle(c, cur.find(a.name), c.absent[a.name].Rollbacks)
	delete(c.absent, a.name)
	next := &set{err: cur.err, entries: slices.Clone(cur.entries)}
	if i, found := next.index(a.name); found {
		next.entries[i] = e
	} else {
		next.entries = slices.Insert(next.entries, i, e)
	}
	next.seat()
	c.set.Store(next)
	c.mu.Unlock()
	retire(cur, next)
	a.report(c, e)
	c.keep(a)
	c.changed()
	select { // for who tries again
	case c.placed <- struct{}{}:
	default:
	}
}

// finish takes out what is not in the folder any more.
func (c *Catalog) finish(f folder) {
	var removed []string
	c.mu.Lock()
	cur, next := c.set.Load(), &set{}
	for _, e := range cur.entries {
		if f.has(e.name) {
			next.entries = append(next.entries, e)
			continue
		}
		removed = append(removed, e.name)
		c.forgetLocked(e.name, e.rollbacks)
	}
	for name, saved := range c.absent { // removed while nobody looked
		if !f.has(name) {
			c.forgetLocked(name, saved.Rollbacks)
		}
	}
	if f.more > 0 {
		next.err = fmt.Errorf("%s has %d modules more than are looked at; move them away", c.cfg.Dir, f.more)
	}
	next.seat()
	c.set.Store(next)
	c.mu.Unlock()
	for _, name := range removed {
		c.log.Info("plugin removed", "plugin", name)
	}
	if next.err != nil && (cur.err == nil || cur.err.Error() != next.err.Error()) {
		c.log.Error("plugin folder holds too many modules", "err", next.err)
	}
	retire(cur, next)
	c.save()
	c.changed()
}

// setErr notes that the folder could not be read; everything stays.
func (c *Catalog) setErr(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.set.Load()
	c.set.Store(&set{judges: now.judges, entries: now.entries, err: err})
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

// Bounds of what is listed beyond Config.MaxPlugins.
const (
	maxListed = 10_000 // names that are sorted
	maxExcess = 64     // names that are refused one by one
)

// folder is what list found: the names to load, those that are refused because there are
// too many, each sorted, and how many more there are.
type folder struct {
	names, excess []string
	more          int
}

func (f *folder) has(name string) bool {
	_, loaded := slices.BinarySearch(f.names, name)
	_, refused := slices.BinarySearch(f.excess, name)
	return loaded || refused
}

// list returns the names of the modules in the folder. Where there are more
// than may be loaded, those in force or on trial come before others, and then
// the order of names counts.
func (c *Catalog) list() (f folder, err error) {
	if c.cfg.Dir == "" {
		return f, nil
	}
	dir, err := os.Open(c.cfg.Dir)
	if err != nil {
		return f, fmt.Errorf("open folder: %w", err)
	}
	defer dir.Close()
	standing := c.standing()
	for {
		files, err := dir.ReadDir(256)
		for _, file := range files {
			name, ok := strings.CutSuffix(file.Name(), ".wasm")
			switch {
			case !ok || strings.HasPrefix(name, "."):
			case len(f.names) < maxListed || standing[name]:
				f.names = append(f.names, name)
			default:
				f.more++
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return f, fmt.Errorf("read folder: %w", err)
		}
	}
	rank := func(name string) int {
		if standing[name] {
			return 0
		}
		return 1
	}
	slices.SortFunc(f.names, func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) })
	if most := c.cfg.MaxPlugins; len(f.names) > most {
		f.names, f.excess = f.names[:most:most], f.names[most:]
	}
	if more := len(f.excess) - maxExcess; more > 0 {
		f.excess, f.more = f.excess[:maxExcess], f.more+more
	}
	slices.Sort(f.names)
	slices.Sort(f.excess)
	return f, nil
}

// standing are the names of which a version is in force or on trial, or was
// before the process was started.
func (c *Catalog) standing() map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]bool)
	for _, e := range c.set.Load().entries {
		if len(e.versions()) > 0 || e.before.stands() {
			out[e.name] = true
		}
	}
	for name, saved := range c.absent {
		if saved.stands() {
			out[name] = true
		}
	}
	return out
}

// tooMany is what comes of a file that has no room.
func (c *Catalog) tooMany(name string, old *entry) *attempt {
	a := &attempt{name: name, tried: time.Now(), err: fmt.Errorf("the folder has more than %d modules (plugins.max): take one away, or raise it", c.cfg.MaxPlugins)}
	if old != nil && old.refused != nil && old.refused.Error() == a.err.Error() {
		a.unchanged = true
		return a
	}
	a.before, _ = c.remembered(name, old)
	a.absence = c.missed(a)
	return a
}
