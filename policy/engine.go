package policy

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/topdown"

	"parley/core/gate"
)

// EntryPoint is the rule that every policy defines.
const EntryPoint = "data.parley.decision"

// Engine is one compiled policy with its decision cache. Make one with
// Compile. Any goroutine may use it; it needs no closing.
type Engine struct {
	// Set at construction and never changed.
	revision string
	files    int
	tests    int
	limits   limits
	compiler *ast.Compiler
	queryC   ast.QueryCompiler
	query    ast.Body // decision = data.parley.decision
	store    storage.Store
	txn      storage.Transaction // read-only, as old as the engine: data never changes
	reads    reading
	words    map[place]string // what the comments above rules say
	facts    *facts           // what the data calls moments, networks, accounts and rooms
	cache    *cache           // nil when switched off; synchronises itself

	distrusted atomic.Bool // the cache has given an answer that the rules do not give
}

// Revision names the policy, as given to Compile.
func (e *Engine) Revision() string { return e.revision }

// Reads lists the input fields the policy can read, as "subject.roles"; the
// decision cache's key is exactly their values.
func (e *Engine) Reads() []string {
	out := make([]string, len(e.reads))
	for i, f := range e.reads {
		out[i] = f.String()
	}
	return out
}

// Decide answers from the cache, or evaluates and remembers the answer. It
// always answers: a policy that cannot decide denies with Failed set, and such
// an answer is never remembered. in is completed, as gate.Raw says, and not
// kept.
func (e *Engine) Decide(ctx context.Context, in *gate.Input) gate.Decision {
	d, _, _ := e.decide(ctx, in)
	return d
}

// Evaluate answers without looking into the cache or filling it, and says in
// err why a failed decision failed. err is for logs and tests, never for a
// client.
func (e *Engine) Evaluate(ctx context.Context, in *gate.Input) (d gate.Decision, err error) {
	in = e.completed(in)
	return e.evaluate(ctx, e.reads.document(in))
}

// completed is a complete copy of in, which may be a record that others read.
func (e *Engine) completed(in *gate.Input) *gate.Input {
	whole := *in
	e.facts.complete(&whole)
	return &whole
}

// decide is Decide with what evaluating took, for a cached answer when it was
// evaluated, and with why a failed decision failed.
func (e *Engine) decide(ctx context.Context, in *gate.Input) (d gate.Decision, took time.Duration, err error) {
	e.facts.complete(in)
	if e.cache == nil || e.distrusted.Load() {
		return e.timed(ctx, in)
	}
	var buf [256]byte // a usual key; a longer one moves to the heap
	key := e.reads.appendKey(buf[:0], in)
	if len(key) > maxKeyBytes {
		return e.timed(ctx, in)
	}
	hash := e.cache.hash(key)
	if hit := e.cache.get(hash, key); hit != nil {
		return hit.decision, hit.took, nil
	}
	d, took, err = e.timed(ctx, in)
	if err == nil {
		e.cache.put(hash, key, d, took)
	}
	return d, took, err
}

func (e *Engine) timed(ctx context.Context, in *gate.Input) (gate.Decision, time.Duration, error) {
	begin := time.Now()
	d, err := e.evaluate(ctx, e.reads.document(in))
	return d, time.Since(begin), err
}

// whole answers over every field of the input, those that the policy is not
// thought to read as well, and by the rules alone. It is what the cache is held
// against.
func (e *Engine) whole(ctx context.Context, in *gate.Input) (gate.Decision, error) {
	return e.evaluate(ctx, everything.document(in))
}

func (e *Engine) evaluate(ctx context.Context, doc *ast.Term, tracers ...topdown.QueryTracer) (gate.Decision, error) {
	v, err := e.eval(ctx, doc, e.limits, tracers...)
	if err == nil {
		var d gate.Decision
		if d, err = decode(v); err == nil {
			d.Revision = e.revision
			return d, nil
		}
		err = fmt.Errorf("%s is malformed: %w", EntryPoint, err)
	}
	return gate.Decision{Reasons: failedReasons, Revision: e.revision, Failed: true}, err
}

// limits bound one evaluation.
type limits struct {
	steps   int           // expressions evaluated; the same on every node
	timeout time.Duration // wall clock, the backstop
}

// checkEvery is how many steps lie between two looks at the clock and the
// context: some 30 us.
const checkEvery = 64

// budget stops an evaluation that goes past its limits. OPA asks it before
// every expression, on the goroutine that evaluates, so counting needs no
// timer, no second goroutine and no synchronisation. It lives for one
// evaluation, which is why it may keep the context.
type budget struct {
	ctx   context.Context
	lim   limits
	begin time.Time
	steps int
	why   error // set once the evaluation must stop
}

// Cancel implements topdown.Cancel; nothing calls it.
func (b *budget) Cancel() {}

// Cancelled implements topdown.Cancel.
func (b *budget) Cancelled() bool {
	b.steps++
	switch {
	case b.why != nil:
	case b.steps > b.lim.steps:
		b.why = fmt.Errorf("%w: more than %d steps", errSlow, b.lim.steps)
	case b.steps%checkEvery != 0:
	case b.ctx.Err() != nil:
		b.why = b.ctx.Err()
	case time.Since(b.begin) > b.lim.timeout:
		b.why = fmt.Errorf("%w: more than %v", errSlow, b.lim.timeout)
	}
	return b.why != nil
}

// errSlow is the cause of a decision that took more than it may.
var errSlow = errors.New("the evaluation took too much")

// eval evaluates the entry point over the input document doc.
func (e *Engine) eval(ctx context.Context, doc *ast.Term, lim limits, tracers ...topdown.QueryTracer) (v ast.Value, err error) {
	defer func() { // OPA is a boundary: a fault in it denies one request and no more
		if p := recover(); p != nil {
			err = fmt.Errorf("evaluate %s: panic: %v", EntryPoint, p)
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("evaluate %s: %w", EntryPoint, err)
	}
	spent := budget{ctx: ctx, lim: lim, begin: time.Now()}
	query := topdown.NewQuery(e.query).
		WithQueryCompiler(e.queryC).
		WithCompiler(e.compiler).
		WithStore(e.store).
		WithTransaction(e.txn).
		WithInput(doc).
		WithCancel(&spent).
		WithMetrics(metrics.NoOp()).
		WithStrictBuiltinErrors(true) // a rule that cannot be computed must not pass for one that does not hold
	for _, t := range tracers {
		query = query.WithQueryTracer(t)
	}
	results, err := query.Run(ctx)
	switch {
	case spent.why != nil: // whatever OPA makes of it
		return nil, fmt.Errorf("evaluate %s: %w", EntryPoint, spent.why)
	case err != nil:
		return nil, fmt.Errorf("evaluate %s: %w", EntryPoint, err)
	case len(results) != 1:
		return nil, fmt.Errorf("%s is undefined for this input; give it a default", EntryPoint)
	}
	return results[0][resultVar].Value, nil
}

// resultVar is the variable the prepared query binds.
const resultVar = ast.Var("decision")
