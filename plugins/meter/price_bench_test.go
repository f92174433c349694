package meter_test

import (
	"bytes"
	"testing"
	"time"

	"parley/plugins/internal/asm"
	"parley/plugins/meter"
)

// family is instructions that take a value of one type and leave another of
// it: each is given to its own result, so it cannot begin before it has ended.
type family struct {
	name  string
	t     byte
	steps [][]byte
}

func code(op int) []byte {
	if op > 0xff {
		return asm.Cat(op>>8, asm.U(uint32(op&0xff)))
	}
	return asm.Cat(op)
}

// each returns steps of one operation between before and after.
func each(before, after []byte, ranges ...[2]int) (steps [][]byte) {
	for _, r := range ranges {
		for op := r[0]; op <= r[1]; op++ {
			steps = append(steps, asm.Cat(before, code(op), after))
		}
	}
	return steps
}

func families() []family {
	other := asm.Get(1)
	pairs := func(ops ...int) (steps [][]byte) {
		for i := 0; i < len(ops); i += 2 {
			steps = append(steps, asm.Cat(code(ops[i]), code(ops[i+1])))
		}
		return steps
	}
	small, none := asm.Cat(asm.Const(0), asm.Const(1)), asm.Cat(0xd0, asm.FuncRef)
	return []family{
		{"i32", asm.I32, append(each(nil, nil, [2]int{0x45, 0x45}, [2]int{0x67, 0x69}, [2]int{0xc0, 0xc1}), each(other, nil, [2]int{0x46, 0x4f}, [2]int{0x6a, 0x78})...)},
		{"i64", asm.I64, append(each(nil, nil, [2]int{0x79, 0x7b}, [2]int{0xc2, 0xc4}), each(other, nil, [2]int{0x7c, 0x8a})...)},
		{"f32", asm.F32, append(each(nil, nil, [2]int{0x8b, 0x91}), each(other, nil, [2]int{0x92, 0x98})...)},
		{"f64", asm.F64, append(each(nil, nil, [2]int{0x99, 0x9f}), each(other, nil, [2]int{0xa0, 0xa6})...)},
		{"f32 to integer and back", asm.F32, pairs(0xa8, 0xb2, 0xa9, 0xb3, 0xae, 0xb4, 0xaf, 0xb5, 0xbb, 0xb6, 0xfc00, 0xb2, 0xfc01, 0xb3, 0xfc04, 0xb4, 0xfc05, 0xb5)},
		{"f64 to integer and back", asm.F64, pairs(0xaa, 0xb7, 0xab, 0xb8, 0xb0, 0xb9, 0xb1, 0xba, 0xfc02, 0xb7, 0xfc03, 0xb8, 0xfc06, 0xb9, 0xfc07, 0xba)},
		{"vectors, one operand", asm.V128, each(nil, nil, [2]int{0xfd4d, 0xfd4d}, [2]int{0xfd5e, 0xfd62}, [2]int{0xfd67, 0xfd6a}, [2]int{0xfd74, 0xfd75}, [2]int{0xfd7a, 0xfd7a},
			[2]int{0xfd7c, 0xfd81}, [2]int{0xfd87, 0xfd8a}, [2]int{0xfd94, 0xfd94}, [2]int{0xfda0, 0xfda1}, [2]int{0xfda7, 0xfdaa}, [2]int{0xfdc0, 0xfdc1}, [2]int{0xfdc7, 0xfdca},
			[2]int{0xfde0, 0xfde1}, [2]int{0xfde3, 0xfde3}, [2]int{0xfdec, 0xfded}, [2]int{0xfdef, 0xfdef}, [2]int{0xfdf8, 0xfdff})},
		{"vectors, two operands", asm.V128, each(other, nil, [2]int{0xfd0e, 0xfd0e}, [2]int{0xfd23, 0xfd4c}, [2]int{0xfd4e, 0xfd51}, [2]int{0xfd65, 0xfd66}, [2]int{0xfd6e, 0xfd73}, [2]int{0xfd76, 0xfd79},
			[2]int{0xfd7b, 0xfd7b}, [2]int{0xfd82, 0xfd82}, [2]int{0xfd85, 0xfd86}, [2]int{0xfd8e, 0xfd93}, [2]int{0xfd95, 0xfd99}, [2]int{0xfd9b, 0xfd9f}, [2]int{0xfdae, 0xfdae}, [2]int{0xfdb1, 0xfdb1},
			[2]int{0xfdb5, 0xfdba}, [2]int{0xfdbc, 0xfdbf}, [2]int{0xfdce, 0xfdce}, [2]int{0xfdd1, 0xfdd1}, [2]int{0xfdd5, 0xfddf}, [2]int{0xfde4, 0xfdeb}, [2]int{0xfdf0, 0xfdf7})},
		{"vectors, shifts", asm.V128, each(asm.Get(2), nil, [2]int{0xfd6b, 0xfd6d}, [2]int{0xfd8b, 0xfd8d}, [2]int{0xfdab, 0xfdad}, [2]int{0xfdcb, 0xfdcd})},
		{"vectors, tests", asm.V128, each(nil, []byte{0xfd, 0x0f}, [2]int{0xfd53, 0xfd53}, [2]int{0xfd63, 0xfd64}, [2]int{0xfd83, 0xfd84}, [2]int{0xfda3, 0xfda4}, [2]int{0xfdc3, 0xfdc4})},
		{"loads and stores", asm.I32, [][]byte{asm.Cat(asm.Set(0), asm.Const(64), asm.Get(0), asm.Store(0), asm.Const(64), asm.Load(0)), asm.Cat(small, asm.Store(0)), asm.Cat(asm.Const(0), asm.I32Mul, asm.Load(0))}},
		{"branches that cannot be foretold", asm.I32, [][]byte{asm.Cat(asm.Tee(0), asm.Const(1<<30), 0x71, asm.If, asm.Empty, asm.Get(1), asm.Set(1), asm.End,
			asm.Get(0), asm.Const(1664525), asm.I32Mul, asm.Const(1013904223), asm.I32Add)}},
		{"calls", asm.I32, [][]byte{asm.Call(1), asm.Cat(asm.Const(0), 0x11, 1, 0), asm.Call(0)}},
		{"bulk", asm.I32, [][]byte{asm.Cat(small, asm.Const(0), asm.Fill()), asm.Cat(small, asm.Const(7), asm.Fill()), asm.Cat(small, asm.Const(30_000), asm.Fill()),
			asm.Cat(small, asm.Const(0), asm.Copy()), asm.Cat(small, asm.Const(7), asm.Copy()), asm.Cat(small, asm.Const(30_000), asm.Copy()),
			asm.Cat(asm.Const(0), none, asm.Const(1), 0xfc, 17, 0), asm.Cat(asm.Const(0), none, asm.Const(4), 0xfc, 17, 0), asm.Cat(small, asm.Const(1), 0xfc, 14, 0, 0)}},
		{"what Go code does", asm.I32, [][]byte{asm.Grow(), asm.Cat(none, asm.Const(0), 0xfc, 15, 0, asm.I32Add), asm.Cat(0xd2, 1, 0xd1, asm.I32Add)}},
	}
}

