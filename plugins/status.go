package plugins

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"parley/sdk/abi"
)

// States of a plugin.
const (
	StateActive      = "active"      // judges messages
	StateQuarantined = "quarantined" // failed repeatedly and is not asked; its on_error decides
	StateTrial       = "trial"       // no version is in force yet, one is on trial
	StateAbsent      = "absent"      // must judge and is not loaded; its on_error decides
	StateRefused     = "refused"     // does not judge: no version of its file ever came into force
)

// Status is what operators see of one plugin.
type Status struct {
	Name        string    `json:"name"`
	State       string    `json:"state"`
	Version     string    `json:"version,omitempty"`
	Description string    `json:"description,omitempty"`
	Digest      string    `json:"digest,omitempty"` // SHA-256 of the module in force, hex
	Source      string    `json:"source,omitempty"` // of the files of the version in force: see SourceDigest
	Kinds       []string  `json:"kinds,omitempty"`  // absent: all
	Rooms       []string  `json:"rooms,omitempty"`  // absent: all
	OnError     string    `json:"on_error,omitempty"`
	Limits      *Limits   `json:"limits,omitempty"` // in force
	LoadedAt    time.Time `json:"loaded_at,omitzero"`
	// Error says why the file as it is now was refused. With state "active"
	// the version loaded before it is in force.
	Error       string    `json:"error,omitempty"`
	ErrorSource string    `json:"error_source,omitempty"` // of the files that were refused
	RefusedAt   time.Time `json:"refused_at,omitzero"`
	// RetryAt is when the same files are tried again, after Tries in vain; zero: not before they change.
	RetryAt   time.Time `json:"retry_at,omitzero"`
	Tries     int       `json:"tries,omitempty"`
	LastFault string    `json:"last_fault,omitempty"`
	// Since this version was loaded.
	Decisions  uint64      `json:"decisions"`
	Faults     uint64      `json:"faults"`
	Fuel       uint64      `json:"fuel"`
	Quarantine *Quarantine `json:"quarantine,omitempty"`
	// Candidate is the version on trial.
	Candidate    *Candidate `json:"candidate,omitempty"`
	LastRollback *Rollback  `json:"last_rollback,omitempty"`
}

// Candidate is what operators see of a version on trial.
type Candidate struct {
	Version      string    `json:"version,omitempty"`
	Digest       string    `json:"digest"`
	Source       string    `json:"source,omitempty"` // of its files: see SourceDigest
	Stage        string    `json:"stage"`
	Percent      int       `json:"percent"` // of people it decides about, once in canary
	Since        time.Time `json:"since"`   // in this stage
	PromoteAfter string    `json:"promote_after,omitempty"`
	// Since the stage began, or the server was started.
	Decisions uint64 `json:"decisions"`
	Faults    uint64 `json:"faults"`
	Denied    uint64 `json:"denied"`
	Compared  uint64 `json:"compared"`  // messages the version in force judged too
	Disagreed uint64 `json:"disagreed"` // of them, those it would have treated otherwise
	LastFault string `json:"last_fault,omitempty"`
	// Guards are what would roll it back, with their counts of late.
	Guards []Guard `json:"guards"`
}

// Status returns the state of every file in the folder, sorted by name. Values
// are the caller's, apart from the slices, which nobody may change.
func (c *Catalog) Status() []Status {
	entries := c.set.Load().entries
	out := make([]Status, 0, len(entries))
	for _, e := range entries {
		s := Status{Name: e.name, State: StateRefused}
		if e.plugin != nil {
			s = e.plugin.status()
		}
		if e.cand != nil {
			s.Candidate = e.cand.status()
			if e.plugin == nil {
				s.State = StateTrial
			}
		}
		if a := e.absence; a != nil {
			s.State, s.OnError, s.Kinds, s.Rooms = StateAbsent, onErrorName(a.onError), a.manifest.Kinds, a.manifest.Rooms
			s.Error = a.err.Error()
		}
		if e.again != nil {
			s.RetryAt, s.Tries = e.again.at, e.again.tries
		}
		if n := len(e.rollbacks); n > 0 {
			s.LastRollback = &e.rollbacks[n-1]
		}
		if e.refused != nil {
			s.Error, s.ErrorSource, s.RefusedAt = e.refused.Error(), e.source.String(), e.tried
		}
		out = append(out, s)
	}
	return out
}

