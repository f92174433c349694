// Package tuning fits the Go runtime to the machine: GOMAXPROCS to the CPU
// quota of the cgroup and to the CPUs that cpuset and affinity leave, GOGC to a
// server with many idle connections and the soft memory limit to the memory
// limit of the cgroup.
//
// Limits of a running container change, so a Tuner looks again each minute.
// Two controllers may move the values with the load: DecideProcs, DecideGOGC
// and DecideMemoryLimit are their pure rules. They are off unless Config asks
// for them, because a fixed value is right until a measurement says otherwise
// (docs/tuning.md).
//
// Where the environment sets GOMAXPROCS, GOGC or GOMEMLIMIT, it wins. All
// settings are the process's own: use one Tuner per process. New starts
// nothing; Apply and Status may be called from any goroutine.
package tuning

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"time"

	"go.uber.org/automaxprocs/maxprocs"
)

// Auto asks for 90 % of the cgroup's memory limit.
const Auto = -1

const (
	defaultInterval = time.Minute
	// The rest is for what the Go runtime does not count: the kernel's socket
	// buffers and page cache, mapped files, memory of WebAssembly code.
	percentOfCgroup = 90
)

// Config says what to set.
type Config struct {
	GOGC         int    // heap growth in percent between two collections; 0 = leave as it is
	MemoryLimit  int64  // bytes; 0 = no limit; Auto
	AutoMaxProcs bool   // follow the CPU quota and the CPUs that may be used
	SMT          bool   // count SMT siblings as CPUs; else physical cores
	Root         string // where /proc and /sys are found; "" = "/"

	// The controllers.
	GovernProcs Profile       // moves GOMAXPROCS with the load; "" = off
	GovernGC    bool          // moves GOGC, and the memory limit where that is Auto
	GovernEvery time.Duration // between two decisions; needed when one is on
	Connections func() int    // open now, for GovernGC; nil = 0. Called from Run.
}

// Status is what holds now.
type Status struct {
	CPUs             int      `json:"cpus"`               // logical CPUs this process may use
	Topology         Topology `json:"topology"`           //
	TopologyError    string   `json:"topology_error"`     // why it could not be read
	Advice           []string `json:"advice"`             // what the operator may want to do about the topology
	Quota            Quota    `json:"cpu_quota"`          // the tightest
	Bound            Bound    `json:"gomaxprocs_bound"`   // the most that GOMAXPROCS may be
	MaxProcs         int      `json:"gomaxprocs"`         //
	MaxProcsReason   string   `json:"gomaxprocs_reason"`  // for people
	GOGC             int      `json:"gogc"`               // percent; -1 = off
	GOGCReason       string   `json:"gogc_reason"`        //
	MemoryLimit      int64    `json:"memory_limit"`       // bytes; 0 = none
	MemoryReason     string   `json:"memory_reason"`      //
	CgroupLimit      int64    `json:"cgroup_limit"`       // bytes; 0 = none or not known
	CgroupLimitFile  string   `json:"cgroup_limit_file"`  // where it stands
	CgroupLimitError string   `json:"cgroup_limit_error"` // why it could not be read
	Governor         Governor `json:"governor"`           // the controllers
}

// Tuner applies a Config again and again.
type Tuner struct {
	// Set at construction.
	cfg      Config
	log      *slog.Logger
	interval time.Duration
	setProcs func(printf func(string, ...any), round func(float64) int) error
	gov      *governor

	mu       sync.Mutex
	status   Status
	applied  bool   // Apply has run before: from then on changes are logged
	byUs     bool   // GOMAXPROCS was set, so Go's own updating is off
	lastFail string // of GOMAXPROCS, logged once
}

// New checks the configuration.
func New(cfg Config, log *slog.Logger) (*Tuner, error) {
	if cfg.GOGC < 0 {
		return nil, fmt.Errorf("tuning: GOGC %d is negative", cfg.GOGC)
	}
	if cfg.MemoryLimit < Auto {
		return nil, fmt.Errorf("tuning: memory limit %d is negative", cfg.MemoryLimit)
	}
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	if _, known := profiles[cfg.GovernProcs]; !known && cfg.GovernProcs != "" {
		return nil, fmt.Errorf("tuning: unknown profile %q, want %s, %s or %s", cfg.GovernProcs, Web, Batch, Mixed)
	}
	governed := cfg.GovernProcs != "" || cfg.GovernGC
	if governed && cfg.GovernEvery <= 0 {
		return nil, fmt.Errorf("tuning: controllers decide every %v, want a time above 0", cfg.GovernEvery)
	}
	if cfg.GovernProcs != "" && !cfg.AutoMaxProcs {
		return nil, errors.New("tuning: the GOMAXPROCS controller needs automaxprocs, which gives its bound")
	}
	t := &Tuner{cfg: cfg, log: log, interval: defaultInterval, setProcs: setMaxProcs}
	if governed {
		t.gov = newGovernor(cfg)
	}
	return t, nil
}

