package plugins

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"parley/core/atomicfile"
)

// What is in Config.StateDir: one file that says how every rollout stands, and
// a copy of each version it names. The plugin folder alone would not do: when a
// new version is dropped there, the one in force is gone from it.
const (
	stateName    = "rollout.json"
	versionsName = "versions" // folder of SOURCE.wasm and SOURCE.json

	maxStateBytes    = 4 << 20
	maxStatePlugins  = 2_000
	maxRollbacks     = 16    // remembered of each plugin, the newest
	maxReasonBytes   = 1_024 // of a rollback
	stateFormat      = 1
	maxOperatorBytes = 128
)

// sourceID identifies the files of a version: see sourceDigest.
type sourceID [sha256.Size]byte

func (id sourceID) String() string { return hex.EncodeToString(id[:]) }

// state is the content of the state file.
type state struct {
	Format  int                   `json:"format"`
	Plugins map[string]savedState `json:"plugins"`
	// Replaced are the versions whose copies outlive them, the oldest first.
	Replaced []replacedVersion `json:"replaced,omitempty"`
	Digest   string            `json:"digest"` // SHA-256 of this document with an empty digest, hex
}

// savedState is how one plugin's rollout stands.
type savedState struct {
	InForce   string      `json:"in_force,omitempty"` // source of the version in force, hex
	Candidate *savedTrial `json:"candidate,omitempty"`
	Rollbacks []Rollback  `json:"rollbacks,omitempty"` // oldest first
}

// stands reports whether there is a version in force or on trial.
func (p *savedState) stands() bool { return p.InForce != "" || p.Candidate != nil }

// savedTrial is a version on trial. What its guards counted is not kept.
type savedTrial struct {
	Source  string    `json:"source"`
	Stage   string    `json:"stage"`
	Percent int       `json:"percent"`
	Since   time.Time `json:"since"`
}

// Rollback is one version that was taken back.
type Rollback struct {
	Identity string    `json:"identity"` // of module and configuration, hex
	Digest   string    `json:"digest"`   // of the module, hex
	Version  string    `json:"version,omitempty"`
	Stage    string    `json:"stage"` // it was in
	Reason   string    `json:"reason"`
	By       string    `json:"by"`             // "guard", or whom the order named
	Node     string    `json:"node,omitempty"` // where, if there are several
	At       time.Time `json:"at"`
	// Blocked: the same module with the same configuration is not tried again.
	// An order "retry" ends that.
	Blocked bool `json:"blocked"`
}