func (p *Plugin) status() Status {
	limits := p.limits
	s := Status{
		Name:        p.name,
		State:       StateActive,
		Version:     p.manifest.Version,
		Description: p.manifest.Description,
		Digest:      p.digest,
		Kinds:       p.manifest.Kinds,
		Rooms:       p.manifest.Rooms,
		OnError:     onErrorName(p.manifest.OnError),
		Limits:      &limits,
		LoadedAt:    p.loadedAt,
		Source:      p.source.String(),
		Decisions:   p.decisions.Load(),
		Faults:      p.faults.Load(),
		Fuel:        p.fuel.Load(),
	}
	quarantine, last := p.ward.status()
	if quarantine != nil {
		s.State, s.Quarantine = StateQuarantined, quarantine
	}
	if last != nil {
		s.LastFault = last.Error()
	}
	return s
}

func (k *candidate) status() *Candidate {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := k.trial.all
	s := &Candidate{
		Version: k.plugin.manifest.Version, Digest: k.plugin.digest, Source: k.plugin.source.String(), Stage: k.stage, Percent: k.percent, Since: k.since,
		Decisions: all.decisions, Faults: all.failed, Denied: all.denied, Compared: all.compared, Disagreed: all.disagreed,
		Guards: k.trial.guards(),
	}
	if d := k.trial.rules.PromoteAfter; d > 0 {
		s.PromoteAfter = d.String()
	}
	if _, last := k.plugin.ward.status(); last != nil {
		s.LastFault = last.Error()
	}
	return s
}

func onErrorName(v abi.Verdict) string {
	switch v {
	case abi.Allow:
		return "open"
	case abi.Hold:
		return "hold"
	}
	return "closed"
}

// Folder returns why the folder could not be read at last, or why some of its
// modules are not looked at; nil is neither.
func (c *Catalog) Folder() error { return c.set.Load().err }

// Stats sums up the plugins for metrics.
type Stats struct {
	Active, Quarantined, Refused, Trial, Absent int    // plugins; Refused counts files whose present content is not in force
	Decisions, Faults, Fuel                     uint64 // of the versions in force
}

// Stats returns the present sums.
func (c *Catalog) Stats() Stats {
	var s Stats
	for _, p := range c.Status() {
		switch p.State {
		case StateActive:
			s.Active++
		case StateQuarantined:
			s.Quarantined++
		case StateAbsent:
			s.Absent++
		}
		if p.Candidate != nil {
			s.Trial++
		}
		if p.Error != "" {
			s.Refused++
		}
		s.Decisions += p.Decisions
		s.Faults += p.Faults
		s.Fuel += p.Fuel
	}
	return s
}

// Check runs the whole pipeline on one module file and the manifest beside
// it, and serves nothing. The error says what a Catalog would refuse. cfg.Dir
// is not used.
func Check(ctx context.Context, path string, cfg Config, log *slog.Logger) (Status, error) {
	h, err := NewHost(cfg, log)
	if err != nil {
		return Status{}, err
	}
	defer h.Close()
	name := strings.TrimSuffix(filepath.Base(path), ".wasm")
	status := Status{Name: name, State: StateRefused}
	file, manifest, err := readPlugin(filepath.Dir(path), name, cfg.Module.FileBytes)
	if err == nil {
		var p *Plugin
		if p, err = loadSources(ctx, h, name, file, manifest); err == nil {
			status = p.status()
			p.retire()
		}
	}
	if err != nil {
		status.Error = err.Error()
	}
	return status, err
}
