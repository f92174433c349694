package plugins

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"time"
)

// attempt is what came of looking at one file of the folder.
type attempt struct {
	name         string
	unchanged    bool // nothing to do
	inForceAgain bool // the files are those of the version in force: no trial any more
	tried        time.Time
	source       sourceID
	identity     string

	plugin  *Plugin // loaded; nil with err
	err     error
	rules   Rollout
	stage   string // where plugin begins, or goes on after a restart
	percent int
	since   time.Time

	// What was in force and on trial before the process was started, where the
	// folder holds something else.
	inForce *Plugin
	cand    *candidate

	file, manifest []byte // of plugin, to be kept
}

// drop frees what was loaded in vain.
func (a *attempt) drop() {
	if a == nil {
		return
	}
	for _, p := range []*Plugin{a.plugin, a.inForce} {
		if p != nil {
			p.retire()
		}
	}
	if a.cand != nil {
		a.cand.plugin.retire()
	}
}

// try looks at one file. It returns nil if the file is gone. old is the name's
// entry, nil for a name that is new to this process.
func (c *Catalog) try(ctx context.Context, name string, old *entry) *attempt {
	a := &attempt{name: name, tried: time.Now()}
	file, manifest, err := readPlugin(c.cfg.Dir, name, c.cfg.Module.FileBytes)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		a.source = sha256.Sum256([]byte(err.Error()))
	default:
		a.source = sourceDigest(file, manifest)
	}
	if old != nil && old.source == a.source {
		a.unchanged = true // loaded or refused, it would be so again
		return a
	}
	if old != nil && old.plugin != nil && old.plugin.source == a.source {
		a.inForceAgain, a.identity = true, old.plugin.identity
		return a
	}
	var saved savedState
	var rolledBack []Rollback
	if old == nil {
		c.mu.Lock()
		saved = c.absent[name]
		c.mu.Unlock()
		rolledBack = saved.Rollbacks
	} else {
		rolledBack = old.rollbacks
	}
	if err == nil {
		err = a.load(ctx, c, file, manifest, rolledBack, saved)
	}
	if ctx.Err() != nil {
		return a
	}
	if a.err = err; err != nil {
		c.log.Error("plugin refused", "plugin", name, "old_version_stays", old != nil && old.plugin != nil || saved.InForce != "", "err", err)
	}
	if err := a.restore(ctx, c, saved); err != nil {
		c.log.Error("a version from before the restart is lost", "plugin", name, "err", err)
	}
	return a
}

// load builds the plugin from its files and finds out where it begins.
func (a *attempt) load(ctx context.Context, c *Catalog, file, manifest []byte, rolledBack []Rollback, saved savedState) error {
	m, err := manifestOf(a.name, file, manifest)
	if err != nil {
		return err
	}
	a.identity = identityOf(file, m)
	if r := blocked(rolledBack, a.identity); r != nil && saved.InForce != a.source.String() {
		return r.refusal()
	}
	if a.plugin, err = loadSources(ctx, c.host, a.name, file, manifest); err != nil {
		return err
	}
	c.enroll(a.plugin, a.source, a.identity)
	a.file, a.manifest = file, manifest
	a.stage, a.since = StageEnforce, a.tried
	if m.Rollout == nil || saved.InForce == a.source.String() {
		return nil
	}
	a.rules, a.stage, a.percent = *m.Rollout, m.Rollout.Stage, m.Rollout.Percent
	if k := saved.Candidate; k != nil && k.Source == a.source.String() {
		a.stage, a.percent, a.since = k.Stage, k.Percent, k.Since
	}
	return nil
}

// blocked returns the rollback that keeps the identity from being tried, nil if
// there is none.
func blocked(all []Rollback, identity string) *Rollback {
	for i := range all {
		if all[i].Blocked && all[i].Identity == identity {
			return &all[i]
		}
	}
	return nil
}