// BenchmarkInstructions prints how long a million fuel lasts that is spent on
// one instruction after the other, each waiting for the one before: of each
// family the slowest, and its bytes. Of each the best of several times counts.
func BenchmarkInstructions(b *testing.B) {
	for _, f := range families() {
		b.Run(f.name, func(b *testing.B) {
			var slowest time.Duration
			var which []byte
			for b.Loop() {
				slowest = 0
				for _, s := range f.steps {
					if took := lasts(b, f.t, s); took > slowest {
						slowest, which = took, s
					}
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(slowest.Nanoseconds())/1e3, "us/Mfuel")
			b.Logf("the slowest is % x", which)
		})
	}
}

// lasts runs a loop of one step on a million fuel.
func lasts(b *testing.B, t byte, step []byte) time.Duration {
	b.Helper()
	value := map[byte][]byte{asm.I32: asm.Const(12345), asm.I64: asm.Const64(12345),
		asm.F32: asm.Cat(0x43, 0, 0, 0xc0, 0x3f), asm.F64: asm.Cat(0x44, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f), // 1.5
		asm.V128: asm.Cat(0xfd, 0x0c, bytes.Repeat([]byte{0, 0, 0xc0, 0x3f}, 4))}[t]
	i32 := []byte{asm.I32}
	m := &asm.Module{Min: 1, Max: 4, Table: asm.Cat(asm.FuncRef, 1, 10, 20),
		Elements: asm.Cat(2, 0, asm.Const(0), asm.End, 1, 1, 1, 0, 1, 1),
		Imports:  []asm.Import{{Module: "env", Name: "inc", Params: i32, Results: i32}},
		Funcs: []asm.Func{
			{Params: i32, Results: i32, Code: asm.Get(0)},
			{Export: "f", Locals: []byte{t, t, asm.I32}, Code: asm.Cat(value, asm.Set(0), value, asm.Set(1), asm.Const(3), asm.Set(2),
				asm.Loop, asm.Empty, asm.Get(0), bytes.Repeat(step, 300), asm.Set(0), asm.Br(0), asm.End)}}}
	return spends(b, step, m)
}

// spends runs a module's f on a million fuel.
func spends(b *testing.B, what []byte, m *asm.Module) time.Duration {
	b.Helper()
	r := start(b, engines["compiler"], rewrite(b, m.Encode(), plenty).Wasm)
	best := time.Hour
	for range 10 {
		r.set(meter.FuelExport, 1_000_000)
		began := time.Now()
		_, err := r.call("f")
		best = min(best, time.Since(began))
		if err == nil || r.global(meter.FuelExport) >= 0 {
			b.Fatalf("% x: got %v, want it to run out of fuel", what, err)
		}
	}
	return best
}

// BenchmarkCarried prints how long a million fuel lasts that is spent on blocks
// and calls which carry many values from one place to another.
func BenchmarkCarried(b *testing.B) {
	many := func(n int) []byte { return bytes.Repeat([]byte{asm.I64}, n) }
	pushed := func(n int) []byte { return bytes.Repeat(asm.Const64(7), n) }
	// Types are those of the functions: 0 takes 63 values, 1 turns 32 into 32,
	// 2 gives 63.
	types := []asm.Func{
		{Params: many(63)},
		{Params: many(32), Results: many(32), Code: pushed(32)},
		{Results: many(63), Code: pushed(63)},
	}
	// Each further function gives what the one before gives.
	calls := types
	for range 40 {
		calls = append(calls, asm.Func{Results: many(63), Code: asm.Call(uint32(len(calls) - 1))})
	}
	turn := asm.Cat(asm.Block, 1, asm.Const64(1), asm.Get(0), asm.BrIf(0), asm.Drop, asm.End)
	for name, m := range map[string]*asm.Module{
		"a loop that turns its params": {Min: 1, Funcs: append(types, asm.Func{Export: "f", Code: asm.Cat(pushed(63), asm.Loop, 0, asm.Const64(1), asm.Br(0), asm.End)})},
		"blocks that turn theirs or not": {Min: 1, Funcs: append(types, asm.Func{Export: "f", Locals: []byte{asm.I32}, Code: asm.Cat(asm.Const(1), asm.Set(0),
			pushed(32), asm.Loop, 1, bytes.Repeat(turn, 100), asm.Br(0), asm.End, bytes.Repeat([]byte{asm.Drop}, 32))})},
		"calls that give them on": {Min: 1, Funcs: append(calls, asm.Func{Export: "f", Code: asm.Cat(asm.Loop, asm.Empty, asm.Call(uint32(len(calls)-1)), bytes.Repeat([]byte{asm.Drop}, 63), asm.Br(0), asm.End)})},
	} {
		b.Run(name, func(b *testing.B) {
			var took time.Duration
			for b.Loop() {
				took = spends(b, nil, m)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(took.Nanoseconds())/1e3, "us/Mfuel")
		})
	}
}
