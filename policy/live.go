package policy

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/gate"
	"parley/policy/decisionlog"
)

// Live is the policy in use: one Engine behind an atomic pointer, the counters
// that outlive it, and what an operator wants to know of both. Make one with
// NewLive. Any goroutine may use it.
type Live struct {
	log       *slog.Logger     // set at construction
	through   []string         // actions let through when undecided; set before use
	decisions *decisionlog.Log // nil: none is kept; set before use

	current  atomic.Pointer[loaded]
	counters [stripes]counters // any goroutine
	swaps    atomic.Uint64
	refused  atomic.Uint64
	let      atomic.Uint64 // decisions that through let through
	audits   atomic.Uint64 // cached answers that were checked
	wrong    atomic.Uint64 // of those, not what the rules say
	blocked  blocked

	mu          sync.Mutex
	changed     chan struct{} // closed with the next swap; guarded by mu
	lastRefusal *Refusal      // guarded by mu
	lastFailure *Failure      // guarded by mu
	lastLogged  time.Time     // guarded by mu
	unlogged    uint64        // failures since lastLogged; guarded by mu
}

// loaded is an Engine and how it came here.
type loaded struct {
	engine *Engine
	source string
	at     time.Time
	mask   decisionlog.Mask
}

// stripes spreads the counters over cache lines, so that counting does not
// make the cores wait for each other.
const stripes = 16

type counters struct {
	hits, evals, failures atomic.Uint64
	_                     [40]byte // to 64 bytes, one cache line
}

// failureLogEvery bounds how often failed decisions are logged. The log then
// says how many went before.
const failureLogEvery = time.Second

// NewLive returns a Live that decides by first, which came from source (for
// people: "built-in", "dir /etc/parley/policy").
func NewLive(first *Engine, source string, log *slog.Logger) *Live {
	l := &Live{log: log, changed: make(chan struct{})}
	l.current.Store(l.loaded(first, source))
	return l
}

// RecordTo has what is decided, and what happens to the policy, recorded in
// decisions. Call it before the first Decide.
func (l *Live) RecordTo(decisions *decisionlog.Log) {
	l.decisions = decisions
	cur := l.current.Load()
	l.current.Store(l.loaded(cur.engine, cur.source))
}

func (l *Live) loaded(e *Engine, source string) *loaded {
	cur := &loaded{engine: e, source: source, at: time.Now()}
	if l.decisions != nil {
		cur.mask = l.decisions.Mask(e.Reads())
	}
	return cur
}

// AllowOnError makes Decide let the actions through when the policy cannot
// decide about them. Call it before the first Decide.
func (l *Live) AllowOnError(actions []string) { l.through = actions }

// Changed returns a channel that is closed when another engine has gone live
// since the call, or a period of its data has begun or ended; see
// FollowPeriods.
func (l *Live) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// tellLocked tells those who wait for Changed.
func (l *Live) tellLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// auditOneIn is of how many cached answers one is checked against the rules.
// Checking takes as long as a thousand cached answers.
const auditOneIn = 8192

// Decide answers by the engine of this moment. See Engine.Decide, and
// AllowOnError for the one thing that is different here.
func (l *Live) Decide(ctx context.Context, in *gate.Input) gate.Decision {
	cur := l.current.Load()
	d, took, err := cur.engine.decide(ctx, in)
	draw := rand.Uint64() // for the stripe, the audit and the sample: different bits each
	c := &l.counters[draw%stripes]
	switch {
	case d.Cached:
		c.hits.Add(1)
		if draw>>4%auditOneIn == 0 {
			d = l.audit(ctx, cur.engine, in, d)
		}
	case err == nil:
		c.evals.Add(1)
	default:
		c.evals.Add(1)
		c.failures.Add(1)
		l.failed(in, d.Revision, err)
		if slices.Contains(l.through, in.Action.Name) {
			d.Allow, d.Reasons = true, nil
			l.let.Add(1)
			l.log.Error("POLICY COULD NOT DECIDE, LET THROUGH: policy.allow_on_error names this action", "action", in.Action.Name,
				"revision", d.Revision, "subject", in.Subject.ID, "resource", in.Resource.ID, "cause", clip(err.Error(), maxReasonBytes))
		}
	}
	if !d.Allow {
		l.blocked.add(in.Action.Name, d.Reasons)
	}
	if l.decisions != nil && (!d.Allow || d.Failed || l.decisions.Wants(in.Action.Name, uint32(draw>>32))) {
		d.ID = l.record(in, d, took, cur)
	}
	return d
}

