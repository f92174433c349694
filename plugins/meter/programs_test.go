package meter_test

import "parley/plugins/internal/asm"

// Every program has f(i32) and must do the same with and without metering.
var programs = map[string]*asm.Module{
	"straight": {Min: 1, Funcs: []asm.Func{f1(asm.I32, nil, asm.Get(0), asm.Const(3), asm.I32Mul)}},
	"loop": {Min: 1, Funcs: []asm.Func{f1(asm.I32, []byte{asm.I32},
		asm.Loop, asm.Empty,
		asm.Get(1), asm.Get(0), asm.I32Add, asm.Set(1),
		asm.Get(0), asm.Const(1), asm.I32Sub, asm.Tee(0), asm.Const(1000), asm.I32LtU, asm.If, asm.Empty, asm.Br(1), asm.End,
		asm.End, asm.Get(1))}},
	"loop with params and result": {Min: 1, Funcs: []asm.Func{f1(asm.I32, nil,
		asm.Get(0), asm.Loop, 3, // the type of "two", index 3
		asm.Const(1), asm.I32Add, asm.Tee(0), asm.Get(0), asm.Const(50), asm.I32LtU, asm.BrIf(0), asm.End),
		{}, {}, {Params: []byte{asm.I32}, Results: []byte{asm.I32}, Code: asm.Get(0)}}},
	"return in nested blocks": {Min: 1, Funcs: []asm.Func{f1(asm.I32, nil,
		asm.Get(0), asm.Call(1), asm.Drop,
		asm.Block, asm.Empty, asm.Loop, asm.Empty, asm.Get(0), asm.If, asm.Empty,
		asm.Const(9), asm.Const(7), asm.Return, asm.End, asm.End, asm.End,
		asm.Const(8)), f1(asm.I32, nil, asm.Get(0))}},
	"branch out of the function": {Min: 1, Funcs: []asm.Func{f1(asm.I32, nil,
		asm.Get(0), asm.Call(1), asm.Get(0), asm.BrIf(0), asm.Drop,
		asm.Block, asm.Empty, asm.Const(4), asm.Br(1), asm.End, asm.Unreachable), f1(asm.I32, nil, asm.Get(0))}},
	"branch table out of the function": {Min: 1, Funcs: []asm.Func{f1(asm.I32, nil,
		asm.Call(1), asm.Block, asm.I32, asm.Const(1), asm.Get(0), 0x0e, 1, 1, 0, asm.End, asm.Const(10), asm.I32Add),
		{Code: []byte{asm.Nop}}}},
	"two results": {Min: 1, Funcs: []asm.Func{
		{Export: "f", Params: []byte{asm.I32}, Results: []byte{asm.I32, asm.I64}, Code: asm.Cat(asm.Get(0), asm.Call(1))},
		{Params: []byte{asm.I32}, Results: []byte{asm.I32, asm.I64}, Code: asm.Cat(
			asm.Get(0), asm.If, asm.Empty, asm.Const(0), asm.Call(1), asm.Return, asm.End, asm.Const(1), asm.Const64(-2))}}},
	"two results of a type at hand": {Min: 1, Funcs: []asm.Func{
		{Export: "f", Params: []byte{asm.I32}, Results: []byte{asm.I32, asm.I32}, Code: asm.Call(1)},
		{Results: []byte{asm.I32, asm.I32}, Code: asm.Cat(asm.Const(1), asm.Const(2))}}},
	"recursion": {Min: 1, Funcs: []asm.Func{f1(asm.I32, nil,
		asm.Get(0), asm.If, asm.I32, asm.Get(0), asm.Const(1), asm.I32Sub, asm.Call(0), asm.Get(0), asm.I32Add,
		asm.Else, asm.Const(0), asm.End)}},
	"indirect call": {Min: 1, Table: asm.Cat(asm.FuncRef, 0, 2), Elements: asm.Cat(1, 0, asm.Const(0), asm.End, 2, 1, 2),
		Funcs: []asm.Func{f1(asm.I32, nil, asm.Get(0), asm.Get(0), asm.Const(2), 0x70, 0x11, 1, 0),
			{Params: []byte{asm.I32}, Results: []byte{asm.I32}, Code: asm.Const(5)}, {Params: []byte{asm.I32}, Results: []byte{asm.I32}, Code: asm.Const(6)}}},
	"import": {Min: 1, Imports: []asm.Import{{Module: "env", Name: "inc", Params: []byte{asm.I32}, Results: []byte{asm.I32}}},
		Funcs: []asm.Func{f1(asm.I32, nil, asm.Get(0), asm.Call(0))}},
	"globals": {Min: 1, Globals: []asm.Global{{Type: asm.I32, Mutable: true, Init: asm.Const(3)}, {Type: asm.I64, Init: asm.Const64(4)}},
		Funcs: []asm.Func{f1(asm.I32, nil, asm.GlobalGet(0), asm.Get(0), asm.I32Add, asm.GlobalSet(0), asm.GlobalGet(0))}},
	"bulk memory": {Min: 1, Data: []byte("hello"), Funcs: []asm.Func{f1(asm.I32, nil,
		asm.Const(100), asm.Const(7), asm.Get(0), asm.Fill(), asm.Const(200), asm.Const(0), asm.Get(0), asm.Copy(), asm.Load8At(100))}},
	"memory.init and data.drop": {Min: 1, Funcs: []asm.Func{f1(asm.I32, nil,
		asm.Const(9), asm.Const(0), asm.Const(3), 0xfc, 8, 0, 0, 0xfc, 9, 0, asm.Load8At(10))},
		Count: 1, Tail: asm.Section(11, asm.Cat(1, 1, 3, 'a', 'b', 'c'))},
	"grow": {Min: 1, Funcs: []asm.Func{f1(asm.I32, nil, asm.Const(1), asm.Grow(), asm.Drop, 0x3f, 0)}, Max: 3},
	"tables": {Min: 1, Table: asm.Cat(asm.FuncRef, 1, 2, 8), Elements: asm.Cat(1, 1, 0, 1, 0),
		Funcs: []asm.Func{f1(asm.I32, nil,
			asm.Const(0), asm.Const(0), asm.Const(1), 0xfc, 12, 0, 0, // table.init
			0xfc, 13, 0, // elem.drop
			asm.Const(1), asm.Const(0), asm.Const(1), 0xfc, 14, 0, 0, // table.copy
			asm.Const(0), 0xd0, 0x70, 0x26, 0, // table.set
			0xd0, 0x70, asm.Const(3), 0xfc, 15, 0, asm.Drop, // table.grow
			asm.Const(2), 0xd0, 0x70, asm.Const(1), 0xfc, 17, 0, // table.fill
			0xfc, 16, 0)}},
	"floats and vectors": {Min: 1, Funcs: []asm.Func{{Export: "f", Params: []byte{asm.I32}, Results: []byte{asm.F64}, Locals: []byte{asm.V128, asm.F64},
		Code: asm.Cat(asm.Get(0), 0xfd, 0x11, asm.Tee(1), asm.Get(1), 0xfd, asm.U(0xae), asm.Set(1), // splat, add
			asm.Get(0), 0xb7, 0x9f, asm.Get(1), 0xfd, 0x1b, 1, 0xb7, 0xa0)}}},
	"stores": {Min: 2, Funcs: []asm.Func{f1(asm.I32, nil,
		asm.Get(0), asm.Const(1), 0x36, 2, 4, // i32.store
		asm.Get(0), asm.Const(2), 0x3a, 0, asm.U(9_000), // i32.store8
		asm.Get(0), asm.Const(3), 0x3b, 1, asm.U(19_000), // i32.store16
		asm.Get(0), asm.Const64(-4), 0x37, 3, asm.U(1_020), // i64.store, across two blocks
		asm.Get(0), asm.Const64(-5), 0x3c, 0, asm.U(30_000), // i64.store8
		asm.Get(0), asm.Const64(-6), 0x3d, 1, asm.U(40_000), // i64.store16
		asm.Get(0), asm.Const64(-7), 0x3e, 2, asm.U(50_000), // i64.store32
		asm.Get(0), asm.Get(0), 0xb3, 0x38, 2, asm.U(60_000), // f32.store
		asm.Get(0), asm.Get(0), 0xb8, 0x39, 3, asm.U(70_000), // f64.store
		asm.Get(0), asm.Get(0), 0xfd, 0x11, 0xfd, 0x0b, 0, asm.U(80_000), // v128.store of a splat
		asm.Get(0), asm.Get(0), 0xfd, 0x11, 0xfd, 0x58, 0, asm.U(90_000), 3, // v128.store8_lane
		asm.Get(0), asm.Get(0), 0xfd, 0x11, 0xfd, 0x5b, 0, asm.U(131_054-100), 1, // v128.store64_lane
		asm.Get(0), asm.Load(4))}},
	"stores outside memory": {Min: 1, Funcs: []asm.Func{f1(asm.I32, nil,
		asm.Get(0), asm.Const(7), asm.Store(0), asm.Const(-3), asm.Get(0), asm.Store(0), asm.Const(0))}},
	"fills of all sizes": {Min: 1, Funcs: []asm.Func{f1(asm.I32, nil,
		asm.Const(65_000), asm.Const(7), asm.Const(536), asm.Fill(), asm.Const(1_024), asm.Const(7), asm.Const(0), asm.Fill(),
		asm.Const(3_000), asm.Const(8), asm.Get(0), asm.Const(700), asm.I32Mul, asm.Const(60_000), 0x70, asm.Fill(), // rem_u
		asm.Const(0))}},
	"fill of everything": {Min: 1, Funcs: []asm.Func{f1(asm.I32, nil,
		asm.Const(0), asm.Get(0), asm.Const(65_536), asm.Fill(), asm.Const(0))}},
	"dead code": {Min: 1, Funcs: []asm.Func{f1(asm.I32, nil,
		asm.Get(0), asm.Call(1), asm.Return, asm.Fill(), asm.Loop, asm.Empty, asm.Br(0), asm.End), f1(asm.I32, nil, asm.Get(0))}},
	"start function": {Min: 1, Start: 2, Funcs: []asm.Func{f1(asm.I32, nil, asm.Load8At(4)),
		{Code: asm.Cat(asm.Const(4), asm.Const(77), asm.Const(1), asm.Fill())}}},
	"traps": {Min: 1, Funcs: []asm.Func{f1(asm.I32, nil, asm.Const(8), asm.Get(0), 0x6e)}}, // 8/x traps for 0
}

// f1 is the exported function f(i32) of one result.
func f1(result byte, locals []byte, code ...any) asm.Func {
	return asm.Func{Export: "f", Params: []byte{asm.I32}, Results: []byte{result}, Locals: locals, Code: asm.Cat(code...)}
}

func init() {
	for _, m := range programs { // only the first is f
		for i := range m.Funcs[1:] {
			m.Funcs[i+1].Export = ""
		}
	}
}
