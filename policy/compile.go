package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/util"

	"parley/core/gate"
)

// Options are the limits of an Engine. Start from Defaults.
type Options struct {
	// EvalSteps bounds the expressions one decision may evaluate; one that
	// needs more denies. Counted, not timed: the same question must not be
	// answered differently because a node is busy.
	EvalSteps int
	// EvalTimeout is the backstop behind EvalSteps, in wall-clock time.
	EvalTimeout time.Duration
	// CacheEntries bounds the decision cache, rounded up to a power of two;
	// 0 switches it off.
	CacheEntries int
	// TestTimeout bounds each _test.rego test; ten times as much all together.
	TestTimeout time.Duration
}

// Defaults returns the options that Compile uses.
func Defaults() Options {
	return Options{
		EvalSteps:    20_000, // 400 times what the default policy needs; some 50 ms
		EvalTimeout:  time.Second,
		CacheEntries: 8192,
		TestTimeout:  5 * time.Second,
	}
}

// maxCacheEntries bounds CacheEntries: about 400 bytes each.
const maxCacheEntries = 1 << 20

// Validate names the first option that is out of range.
func (o Options) Validate() error {
	switch {
	case o.EvalSteps <= 0:
		return fmt.Errorf("eval_steps %d must be above zero", o.EvalSteps)
	case o.EvalTimeout <= 0:
		return fmt.Errorf("eval_timeout %v must be above zero", o.EvalTimeout)
	case o.CacheEntries < 0 || o.CacheEntries > maxCacheEntries:
		return fmt.Errorf("cache_entries %d is not within 0 and %d", o.CacheEntries, maxCacheEntries)
	case o.TestTimeout <= 0:
		return fmt.Errorf("test_timeout %v must be above zero", o.TestTimeout)
	}
	return nil
}

// Compile builds an Engine from files with the default options.
func Compile(ctx context.Context, files Files, revision string) (*Engine, error) {
	return Defaults().Compile(ctx, files, revision)
}

// Compile checks files completely and builds the Engine that answers by them
// under the name revision: bounds, strict parse and compile with pure builtins
// alone, the policy's own tests, and one trial decision per action. A policy
// that fails any step is refused with Problems; any other error means that ctx
// ended or the options are out of range.
//
// It does all that in this process. What strangers may have written goes
// through a Trial first, and then through CompileTried.
func (o Options) Compile(ctx context.Context, files Files, revision string) (*Engine, error) {
	return o.compile(ctx, files, revision, true)
}

// CompileTried builds the Engine of files that have passed a Trial, without
// running their tests again.
func (o Options) CompileTried(ctx context.Context, files Files, revision string, passed Verdict) (*Engine, error) {
	e, err := o.compile(ctx, files, revision, false)
	if err == nil {
		e.tests = passed.Tests
	}
	return e, err
}

