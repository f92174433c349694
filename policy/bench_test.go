package policy_test

import (
	"net/netip"
	"testing"
	"time"

	"parley/core/gate"
	"parley/policy"
	"parley/policy/rego"
)

func benchEngine(b *testing.B) *policy.Engine {
	e, err := patient().Compile(b.Context(), rego.Files(), rego.Revision)
	if err != nil {
		b.Fatal(err)
	}
	return e
}

// BenchmarkEvaluate is one decision of the default policy by topdown.
func BenchmarkEvaluate(b *testing.B) {
	e, in := benchEngine(b), question()
	b.ReportAllocs()
	for b.Loop() {
		if d, err := e.Evaluate(b.Context(), in); err != nil || !d.Allow {
			b.Fatal(d, err)
		}
	}
}

// BenchmarkHit is the same decision from the cache.
func BenchmarkHit(b *testing.B) {
	live, in := policy.NewLive(benchEngine(b), "bench", quiet()), question()
	ctx := b.Context()
	live.Decide(ctx, in)
	b.ReportAllocs()
	for b.Loop() {
		if d := live.Decide(ctx, in); !d.Cached {
			b.Fatal(d)
		}
	}
}

// BenchmarkHitNamed is a cached decision whose question is completed from data
// that names something of each kind.
func BenchmarkHitNamed(b *testing.B) {
	files := rego.Files()
	files["parley/data.yaml"] = []byte(everyName)
	e, err := patient().Compile(b.Context(), files, "named")
	if err != nil {
		b.Fatal(err)
	}
	live, in, ctx := policy.NewLive(e, "bench", quiet()), question(), b.Context()
	in.Resource.ID = "team-a"
	in.Raw = gate.Raw{Now: time.Now(), Remote: netip.MustParseAddr("192.0.2.9"), Since: time.Unix(1, 0)}
	live.Decide(ctx, in)
	b.ReportAllocs()
	for b.Loop() {
		if d := live.Decide(ctx, in); !d.Cached {
			b.Fatal(d)
		}
	}
}

// BenchmarkHitLogged is a cached decision with a decision log that samples it.
func BenchmarkHitLogged(b *testing.B) {
	live, in := policy.NewLive(benchEngine(b), "bench", quiet()), question()
	live.RecordTo(newLog(b))
	ctx := b.Context()
	live.Decide(ctx, in)
	b.ReportAllocs()
	for b.Loop() {
		if d := live.Decide(ctx, in); !d.Allow {
			b.Fatal(d)
		}
	}
}

// BenchmarkHitParallel has all cores ask at once.
func BenchmarkHitParallel(b *testing.B) {
	live := policy.NewLive(benchEngine(b), "bench", quiet())
	live.Decide(b.Context(), question())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		in, ctx := question(), b.Context()
		for pb.Next() {
			if d := live.Decide(ctx, in); !d.Cached {
				b.Error(d)
				return
			}
		}
	})
}

// BenchmarkCompile is what a change costs: parse, compile, the policy's own
// tests, trial.
func BenchmarkCompile(b *testing.B) {
	files := rego.Files()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := patient().Compile(b.Context(), files, "r1"); err != nil {
			b.Fatal(err)
		}
	}
}