// identityOf names what judges: the module and its configuration. A manifest
// that differs in anything else is the same to whoever rolled it back.
func identityOf(file []byte, m Manifest) string {
	module := ModuleDigest(file)
	h := sha256.New()
	h.Write(module[:])
	var config bytes.Buffer
	if m.Config != nil && json.Compact(&config, m.Config) == nil { // it has been parsed
		h.Write(config.Bytes())
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (s state) digest() (string, error) {
	s.Digest = ""
	b, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// encode returns the file's content.
func (s state) encode() ([]byte, error) {
	s.Format = stateFormat
	var err error
	if s.Digest, err = s.digest(); err != nil {
		return nil, err
	}
	return json.MarshalIndent(s, "", " ")
}

// decodeState reads the file's content strictly. Whatever encode would not
// have written is an error.
func decodeState(b []byte) (s state, err error) {
	if len(b) > maxStateBytes {
		return s, fmt.Errorf("it has more than %d bytes", maxStateBytes)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, err
	}
	if _, err := d.Token(); err != io.EOF {
		return s, errors.New("something follows the object")
	}
	if s.Format != stateFormat {
		return s, fmt.Errorf("it has format %d, this version reads %d", s.Format, stateFormat)
	}
	want, err := s.digest()
	if err != nil {
		return s, err
	}
	if s.Digest != want {
		return s, errors.New("its digest does not match: the file is damaged, or was changed by hand")
	}
	if len(s.Plugins) > maxStatePlugins {
		return s, fmt.Errorf("it has %d plugins, at most %d", len(s.Plugins), maxStatePlugins)
	}
	for name, p := range s.Plugins {
		if err := p.check(name); err != nil {
			return s, fmt.Errorf("plugin %q: %w", name, err)
		}
	}
	if len(s.Replaced) > maxReplaced {
		return s, fmt.Errorf("it has %d replaced versions, at most %d", len(s.Replaced), maxReplaced)
	}
	for i := range s.Replaced {
		if err := s.Replaced[i].check(); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (p *savedState) check(name string) error {
	if !validName(name) {
		return fmt.Errorf("that is no name: want %s", nameRule)
	}
	if p.InForce != "" && !isDigest(p.InForce) {
		return errors.New("in_force is no digest")
	}
	if k := p.Candidate; k != nil {
		switch {
		case !isDigest(k.Source):
			return errors.New("candidate.source is no digest")
		case k.Stage != StageShadow && k.Stage != StageCanary:
			return fmt.Errorf("candidate.stage is %q", k.Stage)
		case k.Percent < 1 || k.Percent > 100:
			return fmt.Errorf("candidate.percent is %d, want 1 to 100", k.Percent)
		}
	}
	if len(p.Rollbacks) > maxRollbacks {
		return fmt.Errorf("%d rollbacks, at most %d", len(p.Rollbacks), maxRollbacks)
	}
	for i := range p.Rollbacks {
		if err := p.Rollbacks[i].check(); err != nil {
			return err
		}
	}
	return nil
}

func (r *Rollback) check() error {
	if !isDigest(r.Identity) || !isDigest(r.Digest) || len(r.Version) > maxLabelBytes || len(r.Reason) > maxReasonBytes || len(r.By) > maxOperatorBytes || len(r.Node) > maxOperatorBytes || len(r.Stage) > maxOperatorBytes {
		return errors.New("a rollback is out of bounds")
	}
	return nil
}

func isDigest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && strings.ToLower(s) == s
}

// store keeps the state in a folder. One goroutine at a time uses it.
type store struct {
	dir   string // "" keeps nothing
	rules Replaced
	last  []byte // as it is on disk

	known    map[version]bool // whose files are kept because they are in force or on trial
	replaced []replacedVersion
}

// load reads the state. One that cannot be read is put aside, so that the next
// save does not destroy what an operator may want to look at.
func (s *store) load() (map[string]savedState, error) {
	if s.dir == "" {
		return nil, nil
	}
	path := filepath.Join(s.dir, stateName)
	b, err := readBounded(path, maxStateBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var st state
	if err == nil {
		st, err = decodeState(b)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the state of rollouts %s: %w", path, err), os.Rename(path, path+".damaged"))
	}
	s.last, s.known, s.replaced = b, named(st.Plugins), st.Replaced
	return st.Plugins, nil
}

// named lists the versions in force and on trial.
func named(plugins map[string]savedState) map[version]bool {
	out := make(map[version]bool)
	for name, p := range plugins {
		if p.InForce != "" {
			out[version{name, p.InForce}] = true
		}
		if p.Candidate != nil {
			out[version{name, p.Candidate.Source}] = true
		}
	}
	return out
}

// save writes the state, if it has changed, and removes the versions that it
// does not name.
func (s *store) save(plugins map[string]savedState, now time.Time) error {
	if s.dir == "" {
		return nil
	}
	s.replace(named(plugins), now)
	b, err := state{Plugins: plugins, Replaced: s.replaced}.encode()
	for most := maxRollbacks / 2; err == nil && len(b) > maxStateBytes && most > 0; most /= 2 {
		b, err = state{Plugins: shortened(plugins, most), Replaced: s.replaced}.encode()
	}
	if err != nil {
		return fmt.Errorf("encode the state of rollouts: %w", err)
	}
	if bytes.Equal(b, s.last) {
		return nil
	}
	if err := s.write(s.dir, stateName, b); err != nil {
		return fmt.Errorf("save the state of rollouts: %w", err)
	}
	s.last = b
	stays := make(map[string]bool)
	for v := range s.known {
		stays[v.source] = true
	}
	for _, v := range s.replaced {
		stays[v.Source] = true
	}
	files, err := os.ReadDir(filepath.Join(s.dir, versionsName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list kept versions: %w", err)
	}
	for _, f := range files {
		if !stays[strings.TrimSuffix(f.Name(), filepath.Ext(f.Name()))] {
			_ = os.Remove(filepath.Join(s.dir, versionsName, f.Name())) // the next save tries again
		}
	}
	return nil
}

// shortened keeps the newest rollbacks of each plugin, most of them, and the
// beginnings of their reasons: with one of each, what there may be fits
// maxStateBytes.
func shortened(plugins map[string]savedState, most int) map[string]savedState {
	out := make(map[string]savedState, len(plugins))
	for name, p := range plugins {
		p.Rollbacks = slices.Clone(p.Rollbacks[max(0, len(p.Rollbacks)-most):])
		for i := range p.Rollbacks {
			p.Rollbacks[i].Reason = clipped(p.Rollbacks[i].Reason, maxReasonBytes/4)
		}
		out[name] = p
	}
	return out
}

// keep copies a version's files, unless they are there.
func (s *store) keep(name string, id sourceID, file, manifest []byte) error {
	if s.dir == "" {
		return nil
	}
	if s.known == nil {
		s.known = make(map[version]bool)
	}
	s.known[version{name, id.String()}] = true // it judges, even if it is taken back before the next save
	dir := filepath.Join(s.dir, versionsName)
	if _, err := os.Stat(filepath.Join(dir, id.String()+".wasm")); err == nil {
		return nil
	}
	if manifest != nil { // before the module, whose presence says that all is there
		if err := s.write(dir, id.String()+".json", manifest); err != nil {
			return fmt.Errorf("keep a version: %w", err)
		}
	}
	if err := s.write(dir, id.String()+".wasm", file); err != nil {
		return fmt.Errorf("keep a version: %w", err)
	}
	return nil
}

// kept reads a version's files back. Files that are not what they were when
// they were kept are an error.
func (s *store) kept(source string, most int) (file, manifest []byte, err error) {
	file, manifest, err = readPlugin(filepath.Join(s.dir, versionsName), source, most)
	if err != nil {
		return nil, nil, fmt.Errorf("read a kept version: %w", err)
	}
	if got := sourceDigest(file, manifest); got.String() != source {
		return nil, nil, fmt.Errorf("the kept version %.12s is damaged", source)
	}
	return file, manifest, nil
}

// manifest reads the manifest of a kept version, whose module may be damaged.
func (s *store) manifest(name, source string) (Manifest, error) {
	dir := filepath.Join(s.dir, versionsName)
	file, manifest, err := readPlugin(dir, source, maxKeptBytes)
	if err == nil {
		if m, err := manifestOf(name, file, manifest); err == nil {
			return m, nil
		}
	}
	if manifest, err = readBounded(filepath.Join(dir, source+".json"), maxManifestBytes); err != nil {
		return Manifest{}, err
	}
	return ParseManifest(manifest)
}

// write makes a file, and its folder where there is none.
func (s *store) write(dir, name string, b []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, name), b, 0o600)
}
