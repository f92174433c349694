package plugins_test

import (
	"runtime"
	"testing"

	"parley/core/moderation"
	"parley/plugins"
	"parley/sdk/abi"
)

// One decision with everything around it: pool, copying the input, fuel, the
// answer's checks and putting memory back.
func BenchmarkDecide(b *testing.B) {
	h := newHost(b)
	for _, c := range []struct {
		name, text, manifest string
		wasm                 []byte
	}{
		{"empty guest", "hello", "{}", allower()},
		{"scan 120 bytes, allow", text120, "{}", masker()},
		{"scan 120 bytes, redact", text120[:119] + "!", "{}", masker()},
		{"C, 200 words, 120 bytes, allow", text120, words200(), buildC(b, "words")},
		{"C, 200 words, 120 bytes, redact", text120[:111] + "badaword0", words200(), buildC(b, "words")},
		{"trap", "x", "{}", trapOn("x")},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := mustLoad(b, h, c.wasm, c.manifest)
			input, in := encoded(c.text)
			b.ReportAllocs()
			for b.Loop() {
				p.Run(input, in.Text, in.Normalized)
			}
		})
	}
}

// The same where the guest has written to its whole memory of 64 KiB.
func BenchmarkDecideFullReset(b *testing.B) {
	p := mustLoad(b, newHost(b), buildC(b, "words"), words200())
	input, in := encoded(text120)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.DecideFully(input, in.Text, in.Normalized); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(p.MemoryBytes())/1024, "KiB")
}

func encoded(text string) ([]byte, abi.Input) {
	in := abi.Input{TimeMS: 1, Text: []byte(text), Normalized: []byte(text), User: "ann", Room: "lobby", Kind: "message"}
	return abi.AppendInput(nil, &in), in
}

const text120 = "hey everyone, quick reminder that the release party starts at eight tonight, bring your own snacks and a good story okay"

func BenchmarkDecideParallel(b *testing.B) {
	p := mustLoad(b, newHost(b), buildC(b, "words"), words200())
	input, in := encoded(text120)
	b.ReportAllocs()
	b.ResetTimer() // building the guest took longer than all the decisions
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p.Decide(input, in.Text, in.Normalized)
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/float64(runtime.GOMAXPROCS(0)), "decisions/s/core")
}

// Eight plugins of 200 words on one message, with normalising it and merging
// what they say.
func BenchmarkEightPlugins(b *testing.B) {
	h, wasm, m := newHost(b), buildC(b, "words"), manifest(b, words200())
	var judges source
	for i := range 8 {
		p, err := h.Load(b.Context(), "p"+string(rune('0'+i)), wasm, m)
		if err != nil {
			b.Fatal(err)
		}
		judges = append(judges, p)
	}
	stage, err := moderation.New(moderation.Defaults(), judges)
	if err != nil {
		b.Fatal(err)
	}
	msg := &moderation.Message{Room: "lobby", User: "ann", Kind: "message", Text: text120}
	b.ReportAllocs()
	for b.Loop() {
		if res, err := stage.Judge(b.Context(), msg, nil); err != nil || res.Verdict != abi.Allow {
			b.Fatal(res, err)
		}
	}
}

// What one more instance takes of this process, its memory included.
func BenchmarkInstance(b *testing.B) {
	for _, c := range []struct {
		name, manifest string
		wasm           []byte
	}{
		{"C", words200(), buildC(b, "words")},
		{"Go", "{}", buildGoGuest(b)},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := mustLoad(b, newHost(b), c.wasm, c.manifest)
			const n = 100
			for b.Loop() {
				b.StopTimer()
				before := heap()
				var closes []func() error
				b.StartTimer()
				for range n {
					f, err := p.Another()
					if err != nil {
						b.Fatal(err)
					}
					closes = append(closes, f)
				}
				b.StopTimer()
				b.ReportMetric(float64(heap()-before)/n/1024, "KiB/instance")
				b.ReportMetric(float64(p.MemoryBytes())/1024, "KiB-guest-memory")
				for _, f := range closes {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "us/instance")
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// From bytes to a plugin that decides: in a fresh cache with a child process
// that tries it, and as the server starts again.
func BenchmarkLoad(b *testing.B) {
	child := buildTrial(b)
	with := func(dir string) *plugins.Host {
		return newHost(b, inChild(dir), func(c *plugins.Config) { c.Trial.Command = []string{child} })
	}
	for _, c := range []struct {
		name, manifest string
		wasm           []byte
	}{
		{"C", words200(), buildC(b, "words")},
		{"Go", "{}", buildGoGuest(b)},
	} {
		b.Run(c.name+", tried", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				h := with(b.TempDir())
				b.StartTimer()
				mustLoad(b, h, c.wasm, c.manifest)
			}
		})
		b.Run(c.name+", cached", func(b *testing.B) {
			dir := b.TempDir()
			mustLoad(b, with(dir), c.wasm, c.manifest)
			for b.Loop() {
				b.StopTimer()
				h := with(dir)
				b.StartTimer()
				mustLoad(b, h, c.wasm, c.manifest)
				b.StopTimer()
				if err := h.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
