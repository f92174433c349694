package meter_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"parley/plugins/internal/asm"
	"parley/plugins/meter"
	"parley/plugins/wasmbin"
)

var engines = map[string]wazero.RuntimeConfig{
	"compiler":    wazero.NewRuntimeConfigCompiler().WithDebugInfoEnabled(false),
	"interpreter": wazero.NewRuntimeConfigInterpreter().WithDebugInfoEnabled(false),
}

var (
	plenty = meter.Config{Fuel: 1 << 40, StackWords: 1 << 16, MaxPages: 16}
	// sliced is plenty in slices.
	sliced = meter.Config{Fuel: 1 << 40, Budget: 1 << 40, StackWords: 1 << 16, MaxPages: 16}
)

func rewrite(t testing.TB, wasm []byte, cfg meter.Config) *meter.Metered {
	t.Helper()
	m, err := wasmbin.Parse(wasm, wasmbin.Defaults(), func(module, _ string) bool { return module == "env" })
	if err != nil {
		t.Fatal(err)
	}
	r, err := meter.Rewrite(m, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// program is a module compiled for one engine.
type program struct {
	runtime wazero.Runtime
	code    wazero.CompiledModule
	t       testing.TB
}

func compile(t testing.TB, rc wazero.RuntimeConfig, wasm []byte) *program {
	t.Helper()
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, rc)
	t.Cleanup(func() { r.Close(ctx) })
	_, err := r.NewHostModuleBuilder("env").NewFunctionBuilder().WithFunc(func(x uint32) uint32 { return x + 1 }).Export("inc").Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	code, err := r.CompileModule(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	return &program{r, code, t}
}

func (p *program) start() *run {
	p.t.Helper()
	mod, err := p.runtime.InstantiateModule(context.Background(), p.code, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		p.t.Fatal(err)
	}
	return &run{mod, p.t}
}

// run is an instance of a program.
type run struct {
	mod api.Module
	t   testing.TB
}

func start(t testing.TB, rc wazero.RuntimeConfig, wasm []byte) *run {
	t.Helper()
	return compile(t, rc, wasm).start()
}

func (r *run) call(name string, args ...uint64) ([]uint64, error) {
	return r.mod.ExportedFunction(name).Call(context.Background(), args...)
}

func (r *run) global(name string) int64 { return int64(r.mod.ExportedGlobal(name).Get()) }

func (r *run) set(name string, v int64) {
	r.mod.ExportedGlobal(name).(api.MutableGlobal).Set(uint64(v))
}

// fill gives a budget of fuel, left tells what remains of it.
func (r *run) fill(budget uint64) {
	slices := r.mod.ExportedGlobal(meter.ReserveExport) != nil
	fuel, reserve := meter.Split(budget, slices)
	r.set(meter.FuelExport, int64(fuel))
	if slices {
		r.set(meter.ReserveExport, int64(reserve))
	}
}

func (r *run) left() int64 {
	if r.mod.ExportedGlobal(meter.ReserveExport) == nil {
		return r.global(meter.FuelExport)
	}
	return r.global(meter.FuelExport) + r.global(meter.ReserveExport)
}

func (r *run) memory() []byte {
	b, _ := r.mod.Memory().Read(0, r.mod.Memory().Size())
	return b
}

func TestSameResults(t *testing.T) {
	for name, prog := range programs {
		t.Run(name, func(t *testing.T) {
			plain := prog.Encode()
			var fuels []int64
			for how, cfg := range map[string]meter.Config{"whole": plenty, "in slices": sliced} {
				metered := rewrite(t, plain, cfg)
				for engine, rc := range engines {
					want, got := start(t, rc, plain), start(t, rc, metered.Wasm)
					got.set(meter.WrittenExport, 0) // what a start function wrote
					before := bytes.Clone(got.memory())
					for _, arg := range []uint64{0, 1, 2, 5, 100} {
						compare(t, fmt.Sprintf("%s, %s: f(%d)", engine, how, arg), want, got, "f", arg)
					}
					checkWritten(t, got, before, metered.BlockShift)
					fuels = append(fuels, got.left())
					if got := got.global(meter.StackExport); !strings.Contains(name, "outside") && name != "traps" && got != cfg.StackWords {
						t.Errorf("%s, %s: got %d words of stack left, want all %d", engine, how, got, cfg.StackWords)
					}
				}
			}
			if slices.Min(fuels) != slices.Max(fuels) {
				t.Errorf("got fuel left %v, want it equal on both engines, whole and in slices", fuels)
			}
		})
	}
}

// compare calls both and holds results, failure and memory against each other.
func compare(t testing.TB, what string, want, got *run, name string, args ...uint64) {
	t.Helper()
	w, werr := want.call(name, args...)
	g, gerr := got.call(name, args...)
	if fmt.Sprint(g) != fmt.Sprint(w) || (gerr == nil) != (werr == nil) {
		t.Fatalf("%s: got %v, %v, want %v, %v", what, g, gerr, w, werr)
	}
	if gerr != nil && strings.SplitN(gerr.Error(), "\n", 2)[0] != strings.SplitN(werr.Error(), "\n", 2)[0] {
		t.Fatalf("%s: got %v, want %v", what, gerr, werr)
	}
	if !bytes.Equal(got.memory(), want.memory()) {
		t.Fatalf("%s: memories differ", what)
	}
}

// checkWritten holds memory against what it was before: whatever changed must
// lie in a block that the mask names, or just after one.
func checkWritten(t testing.TB, r *run, before []byte, shift uint) {
	t.Helper()
	mask, now := uint64(r.global(meter.WrittenExport)), r.memory()
	marked := func(at int) bool { return at >= 0 && mask>>((at>>shift)&63)&1 != 0 }
	for i, b := range before {
		if now[i] != b && !marked(i) && !(i&(1<<shift-1) < meter.MaxSpill && marked(i-meter.MaxSpill)) {
			t.Fatalf("byte %d changed from %d to %d, but the mask %#x of blocks of %d does not say so", i, b, now[i], mask, 1<<shift)
		}
	}
}

// What a guest that writes little dirties is little.
func TestWrittenIsExact(t *testing.T) {
	m := rewrite(t, (&asm.Module{Min: 1, Funcs: []asm.Func{f1(asm.I32, nil, asm.Get(0), asm.Const(1), asm.Store(0), asm.Const(0))}}).Encode(), plenty)
	r := start(t, engines["compiler"], m.Wasm)
	for addr, want := range map[uint64]int64{0: 1, 1_023: 1, 1_024: 2, 63 << 10: -1 << 63} {
		r.set(meter.WrittenExport, 0)
		if _, err := r.call("f", addr); err != nil || r.global(meter.WrittenExport) != want {
			t.Errorf("a store at %d: got mask %#x, %v, want %#x", addr, r.global(meter.WrittenExport), err, want)
		}
	}
}

// A frame pays for the operands it may have to keep, so that a function of few
// locals and thousands of operands cannot recurse as deep as a small one.
func TestFrameCountsOperands(t *testing.T) {
	const operands = 1_000
	m := &asm.Module{Min: 1, Funcs: []asm.Func{f1(asm.I32, nil,
		bytes.Repeat(asm.Get(0), operands), asm.Get(0), asm.Call(0), bytes.Repeat([]byte{asm.I32Add}, operands))}}
	r := start(t, engines["compiler"], rewrite(t, m.Encode(), plenty).Wasm)
	before := r.left()
	if _, err := r.call("f", 1); err == nil || r.global(meter.StackExport) >= 0 {
		t.Fatalf("got %v, want the call stack to run out", err)
	}
	const calls = 1 + 65_536/operands // each call pays its price at entry
	if used := before - r.left(); used > calls*3*operands {
		t.Errorf("got %d fuel used, want no more than %d calls' worth", used, calls)
	}
}

// The prices that docs/plugin-abi.md states.
func TestPrices(t *testing.T) {
	const entry = 8
	none := asm.Cat(0xd0, asm.FuncRef)
	for _, c := range []struct {
		name string
		code []byte
		want int64
	}{
		{"nothing", nil, 0},
		{"nop and block", asm.Cat(asm.Nop, asm.Block, asm.Empty, asm.End), 1},
		{"two instructions", asm.Cat(asm.Const(1), asm.Drop), 2},
		{"division", asm.Cat(asm.Get(0), asm.Const(3), 0x6d, asm.Drop), 3 + 16},
		{"square root", asm.Cat(asm.Get(0), 0xb7, 0x9f, asm.Drop), 3 + 8},
		{"float to integer", asm.Cat(asm.Get(0), 0xb7, 0xaa, asm.Drop), 3 + 4},
		{"load", asm.Cat(asm.Get(0), asm.Load(0), asm.Drop), 2 + 4},
		{"store", asm.Cat(asm.Get(0), asm.Get(0), asm.Store(0)), 3},
		{"vector", asm.Cat(asm.Get(0), 0xfd, 0x11, asm.Drop), 2 + 6},
		{"vector square root", asm.Cat(asm.Get(0), 0xfd, 0x11, 0xfd, asm.U(0xe3), asm.Drop), 2 + 6 + 8},
		{"both branches of an if", asm.Cat(asm.Get(0), asm.If, asm.Empty, asm.Nop, asm.Const(1), asm.Drop, asm.Else, asm.Const(1), asm.Drop, asm.End), 2 + 2 + 1 + 2},
		{"a round of a loop", asm.Cat(asm.Loop, asm.Empty, asm.Const(0), asm.BrIf(0), asm.End), 1 + 6 + 2},
		{"call", asm.Call(2), 8 + entry},
		{"call of a function of 5 locals", asm.Call(3), 8 + entry + 5},
		{"call through a table", asm.Cat(asm.Const(0), 0x11, 3, 0), 1 + 8 + entry},
		{"call of an import", asm.Cat(asm.Const(1), asm.Call(0), asm.Drop), 2 + 2_000},
		{"memory.grow by nothing", asm.Cat(asm.Const(0), asm.Grow(), asm.Drop), 2 + 2_000},
		{"memory.grow by a page", asm.Cat(asm.Const(1), asm.Grow(), asm.Drop), 2 + 2_000 + 262_144},
		{"table.grow", asm.Cat(none, asm.Const(3), 0xfc, 15, 0, asm.Drop), 3 + 2_000 + 3},
		{"ref.func", asm.Cat(0xd2, 2, asm.Drop), 1 + 2_000},
		{"table.get", asm.Cat(asm.Const(0), 0x25, 0, asm.Drop), 3},
		{"memory.fill of 800 bytes", asm.Cat(asm.Const(0), asm.Const(1), asm.Const(800), asm.Fill()), 3 + 16 + 100},
		{"memory.copy of 7 bytes", asm.Cat(asm.Const(0), asm.Const(1), asm.Const(7), asm.Copy()), 3 + 16},
		{"table.fill of 5 elements", asm.Cat(asm.Const(1), none, asm.Const(5), 0xfc, 17, 0), 3 + 16 + 5},
		{"table.copy of 5 elements", asm.Cat(asm.Const(1), asm.Const(0), asm.Const(5), 0xfc, 14, 0, 0), 3 + 16 + 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &asm.Module{Min: 1, Max: 4, Table: asm.Cat(asm.FuncRef, 1, 10, 20), Elements: asm.Cat(1, 0, asm.Const(0), asm.End, 1, 2),
				Imports: []asm.Import{{Module: "env", Name: "inc", Params: []byte{asm.I32}, Results: []byte{asm.I32}}},
				Funcs: []asm.Func{{Export: "f", Params: []byte{asm.I32}, Code: c.code},
					{Code: nil}, {Locals: bytes.Repeat([]byte{asm.I64}, 5)}}}
			r := start(t, engines["compiler"], rewrite(t, m.Encode(), plenty).Wasm)
			before := r.left()
			if _, err := r.call("f", 1); err != nil {
				t.Fatal(err)
			}
			if got := before - r.left(); got != entry+c.want {
				t.Errorf("got %d fuel, want %d", got, entry+c.want)
			}
		})
	}
}

// Each of these would run for ever, or as good as.
func TestStops(t *testing.T) {
	none := []byte{}
	for _, c := range []struct {
		name  string
		code  []byte
		spent string // which counter is negative
	}{
		{"endless loop", asm.Cat(asm.Loop, asm.Empty, asm.Br(0), asm.End), meter.FuelExport},
		{"endless loop of two", asm.Cat(asm.Loop, asm.Empty, asm.Loop, asm.Empty, asm.Const(1), asm.BrIf(1), asm.End, asm.End), meter.FuelExport},
		{"recursion", asm.Call(0), meter.StackExport},
		{"exponential", asm.Cat(asm.Get(0), asm.Const(1), asm.I32Sub, asm.Set(0), asm.Get(0), asm.If, asm.Empty, asm.Get(0), asm.Call(1), asm.Get(0), asm.Call(1), asm.End), meter.FuelExport},
		{"fills", asm.Cat(asm.Loop, asm.Empty, asm.Const(0), asm.Const(0), asm.Const(65536), asm.Fill(), asm.Br(0), asm.End), meter.FuelExport},
		{"one fill outside memory", asm.Cat(asm.Const(0), asm.Const(0), asm.Const(-1), asm.Fill()), meter.FuelExport},
		{"grow", asm.Cat(asm.Loop, asm.Empty, asm.Const(1), asm.Grow(), asm.Drop, asm.Br(0), asm.End), meter.FuelExport},
		{"grow by everything", asm.Cat(asm.Const(-1), asm.Grow(), asm.Drop), meter.FuelExport},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &asm.Module{Min: 1, Funcs: []asm.Func{{Export: "f", Code: c.code}}}
			if c.name == "exponential" {
				m.Funcs = []asm.Func{{Export: "f", Code: asm.Cat(asm.Const(60), asm.Call(1))}, {Params: []byte{asm.I32}, Results: none, Code: c.code}}
			}
			var left []int64
			for _, cfg := range []meter.Config{plenty, sliced} {
				metered := rewrite(t, m.Encode(), cfg)
				for engine, rc := range engines {
					r := start(t, rc, metered.Wasm)
					r.fill(1_000_000)
					_, err := r.call("f")
					if err == nil {
						t.Fatalf("%s: got no error", engine)
					}
					if engine == "interpreter" && c.spent == meter.StackExport {
						continue // its own limit, 2,000 calls, comes first
					}
					if fuel, stack := r.left() < 0, r.global(meter.StackExport) < 0; fuel != (c.spent == meter.FuelExport) || stack == fuel {
						t.Errorf("%s: got fuel below zero %t, stack %t, want %s alone", engine, fuel, stack, c.spent)
					}
					left = append(left, r.left())
				}
			}
			if slices.Min(left) != slices.Max(left) {
				t.Errorf("got fuel left %v, want it to end at the same point on both engines, whole and in slices", left)
			}
		})
	}
}

