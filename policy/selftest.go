package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// testsTotalFactor bounds all tests together, in units of one test's timeout.
const testsTotalFactor = 10

// runTests runs the policy's own tests and returns how many passed. Tests are
// compiled with the same pure builtins, so they too give the same answer on
// every node. Tests named todo_test_… are skipped, as `opa test` does.
func (o Options) runTests(ctx context.Context, rules, tests map[string]*ast.Module, store storage.Store, txn storage.Transaction) (int, error) {
	var found Problems
	passed := 0
	err := o.eachTest(ctx, rules, tests, store, txn, func(r *tester.Result) {
		switch {
		case r.Pass():
			passed++
		case !r.Skip:
			found = append(found, failedTest(r))
		}
	})
	var more Problems
	if errors.As(err, &more) {
		found = append(found, more...)
	} else if err != nil {
		return 0, err
	}
	return passed, found.err()
}

// eachTest runs the tests and calls f with each result. The error is Problems,
// or ctx's.
func (o Options) eachTest(ctx context.Context, rules, tests map[string]*ast.Module, store storage.Store, txn storage.Transaction, f func(*tester.Result)) error {
	if len(tests) == 0 {
		return nil
	}
	all := maps.Clone(rules)
	maps.Copy(all, tests)
	compiler := ast.NewCompiler().WithCapabilities(capabilities()).WithEnablePrintStatements(true)
	total, cancel := context.WithTimeout(ctx, testsTotalFactor*o.TestTimeout)
	defer cancel()
	results, err := tester.NewRunner().
		SetCompiler(compiler).
		SetStore(store).
		SetModules(all).
		SetTimeout(o.TestTimeout).
		RaiseBuiltinErrors(true). // as Decide evaluates
		RunTests(total, txn)
	if err != nil {
		return problemsOf("", err).err()
	}
	for r := range results { // closed once the runner's goroutines have ended
		f(r)
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("run the policy's tests: %w", ctx.Err())
	case total.Err() != nil:
		return Problems{{Reason: fmt.Sprintf("the tests took more than %v together", testsTotalFactor*o.TestTimeout)}}
	}
	return nil
}

// TestResult is one test of a policy.
type TestResult struct {
	Name    string // "parley_test.test_guests_write"
	File    string
	Line    int
	Failure string // why it failed; "" when it passed
	Printed string // by print
	Took    time.Duration
}

// Test compiles files and runs their tests in this process, for whoever writes
// them. An error is Problems where the files do not compile.
func Test(ctx context.Context, o Options, files Files) (out []TestResult, err error) {
	e, rules, tests, err := o.prepare(ctx, files, "test")
	if err != nil {
		return nil, err
	}
	err = o.eachTest(ctx, rules, tests, e.store, e.txn, func(r *tester.Result) {
		if r.Skip {
			return
		}
		t := TestResult{Name: strings.TrimPrefix(r.Package, "data.") + "." + r.Name, Printed: clip(strings.TrimSpace(string(r.Output)), maxTextBytes), Took: r.Duration}
		if r.Location != nil {
			t.File, t.Line = r.Location.File, r.Location.Row
		}
		switch {
		case r.Error != nil:
			t.Failure = r.Error.Error()
		case !r.Pass():
			t.Failure = "it is not true"
		}
		out = append(out, t)
	})
	return out, err
}

func failedTest(r *tester.Result) Problem {
	p := Problem{Reason: "the test " + strings.TrimPrefix(r.Package, "data.") + "." + r.Name + " failed"}
	if r.Location != nil {
		p.File, p.Line = r.Location.File, r.Location.Row
	}
	if r.Error != nil {
		p.Reason += ": " + r.Error.Error()
	}
	if out := strings.TrimSpace(string(r.Output)); out != "" {
		p.Reason += "; it printed: " + clip(out, maxReasonBytes/2)
	}
	return p
}

// evalLocation is where in the policy an evaluation went wrong, or nil.
func evalLocation(err error) *ast.Location {
	var e *topdown.Error
	if errors.As(err, &e) {
		return e.Location
	}
	return nil
}
