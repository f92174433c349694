package share

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"parley/core/cluster/objects"
	"parley/plugins"
)

// mergeSet merges folder and head until they agree, as far as that can be. The
// error is Redis's; what stands in the way of one name is a problem of that name. opening:
// nothing of the folder has been loaded yet, so nothing is published.
func (s *Share) mergeSet(ctx context.Context, opening bool, p *problems) error {
	for range tries {
		h, err := s.store.Head(ctx, setHead)
		var head set
		if err == nil {
			if head, err = decodeSet(h.Value); err != nil {
				err = fmt.Errorf("%w: %w", errHead, err)
			}
		}
		if errors.Is(err, objects.ErrBadHead) || errors.Is(err, errHead) {
			p.add("head "+setHead, err)
			s.keepLast(ctx)
			return nil
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.living = head.Plugins
		s.mu.Unlock()
		mine, err := s.mergeOnce(ctx, head, opening, p)
		if err != nil {
			p.add("plugin folder", err)
			return nil
		}
		if len(mine) == 0 {
			return nil
		}
		done, err := s.publish(ctx, head, h.Version, mine, p)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("set head %s: %w", setHead, objects.ErrConflict)
}

// mergeOnce does what the head says, and returns what the folder has for it: the
// source of each name, "" for what was removed.
func (s *Share) mergeOnce(ctx context.Context, head set, opening bool, p *problems) (mine map[string]string, err error) {
	local, names, err := s.look(head, p)
	if err != nil {
		return nil, err
	}
	before, known := s.base.clone(), s.known
	mine = make(map[string]string)
	for _, name := range names {
		now := head.Plugins[name]
		gone, removed := head.Gone[name]
		sd := sides{known: known, base: s.base.Plugins[name], local: local[name], head: now.Source, said: now.Source != "" || removed, gone: gone.Source}
		step := sd.merge()
		if step == conflict && !known {
			s.base.set(name, neither) // until it has been settled
		}
		if step == conflict && !s.lasts(name, sd, opening) {
			continue
		}
		if step != conflict {
			delete(s.disputes, name)
		}
		switch step {
		case settled:
			s.base.set(name, now.Source)
		case publish:
			if opening {
				continue
			}
			if why := s.acceptable(name, sd.local); why == nil {
				mine[name] = sd.local
			} else {
				p.add("plugin "+name+" stays on this node", why)
			}
		case take, conflict:
			err := s.take(ctx, name, sd, step == conflict)
			if errors.Is(err, errTouched) {
				continue
			}
			if err != nil {
				p.want(name, now.Source, err)
				continue
			}
			s.base.set(name, now.Source)
		}
	}
	if !known || !s.base.same(before) {
		if err := s.base.save(s.folder.dir); err != nil {
			p.add("plugin folder", err)
		}
	}
	return mine, nil
}

// dispute is a conflict that may be none: another node with the same folder may
// just have published what is in it, and be about to note that.
type dispute struct {
	sides sides
	since time.Time
}

// grace is how long a conflict must last.
const grace = 300 * time.Millisecond

// lasts reports whether the conflict is one.
func (s *Share) lasts(name string, sd sides, opening bool) bool {
	sd.known, sd.base = true, neither
	d, ok := s.disputes[name]
	if !ok || d.sides != sd {
		d = dispute{sd, time.Now()}
	}
	if opening || time.Since(d.since) < grace {
		s.disputes[name] = d
		return false
	}
	delete(s.disputes, name)
	return true
}

// look reads the folder: the source of each name that is there, and all names that there
// is something to do about.
func (s *Share) look(head set, p *problems) (local map[string]string, names []string, err error) {
	if s.base, s.known, err = loadBase(s.folder.dir); err != nil {
		p.add("plugin folder", err)
	}
	there, err := s.folder.list()
	if err != nil {
		return nil, nil, err
	}
	all := make(map[string]bool)
	for name := range head.Plugins {
		all[name] = true
	}
	for name := range head.Gone {
		all[name] = true
	}
	for name := range s.base.Plugins {
		all[name] = true
	}
	for _, st := range s.catalog.Status() { // what it has room for
		all[st.Name] = true
	}
	local = make(map[string]string)
	for _, name := range there {
		if !all[name] {
			continue
		}
		source, err := s.folder.source(name)
		switch {
		case err == nil:
			local[name] = source
		case !errors.Is(err, fs.ErrNotExist):
			p.add("plugin "+name, err)
			delete(all, name) // neither there nor removed
		}
	}
	for name := range s.folder.seen {
		if local[name] == "" {
			delete(s.folder.seen, name)
		}
	}
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return local, names, nil
}

// errNotYet is of a version that the catalog has not looked at.
var errNotYet = errors.New("it is not loaded yet")

// acceptable says why a version of the folder is not published, nil if it is: this
// node must judge with it, or have it on trial. A removal always is.
func (s *Share) acceptable(name, source string) error {
	if source == "" {
		return nil
	}
	st, ok := s.status(name)
	switch {
	case !ok:
		return errNotYet
	case st.Source == source, st.Candidate != nil && st.Candidate.Source == source:
		return nil
	case st.ErrorSource == source:
		return fmt.Errorf("this node refuses it: %s", st.Error)
	}
	return errNotYet
}

func (s *Share) status(name string) (plugins.Status, bool) {
	for _, st := range s.catalog.Status() {
		if st.Name == name {
			return st, true
		}
	}
	return plugins.Status{}, false
}

// take brings the head's version of a name into the folder.
func (s *Share) take(ctx context.Context, name string, sd sides, aside bool) error {
	var bundle []byte
	if sd.head != "" {
		var err error
		if bundle, err = s.fetch(ctx, sd.head); err != nil {
			return err
		}
	}
	if aside {
		path, err := s.folder.keepAside(name, sd.local)
		if err != nil {
			return fmt.Errorf("keep aside what is in the folder: %w", err)
		}
		s.log.Error("a plugin differs from what the nodes share and was changed there too; theirs counts", "plugin", name, "kept_aside", path)
	}
	var err error
	if sd.head == "" {
		err = s.folder.remove(name, sd.local)
	} else {
		err = s.folder.put(name, sd.local, bundle)
	}
	switch {
	case errors.Is(err, errTouched):
		s.poke() // once more, with what is there now
	case err != nil:
		return err
	case sd.head == "":
		s.log.Info("plugin removed on another node", "plugin", name)
	default:
		s.log.Info("plugin taken over from another node", "plugin", name, "source", sd.head[:12])
	}
	return err
}

// pauseAfter times Config.Retry is how long a version is not asked for again.
const pauseAfter = 2

// fetch reads a version from Redis and checks it.
func (s *Share) fetch(ctx context.Context, source string) ([]byte, error) {
	if f, ok := s.failed[source]; ok && time.Since(f.at) < pauseAfter*s.cfg.Retry {
		return nil, f.err
	}
	b, err := s.store.GetUpTo(ctx, objects.Digest(source), s.cfg.Plugins.MaxBundleBytes())
	if err == nil {
		_, _, err = plugins.Unbundle(b)
	}
	if err != nil {
		if len(s.failed) > maxNames {
			clear(s.failed)
		}
		err = fmt.Errorf("version %.12s: %w", source, err)
		s.failed[source] = failure{time.Now(), err}
		return nil, err
	}
	delete(s.failed, source)
	return b, nil
}

// publish puts what the folder has into the head. It reports whether that is done;
// it is not where the head has changed meanwhile.
func (s *Share) publish(ctx context.Context, head set, version objects.Version, mine map[string]string, p *problems) (bool, error) {
	next := head.clone()
	for name, source := range mine {
		v, err := s.prepare(ctx, name, source)
		if errors.Is(err, errHere) {
			p.add("plugin "+name, err)
			delete(mine, name)
			continue
		}
		if err != nil {
			return false, err
		}
		next.put(name, v)
		if len(next.Plugins) > min(maxLive, s.cfg.Plugins.MaxPlugins) {
			p.add("plugin "+name+" stays on this node", fmt.Errorf("the nodes share %d plugins already (plugins.max)", len(head.Plugins)))
			delete(next.Plugins, name)
			delete(mine, name)
		}
	}
	if len(mine) == 0 {
		return true, nil
	}
	_, err := s.store.SetHead(ctx, setHead, version, next, next.objects()...)
	if errors.Is(err, objects.ErrConflict) {
		return false, nil
	}
	if errors.Is(err, objects.ErrMissing) { // of a version that this node has not, maybe
		s.wantAll(ctx, next)
		return false, err
	}
	if err != nil {
		return false, err
	}
	for name, source := range mine {
		s.base.set(name, source)
		if source == "" {
			s.log.Info("plugin removed on all nodes", "plugin", name)
		} else {
			s.log.Info("plugin shared with the other nodes", "plugin", name, "source", source[:12])
		}
	}
	if err := s.base.save(s.folder.dir); err != nil {
		p.add("plugin folder", err)
	}
	s.mu.Lock()
	s.living = next.Plugins
	s.mu.Unlock()
	return true, nil
}

// errHere is of something that is wrong on this node and not with Redis.
var errHere = errors.New("it cannot be published")

// prepare stores a version and what is in force beside it.
func (s *Share) prepare(ctx context.Context, name, source string) (version, error) {
	v := version{Source: source, Node: s.node, At: time.Now().UTC().Truncate(time.Millisecond)}
	if source == "" {
		return v, nil
	}
	bundle, err := s.folder.bundle(name, source)
	if err != nil {
		return v, fmt.Errorf("%w: %w", errHere, err)
	}
	if _, err := s.store.Put(ctx, "plugin", bundle); err != nil {
		return v, err
	}
	st, _ := s.status(name)
	if st.Source == "" || st.Source == source {
		return v, nil
	}
	kept, err := s.catalog.Kept(st.Source)
	if err != nil {
		s.log.Warn("the version in force is not shared; a new node will judge with the one on trial alone", "plugin", name, "err", err)
		return v, nil
	}
	if _, err := s.store.Put(ctx, "plugin", kept); err != nil {
		return v, err
	}
	v.InForce = st.Source
	return v, nil
}

// bringIntoForce loads what is in force elsewhere, beside versions on trial, where
// this node has something else or nothing.
func (s *Share) bringIntoForce(ctx context.Context, standing standings, p *problems) {
	s.mu.Lock()
	living := s.living
	s.mu.Unlock()
	for name, v := range living {
		st, ok := s.status(name)
		switch at := standing.Plugins[name]; {
		case v.InForce == "", !ok, st.Source == v.InForce, st.Source == v.Source:
			continue
		case at.Source == v.Source && at.Stage == plugins.StageEnforce:
			continue // that is over
		case s.base.Plugins[name] != v.Source:
			continue // it has not come yet
		case st.ErrorSource != v.Source && (st.Candidate == nil || st.Candidate.Source != v.Source):
			continue // the catalog has not looked at it yet
		}
		bundle, err := s.catalog.Kept(v.InForce)
		if err != nil {
			bundle, err = s.fetch(ctx, v.InForce)
		}
		if err == nil {
			err = s.catalog.Install(ctx, name, bundle)
		}
		if err != nil && ctx.Err() == nil {
			p.want(name, v.InForce, err)
		}
	}
}