// Rehearse answers as Decide would at this moment and leaves no trace: nothing is
// counted, recorded, logged or remembered. It is for questions about what would
// be, which people ask.
func (l *Live) Rehearse(ctx context.Context, in *gate.Input) gate.Decision {
	d, err := l.Engine().Evaluate(ctx, in)
	if err != nil && slices.Contains(l.through, in.Action.Name) {
		d.Allow, d.Reasons = true, nil
	}
	return d
}

// record is apart from Decide so that an answer that is not recorded stays on
// the stack.
func (l *Live) record(in *gate.Input, d gate.Decision, took time.Duration, by *loaded) string {
	return l.decisions.Decided(decisionlog.Made{Input: in, Decision: &d, NS: took.Nanoseconds(), Mask: by.mask, Named: by.engine.Named()})
}

// Engine returns the engine of this moment.
func (l *Live) Engine() *Engine { return l.current.Load().engine }

// Swap makes e the engine of every later Decide; decisions under way finish on
// the old one. It forgets the last refusal: what is live now is what the
// source holds.
func (l *Live) Swap(e *Engine, source string) {
	l.mu.Lock()
	old := l.current.Swap(l.loaded(e, source))
	l.lastRefusal = nil
	l.tellLocked()
	l.mu.Unlock()
	l.swaps.Add(1)
	l.happened(decisionlog.EventLive, e.revision, "", "before: "+old.engine.revision)
	l.log.Info("policy is live", "revision", e.revision, "before", old.engine.revision,
		"source", source, "files", e.files, "tests", e.tests)
}

// Refuse records and logs that a revision from source was not taken; the
// engine in use stays.
func (l *Live) Refuse(source, revision string, err error) {
	r := &Refusal{At: time.Now(), Source: source, Revision: revision}
	var o interface{ Overridable() bool }
	r.Overridable = errors.As(err, &o) && o.Overridable()
	if !errors.As(err, &r.Problems) {
		r.Problems = Problems{{Reason: clip(err.Error(), maxReasonBytes)}}
	}
	l.log.Error("POLICY REFUSED, the one in use stays", "revision", revision, "source", source,
		"in_use", l.Engine().revision, "problems", r.Problems.Error())
	l.refused.Add(1)
	l.mu.Lock()
	l.lastRefusal = r
	l.mu.Unlock()
	l.happened(decisionlog.EventRefused, revision, "", r.Problems.Error())
}

// Settle forgets the refusal of that revision: the source holds another now.
func (l *Live) Settle(revision string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lastRefusal != nil && l.lastRefusal.Revision == revision {
		l.lastRefusal = nil
	}
}

// happened records an event where decisions are recorded.
func (l *Live) happened(e decisionlog.Event, revision, by, detail string) {
	if l.decisions != nil {
		l.decisions.Happened(e, revision, by, detail)
	}
}

// failed notes a decision that the policy could not make.
func (l *Live) failed(in *gate.Input, revision string, err error) {
	now := time.Now()
	f := &Failure{
		At: now, Revision: revision, Action: in.Action.Name, Subject: in.Subject.ID,
		Resource: in.Resource.ID, Cause: clip(err.Error(), maxReasonBytes),
	}
	l.mu.Lock()
	l.lastFailure = f
	l.unlogged++
	n := l.unlogged
	due := now.Sub(l.lastLogged) >= failureLogEvery
	if due {
		l.lastLogged, l.unlogged = now, 0
	}
	l.mu.Unlock()
	if due {
		l.log.Error("policy could not decide, refused", "revision", revision, "action", f.Action,
			"subject", f.Subject, "resource", f.Resource, "cause", f.Cause, "count", n)
	}
}

