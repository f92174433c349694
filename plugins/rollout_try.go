package plugins

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// attempt is what came of looking at one file of the folder.
type attempt struct {
	name         string
	unchanged    bool // nothing to do
	inForceAgain bool // the files are those of the version in force: no trial any more
	onTrialStill bool // they are those of the version on trial
	untried      bool // a trial has been left for later
	tried        time.Time
	source       sourceID
	identity     string
	again        *again

	file, manifest []byte    // as read
	said           *Manifest // nil if it could not be read

	plugin  *Plugin // loaded; nil with err
	err     error
	rules   Rollout
	stage   string // where plugin begins, or goes on after a restart
	percent int
	since   time.Time

	// What was in force and on trial before the process was started, where the
	// folder holds something else.
	before  savedState // as it was, as long as it has not been loaded
	inForce *Plugin
	cand    *candidate
	lost    error // why inForce could not be loaded
	absence *absence
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
// entry, nil for a name that is new to this process. quick leaves trials for
// later.
func (c *Catalog) try(ctx context.Context, name string, old *entry, quick bool) *attempt {
	a := &attempt{name: name, tried: time.Now()}
	var err error
	a.file, a.manifest, err = readPlugin(c.cfg.Dir, name, c.cfg.Module.FileBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		a.source = sha256.Sum256([]byte(err.Error()))
		if bySystem(err) {
			err = passing(err)
		}
	default:
		a.source = sourceDigest(a.file, a.manifest)
	}
	if old != nil && old.source == a.source && !old.again.due(a.tried) {
		a.unchanged = true // loaded or refused, it would be so again
		return a
	}
	if old != nil && old.plugin != nil && old.plugin.source == a.source {
		a.inForceAgain, a.identity = true, old.plugin.identity
		return a
	}
	var rolledBack []Rollback
	a.before, rolledBack = c.remembered(name, old)
	if old != nil && old.cand != nil && old.cand.plugin.source == a.source {
		a.onTrialStill, a.identity = true, old.identity
	} else if err == nil {
		err = a.load(ctx, c, rolledBack, quick)
	}
	a.err = err
	a.restore(ctx, c, quick)
	if ctx.Err() != nil {
		return a
	}
	if (old == nil || old.plugin == nil) && a.inForce == nil && (a.plugin == nil || a.stage != StageEnforce) {
		a.absence = c.missed(a)
	}
	switch {
	case a.untried:
		a.again = &again{at: a.tried}
	case isPassing(a.err), isPassing(a.lost):
		a.again = &again{tries: 1}
		if old != nil && old.again != nil && old.source == a.source {
			a.again.tries += old.again.tries
		}
		a.again.at = time.Now().Add(c.cfg.Retry.after(a.again.tries))
	}
	return a
}

// remembered returns what is known of a name from before it could be loaded.
func (c *Catalog) remembered(name string, old *entry) (before savedState, rolledBack []Rollback) {
	if old != nil {
		return old.before, old.rollbacks
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before = c.absent[name]
	rolledBack, before.Rollbacks = before.Rollbacks, nil
	return before, rolledBack
}

// load builds the plugin from its files and finds out where it begins.
func (a *attempt) load(ctx context.Context, c *Catalog, rolledBack []Rollback, quick bool) error {
	m, err := manifestOf(a.name, a.file, a.manifest)
	if err != nil {
		return err
	}
	a.said, a.identity = &m, identityOf(a.file, m)
	wasInForce := a.before.InForce == a.source.String()
	if r := blocked(rolledBack, a.identity); r != nil && !wasInForce {
		return r.refusal()
	}
	if a.plugin, err = c.load(ctx, a.name, a.file, m, quick); err != nil {
		return err
	}
	c.enroll(a.plugin, a.source, a.identity)
	a.stage, a.since = StageEnforce, a.tried
	if m.Rollout == nil || wasInForce {
		return nil
	}
	a.rules, a.stage, a.percent = *m.Rollout, m.Rollout.Stage, m.Rollout.Percent
	if k := a.before.Candidate; k != nil && k.Source == a.source.String() {
		a.stage, a.percent, a.since = k.Stage, k.Percent, k.Since
	}
	return nil
}

// load is Host.Load; quick leaves a trial for later.
func (c *Catalog) load(ctx context.Context, name string, file []byte, m Manifest, quick bool) (*Plugin, error) {
	if quick && !c.host.known(file, m) {
		return nil, errUntried
	}
	return c.host.Load(ctx, name, file, m)
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
// started, as far as the files in the folder do not take its place. What cannot
// be loaded for good is said once; then only before tells of it.
func (a *attempt) restore(ctx context.Context, c *Catalog, quick bool) {
	lost := func(what string, err error) {
		a.untried = a.untried || errors.Is(err, errUntried)
		if err != nil && !isPassing(err) && ctx.Err() == nil {
			c.log.Error("a version from before the restart is lost", "plugin", a.name, "was", what, "err", err)
		}
	}
	a.untried = errors.Is(a.err, errUntried)
	if s := a.before.InForce; s != "" && s != a.source.String() && (a.err != nil || a.stage != StageEnforce) {
		a.inForce, _, a.lost = c.revive(ctx, a.name, s, quick)
		lost("in force", a.lost)
	}
	if k := a.before.Candidate; k != nil && k.Source != a.source.String() && a.err != nil {
		p, m, err := c.revive(ctx, a.name, k.Source, quick)
		switch {
		case err == nil && m.Rollout != nil:
			a.cand = newCandidate(p, *m.Rollout, k.Stage, k.Percent, k.Since)
		case err == nil: // it cannot have been on trial
			p.retire()
			a.before.Candidate = nil
		case !isPassing(err):
			a.before.Candidate = nil
		}
		lost("on trial", err)
	}
}

// revive loads a kept version.
func (c *Catalog) revive(ctx context.Context, name, source string, quick bool) (*Plugin, Manifest, error) {
	c.saving.Lock()
	file, manifest, err := c.store.kept(source, c.cfg.Module.FileBytes)
	c.saving.Unlock()
	if bySystem(err) && !errors.Is(err, fs.ErrNotExist) {
		err = passing(err)
	}
	if err != nil {
		return nil, Manifest{}, err
	}
	m, err := manifestOf(name, file, manifest)
	if err != nil {
		return nil, m, err
	}
	p, err := c.load(ctx, name, file, m, quick)
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
	n := &entry{
		name: a.name, source: a.source, identity: a.identity, tried: a.tried, plugin: a.inForce, cand: a.cand, rollbacks: rolledBack,
		refused: a.err, again: a.again, before: a.before, absence: a.absence,
	}
	if e != nil {
		n.keeps(e)
	} else {
		n.stats = newStats()
	}
	if a.err == nil {
		n.before.Candidate = nil // the files in the folder take its place
	}
	if a.plugin != nil && blocked(n.rollbacks, a.identity) != nil && (n.plugin == nil || n.plugin.identity != a.identity) {
		// Rolled back while this was being loaded.
		a.plugin.retire()
		n.refused = blocked(n.rollbacks, a.identity).refusal()
		return n.seated(c, e)
	}
	switch {
	case a.err != nil: // who decided before goes on
	case a.onTrialStill && (n.cand == nil || n.cand.plugin.source != a.source) && (n.plugin == nil || n.plugin.source != a.source),
		a.inForceAgain && (n.plugin == nil || n.plugin.source != a.source):
		// The rollout moved while the files were being read: once more, from
		// how it stands now.
		n.source, n.again = sourceID{}, dueNow()
	case a.onTrialStill:
	case a.inForceAgain:
		n.cand = nil
	case a.stage == StageEnforce:
		n.plugin, n.cand = a.plugin, nil
	default:
		n.cand = newCandidate(a.plugin, a.rules, a.stage, a.percent, a.since)
	}
	return n.seated(c, e)
}

// keeps takes over what e has, which counts more than what was brought back from
// before the start.
func (n *entry) keeps(e *entry) {
	n.rollbacks, n.stats = e.rollbacks, e.stats
	if e.plugin != nil {
		if n.plugin != nil {
			n.plugin.retire()
		}
		n.plugin = e.plugin
	}
	if e.cand != nil {
		if n.cand != nil {
			n.cand.plugin.retire()
		}
		n.cand = e.cand
	}
}

// report logs what came of an attempt: a version on trial, or no success.
func (a *attempt) report(c *Catalog, e *entry) {
	if k := e.cand; k != nil && k.plugin == a.plugin {
		c.log.Info("plugin on trial", "plugin", a.name, "version", k.plugin.manifest.Version, "digest", k.plugin.digest[:12], "stage", k.stage, "percent", k.percent)
	}
	err := errors.Join(a.err, a.lost)
	if err == nil || a.untried {
		return
	}
	attrs := []any{"plugin", a.name, "old_version_stays", e.plugin != nil}
	if e.absence != nil {
		attrs = append(attrs, "its_messages", onErrorName(e.absence.onError))
	}
	if a.again != nil {
		c.log.Error("plugin not loaded, it will be tried again", append(attrs, "at", a.again.at, "tries", a.again.tries, "err", err)...)
		return
	}
	c.log.Error("plugin refused", append(attrs, "err", err)...)
}

// keep copies what was loaded to where a restart finds it, and saves how things
// stand. Where that fails the plugins judge all the same.
func (c *Catalog) keep(a *attempt) {
	if a.plugin != nil {
		c.saving.Lock()
		err := c.store.keep(a.name, a.source, a.file, a.manifest)
		c.saving.Unlock()
		if err != nil {
			c.log.Warn("a plugin cannot be kept: after a restart, what is in the folder counts alone", "plugin", a.name, "err", err)
		}
	}
	c.save()
}

// save writes how every rollout stands. Without a folder none does, and what was
// written is for the next start that has one.
func (c *Catalog) save() {
	if c.cfg.Dir == "" {
		return
	}
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
		s := savedState{InForce: e.before.InForce, Candidate: e.before.Candidate, Rollbacks: e.rollbacks}
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
