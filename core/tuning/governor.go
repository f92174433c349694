package tuning

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
)

// Governor is the state of the controllers.
type Governor struct {
	Procs     Profile          `json:"procs"`     // "" = off
	GC        bool             `json:"gc"`        //
	Decisions []Decided        `json:"decisions"` // the newest that changed something, oldest first
	Counts    []DecisionsCount `json:"counts"`    // all of them
}

// Decided is a decision that changed a setting.
type Decided struct {
	At      time.Time `json:"at"`
	Setting string    `json:"setting"` // "gomaxprocs", "gogc", "memory_limit"
	From    int64     `json:"from"`
	To      int64     `json:"to"`
	Cause   string    `json:"cause"`
	Why     string    `json:"why"`
}

// DecisionsCount says how often a setting was decided on for a cause, also
// where that changed nothing.
type DecisionsCount struct {
	Setting string `json:"setting"`
	Cause   string `json:"cause"`
	Count   uint64 `json:"count"`
}

const keptDecisions = 16

// governor is the controllers' memory. All of it is guarded by Tuner.mu except
// the sampler, which Run alone uses. A nil governor is off.
type governor struct {
	cfg    Config
	sample sampler

	value    int       // GOMAXPROCS as decided; 0 = not yet
	changed  time.Time // when
	gogc     bool      // GOGC was decided
	crowded  bool      // the memory limit is raised
	recent   []Decided
	decision map[[2]string]uint64 // by setting and cause
}

func newGovernor(cfg Config) *governor {
	return &governor{cfg: cfg, sample: newSampler(), decision: make(map[[2]string]uint64)}
}

// procs, hasGOGC and isCrowded tell Apply what to leave to the controllers.
func (g *governor) procs() int {
	if g == nil {
		return 0
	}
	return g.value
}

func (g *governor) hasGOGC() bool   { return g != nil && g.gogc }
func (g *governor) isCrowded() bool { return g != nil && g.crowded }

func (g *governor) status() Governor {
	if g == nil {
		return Governor{Decisions: []Decided{}, Counts: []DecisionsCount{}}
	}
	s := Governor{Procs: g.cfg.GovernProcs, GC: g.cfg.GovernGC, Decisions: append([]Decided{}, g.recent...), Counts: []DecisionsCount{}}
	for k, n := range g.decision {
		s.Counts = append(s.Counts, DecisionsCount{Setting: k[0], Cause: k[1], Count: n})
	}
	slices.SortFunc(s.Counts, func(a, b DecisionsCount) int { // stable for people and tests
		return slices.Compare([]string{a.Setting, a.Cause}, []string{b.Setting, b.Cause})
	})
	return s
}

// govern takes one sample and lets each controller that is on decide.
func (t *Tuner) govern() {
	load := t.gov.sample()
	if t.cfg.Connections != nil {
		load.gc.Connections = t.cfg.Connections()
	}
	t.mu.Lock()
	decided := t.governLocked(load)
	t.readLocked()
	t.mu.Unlock()
	for _, d := range decided {
		level := slog.LevelInfo
		if d.From == d.To {
			level = slog.LevelDebug
		}
		t.log.Log(context.Background(), level, "tuning decision", "setting", d.Setting, "from", d.From, "to", d.To, "cause", d.Cause, "why", d.Why)
	}
}

func (t *Tuner) governLocked(load load) (decided []Decided) {
	g, now := t.gov, time.Now()
	if _, env := os.LookupEnv("GOMAXPROCS"); g.cfg.GovernProcs != "" && !env && load.cpuKnown {
		s := load.procs
		s.Procs, s.Bound, s.Steady = runtime.GOMAXPROCS(0), t.status.Bound.Procs, now.Sub(g.changed)
		d := DecideProcs(g.cfg.GovernProcs, s)
		if g.value = int(d.Value); g.value != s.Procs {
			runtime.GOMAXPROCS(g.value)
			t.byUs, g.changed = true, now
			t.status.MaxProcsReason = d.Why
		}
		decided = append(decided, g.note(now, "gomaxprocs", int64(s.Procs), d))
	}
	if !g.cfg.GovernGC {
		return decided
	}
	s := load.gc
	s.GOGC, s.Limit = current()
	s.Cgroup = t.status.CgroupLimit
	if _, env := os.LookupEnv("GOMEMLIMIT"); !env && g.cfg.MemoryLimit == Auto && s.Cgroup > 0 {
		d := DecideMemoryLimit(s)
		if d.Value != s.Limit {
			debug.SetMemoryLimit(d.Value)
		}
		g.crowded = d.Value == s.Cgroup/100*percentCrowded
		decided = append(decided, g.note(now, "memory_limit", s.Limit, d))
		s.Limit = d.Value
	}
	if _, env := os.LookupEnv("GOGC"); !env {
		d := DecideGOGC(s)
		if d.Value != int64(s.GOGC) {
			debug.SetGCPercent(int(d.Value)) // collects
			t.status.GOGCReason = "runtime.governor.gc: " + d.Why
		}
		g.gogc = true
		decided = append(decided, g.note(now, "gogc", int64(s.GOGC), d))
	}
	return decided
}

// note counts a decision and keeps it where it changed something.
func (g *governor) note(now time.Time, setting string, from int64, d Decision) Decided {
	decided := Decided{At: now, Setting: setting, From: from, To: d.Value, Cause: d.Cause, Why: d.Why}
	g.decision[[2]string{setting, d.Cause}]++
	if from != d.Value {
		g.recent = append(g.recent, decided)
		if n := len(g.recent) - keptDecisions; n > 0 {
			g.recent = slices.Delete(g.recent, 0, n)
		}
	}
	return decided
}