// Status is what an operator sees of the policy.
type Status struct {
	Revision string    `json:"revision"`
	Source   string    `json:"source"`
	LoadedAt time.Time `json:"loaded_at"`
	Files    int       `json:"files"`
	Tests    int       `json:"tests"` // that passed before it went live
	Reads    []string  `json:"reads"` // input fields the policy can read
	// Refused is the newest revision that was not taken; nil when the source
	// holds what is live.
	Refused *Refusal `json:"refused,omitempty"`
	// Failure is the newest decision the policy could not make.
	Failure *Failure `json:"failure,omitempty"`
	// CacheOff says that the cache of this revision is switched off, because it
	// gave an answer that the rules do not give.
	CacheOff bool  `json:"cache_off,omitempty"`
	Stats    Stats `json:"stats"`
}

// Refusal says which revision was refused and why.
type Refusal struct {
	At       time.Time `json:"at"`
	Source   string    `json:"source"`
	Revision string    `json:"revision,omitempty"`
	Problems Problems  `json:"problems"`
	// Overridable says that `platform policy accept` lets the revision pass:
	// it is sound, and changes more than policy.guard allows.
	Overridable bool `json:"overridable,omitempty"`
}

// Error makes a Refusal the error that it records, with its problems.
func (r *Refusal) Error() string { return r.Problems.Error() }

// Failure is one decision that ended in policy_error.
type Failure struct {
	At       time.Time `json:"at"`
	Revision string    `json:"revision"`
	Action   string    `json:"action"`
	Subject  string    `json:"subject"`
	Resource string    `json:"resource"`
	Cause    string    `json:"cause"`
}

// Stats counts since the start of the process, across engines.
type Stats struct {
	Hits         uint64 `json:"cache_hits"`
	Evals        uint64 `json:"evals"`       // answers that were not in the cache
	Failures     uint64 `json:"failures"`    // evals that ended in policy_error
	LetThrough   uint64 `json:"let_through"` // of the failures, those that AllowOnError let through
	Swaps        uint64 `json:"swaps"`
	Refused      uint64 `json:"refused"`
	CacheEntries int    `json:"cache_entries"` // of the engine in use
	CacheSlots   int    `json:"cache_slots"`
	CacheAudits  uint64 `json:"cache_audits"` // cached answers checked against the rules
	CacheWrong   uint64 `json:"cache_wrong"`  // of those, not what the rules say
}

// Stats returns the counters.
func (l *Live) Stats() Stats {
	s := Stats{
		Swaps: l.swaps.Load(), Refused: l.refused.Load(), LetThrough: l.let.Load(), CacheAudits: l.audits.Load(), CacheWrong: l.wrong.Load(),
	}
	for i := range l.counters {
		s.Hits += l.counters[i].hits.Load()
		s.Evals += l.counters[i].evals.Load()
		s.Failures += l.counters[i].failures.Load()
	}
	c := l.Engine().cache
	s.CacheEntries, s.CacheSlots = c.len(), c.slots()
	return s
}

// Status returns a copy nothing else changes.
func (l *Live) Status() Status {
	cur := l.current.Load()
	l.mu.Lock()
	refusal, failure := l.lastRefusal, l.lastFailure // immutable once stored
	l.mu.Unlock()
	return Status{
		Revision: cur.engine.revision, Source: cur.source, LoadedAt: cur.at,
		Files: cur.engine.files, Tests: cur.engine.tests, Reads: cur.engine.Reads(),
		Refused: refusal, Failure: failure, CacheOff: cur.engine.distrusted.Load(), Stats: l.Stats(),
	}
}
