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
	StateActive  = "active"  // judges messages
	StateFaulty  = "faulty"  // judges messages, and failed repeatedly of late
	StateRefused = "refused" // does not judge: no version of its file ever loaded
)

// Status is what operators see of one plugin.
type Status struct {
	Name        string    `json:"name"`
	State       string    `json:"state"`
	Version     string    `json:"version,omitempty"`
	Description string    `json:"description,omitempty"`
	Digest      string    `json:"digest,omitempty"` // SHA-256 of the module in force, hex
	Kinds       []string  `json:"kinds,omitempty"`  // absent: all
	Rooms       []string  `json:"rooms,omitempty"`  // absent: all
	OnError     string    `json:"on_error,omitempty"`
	Limits      *Limits   `json:"limits,omitempty"` // in force
	LoadedAt    time.Time `json:"loaded_at,omitzero"`
	// Error says why the file as it is now was refused. With state "active"
	// the version loaded before it is in force.
	Error     string    `json:"error,omitempty"`
	RefusedAt time.Time `json:"refused_at,omitzero"`
	LastFault string    `json:"last_fault,omitempty"`
	// Since this version was loaded.
	Decisions uint64 `json:"decisions"`
	Faults    uint64 `json:"faults"`
	Fuel      uint64 `json:"fuel"`
}

// Status returns the state of every file in the folder, sorted by name. Values
// are the caller's, apart from the slices, which nobody may change.
func (c *Catalog) Status() []Status {
	entries := c.set.Load().entries
	out := make([]Status, 0, len(entries))
	for _, e := range entries {
		s := Status{Name: e.name, State: StateRefused}
		if e.plugin != nil {
			s = e.plugin.status(time.Now())
		}
		if e.refused != nil {
			s.Error, s.RefusedAt = e.refused.Error(), e.tried
		}
		out = append(out, s)
	}
	return out
}

func (p *Plugin) status(now time.Time) Status {
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
		Decisions:   p.decisions.Load(),
		Faults:      p.faults.Load(),
		Fuel:        p.fuel.Load(),
	}
	faulty, last := p.failures.faulty(now)
	if faulty {
		s.State = StateFaulty
	}
	if last != nil {
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

// Stats sums up the plugins for metrics.
type Stats struct {
	Active, Faulty, Refused int    // plugins; Refused counts files whose present content is not in force
	Decisions, Faults, Fuel uint64 // of the versions in force
}

// Stats returns the present sums.
func (c *Catalog) Stats() Stats {
	var s Stats
	for _, p := range c.Status() {
		switch p.State {
		case StateActive:
			s.Active++
		case StateFaulty:
			s.Faulty++
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
			status = p.status(time.Now())
			p.retire()
		}
	}
	if err != nil {
		status.Error = err.Error()
	}
	return status, err
}