// Run applies the configuration at once and then each minute until ctx ends,
// and lets the controllers decide in between.
func (t *Tuner) Run(ctx context.Context) error {
	ticker := time.NewTicker(t.interval)
	defer ticker.Stop()
	var decide <-chan time.Time // never, without controllers
	if t.gov != nil {
		d := time.NewTicker(t.cfg.GovernEvery)
		defer d.Stop()
		decide = d.C
	}
	t.Apply()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			t.Apply()
		case <-decide:
			t.govern()
		}
	}
}

// Apply looks at the machine and sets what has to be set. It logs what has
// changed, the first time everything.
func (t *Tuner) Apply() {
	m := look(t.cfg.Root)
	t.mu.Lock()
	before, first := t.status, !t.applied
	fail := t.applyLocked(m)
	after := t.status
	newFail := fail != "" && fail != t.lastFail
	t.lastFail = fail
	t.mu.Unlock()

	if newFail {
		t.log.Warn("CPU quota cannot be read", "error", fail)
	}
	if after.CgroupLimitError != "" && after.CgroupLimitError != before.CgroupLimitError {
		t.log.Warn("memory limit of the cgroup cannot be read", "error", after.CgroupLimitError)
	}
	if after.TopologyError != "" && after.TopologyError != before.TopologyError {
		t.log.Warn("CPU topology cannot be read", "error", after.TopologyError)
	}
	if first {
		for _, advice := range after.Advice {
			t.log.Info("CPU topology", "advice", advice)
		}
	}
	if first || after.MaxProcs != before.MaxProcs {
		t.log.Info("GOMAXPROCS", "value", after.MaxProcs, "cpus", after.CPUs, "reason", after.MaxProcsReason)
	}
	if first || after.GOGC != before.GOGC {
		t.log.Info("GOGC", "percent", after.GOGC, "reason", after.GOGCReason)
	}
	if first || after.MemoryLimit != before.MemoryLimit {
		t.log.Info("memory limit", "bytes", after.MemoryLimit, "reason", after.MemoryReason)
	}
}

// findings are what was read of the machine in one look.
type findings struct {
	memory    Limit
	memoryErr error
	quota     Quota
	cpus      Topology
	cpusErr   error // of quota or topology
}

func look(root string) (m findings) {
	m.memory, m.memoryErr = MemoryLimit(root)
	var quotaErr error
	m.cpus, m.cpusErr = ReadTopology(root)
	m.quota, quotaErr = CPUQuota(root)
	if m.cpusErr == nil {
		m.cpusErr = quotaErr
	}
	if len(m.cpus.Allowed) == 0 { // no /proc here: as many unrelated CPUs as Go has found
		m.cpus = Topology{}
		for n := range runtime.NumCPU() {
			m.cpus.Allowed = append(m.cpus.Allowed, n)
			m.cpus.Cores = append(m.cpus.Cores, CPUSet{n})
		}
		m.cpus.Online = m.cpus.Allowed
		m.cpus.Nodes = []Node{{CPUs: m.cpus.Allowed}}
	}
	return m
}

// known is the text of an error, unless it says that there is nothing to read:
// no cgroups, no Linux.
func known(err error) string {
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return ""
	}
	return err.Error()
}

// applyLocked sets everything and fills t.status. It returns why GOMAXPROCS
// could not be found out, or "".
func (t *Tuner) applyLocked(m findings) (fail string) {
	s := &t.status
	s.CPUs = len(m.cpus.Allowed)
	s.Topology, s.TopologyError, s.Advice, s.Quota = m.cpus, known(m.cpusErr), m.cpus.Advice(), m.quota
	s.Bound = ProcsBound(m.cpus, m.quota, t.cfg.SMT)
	s.CgroupLimit, s.CgroupLimitFile, s.CgroupLimitError = m.memory.Bytes, m.memory.File, known(m.memoryErr)
	s.MaxProcsReason, fail = t.procsLocked()
	s.GOGCReason = t.gogcLocked()
	s.MemoryReason = t.memoryLocked(m.memory, s.CgroupLimitError)
	t.applied = true
	t.readLocked()
	return fail
}

