package meter_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tetratelabs/wazero"

	"parley/plugins/internal/asm"
	"parley/plugins/meter"
	"parley/plugins/wasmbin"
)

// FuzzRewriteValid: what wazero accepts and Rewrite rewrites, wazero must
// accept again.
func FuzzRewriteValid(f *testing.F) {
	for _, m := range programs {
		f.Add(m.Encode())
	}
	ctx := context.Background()
	rc := engines["interpreter"].WithMemoryLimitPages(16)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wasmbin.Parse(b, wasmbin.Defaults(), func(module, _ string) bool { return module == "env" })
		if err != nil {
			return
		}
		r := wazero.NewRuntimeWithConfig(ctx, rc)
		defer r.Close(ctx)
		if _, err := r.CompileModule(ctx, m.Encode()); err != nil {
			return
		}
		for _, cfg := range []meter.Config{plenty, sliced} {
			metered, err := meter.Rewrite(m, cfg)
			if err != nil {
				return
			}
			if _, err := r.CompileModule(ctx, metered.Wasm); err != nil {
				t.Fatalf("valid before, then: %v\n%x", err, metered.Wasm)
			}
		}
	})
}

// FuzzSameBehaviour grows a program from the input, one that ends by itself,
// and runs it with and without metering, in slices and without, on both
// engines. Results, memory and fuel must agree, and with one unit less the
// metered one must stop.
func FuzzSameBehaviour(f *testing.F) {
	f.Add([]byte("\x05\x01\x02\x03\x04\x05\x06\x07\x08\x09"), uint32(3))
	f.Add([]byte("control flow grows from these bytes: 0123456789 abcdefghij"), uint32(0))
	f.Add([]byte{5, 5, 6, 7, 8, 4, 3, 6, 5, 7, 9, 9, 2, 1, 8, 7, 6, 5, 4, 3, 2, 1, 0, 200, 100, 50}, uint32(1<<31))
	f.Fuzz(func(t *testing.T, seed []byte, arg uint32) {
		if len(seed) <= 400 {
			sameBehaviour(t, seed, arg)
		}
	})
}

// TestCorpus does the same for programs that pseudo-random bytes grow into.
func TestCorpus(t *testing.T) {
	for n := range uint64(400) {
		rng := rand.New(rand.NewPCG(n, 42))
		seed := make([]byte, 20+rng.IntN(380))
		for i := range seed {
			seed[i] = byte(rng.UintN(256))
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) { sameBehaviour(t, seed, rng.Uint32()) })
	}
}

func sameBehaviour(t *testing.T, seed []byte, arg uint32) {
	t.Helper()
	const budget = 100_000 // what takes more slows the fuzzer down
	plain := (&grower{seed: seed}).module().Encode()
	probe := start(t, engines["compiler"], rewrite(t, plain, plenty).Wasm)
	probe.fill(budget)
	if _, err := probe.call("f", uint64(arg)); err != nil {
		return // ends by itself, but not soon
	}
	used := uint64(budget - probe.left())
	for engine, rc := range engines {
		unmetered := compile(t, rc, plain)
		for _, cfg := range []meter.Config{plenty, sliced} {
			metered := rewrite(t, plain, cfg)
			prog := compile(t, rc, metered.Wasm)
			want, got := unmetered.start(), prog.start()
			before := bytes.Clone(got.memory())
			compare(t, engine, want, got, "f", uint64(arg))
			checkWritten(t, got, before, metered.BlockShift)
			if got := plenty.Fuel - uint64(got.left()); got != used || used == 0 {
				t.Fatalf("%s: got %d fuel used, want %d", engine, got, used)
			}
			if got := got.global(meter.StackExport); got != plenty.StackWords {
				t.Fatalf("%s: got %d words of stack left, want all", engine, got)
			}
			// What it used is what it needs, to the last unit.
			for _, c := range []struct {
				budget uint64
				runs   bool
			}{{used, true}, {used - 1, false}, {used / 2, false}} {
				r := prog.start()
				if r.fill(c.budget); cfg == sliced { // the first slice ends somewhere in the middle
					r.set(meter.FuelExport, int64(c.budget/3))
					r.set(meter.ReserveExport, int64(c.budget-c.budget/3))
				}
				_, err := r.call("f", uint64(arg))
				if (err == nil) != c.runs || (r.left() >= 0) != c.runs || c.runs && r.left() != 0 {
					t.Fatalf("%s: got %v and %d left of %d, it needs %d", engine, err, r.left(), c.budget, used)
				}
			}
		}
	}
}