// The collector stops the world while a guest runs, when the guest has used up
// a slice, not when it has used up its budget.
func TestSlicesLetTheCollectorIn(t *testing.T) {
	forever := &asm.Module{Min: 1, Funcs: []asm.Func{{Export: "f", Code: asm.Cat(asm.Loop, asm.Empty, asm.Br(0), asm.End)}}}
	r := start(t, engines["compiler"], rewrite(t, forever.Encode(), sliced).Wasm)
	r.fill(10_000_000_000) // most of a second
	var began, ended atomic.Bool
	done := make(chan error)
	go func() {
		began.Store(true)
		_, err := r.call("f")
		ended.Store(true)
		done <- err
	}()
	for !began.Load() {
		runtime.Gosched()
	}
	for range 3 {
		runtime.GC()
	}
	if ended.Load() {
		t.Error("three collections took as long as the guest had fuel")
	}
	if err := <-done; err == nil || r.left() >= 0 {
		t.Errorf("got %v with %d fuel left, want the guest to run out", err, r.left())
	}
}

// A function that calls itself n times needs n frames, no more and no less.
func TestStackIsGivenBack(t *testing.T) {
	r := start(t, engines["compiler"], rewrite(t, programs["recursion"].Encode(), plenty).Wasm)
	const frame = 8 + 2 + 2 // frameWords, one param, one result, two operands at a time
	for range 3 {
		r.set(meter.StackExport, 11*frame)
		if _, err := r.call("f", 10); err != nil {
			t.Fatal(err)
		}
		if got := r.global(meter.StackExport); got != 11*frame {
			t.Fatalf("got %d words left, want %d", got, 11*frame)
		}
	}
	if _, err := r.call("f", 11); err == nil {
		t.Fatal("got no error with a frame too many")
	}
}

