package plugins

import (
	"errors"
	"sync/atomic"
	"time"

	"parley/core/moderation"
	"parley/sdk/abi"
)

// stats are the counters of one plugin's name. They go on counting when its
// versions change, so that what a monitoring system reads only rises.
type stats struct {
	inForce, candidate tally

	compared, disagreed                atomic.Uint64 // messages both versions judged
	rollbacks, promotions, quarantines atomic.Uint64
	unasked                            atomic.Uint64 // messages that came while the version in force was in quarantine, or not loaded
}

// tally counts the decisions of one role.
type tally struct {
	verdicts [len(verdictLabels)]atomic.Uint64
	fuel     histogram // in units of fuel
	time     histogram // in nanoseconds
}

// verdictLabels are the labels of decisions, by place in tally.verdicts.
var verdictLabels = [...]string{"allow", "flag", "redact", "hold", "deny", "error"}

func newStats() *stats {
	s := &stats{}
	for _, t := range []*tally{&s.inForce, &s.candidate} {
		t.fuel.init(fuelBounds)
		t.time.init(timeBounds)
	}
	return s
}

// Bounds of the histograms, rising by four: a wordlist in C, its like in Go,
// and the limits lie some steps apart.
var (
	fuelBounds = bounds(1<<8, 1<<30)
	timeBounds = bounds(uint64(256*time.Nanosecond), uint64(300*time.Millisecond))
)

func bounds(from, to uint64) (out []uint64) {
	for b := from; b <= to; b *= 4 {
		out = append(out, b)
	}
	return out
}

// add counts one decision.
func (t *tally) add(rec *moderation.Record) {
	at := len(verdictLabels) - 1
	if v := rec.Verdict; rec.Err == nil && v <= abi.Deny {
		at = int(v)
	}
	t.verdicts[at].Add(1)
	t.fuel.add(rec.Fuel)
	t.time.add(uint64(max(rec.Time, 0)))
}

// histogram counts values by size. Any goroutine may use it.
type histogram struct {
	bounds []uint64
	counts []atomic.Uint64 // one more than bounds
	sum    atomic.Uint64
}

func (h *histogram) init(bounds []uint64) {
	h.bounds, h.counts = bounds, make([]atomic.Uint64, len(bounds)+1)
}

func (h *histogram) add(v uint64) {
	i := 0
	for i < len(h.bounds) && v > h.bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(v)
}

// Histogram is a histogram's values at one time.
type Histogram struct {
	Bounds []float64 // upper bounds, rising
	Counts []uint64  // len(Bounds)+1, not cumulative
	Sum    float64
	Count  uint64
}

// read returns the values divided by unit.
func (h *histogram) read(unit float64) Histogram {
	out := Histogram{Sum: float64(h.sum.Load()) / unit}
	for _, b := range h.bounds {
		out.Bounds = append(out.Bounds, float64(b)/unit)
	}
	for i := range h.counts {
		n := h.counts[i].Load()
		out.Counts = append(out.Counts, n)
		out.Count += n
	}
	return out
}

// Roles of a version, as metrics name them.
const (
	RoleInForce   = "in_force"
	RoleCandidate = "candidate"
)

// Usage is what metrics show of one role of a plugin. It goes on counting when
// versions change.
type Usage struct {
	Role     string
	Verdicts map[string]uint64 // "error" for failures
	Fuel     Histogram
	Seconds  Histogram
}

// Counters are what metrics show of one plugin, since the server started.
type Counters struct {
	Plugin string
	Usage  []Usage // in force, candidate
	// Messages that both versions judged, and of them those they differed on.
	Compared, Disagreed                uint64
	Rollbacks, Promotions, Quarantines uint64
	Unasked                            uint64 // messages that met the version in force in quarantine, or not loaded
	// Of the version on trial: "" if there is none, else StageShadow or
	// StageCanary with the share of people it decides about.
	Stage   string
	Percent int
}

// Counters returns those of every file in the folder, sorted by name.
func (c *Catalog) Counters() []Counters {
	entries := c.set.Load().entries
	out := make([]Counters, 0, len(entries))
	for _, e := range entries {
		s := e.stats
		k := Counters{
			Plugin: e.name, Compared: s.compared.Load(), Disagreed: s.disagreed.Load(), Rollbacks: s.rollbacks.Load(),
			Promotions: s.promotions.Load(), Quarantines: s.quarantines.Load(), Unasked: s.unasked.Load(),
			Usage: []Usage{s.inForce.usage(RoleInForce), s.candidate.usage(RoleCandidate)},
		}
		if e.cand != nil {
			k.Stage, k.Percent = e.cand.stage, e.cand.share()
		}
		out = append(out, k)
	}
	return out
}

func (t *tally) usage(role string) Usage {
	u := Usage{Role: role, Verdicts: make(map[string]uint64, len(verdictLabels)), Fuel: t.fuel.read(1), Seconds: t.time.read(1e9)}
	for i, name := range verdictLabels {
		u.Verdicts[name] = t.verdicts[i].Load()
	}
	return u
}

// unasked reports whether the judge was not asked because of its quarantine.
func unasked(rec *moderation.Record) bool {
	return rec.Err != nil && errors.Is(rec.Err, moderation.ErrQuarantined)
}