func (o Options) compile(ctx context.Context, files Files, revision string, test bool) (_ *Engine, err error) {
	e, rules, tests, err := o.prepare(ctx, files, revision)
	if err != nil || !test {
		return e, err
	}
	defer refuseFault(&err)
	if e.tests, err = o.runTests(ctx, rules, tests, e.store, e.txn); err != nil {
		return nil, err
	}
	if err := e.trial(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// refuseFault turns a panic of OPA into a refusal: it is a boundary, and a
// policy that breaks it must not end the server.
func refuseFault(err *error) {
	if p := recover(); p != nil {
		*err = Problems{{Reason: clip(fmt.Sprintf("OPA failed on this policy: %v", p), maxReasonBytes)}}
	}
}

// prepare checks and compiles files; it runs nothing of them.
func (o Options) prepare(ctx context.Context, files Files, revision string) (e *Engine, rules, tests map[string]*ast.Module, err error) {
	defer refuseFault(&err)
	if err := o.Validate(); err != nil {
		return nil, nil, nil, fmt.Errorf("policy options: %w", err)
	}
	if err := files.Check(); err != nil {
		return nil, nil, nil, err
	}
	if rules, tests, err = parse(files); err != nil {
		return nil, nil, nil, err
	}
	data, err := dataOf(files)
	if err != nil {
		return nil, nil, nil, err
	}
	facts, err := factsOf(data)
	if err != nil {
		return nil, nil, nil, err
	}
	e = &Engine{
		facts: facts, revision: revision, files: len(files), limits: limits{o.EvalSteps, o.EvalTimeout},
		words: wordsOf(rules), cache: newCache(o.CacheEntries),
	}
	if err := e.build(ctx, rules, data); err != nil {
		return nil, nil, nil, err
	}
	return e, rules, tests, nil
}

// parse returns the modules of the rules and those of the tests.
func parse(files Files) (rules, tests map[string]*ast.Module, err error) {
	rules, tests = map[string]*ast.Module{}, map[string]*ast.Module{}
	opts := ast.ParserOptions{RegoVersion: ast.RegoV1, ProcessAnnotation: true, Capabilities: capabilities()}
	var found Problems
	for _, p := range files.Paths() {
		if !strings.HasSuffix(p, ".rego") {
			continue
		}
		m, err := ast.ParseModuleWithOpts(p, string(files[p]), opts)
		switch {
		case err != nil:
			found = append(found, problemsOf(p, err)...)
		case m == nil:
			found = append(found, Problem{File: p, Reason: "the file is empty"})
		case len(tooLong(m)) > 0:
			found = append(found, tooLong(m)...)
		case isTest(p):
			tests[p] = m
		default:
			rules[p] = m
		}
	}
	return rules, tests, found.err()
}

// maxRuleExprs bounds the expressions and calls of one rule. Compiling takes
// time by their square, cannot be stopped, and holds up the shutdown: 10,000
// take a second, what fits into a file hours.
const maxRuleExprs = 2000

// tooLong returns the rules of m that are beyond maxRuleExprs.
func tooLong(m *ast.Module) (found Problems) {
	for _, rule := range m.Rules {
		n := 0
		ast.NewGenericVisitor(func(x any) bool {
			switch x.(type) {
			case *ast.Expr, ast.Call:
				n++
			}
			return false
		}).Walk(rule)
		if n > maxRuleExprs {
			found = append(found, Problem{File: rule.Location.File, Line: rule.Location.Row,
				Reason: fmt.Sprintf("the rule has %d expressions and calls, at most %d are allowed; split it, or put lists into data.json", n, maxRuleExprs)})
		}
	}
	return found
}

// problemsOf turns OPA's errors into ours.
func problemsOf(file string, err error) Problems {
	var list ast.Errors
	var one *ast.Error
	switch {
	case errors.As(err, &list):
	case errors.As(err, &one):
		list = ast.Errors{one}
	default:
		return Problems{{File: file, Reason: err.Error()}}
	}
	var out Problems
	for _, e := range list {
		p := Problem{File: file, Reason: explainBuiltin(e.Message)}
		if e.Location != nil {
			p.File, p.Line = e.Location.File, e.Location.Row
		}
		out = append(out, p)
	}
	return out
}

// dataOf merges the data files into one document.
func dataOf(files Files) (map[string]any, error) {
	root := map[string]any{}
	for _, p := range files.Paths() {
		if !isData(p) {
			continue
		}
		doc, err := parseData(p, files[p])
		if err != nil {
			return nil, Problems{{File: p, Line: lineOf(err, files[p]), Reason: err.Error()}}
		}
		at := root
		if dir := path.Dir(p); dir != "." {
			for elem := range strings.SplitSeq(dir, "/") {
				next, ok := at[elem].(map[string]any)
				if !ok {
					if _, taken := at[elem]; taken {
						return nil, Problems{{File: p, Reason: fmt.Sprintf("another data file already gives %q a value", elem)}}
					}
					next = map[string]any{}
					at[elem] = next
				}
				at = next
			}
		}
		if key, ok := merge(at, doc); !ok {
			return nil, Problems{{File: p, Reason: fmt.Sprintf("another data file already gives %q a value", key)}}
		}
	}
	return root, nil
}

func parseData(p string, b []byte) (map[string]any, error) {
	var v any
	var err error
	if strings.HasSuffix(p, ".json") {
		err = util.UnmarshalJSON(b, &v) // numbers stay exact
	} else {
		err = util.Unmarshal(b, &v)
	}
	if err != nil {
		return nil, err
	}
	doc, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("a data file must hold an object at its top")
	}
	if _, err := ast.InterfaceToValue(v); err != nil { // the store would panic
		return nil, err
	}
	return doc, nil
}

// merge puts src's keys into dst; it returns the first key both have with a
// value that is not an object on both sides.
func merge(dst, src map[string]any) (conflict string, ok bool) {
	for k, v := range src {
		old, taken := dst[k]
		if !taken {
			dst[k] = v
			continue
		}
		a, aok := old.(map[string]any)
		b, bok := v.(map[string]any)
		if !aok || !bok {
			return k, false
		}
		if key, ok := merge(a, b); !ok {
			return k + "." + key, false
		}
	}
	return "", true
}

var yamlLine = regexp.MustCompile(`\bline (\d+)\b`)

// lineOf finds the line a decoder's error speaks of, 0 when it names none.
func lineOf(err error, src []byte) int {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return 1 + bytes.Count(src[:min(int(syntax.Offset), len(src))], []byte("\n"))
	}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n
	}
	return 0
}