func TestMemoryMaximum(t *testing.T) {
	grow := asm.Func{Export: "f", Params: []byte{asm.I32}, Results: []byte{asm.I32}, Code: asm.Cat(asm.Get(0), asm.Grow())}
	still := asm.Func{Export: "f", Code: []byte{asm.Nop}}
	for _, c := range []struct {
		name     string
		fn       asm.Func
		min, max uint32
		want     uint32
	}{
		{"cannot grow", still, 2, 0, 2},
		{"cannot grow but says so", still, 2, 9, 2},
		{"no maximum", grow, 2, 0, 16},
		{"small maximum", grow, 2, 9, 9},
		{"large maximum", grow, 2, 900, 16},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &asm.Module{Min: c.min, Max: c.max, Funcs: []asm.Func{c.fn}}
			metered := rewrite(t, m.Encode(), plenty)
			r := start(t, engines["compiler"], metered.Wasm)
			if got, ok := r.mod.Memory().Definition().Max(); !ok || got != c.want {
				t.Errorf("got a maximum of %d pages %t, want %d", got, ok, c.want)
			}
		})
	}
}

func TestDirty(t *testing.T) {
	for name, want := range map[string]int64{"tables": 1, "memory.init and data.drop": 1} {
		m := rewrite(t, programs[name].Encode(), plenty)
		r := start(t, engines["compiler"], m.Wasm)
		if _, err := r.call("f", 1); err != nil {
			t.Fatal(err)
		}
		if got := r.global(meter.DirtyExport); !m.Dirty || got != want {
			t.Errorf("%s: got dirty %d, %t, want %d", name, got, m.Dirty, want)
		}
	}
	if m := rewrite(t, programs["indirect call"].Encode(), plenty); m.Dirty {
		t.Error("a module that only reads its table is called dirty")
	}
}

