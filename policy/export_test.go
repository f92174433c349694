package policy

import (
	"testing"
	"time"

	"parley/core/gate"
)

// CompileUntried is Compile without the trial, for tests of rules that cannot
// answer: Compile would not let them in.
func CompileUntried(t testing.TB, rules string) *Engine {
	t.Helper()
	o := Defaults()
	o.EvalTimeout = time.Minute // see patient
	parsed, _, err := parse(Files{"p.rego": []byte(rules)})
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{facts: new(facts), revision: "untried", files: 1, limits: limits{o.EvalSteps, 10 * o.EvalTimeout}, cache: newCache(o.CacheEntries)}
	if err := e.build(t.Context(), parsed, map[string]any{}); err != nil {
		t.Fatal(err)
	}
	return e
}

// Poison puts an answer into the cache that the rules may not give.
func Poison(e *Engine, in *gate.Input, d gate.Decision) {
	key := e.reads.appendKey(nil, in)
	e.cache.put(e.cache.hash(key), key, d, 1)
}
