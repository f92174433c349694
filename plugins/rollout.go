package plugins

import (
	"fmt"
	"math/bits"
	"time"

	"parley/core/chat"
)

// picked reports whether a canary of percent decides about that person in that
// room. It is the same on every node and for every version of a plugin, and a
// larger percent only adds people. Another plugin's canary falls on others.
func picked(plugin string, room chat.RoomID, user chat.UserID, percent int) bool {
	h := uint64(14695981039346656037) // FNV-1a, then the finalizer of MurmurHash3: FNV alone leaves the high bits alike
	h = hashed(h, plugin)
	h = hashed(h, string(room))
	h = hashed(h, string(user))
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	hundredth, _ := bits.Mul64(h, 100)
	return int(hundredth) < percent
}

// hashed adds s and its end.
func hashed(h uint64, s string) uint64 {
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return (h ^ 0xff) * 1099511628211 // no UTF-8 text has 0xff
}

// sample is what the guards want to know of one decision.
type sample struct {
	failed, denied      bool
	compared, disagreed bool // with the version in force, on the same message
	fuel                uint64
	time                time.Duration
}

// counts sums up samples.
type counts struct {
	decisions, failed, denied uint64
	compared, disagreed       uint64
	costly, slow              uint64 // above Guards.P99Fuel and Guards.P99Time
}

func (c *counts) sub(o counts) {
	c.decisions -= o.decisions
	c.failed -= o.failed
	c.denied -= o.denied
	c.compared -= o.compared
	c.disagreed -= o.disagreed
	c.costly -= o.costly
	c.slow -= o.slow
}

func (c *counts) add(o counts) {
	c.decisions += o.decisions
	c.failed += o.failed
	c.denied += o.denied
	c.compared += o.compared
	c.disagreed += o.disagreed
	c.costly += o.costly
	c.slow += o.slow
}

// windowParts is how many parts the guards' window has. Each takes
// MinDecisions, and the oldest goes when a new one begins, so the guards look
// at the last 9 to 10 times MinDecisions: as many in a quiet room as in a loud
// one.
const windowParts = 10

// trial is one stage of a version on its way into force. It is a pure state
// machine: no clock, no lock, no I/O.
type trial struct {
	rules  Rollout
	since  time.Time
	all    counts // since the stage began
	recent counts // the sum of window
	window [windowParts]counts
	at     int // the part that is being filled
}

// newTrial begins a stage.
func newTrial(rules Rollout, now time.Time) *trial {
	rules.Guards.MinDecisions = max(rules.Guards.MinDecisions, 1)
	return &trial{rules: rules, since: now}
}

// add counts one decision and returns which guard it crossed, "" for none.
func (t *trial) add(s sample) string {
	g := &t.rules.Guards
	c := counts{
		decisions: 1, failed: one(s.failed), denied: one(s.denied), compared: one(s.compared), disagreed: one(s.compared && s.disagreed),
		costly: one(g.P99Fuel > 0 && s.fuel > g.P99Fuel), slow: one(g.P99Time > 0 && s.time > g.P99Time),
	}
	if t.window[t.at].decisions >= uint64(g.MinDecisions) {
		t.at = (t.at + 1) % windowParts
		t.recent.sub(t.window[t.at])
		t.window[t.at] = counts{}
	}
	t.window[t.at].add(c)
	t.recent.add(c)
	t.all.add(c)
	for _, w := range t.watched() {
		if w.crossed(g.MinDecisions) {
			return t.guard(w).reason(w.what)
		}
	}
	return ""
}

func one(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// Guard is one threshold of a rollout and how far it is from it.
type Guard struct {
	Name string `json:"guard"` // the key in rollout.guards
	// Hits of Decisions (the last 9 to 10 times min_decisions; for
	// "disagreement" those both versions decided) are what the guard counts:
	// failures, denials, differing verdicts, decisions above Above.
	Hits      uint64 `json:"hits"`
	Decisions uint64 `json:"decisions"`
	Above     string `json:"above,omitempty"` // fuel or time, of the p99 guards
	// Allowed is the share of hits that is not yet too many. As long as there
	// are fewer decisions than MinDecisions it is a share of these: then the
	// guard speaks only when the end is certain.
	Allowed      float64 `json:"allowed"`
	MinDecisions int     `json:"min_decisions"`
}

// p99 is the share that may lie above a p99.
const p99 = 0.01

// watched is a guard's present state. allowed 0: it is not watched.
type watched struct {
	name, what string
	hits, of   uint64
	allowed    float64
}

func (t *trial) watched() [5]watched {
	g, c := &t.rules.Guards, &t.recent
	all := [5]watched{
		{"error_rate", "failed", c.failed, c.decisions, g.ErrorRate},
		{"deny_rate", "were denials", c.denied, c.decisions, g.DenyRate},
		{"disagreement", "differed from the version in force", c.disagreed, c.compared, g.Disagreement},
		{"p99_fuel", "used more fuel than", c.costly, c.decisions, p99},
		{"p99_time", "took longer than", c.slow, c.decisions, p99},
	}
	if g.P99Fuel == 0 {
		all[3].allowed = 0
	}
	if g.P99Time == 0 {
		all[4].allowed = 0
	}
	return all
}

// crossed reports whether the guard speaks. Before there are least decisions
// it does so only when it would even if all that are missing were good.
func (w *watched) crossed(least int) bool {
	return w.allowed > 0 && float64(w.hits) > w.allowed*float64(max(w.of, uint64(least)))
}

// guards lists the guards that are watched.
func (t *trial) guards() []Guard {
	var out []Guard
	for _, w := range t.watched() {
		if w.allowed > 0 {
			out = append(out, t.guard(w))
		}
	}
	return out
}

func (t *trial) guard(w watched) Guard {
	g := Guard{Name: w.name, Hits: w.hits, Decisions: w.of, Allowed: w.allowed, MinDecisions: t.rules.Guards.MinDecisions}
	switch w.name {
	case "p99_fuel":
		g.Above = fmt.Sprint(t.rules.Guards.P99Fuel)
	case "p99_time":
		g.Above = t.rules.Guards.P99Time.String()
	}
	return g
}

func (g Guard) reason(what string) string {
	if g.Above != "" {
		what += " " + g.Above
	}
	return fmt.Sprintf("%s: %d of %d decisions %s; at most %.4g %% of %d may", g.Name, g.Hits, g.Decisions, what, 100*g.Allowed, max(g.Decisions, uint64(g.MinDecisions)))
}

// due reports whether the timer moves the trial on: it has been in its stage
// long enough, and judged enough there for its guards to mean something.
func (t *trial) due(now time.Time) bool {
	return t.rules.PromoteAfter > 0 && now.Sub(t.since) >= t.rules.PromoteAfter && t.all.decisions >= uint64(t.rules.Guards.MinDecisions)
}

// nextStage is where promotion leads.
func nextStage(stage string) string {
	if stage == StageShadow {
		return StageCanary
	}
	return StageEnforce
}
