package plugins_test

import (
	"testing"

	"parley/core/moderation"
	"parley/plugins"
	"parley/sdk/abi"
)

var _ moderation.Judge = (*plugins.Plugin)(nil)
var _ moderation.Source = (*plugins.Catalog)(nil)

func TestVerdicts(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		name string
		wasm []byte
		text string
		want abi.Verdict
	}{
		{"allow", allower(), "hello", abi.Allow},
		{"flag", always(abi.Flag, &abi.Result{Code: 1, Reason: "look"}), "hello", abi.Flag},
		{"hold", always(abi.Hold, &abi.Result{Code: 2, Reason: "wait"}), "hello", abi.Hold},
		{"deny", always(abi.Deny, &abi.Result{Code: 3, Reason: "no"}), "hello", abi.Deny},
		{"masker without", masker(), "hello", abi.Allow},
		{"masker with", masker(), "hello!", abi.Redact},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mustLoad(t, h, c.wasm, "{}")
			v, r, fuel, err := ask(p, c.text)
			if err != nil || v != c.want {
				t.Fatalf("got %v, %v, want %v", v, err, c.want)
			}
			if fuel == 0 {
				t.Error("got no fuel used, want some")
			}
			if c.want == abi.Redact && (len(r.Spans) != 1 || r.Spans[0].Start != 5 || r.Reason != "no shouting") {
				t.Errorf("got %+v, want the span [5,6)", r)
			}
		})
	}
}