func TestGlobalsAreExported(t *testing.T) {
	m := rewrite(t, programs["globals"].Encode(), plenty)
	if len(m.Globals) != 1 {
		t.Fatalf("got %v, want one mutable global", m.Globals)
	}
	r := start(t, engines["compiler"], m.Wasm)
	r.set(m.Globals[0], 40)
	if got, err := r.call("f", 2); err != nil || got[0] != 42 {
		t.Errorf("got %v, %v, want 42", got, err)
	}
}

func TestRewriteRefuses(t *testing.T) {
	fn := []asm.Func{{Code: []byte{asm.Nop}}}
	for _, c := range []struct {
		name string
		m    asm.Module
		want string
	}{
		{"reserved export", asm.Module{Min: 1, Funcs: []asm.Func{{Export: meter.FuelExport, Code: []byte{asm.Nop}}}}, "reserved for the host"},
		{"memory too large", asm.Module{Min: 17, Funcs: fn}, "1088 KiB, at most 1024 KiB"},
		{"mutable vector", asm.Module{Min: 1, Funcs: fn, Globals: []asm.Global{{Type: asm.V128, Mutable: true, Init: asm.Cat(0xfd, 12, make([]byte, 16))}}}, "cannot reset"},
		{"mutable reference", asm.Module{Min: 1, Funcs: fn, Globals: []asm.Global{{Type: asm.FuncRef, Mutable: true, Init: asm.Cat(0xd0, 0x70)}}}, "cannot reset"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := wasmbin.Parse(c.m.Encode(), wasmbin.Defaults(), nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = meter.Rewrite(m, plenty)
			if !errors.Is(err, meter.ErrMeter) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error naming %q", err, c.want)
			}
		})
	}
}