// restore loads what was in force, and on trial, before the process was
// started, as far as the files in the folder do not take its place.
func (a *attempt) restore(ctx context.Context, c *Catalog, saved savedState) error {
	var errs []error
	if saved.InForce != "" && saved.InForce != a.source.String() && (a.err != nil || a.stage != StageEnforce) {
		p, _, err := c.revive(ctx, a.name, saved.InForce)
		a.inForce = p
		errs = append(errs, err)
	}
	if k := saved.Candidate; k != nil && k.Source != a.source.String() && a.err != nil {
		p, m, err := c.revive(ctx, a.name, k.Source)
		if err == nil && m.Rollout != nil {
			a.cand = newCandidate(p, *m.Rollout, k.Stage, k.Percent, k.Since)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// revive loads a kept version.
func (c *Catalog) revive(ctx context.Context, name, source string) (*Plugin, Manifest, error) {
	c.saving.Lock()
	file, manifest, err := c.store.kept(source, c.cfg.Module.FileBytes)
	c.saving.Unlock()
	if err != nil {
		return nil, Manifest{}, err
	}
	m, err := manifestOf(name, file, manifest)
	if err != nil {
		return nil, m, err
	}
	p, err := loadSources(ctx, c.host, name, file, manifest)
	if err != nil {
		return nil, m, fmt.Errorf("load a kept version: %w", err)
	}
	c.enroll(p, sourceDigest(file, manifest), identityOf(file, m))
	return p, m, nil
}

// enroll makes a plugin one of the catalog's, before anybody asks it.
func (c *Catalog) enroll(p *Plugin, source sourceID, identity string) {
	p.source, p.identity = source, identity
	p.ward.q.rules = quarantineRules{limit: c.cfg.FaultLimit, window: c.cfg.FaultWindow, first: c.cfg.ProbeFirst, most: c.cfg.ProbeMost, good: c.cfg.ProbesGood}
}

// settle returns the name's next entry. e is the present one, nil if there is
// none; then rolledBack is what is remembered of the name.
func (a *attempt) settle(c *Catalog, e *entry, rolledBack []Rollback) *entry {
	n := &entry{name: a.name, source: a.source, identity: a.identity, tried: a.tried, plugin: a.inForce, cand: a.cand, rollbacks: rolledBack, refused: a.err}
	if e != nil {
		n.plugin, n.cand, n.rollbacks, n.stats = e.plugin, e.cand, e.rollbacks, e.stats
	} else {
		n.stats = newStats()
	}
	if a.plugin != nil && blocked(n.rollbacks, a.identity) != nil && (n.plugin == nil || n.plugin.identity != a.identity) {
		// Rolled back while this was being loaded.
		a.plugin.retire()
		n.refused = blocked(n.rollbacks, a.identity).refusal()
		return n.seated(c, e)
	}
	switch {
	case a.err != nil: // who decided before goes on
	case a.inForceAgain:
		n.cand = nil
	case a.stage == StageEnforce:
		n.plugin, n.cand = a.plugin, nil
	default:
		n.cand = newCandidate(a.plugin, a.rules, a.stage, a.percent, a.since)
		c.log.Info("plugin on trial", "plugin", a.name, "version", a.plugin.manifest.Version, "digest", a.plugin.digest[:12], "stage", a.stage, "percent", a.percent)
	}
	return n.seated(c, e)
}

// keep copies what was loaded to where a restart finds it, and saves how things
// stand. Where that fails the plugins judge all the same.
func (c *Catalog) keep(all []*attempt) {
	c.saving.Lock()
	for _, a := range all {
		if a.plugin != nil {
			if err := c.store.keep(a.name, a.source, a.file, a.manifest); err != nil {
				c.log.Warn("a plugin cannot be kept: after a restart, what is in the folder counts alone", "plugin", a.name, "err", err)
			}
		}
	}
	c.saving.Unlock()
	c.save()
}

// save writes how every rollout stands.
func (c *Catalog) save() {
	c.saving.Lock()
	defer c.saving.Unlock()
	c.mu.Lock()
	out := make(map[string]savedState, len(c.absent))
	for name, saved := range c.absent {
		out[name] = saved
	}
	entries := c.set.Load().entries
	c.mu.Unlock()
	for _, e := range entries {
		if !validName(e.name) {
			continue // refused for that
		}
		s := savedState{Rollbacks: e.rollbacks}
		if e.plugin != nil {
			s.InForce = e.plugin.source.String()
		}
		if k := e.cand; k != nil {
			s.Candidate = &savedTrial{Source: k.plugin.source.String(), Stage: k.stage, Percent: k.percent, Since: k.since.UTC().Truncate(time.Second)}
		}
		out[e.name] = s
	}
	if err := c.store.save(out, time.Now()); err != nil {
		c.log.Error("the state of rollouts cannot be saved: after a restart they stand as they did before", "err", err)
	}
}