// build compiles the rules and prepares the query.
func (e *Engine) build(ctx context.Context, rules map[string]*ast.Module, data map[string]any) error {
	e.store = inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
	txn, err := e.store.NewTransaction(ctx)
	if err != nil {
		return fmt.Errorf("open policy data: %w", err)
	}
	e.txn = txn
	e.compiler = ast.NewCompiler().
		WithCapabilities(capabilities()).
		WithStrict(true).
		WithEnablePrintStatements(false). // erases print
		WithPathConflictsCheck(storage.NonEmpty(ctx, e.store, txn))
	if e.compiler.Compile(rules); e.compiler.Failed() {
		return problemsOf("", e.compiler.Errors).err()
	}
	if len(e.compiler.GetRulesWithPrefix(ast.MustParseRef(EntryPoint))) == 0 {
		return Problems{{Reason: "no file defines " + EntryPoint + ": write package parley, and in it: default decision := {\"allow\": false}"}}
	}
	e.queryC = e.compiler.QueryCompiler()
	e.query, err = e.queryC.Compile(ast.MustParseBody(string(resultVar) + " = " + EntryPoint))
	if err != nil {
		return Problems{{Reason: fmt.Sprintf("prepare %s: %v", EntryPoint, err)}}
	}
	e.reads = readingOf(e.compiler.Modules)
	return nil
}

// trial asks one question per action and refuses a policy that cannot answer
// it. Actions that fail alike are one Problem.
func (e *Engine) trial(ctx context.Context) error {
	var found Problems
	failed := map[string][]string{} // cause -> actions
	for _, action := range gate.Actions() {
		_, err := e.Evaluate(ctx, gate.Sample(action))
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("try the policy: %w", ctx.Err())
		case err == nil:
			continue
		}
		if failed[err.Error()] = append(failed[err.Error()], action); len(failed[err.Error()]) > 1 {
			continue
		}
		p := Problem{Reason: err.Error()}
		if loc := evalLocation(err); loc != nil {
			p.File, p.Line = loc.File, loc.Row
		}
		found = append(found, p)
	}
	for i := range found {
		actions, more := failed[found[i].Reason], ""
		if n := len(actions) - 1; n > 0 {
			more = fmt.Sprintf(" and %d more", n)
		}
		found[i].Reason = fmt.Sprintf("trial decision for %s%s: %s", actions[0], more, found[i].Reason)
	}
	return found.err()
}
