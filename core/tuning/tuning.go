// Package tuning fits the Go runtime to the machine: GOMAXPROCS to the CPU
// quota of the cgroup, GOGC to a server with many idle connections and the
// soft memory limit to the memory limit of the cgroup.
//
// Limits of a running container change, so a Tuner looks again each minute.
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
	AutoMaxProcs bool   // follow the CPU quota
	Root         string // where /proc and /sys are found; "" = "/"
}

// Status is what holds now.
type Status struct {
	CPUs             int    `json:"cpus"`               // logical CPUs this process may use
	MaxProcs         int    `json:"gomaxprocs"`         //
	MaxProcsReason   string `json:"gomaxprocs_reason"`  // for people
	GOGC             int    `json:"gogc"`               // percent; -1 = off
	GOGCReason       string `json:"gogc_reason"`        //
	MemoryLimit      int64  `json:"memory_limit"`       // bytes; 0 = none
	MemoryReason     string `json:"memory_reason"`      //
	CgroupLimit      int64  `json:"cgroup_limit"`       // bytes; 0 = none or not known
	CgroupLimitFile  string `json:"cgroup_limit_file"`  // where it stands
	CgroupLimitError string `json:"cgroup_limit_error"` // why it could not be read
}

// Tuner applies a Config again and again.
type Tuner struct {
	// Set at construction.
	cfg      Config
	log      *slog.Logger
	interval time.Duration
	setProcs func(printf func(string, ...any)) error

	mu       sync.Mutex
	status   Status
	applied  bool   // Apply has run before: from then on changes are logged
	byQuota  bool   // GOMAXPROCS was set from a quota
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
	return &Tuner{cfg: cfg, log: log, interval: defaultInterval, setProcs: setMaxProcs}, nil
}

// Run applies the configuration at once and then each minute until ctx ends.
func (t *Tuner) Run(ctx context.Context) error {
	ticker := time.NewTicker(t.interval)
	defer ticker.Stop()
	for {
		t.Apply()
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Apply looks at the machine and sets what has to be set. It logs what has
// changed, the first time everything.
func (t *Tuner) Apply() {
	group, err := MemoryLimit(t.cfg.Root)
	t.mu.Lock()
	before, first := t.status, !t.applied
	fail := t.applyLocked(group, err)
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

// applyLocked sets everything and fills t.status. It returns why GOMAXPROCS
// could not be found out, or "".
func (t *Tuner) applyLocked(group Limit, groupErr error) (fail string) {
	s := &t.status
	s.CPUs = runtime.NumCPU()
	s.CgroupLimit, s.CgroupLimitFile, s.CgroupLimitError = group.Bytes, group.File, ""
	if groupErr != nil && !errors.Is(groupErr, os.ErrNotExist) { // no cgroups here: nothing to report
		s.CgroupLimitError = groupErr.Error()
	}
	s.MaxProcsReason, fail = t.procsLocked()
	s.GOGCReason = t.gogc()
	s.MemoryReason = t.memory(group, s.CgroupLimitError)
	t.applied = true
	s.MaxProcs = runtime.GOMAXPROCS(0)
	s.GOGC, s.MemoryLimit = current()
	return fail
}

// setMaxProcs lets automaxprocs set GOMAXPROCS. Its undo function is not
// wanted: the next look corrects whatever is wrong by then.
func setMaxProcs(printf func(string, ...any)) error {
	_, err := maxprocs.Set(maxprocs.Logger(printf))
	return err
}

// procsLocked sets GOMAXPROCS. What was done is known only from the sentence
// that automaxprocs logs (maxprocs.go of v1.6.0).
func (t *Tuner) procsLocked() (reason, fail string) {
	if !t.cfg.AutoMaxProcs {
		return "runtime.automaxprocs is off", ""
	}
	var leaves bool
	err := t.setProcs(func(format string, args ...any) {
		reason = strings.TrimPrefix(fmt.Sprintf(format, args...), "maxprocs: ")
		leaves = strings.HasPrefix(reason, "Leaving ")
	})
	if err != nil {
		return "the CPU quota cannot be read: " + err.Error(), err.Error()
	}
	if leaves && t.byQuota {
		// the quota was lifted: automaxprocs keeps the old value, Go's own
		// default fits the machine again
		runtime.SetDefaultGOMAXPROCS()
		reason = "the CPU quota was lifted"
	}
	t.byQuota = strings.HasPrefix(reason, "Updating ")
	return reason, ""
}

// gogc sets GOGC and says why it has its value.
func (t *Tuner) gogc() (reason string) {
	if _, set := os.LookupEnv("GOGC"); set {
		return "GOGC in the environment"
	}
	if t.cfg.GOGC == 0 {
		return "Go's own default"
	}
	if now, _ := current(); now != t.cfg.GOGC {
		debug.SetGCPercent(t.cfg.GOGC) // collects, hence only on a change
	}
	return "runtime.gogc"
}

// memory sets the soft memory limit and says why it has its value.
func (t *Tuner) memory(group Limit, groupErr string) (reason string) {
	if _, set := os.LookupEnv("GOMEMLIMIT"); set {
		return "GOMEMLIMIT in the environment"
	}
	limit := t.cfg.MemoryLimit
	reason = "runtime.memory_limit"
	switch {
	case limit == Auto && groupErr != "":
		return "left as it was, the cgroup's limit cannot be read"
	case limit == Auto && group.Bytes > 0:
		limit = group.Bytes / 100 * percentOfCgroup
		reason = fmt.Sprintf("%d %% of %s", percentOfCgroup, group.File)
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
	return t.status
}
