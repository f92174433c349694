package plugins_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"parley/plugins"
	"parley/plugins/internal/asm"
	"parley/sdk/abi"
)

// scribbler is a guest that writes to memory and globals wherever a random
// program and its input tell it to, and now and then traps, grows or loops. It
// answers deny if it can count its messages.
func scribbler(rng *rand.Rand) []byte {
	// An address anywhere in the three pages, from a byte of the input.
	address := func() []byte {
		return asm.Cat(asm.Get(localPtr), asm.Load8(uint32(72+rng.IntN(24))), asm.Const(rng.Int32N(1500)+1), asm.I32Mul,
			asm.Const(rng.Int32()), asm.I32Add, asm.Const(3*65_536-16), 0x70, asm.Set(localI), asm.Get(localI)) // rem_u
	}
	value := func() []byte { return asm.Cat(asm.Get(localPtr), asm.Load8(uint32(72+rng.IntN(24)))) }
	// The neutral message counts as the first.
	code := asm.Cat(asm.GlobalGet(0), asm.Const(1), asm.I32GtU,
		asm.If, asm.Empty, asm.Const64(int64(abi.Pack(abi.Deny, 2048, 8))), asm.Return, asm.End,
		asm.GlobalGet(0), asm.Const(1), asm.I32Add, asm.GlobalSet(0))
	for range 4 + rng.IntN(24) {
		switch rng.IntN(12) {
		case 0, 1:
			code = asm.Cat(code, address(), value(), asm.Store(0))
		case 2:
			code = asm.Cat(code, address(), value(), 0x3a, 0, asm.U(uint32(rng.IntN(15)))) // i32.store8
		case 3:
			code = asm.Cat(code, address(), asm.Const64(rng.Int64()), 0x37, 0, asm.U(uint32(rng.IntN(8)))) // i64.store
		case 4:
			code = asm.Cat(code, address(), 0x44, 1, 2, 3, 4, 5, 6, 7, 8, 0x39, 0, 0) // f64.store
		case 5:
			code = asm.Cat(code, address(), 0xfd, 0x0c, []byte("sixteen bytes ok"), 0xfd, 0x0b, 0, 0) // v128.store
		case 6:
			code = asm.Cat(code, address(), value(), asm.Const(rng.Int32N(16)), asm.Fill())
		case 7:
			code = asm.Cat(code, address(), address(), asm.Const(rng.Int32N(16)), asm.Copy())
		case 8: // a long run, from the first half
			code = asm.Cat(code, address(), asm.Const(1), 0x76, value(), asm.Const(rng.Int32N(90_000)), asm.Fill())
		case 9:
			code = asm.Cat(code, value(), asm.Const(250), asm.I32GtU, asm.If, asm.Empty, asm.Unreachable, asm.End)
		case 10:
			code = asm.Cat(code, value(), asm.Const(245), asm.I32GtU, asm.If, asm.Empty, asm.Const(1), asm.Grow(), asm.Drop, asm.End)
		case 11:
			code = asm.Cat(code, value(), asm.Const(252), asm.I32GtU, asm.If, asm.Empty, forever, asm.End)
		}
	}
	return guest(asm.Cat(code, asm.Const64(0)), nil, func(m *asm.Module) {
		m.Min, m.Max = 3, 5
		m.Globals = []asm.Global{{Type: asm.I32, Mutable: true, Init: asm.Const(0)}}
		m.Data, m.DataAt = []byte("what lies here must lie here again"), 70_000
		m.Funcs[1].Code = asm.Const(130_000) // the input, in the last page
	})
}

// randomText is any ASCII text of 24 bytes and more.
func randomText(rng *rand.Rand) string {
	b := make([]byte, 24+rng.IntN(100))
	for i := range b {
		b[i] = byte(rng.IntN(256))
	}
	return string(b)
}

// After every decision, however it ended, memory and globals are what they
// were; the same input has the same verdict and uses the same fuel, in every
// instance and after every other input.
func TestSameInputSameVerdict(t *testing.T) {
	h := newHost(t, func(c *plugins.Config) { c.Fuel = 100_000 })
	decisions, faults := 0, 0
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 1))
		p, err := load(t, h, scribbler(rng), "{}")
		if err != nil { // the neutral message made it trap
			continue
		}
		inputs := make([]string, 8)
		want := map[string]string{}
		for i := range inputs {
			inputs[i] = randomText(rng)
		}
		for range 40 {
			text := inputs[rng.IntN(len(inputs))]
			v, r, fuel, err := run(p, text)
			got := fmt.Sprint(v, r, fuel, err)
			if before, ok := want[text]; ok && got != before {
				t.Fatalf("seed %d: got %s, before it was %s", seed, got, before)
			}
			want[text] = got
			if v == abi.Deny {
				t.Fatalf("seed %d: something is remembered", seed)
			}
			if err := p.Clean(); err != nil {
				t.Fatalf("seed %d: after %s: %v", seed, got, err)
			}
			decisions++
			if err != nil {
				faults++
			}
		}
	}
	if decisions < 2_000 || faults < 100 {
		t.Errorf("got %d decisions and %d faults: the programs test nothing", decisions, faults)
	}
}

