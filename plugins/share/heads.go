package share

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"parley/core/cluster/objects"
	"parley/plugins"
)

// Names of the heads.
const (
	setHead      = "plugins"
	rolloutsHead = "rollouts"
)

// Bounds of the heads. What exceeds them is refused whole.
const (
	format       = 1
	maxLive      = 64       // plugins, the most that plugins.max allows
	maxGone      = 64       // removals that are remembered, the newest
	maxNode      = 128      // bytes of a node's name
	maxValue     = 60 << 10 // of standings; a head has at most 64 KiB
	maxStandings = 2 * maxLive
)

// version is what the head "plugins" says of one name.
type version struct {
	// Source names the files, as an object and as plugins.SourceDigest does.
	Source string `json:"source"`
	// InForce is the version that was in force when this one came to be on trial;
	// "" if it was none, or this one.
	InForce string    `json:"in_force,omitempty"`
	Node    string    `json:"node"` // who published it
	At      time.Time `json:"at"`
}

// set is the value of the head "plugins".
type set struct {
	Format  int                `json:"format"`
	Plugins map[string]version `json:"plugins"`
	// Gone are names that were removed, with what they last had.
	Gone map[string]version `json:"gone,omitempty"`
}

// standings is the value of the head "rollouts".
type standings struct {
	Format  int                         `json:"format"`
	Plugins map[string]plugins.Standing `json:"plugins"`
}

// decodeStrict reads one JSON value without unknown members.
func decodeStrict(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the value")
	}
	return nil
}

// decodeSet reads the head "plugins". Nothing there is an empty set.
func decodeSet(b []byte) (s set, err error) {
	if len(b) == 0 {
		return set{Format: format}, nil
	}
	if err := decodeStrict(b, &s); err != nil {
		return set{}, err
	}
	switch {
	case s.Format != format:
		return set{}, fmt.Errorf("it has format %d, this version reads %d", s.Format, format)
	case len(s.Plugins) > maxLive || len(s.Gone) > maxGone:
		return set{}, fmt.Errorf("it has %d plugins and %d removals, at most %d and %d", len(s.Plugins), len(s.Gone), maxLive, maxGone)
	}
	for _, part := range []map[string]version{s.Plugins, s.Gone} {
		for name, v := range part {
			if err := v.check(name); err != nil {
				return set{}, fmt.Errorf("plugin %.80q: %w", name, err)
			}
		}
	}
	for name := range s.Gone {
		if _, ok := s.Plugins[name]; ok {
			return set{}, fmt.Errorf("plugin %s is there and was removed", name)
		}
	}
	return s, nil
}

func (v *version) check(name string) error {
	switch {
	case !plugins.ValidName(name):
		return fmt.Errorf("that is no name: want %s", plugins.NameRule)
	case !objects.Digest(v.Source).Valid() || v.InForce != "" && !objects.Digest(v.InForce).Valid():
		return errors.New("source or in_force is no digest")
	case len(v.Node) > maxNode:
		return errors.New("node is too long")
	}
	return nil
}

// put notes what a name has from now on, or with no source that it was removed.
func (s *set) put(name string, v version) {
	if s.Plugins == nil {
		s.Plugins = make(map[string]version)
	}
	if s.Gone == nil {
		s.Gone = make(map[string]version)
	}
	if v.Source != "" {
		s.Plugins[name] = v
		delete(s.Gone, name)
		return
	}
	if old, ok := s.Plugins[name]; ok {
		v.Source = old.Source
		delete(s.Plugins, name)
		s.Gone[name] = v
	}
	for len(s.Gone) > maxGone {
		oldest := ""
		for name, v := range s.Gone {
			if oldest == "" || v.At.Before(s.Gone[oldest].At) {
				oldest = name
			}
		}
		delete(s.Gone, oldest)
	}
}

// clone returns a copy that put may change.
func (s set) clone() set {
	out := set{Format: format, Plugins: make(map[string]version, len(s.Plugins)), Gone: make(map[string]version, len(s.Gone))}
	for name, v := range s.Plugins {
		out.Plugins[name] = v
	}
	for name, v := range s.Gone {
		out.Gone[name] = v
	}
	return out
}

// objects lists what the set needs to be kept.
func (s *set) objects() (all []objects.Digest) {
	for _, v := range s.Plugins {
		all = append(all, objects.Digest(v.Source))
		if v.InForce != "" {
			all = append(all, objects.Digest(v.InForce))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// decodeStandings reads the head "rollouts". Nothing there is no standing.
func decodeStandings(b []byte) (s standings, err error) {
	if len(b) == 0 {
		return standings{Format: format}, nil
	}
	if err := decodeStrict(b, &s); err != nil {
		return standings{}, err
	}
	switch {
	case s.Format != format:
		return standings{}, fmt.Errorf("it has format %d, this version reads %d", s.Format, format)
	case len(s.Plugins) > maxStandings:
		return standings{}, fmt.Errorf("it has %d plugins, at most %d", len(s.Plugins), maxStandings)
	}
	for name, st := range s.Plugins {
		if !plugins.ValidName(name) {
			return standings{}, fmt.Errorf("plugin %.80q: that is no name: want %s", name, plugins.NameRule)
		}
		if err := st.Check(); err != nil {
			return standings{}, fmt.Errorf("plugin %s: %w", name, err)
		}
	}
	return s, nil
}

// with returns the standings with another one of a name. Where there is no room,
// those of names that are not among the living go first, and then the reasons of
// rollbacks and all but the newest.
func (s standings) with(name string, st plugins.Standing, living func(string) bool) (standings, error) {
	out := standings{Format: format, Plugins: make(map[string]plugins.Standing, len(s.Plugins)+1)}
	for n, v := range s.Plugins {
		out.Plugins[n] = v
	}
	out.Plugins[name] = st
	if out.fits() {
		return out, nil
	}
	for n := range s.Plugins {
		if n != name && !living(n) {
			delete(out.Plugins, n)
		}
	}
	for most := plugins.MaxSharedRollbacks; most > 0 && !out.fits(); most-- {
		for n, v := range out.Plugins {
			v.Reason = clip(v.Reason)
			v.Rollbacks = slices.Clone(v.Rollbacks[max(0, len(v.Rollbacks)-most):])
			for i := range v.Rollbacks {
				v.Rollbacks[i].Reason, v.Rollbacks[i].Version = clip(v.Rollbacks[i].Reason), clip(v.Rollbacks[i].Version)
			}
			out.Plugins[n] = v
		}
	}
	if !out.fits() {
		return s, fmt.Errorf("the standings of %d plugins have more than %d bytes", len(out.Plugins), maxValue)
	}
	return out, nil
}

func (s *standings) fits() bool {
	b, err := json.Marshal(s)
	return err == nil && len(b) <= maxValue && len(s.Plugins) <= maxStandings
}

// clip shortens what people wrote, to where there is room for everybody's.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
