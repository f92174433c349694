package tuning

import (
	"fmt"
	"math"
	"time"
)

// Bound is the most that GOMAXPROCS may be, and why.
type Bound struct {
	Procs  int    `json:"procs"`
	Reason string `json:"reason"` // for people
}

// ProcsBound returns the largest GOMAXPROCS that makes sense: the CPUs that
// cpuset and affinity leave, or their physical cores where smt is false, and
// not more than the quota rounded down, as automaxprocs rounds it. It is at
// least 1.
func ProcsBound(t Topology, q Quota, smt bool) Bound {
	b := Bound{max(1, len(t.Allowed)), fmt.Sprintf("%d CPUs may be used", max(1, len(t.Allowed)))}
	if len(t.Allowed) < len(t.Online) {
		b.Reason = fmt.Sprintf("cpuset or affinity leaves %d of %d CPUs (%v)", b.Procs, len(t.Online), t.Allowed)
	}
	if n := len(t.Cores); !smt && n > 0 && n < b.Procs {
		b = Bound{n, fmt.Sprintf("the %d CPUs are %d cores and runtime.smt is off", b.Procs, n)}
	}
	if n := int(min(q.CPUs, maxCPUs)); q.CPUs > 0 && max(1, n) < b.Procs {
		b = Bound{max(1, n), fmt.Sprintf("%s allows %.2f CPUs, rounded down", q.File, q.CPUs)}
		if n < 1 {
			b.Reason = fmt.Sprintf("%s allows %.2f CPUs, and 1 is the least", q.File, q.CPUs)
		}
	}
	return b
}

// Profile is how DecideProcs weighs time to answer against work done.
type Profile string

// The profiles. Web keeps CPUs in reserve and reacts to scheduler latency
// early, batch fills CPUs before it takes another, mixed lies between.
const (
	Web   Profile = "web"
	Batch Profile = "batch"
	Mixed Profile = "mixed"
)

// thresholds are a profile's numbers. down < target < up keeps DecideProcs from
// swinging: see there.
type thresholds struct {
	up, target, down float64       // CPU use for each P: grow at, aim for, shrink at
	late             time.Duration // p99 scheduler latency that asks for more
	patience         time.Duration // without a change before shrinking
	least            int           // never fewer Ps, where the bound allows
}

// The figures are a start to measure from, not a finding: see docs/tuning.md.
var profiles = map[Profile]thresholds{
	Web:   {up: 0.60, target: 0.40, down: 0.25, late: time.Millisecond, patience: 2 * time.Minute, least: 2},
	Mixed: {up: 0.75, target: 0.60, down: 0.40, late: 5 * time.Millisecond, patience: time.Minute, least: 1},
	Batch: {up: 0.90, target: 0.80, down: 0.60, late: 50 * time.Millisecond, patience: 30 * time.Second, least: 1},
}

// ProcsSample is what DecideProcs looks at: the time since the last sample.
type ProcsSample struct {
	Procs      int           // GOMAXPROCS now
	Bound      int           // the most it may be
	Goroutines int           // alive now
	CPU        float64       // CPU seconds a second that the process used
	Latency    time.Duration // p99 of how long goroutines were runnable before they ran
	Steady     time.Duration // since GOMAXPROCS last changed
}

// Decision is a value with its reason.
type Decision struct {
	Value int64  // GOMAXPROCS, GOGC in percent, or bytes
	Cause string // a word for metrics: "cpu", "latency", "idle", "bound", "steady" ...
	Why   string // for people, with the figures it follows from
}

// DecideProcs returns the GOMAXPROCS that fits a sample. It is pure, and
//
//   - between 1 and Bound;
//   - monotone: more CPU use, more latency or more goroutines never give less;
//   - steady: it grows only when use is above up (or latency is high and use
//     above target), to where use is at most target, which is above down, so a
//     constant load is followed once and then left alone.
//
// An unknown profile counts as Mixed.
func DecideProcs(p Profile, s ProcsSample) Decision {
	th, ok := profiles[p]
	if !ok {
		th = profiles[Mixed]
	}
	if !(s.CPU >= 0) { // also not a number
		s.CPU = 0
	}
	bound := max(1, s.Bound)
	least := min(th.least, bound)
	if s.Procs > bound {
		return Decision{int64(bound), "bound", fmt.Sprintf("%d is above the bound of %d", s.Procs, bound)}
	}
	if s.Procs < least {
		return Decision{int64(least), "bound", fmt.Sprintf("%d is below the least of %d", s.Procs, least)}
	}
	busy := s.CPU >= th.up*float64(s.Procs)
	late := s.Latency >= th.late && s.CPU > th.target*float64(s.Procs)
	fits := int(min(math.Ceil(s.CPU/th.target), float64(bound))) // where use is at most target
	if busy || late {
		cause, why := "cpu", fmt.Sprintf("%.2f CPUs used by %d Ps", s.CPU, s.Procs)
		if !busy {
			cause, why = "latency", fmt.Sprintf("p99 scheduler latency %v with %s", s.Latency, why)
		}
		// More Ps than goroutines cannot be busy.
		if n := min(fits, max(s.Goroutines, 1)); n > s.Procs {
			return Decision{int64(n), cause, why}
		}
		return Decision{int64(s.Procs), "at_bound", why + ", and no more would help or are allowed"}
	}
	idle := s.CPU <= th.down*float64(s.Procs) && s.Latency < th.late
	if n := max(fits, least); idle && n < s.Procs && s.Steady >= th.patience {
		return Decision{int64(n), "idle", fmt.Sprintf("%.2f CPUs used by %d Ps, p99 scheduler latency %v", s.CPU, s.Procs, s.Latency)}
	}
	return Decision{int64(s.Procs), "steady", fmt.Sprintf("%.2f CPUs used by %d Ps, p99 scheduler latency %v", s.CPU, s.Procs, s.Latency)}
}