// run is ask without quarantine, which would hide what the guest does.
func run(p *plugins.Plugin, text string) (abi.Verdict, abi.Result, uint64, error) {
	in := abi.Input{TimeMS: 1, Text: []byte(text), Normalized: []byte(text), User: "ann", Room: "lobby", Kind: "message"}
	return p.Run(abi.AppendInput(nil, &in), in.Text, in.Normalized)
}

// A pool keeps no more instances than it may, whatever became of them.
func TestPoolIsBounded(t *testing.T) {
	p := mustLoad(t, newHost(t, func(c *plugins.Config) { c.PoolSize = 3 }), trapOn("x"), "{}")
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			for k := range 60 {
				run(p, strings.Repeat("x", 1+(i+k)%2)) // every other one traps
			}
		})
	}
	wg.Wait()
	if got := p.Idle(); got > 3 {
		t.Errorf("got %d idle instances, want at most 3", got)
	}
	if err := p.Clean(); err != nil {
		t.Error(err)
	}
}

// exampleGuests are real modules with their manifests, in several languages.
func exampleGuests(t testing.TB) map[string][2][]byte {
	t.Helper()
	out := map[string][2][]byte{
		"goguest": {buildGoGuest(t), []byte("{}")},
		"words":   {buildC(t, "words"), []byte(words200())},
	}
	dir := t.TempDir()
	cmd := exec.Command("sh", "../examples/plugins/build.sh", dir)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the examples: %v\n%s", err, msg)
	}
	built, err := filepath.Glob(filepath.Join(dir, "*.wasm"))
	if err != nil || len(built) == 0 {
		t.Fatalf("got %v, %v, want examples", built, err)
	}
	for _, path := range built {
		wasm, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		side, err := os.ReadFile(strings.TrimSuffix(path, ".wasm") + ".json")
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(path), ".wasm")] = [2][]byte{wasm, side}
	}
	return out
}

// Metering changes nothing but the end of what runs too long: each module
// answers as its author built it, on the compiler and on the interpreter.
func TestSameAsUnmetered(t *testing.T) {
	texts := []string{"hello", text120, "WHY ARE WE SHOUTING", "heck! badaword0", "\u00e9\u00e8 \U0001f600", "time", "map", "remember", strings.Repeat("darn it ", 200)}
	rng := rand.New(rand.NewPCG(7, 7))
	for range 10 {
		texts = append(texts, strings.ToValidUTF8(randomText(rng), "?"))
	}
	h := newHost(t, func(c *plugins.Config) { c.CacheDir = t.TempDir() })
	for name, m := range exampleGuests(t) {
		t.Run(name, func(t *testing.T) {
			mf := manifest(t, string(m[1]))
			mf.Name = ""
			p, err := h.Load(t.Context(), "test", m[0], mf)
			if err != nil {
				t.Fatal(err)
			}
			inputs := make([][]byte, len(texts))
			answers := make([]string, len(texts))
			for i, text := range texts {
				in := abi.Input{TimeMS: 1, Text: []byte(text), Normalized: []byte(strings.ToLower(text)), User: "ann", Room: "lobby", Kind: "message"}
				inputs[i] = abi.AppendInput(nil, &in)
				v, r, _, err := p.Run(inputs[i], in.Text, in.Normalized)
				if err != nil {
					t.Fatalf("%q: %v", text, err)
				}
				answers[i] = plugins.PlainAnswer(v, nil)
				if v != abi.Allow {
					answers[i] = plugins.PlainAnswer(v, abi.AppendResult(nil, &r))
				}
				if err := p.Clean(); err != nil {
					t.Fatalf("after %q: %v", text, err)
				}
			}
			for _, engine := range []string{"compiler", "interpreter"} {
				some := inputs
				if engine == "interpreter" && len(m[0]) > 1<<20 {
					some = inputs[:5] // a Go guest takes seconds to start there
				}
				plain, err := plugins.RunPlain(engine, m[0], json.RawMessage(mf.Config), some)
				if err != nil {
					t.Fatal(err)
				}
				for i, want := range plain {
					if answers[i] != want {
						t.Errorf("%s: %q: got %s, without metering %s", engine, texts[i], answers[i], want)
					}
				}
			}
		})
	}
}
