package plugins_test

import (
	"testing"

	"parley/plugins"
	"parley/sdk/abi"
)

// One decision with everything around it: pool, copying the input, fuel, the
// answer's checks and putting 64 KiB of memory back.
func BenchmarkDecide(b *testing.B) {
	h := newHost(b, func(c *plugins.Config) { c.FaultLimit, c.FaultWindow = 1000, 1 }) // or a trap would be one in quarantine
	for _, c := range []struct {
		name, text string
		wasm       []byte
	}{
		{"empty guest", "hello", allower()},
		{"scan 120 bytes, allow", text120, masker()},
		{"scan 120 bytes, redact", text120[:119] + "!", masker()},
		{"trap", "x", trapOn("x")},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := mustLoad(b, h, c.wasm, "{}")
			in := abi.Input{TimeMS: 1, Text: []byte(c.text), Normalized: []byte(c.text), User: "ann", Room: "lobby", Kind: "message"}
			input := abi.AppendInput(nil, &in)
			b.ReportAllocs()
			for b.Loop() {
				p.Decide(input, in.Text, in.Normalized)
			}
		})
	}
}

const text120 = "hey everyone, quick reminder that the release party starts at eight tonight, bring your own snacks and a good story okay"

func BenchmarkDecideParallel(b *testing.B) {
	p := mustLoad(b, newHost(b), masker(), "{}")
	in := abi.Input{TimeMS: 1, Text: []byte(text120), Normalized: []byte(text120), User: "ann", Room: "lobby", Kind: "message"}
	input := abi.AppendInput(nil, &in)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p.Decide(input, in.Text, in.Normalized)
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	h := newHost(b)
	wasm := masker()
	b.ReportAllocs()
	for b.Loop() {
		mustLoad(b, h, wasm, "{}")
	}
}
