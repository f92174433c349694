package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

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
	if len(tests) == 0 {
		return 0, nil
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
		return 0, problemsOf("", err).err()
	}
	var found Problems
	passed := 0
	for r := range results { // closed once the runner's goroutines have ended
		switch {
		case r.Pass():
			passed++
		case !r.Skip:
			found = append(found, failedTest(r))
		}
	}
	switch {
	case ctx.Err() != nil:
		return 0, fmt.Errorf("run the policy's tests: %w", ctx.Err())
	case total.Err() != nil:
		found = append(found, Problem{Reason: fmt.Sprintf("the tests took more than %v together", testsTotalFactor*o.TestTimeout)})
	}
	return passed, found.err()
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