// grower makes valid programs of three functions, each of which may call those
// after it. Locals: 0 the param, 1 to 3 for values, 4 and up count loops.
type grower struct {
	seed  []byte
	fn    int // being grown
	loops int
}

const (
	valueLocals = 3
	loopLocals  = 3 // loops of one function
	functions   = 3
)

func (g *grower) next() byte {
	if len(g.seed) == 0 {
		return 0
	}
	c := g.seed[0]
	g.seed = g.seed[1:]
	return c
}

func (g *grower) module() *asm.Module {
	m := &asm.Module{Min: 1, Max: 4, Globals: []asm.Global{{Type: asm.I32, Mutable: true, Init: asm.Const(1)}}}
	for g.fn = range functions {
		g.loops = 0
		fn := f1(asm.I32, make([]byte, valueLocals+loopLocals), g.statements(4), g.value(3))
		for i := range fn.Locals {
			fn.Locals[i] = asm.I32
		}
		if g.fn > 0 {
			fn.Export = ""
		}
		m.Funcs = append(m.Funcs, fn)
	}
	return m
}

// value grows code that leaves one i32.
func (g *grower) value(depth int) []byte {
	c := g.next()
	if depth == 0 {
		c %= 3
	}
	switch c % 9 {
	case 0:
		return asm.Get(uint32(c) % (1 + valueLocals))
	case 1:
		return asm.Const(int32(c) - 100)
	case 2:
		return asm.GlobalGet(0)
	case 3:
		return asm.Cat(g.value(depth-1), g.value(depth-1), asm.I32Add)
	case 4:
		return asm.Cat(g.value(depth-1), g.value(depth-1), asm.I32Mul)
	case 5:
		return asm.Cat(g.address(depth-1), asm.Load(0))
	case 6:
		b := asm.Cat(g.value(depth-1), asm.If, asm.I32, g.statements(depth-1), g.value(depth-1), asm.Else, g.value(depth-1), asm.End)
		return b
	case 7:
		if g.fn+1 < functions {
			return asm.Cat(g.value(depth-1), asm.Call(uint32(g.fn+1+int(c)/9%(functions-g.fn-1))))
		}
		return asm.Cat(0x3f, 0)
	}
	return asm.Cat(asm.Const(int32(c%2)), asm.Grow())
}

// address grows an i32 inside the first page.
func (g *grower) address(depth int) []byte {
	return asm.Cat(g.value(depth), asm.Const(0x7ffc), 0x71)
}

// statements grows code that leaves the stack as it was.
func (g *grower) statements(depth int) (b []byte) {
	for n := g.next() % 4; n > 0 && depth > 0; n-- {
		b = append(b, g.statement(depth)...)
	}
	return b
}

func (g *grower) statement(depth int) []byte {
	switch c := g.next(); c % 11 {
	case 9:
		return asm.Cat(g.address(depth-1), g.value(depth-1), asm.ExtendU, 0x37, 0, asm.U(uint32(c)*130))
	case 10:
		return asm.Cat(g.address(depth-1), g.value(depth-1), 0xb2, 0x38, 0, asm.U(uint32(c)*100)) // as an f32
	case 0, 1:
		return asm.Cat(g.value(depth-1), asm.Set(1+uint32(c)%valueLocals))
	case 2:
		return asm.Cat(g.value(depth-1), asm.GlobalSet(0))
	case 3:
		return asm.Cat(g.address(depth-1), g.value(depth-1), asm.Store(0))
	case 4:
		return asm.Cat(g.address(depth-1), g.value(depth-1), asm.Const(int32(c)*110), asm.Fill())
	case 5:
		return asm.Cat(g.address(depth-1), g.address(depth-1), asm.Const(int32(c)), asm.Copy())
	case 6:
		return g.loop(depth)
	case 7:
		b := asm.Cat(asm.Block, asm.Empty, g.statements(depth-1), g.value(depth-1), asm.BrIf(0), g.statements(depth-1), asm.End)
		return b
	}
	b := asm.Cat(g.value(depth-1), asm.If, asm.Empty, g.value(depth-1), asm.Return, asm.End)
	return b
}

// loop grows a loop of at most 7 rounds.
func (g *grower) loop(depth int) []byte {
	if g.loops == loopLocals {
		return []byte{asm.Nop}
	}
	counter := uint32(1 + valueLocals + g.loops)
	g.loops++
	rounds := int32(g.next() % 8)
	return asm.Cat(asm.Const(0), asm.Set(counter), asm.Loop, asm.Empty,
		g.statements(depth-1),
		asm.Get(counter), asm.Const(1), asm.I32Add, asm.Tee(counter), asm.Const(rounds), asm.I32LtU, asm.BrIf(0),
		asm.End)
}
