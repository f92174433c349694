package plugins

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/core/moderation"
)

// Replaced bounds the copies of versions that judged and are not loaded any
// more. They are there to explain what was decided with them, so they need not
// outlive the evidence. The oldest go first.
type Replaced struct {
	For   time.Duration // since they were replaced; 0: until there are too many
	Count int           // 0 keeps none
	Bytes int64         // of all of them together
}

// maxReplaced is the most that Replaced.Count may be.
const maxReplaced = 1_000

func (r *Replaced) check() error {
	if r.For < 0 || r.Count < 0 || r.Count > maxReplaced || r.Bytes < 0 {
		return fmt.Errorf("plugins: replaced versions: %d of %d bytes for %v, want 0 to %d and nothing below zero", r.Count, r.Bytes, r.For, maxReplaced)
	}
	return nil
}

// replacedVersion is one of them.
type replacedVersion struct {
	Name   string    `json:"name"`
	Source string    `json:"source"` // see sourceDigest, hex
	Digest string    `json:"digest"` // of the module, hex
	Config string    `json:"config_digest,omitempty"`
	Bytes  int64     `json:"bytes"` // of its files
	At     time.Time `json:"at"`    // it was replaced
}

func (v *replacedVersion) check() error {
	if !validName(v.Name) || !isDigest(v.Source) || !isDigest(v.Digest) || v.Config != "" && !isDigest(v.Config) || v.Bytes < 0 {
		return fmt.Errorf("a replaced version of %q is out of bounds", v.Name)
	}
	return nil
}

// version is a kept version of a name. Two names may share its files.
type version struct{ name, source string }

// replace moves the versions that are no longer named to those that were
// replaced, and lets go of what the bounds leave no room for.
func (s *store) replace(named map[version]bool, now time.Time) {
	kept := s.replaced[:0:0]
	for _, v := range s.replaced {
		if !named[version{v.Name, v.Source}] {
			kept = append(kept, v)
		}
	}
	for v := range s.known {
		if named[v] || s.rules.Count == 0 {
			continue
		}
		file, manifest, err := s.kept(v.source, maxKeptBytes)
		if err != nil {
			continue // it was never kept whole: nothing to explain with
		}
		m, err := manifestOf(v.name, file, manifest)
		if err != nil {
			continue
		}
		kept = append(kept, replacedVersion{
			Name: v.name, Source: v.source, Digest: digestOf(file), Config: digestConfig(m.Config),
			Bytes: int64(len(file) + len(manifest)), At: now.UTC().Truncate(time.Second),
		})
	}
	s.known = named
	total := int64(0)
	for i := len(kept) - 1; i >= 0; i-- { // the newest first
		v := &kept[i]
		total += v.Bytes
		if len(kept)-i > s.rules.Count || total > s.rules.Bytes || s.rules.For > 0 && now.Sub(v.At) >= s.rules.For {
			kept = kept[i+1:]
			break
		}
	}
	s.replaced = kept
}

// maxKeptBytes is beyond any module that was ever loaded: see
// Config.Module.FileBytes, which may have been larger when it was kept.
const maxKeptBytes = 256 << 20

// ErrNotKept is wrapped by Revive's error where there is no copy.
var ErrNotKept = errors.New("no copy of that version is kept")

// Revive loads the kept copy of a version that judged before and is not loaded
// any more, found by the plugin's name, the SHA-256 of its module and the digest
// of its configuration. It judges as it did then, but no message: it is in no
// set, counts for nothing and is in no quarantine. release frees it, after the last
// Decide. The error wraps ErrNotKept or ctx's, or says why the copy
// cannot be loaded. One is loaded at a time; others wait.
func (c *Catalog) Revive(ctx context.Context, name, digest, config string) (j moderation.Judge, release func(), err error) {
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	select {
	case c.reviving <- struct{}{}:
		defer func() { <-c.reviving }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	c.saving.Lock()
	source := ""
	for _, v := range c.store.replaced { // the newest is last
		if v.Name == name && v.Digest == digest && v.Config == config {
			source = v.Source
		}
	}
	c.saving.Unlock()
	if source == "" {
		return nil, nil, fmt.Errorf("plugin %s (module %.12s): %w: it was replaced too long ago, or made room for others", name, digest, ErrNotKept)
	}
	p, _, err := c.revive(ctx, name, source)
	if err != nil {
		return nil, nil, fmt.Errorf("plugin %s (module %.12s): %w", name, digest, err)
	}
	p.ward.q.rules = quarantineRules{}
	return p, p.retire, nil
}