// readLocked notes what the runtime uses now.
func (t *Tuner) readLocked() {
	t.status.MaxProcs = runtime.GOMAXPROCS(0)
	t.status.GOGC, t.status.MemoryLimit = current()
}

// setMaxProcs lets automaxprocs set GOMAXPROCS. Its undo function is not
// wanted: the next look corrects whatever is wrong by then.
func setMaxProcs(printf func(string, ...any), round func(float64) int) error {
	_, err := maxprocs.Set(maxprocs.Logger(printf), maxprocs.RoundQuotaFunc(round))
	return err
}

// procsLocked sets GOMAXPROCS: automaxprocs by the quota it finds, held to what
// it does not read, which is the bound, and to the controller's value. What it
// did is known only from the sentence that it logs (maxprocs.go of v1.6.0).
func (t *Tuner) procsLocked() (reason, fail string) {
	if !t.cfg.AutoMaxProcs {
		return "runtime.automaxprocs is off", ""
	}
	bound := t.status.Bound
	want, why := bound.Procs, bound.Reason
	if v := t.gov.procs(); v > 0 && v < want {
		want, why = v, "runtime.governor.procs"
	}
	var said string
	var held bool // the bound or the controller is tighter than the quota
	err := t.setProcs(func(format string, args ...any) {
		said = strings.TrimPrefix(fmt.Sprintf(format, args...), "maxprocs: ")
	}, func(quota float64) int {
		n := int(quota)
		held = want < n
		return min(n, want)
	})
	switch {
	case err != nil:
		return "the CPU quota cannot be read: " + err.Error(), err.Error()
	case strings.HasPrefix(said, "Updating "):
		t.byUs = true
		if held {
			return why, ""
		}
		return said, ""
	case !strings.HasPrefix(said, "Leaving "): // the environment decides
		return said, ""
	case want < t.status.CPUs || t.gov.procs() > 0:
		runtime.GOMAXPROCS(want)
		t.byUs = true
		return why, ""
	case t.byUs:
		// automaxprocs keeps the old value; Go's own default fits the machine
		// again, and is updated by Go
		t.byUs = false
		runtime.SetDefaultGOMAXPROCS()
		return "the CPU quota was lifted", ""
	}
	return said, ""
}

// gogcLocked sets GOGC and says why it has its value.
func (t *Tuner) gogcLocked() (reason string) {
	if _, set := os.LookupEnv("GOGC"); set {
		return "GOGC in the environment"
	}
	if t.gov.hasGOGC() {
		return "runtime.governor.gc"
	}
	if t.cfg.GOGC == 0 {
		return "Go's own default"
	}
	if now, _ := current(); now != t.cfg.GOGC {
		debug.SetGCPercent(t.cfg.GOGC) // collects, hence only on a change
	}
	return "runtime.gogc"
}

// memoryLocked sets the soft memory limit and says why it has its value.
func (t *Tuner) memoryLocked(group Limit, groupErr string) (reason string) {
	if _, set := os.LookupEnv("GOMEMLIMIT"); set {
		return "GOMEMLIMIT in the environment"
	}
	limit := t.cfg.MemoryLimit
	reason = "runtime.memory_limit"
	switch {
	case limit == Auto && groupErr != "":
		return "left as it was, the cgroup's limit cannot be read"
	case limit == Auto && group.Bytes > 0:
		percent := int64(percentOfCgroup)
		if t.gov.isCrowded() {
			percent = percentCrowded
		}
		limit = group.Bytes / 100 * percent
		reason = fmt.Sprintf("%d %% of %s", percent, group.File)
	case limit == Auto:
		limit = 0
		reason = "the cgroup has no memory limit"
	}
	if limit == 0 {
		limit = math.MaxInt64 // none, see debug.SetMemoryLimit
	}
	debug.SetMemoryLimit(limit)
	return reason
}

// current reads what the runtime uses, without changing it.
func current() (gogc int, memoryLimit int64) {
	samples := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/gomemlimit:bytes"}}
	metrics.Read(samples)
	gogc = -1
	if v := samples[0].Value.Uint64(); v <= math.MaxInt32 {
		gogc = int(v)
	}
	if v := samples[1].Value.Uint64(); v < math.MaxInt64 {
		memoryLimit = int64(v)
	}
	return gogc, memoryLimit
}

// Status returns what the last Apply found and set.
func (t *Tuner) Status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.status
	s.Governor = t.gov.status()
	return s
}
