package plugins_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"parley/core/moderation"
	"parley/plugins"
	"parley/plugins/internal/asm"
	"parley/plugins/meter"
	"parley/plugins/wasmbin"
	"parley/sdk/abi"
)

var forever = asm.Cat(asm.Loop, asm.Empty, asm.Br(0), asm.End)

// extra adds a function.
func extra(f asm.Func) func(*asm.Module) {
	return func(m *asm.Module) { m.Funcs = append(m.Funcs, f) }
}

// body replaces the whole body of decide.
func body(parts ...any) []byte {
	return guest(nil, nil, func(m *asm.Module) { m.Funcs[2].Raw = asm.Cat(parts...) })
}

// hostile is a module that means no good, and what the error must say.
type hostile struct {
	name string
	wasm []byte
	is   error
	want string
}

// refusedModules must not be loaded.
func refusedModules() []hostile {
	return []hostile{
		{"1e8 locals", body(1, asm.U(100_000_000), asm.I64, asm.Const64(0), asm.End), wasmbin.ErrModule, "function 2: wasm module refused: 100000000 locals, at most 4000"},
		{"4e9 locals", body(1, asm.U(4_000_000_000), asm.I64, asm.Const64(0), asm.End), wasmbin.ErrModule, "4000000000 locals"},
		{"nested ifs", body(0, bytes.Repeat(asm.Cat(asm.Const(1), asm.If, asm.Empty), 5_000), bytes.Repeat([]byte{asm.End}, 5_000), asm.Const64(0), asm.End), wasmbin.ErrModule, "blocks nest deeper than 4000"},
		{"nested loops over many locals", body(1, asm.U(1_000), asm.I32, bytes.Repeat([]byte{asm.Loop, asm.Empty}, 1_000), bytes.Repeat([]byte{asm.End}, 1_000), asm.Const64(0), asm.End), wasmbin.ErrModule, "their product is above 100000"},
		{"forbidden import", guest(asm.Const64(0), nil, func(m *asm.Module) {
			m.Imports = []asm.Import{{Module: "env", Name: "system"}}
		}), wasmbin.ErrModule, `import "env" "system" is not available`},
		{"forbidden WASI import", guest(asm.Const64(0), nil, func(m *asm.Module) {
			m.Imports = []asm.Import{{Module: "wasi_snapshot_preview1", Name: "sock_accept"}}
		}), wasmbin.ErrModule, `"sock_accept" is not available`},
		{"WASI import of another type", guest(asm.Const64(0), nil, func(m *asm.Module) {
			m.Imports = []asm.Import{{Module: "wasi_snapshot_preview1", Name: "fd_write"}}
		}), nil, "signature mismatch"},
		{"reserved export", guest(asm.Const64(0), nil, extra(asm.Func{Export: meter.FuelExport, Code: []byte{asm.Nop}})), meter.ErrMeter, "reserved for the host"},
		{"fuel global by number", guest(asm.Cat(asm.Const64(1<<60), asm.GlobalSet(0), asm.Const64(0)), nil), wasmbin.ErrModule, "global 0 of 0"},
		{"invalid code", guest(asm.Cat(asm.I32Add, asm.Const64(0)), nil), nil, "not a valid module"},
		{"too much memory", guest(asm.Const64(0), nil, func(m *asm.Module) { m.Min = 17 }), meter.ErrMeter, "at most 1024 KiB (limits.memory_bytes)"},
		{"start function that loops", guest(asm.Const64(0), nil, extra(asm.Func{Code: forever}), func(m *asm.Module) { m.Start = 4 }), plugins.ErrTrap, "start function trapped, or used more than"},
		{"_initialize that loops", guest(asm.Const64(0), nil, extra(asm.Func{Export: abi.ExportInitialize, Code: forever})), plugins.ErrFuel, "_initialize: it ran out of fuel"},
		{"_initialize that traps", guest(asm.Const64(0), nil, extra(asm.Func{Export: abi.ExportInitialize, Code: []byte{asm.Unreachable}})), plugins.ErrTrap, "_initialize: it trapped: unreachable"},
		{"decide that loops", guest(asm.Cat(forever, asm.Const64(0)), nil), plugins.ErrFuel, "self-test with a neutral message: it ran out of fuel: more than 1000000"},
		{"no decide", guest(asm.Const64(0), nil, func(m *asm.Module) { m.Funcs[2].Export = "judge" }), nil, "does not export decide(i32, i32) -> i64"},
		{"decide of another type", guest(asm.Const64(0), nil, func(m *asm.Module) { m.Funcs[2].Export, m.Funcs[1].Export = "x", abi.ExportDecide }), nil, "does not export input_buffer"},
		{"configure of another type", guest(asm.Const64(0), nil, extra(asm.Func{Export: abi.ExportConfigure, Code: []byte{asm.Nop}})), nil, "configure is not a function (i32, i32) -> i32"},
		{"memory not exported", guest(asm.Const64(0), nil, func(m *asm.Module) { m.Hide = true }), nil, `does not export its memory as "memory"`},
		{"version 2", guest(asm.Const64(0), nil, func(m *asm.Module) { m.Funcs[0].Code = asm.Const(2) }), plugins.ErrAnswer, "abi_version() is 2, this server speaks 1"},
		{"buffer outside memory", guest(asm.Const64(0), nil, func(m *asm.Module) { m.Funcs[1].Code = asm.Const(60_000) }), plugins.ErrAnswer, "input_buffer(16384) is 60000"},
		{"no buffer", guest(asm.Const64(0), nil, func(m *asm.Module) { m.Funcs[1].Code = asm.Const(0) }), plugins.ErrAnswer, "input_buffer(16384) is 0"},
		{"data outside memory", guest(asm.Const64(0), []byte("x"), func(m *asm.Module) { m.DataAt = 65_536 }), nil, "instantiate: "},
		{"text", []byte("hello"), wasmbin.ErrModule, "not a WebAssembly"},
		{"200 KB of nested ifs", body(0, bytes.Repeat(asm.Cat(asm.Const(1), asm.If, asm.Empty), 50_000), bytes.Repeat([]byte{asm.End}, 50_000), asm.Const64(0), asm.End), wasmbin.ErrModule, "blocks nest deeper than 4000"},
		{"br_table of 100,000 labels", guest(asm.Cat(asm.Const(0), 0x0e, asm.U(100_000), make([]byte, 100_001), asm.Const64(0)), nil), wasmbin.ErrModule, "100000 branch targets, at most 10000"},
		{"br_table that lies about its size", guest(asm.Cat(asm.Const(0), 0x0e, asm.U(4_000_000_000), 0, asm.Const64(0)), nil), wasmbin.ErrModule, "4000000000 branch targets"},
		{"table of 4e9 elements", guest(asm.Const64(0), nil, func(m *asm.Module) { m.Table = asm.Cat(asm.FuncRef, 0, asm.U(4_000_000_000)) }), wasmbin.ErrModule, "table 0 has 4000000000 elements, at most 100000"},
		{"table that may grow for ever", guest(asm.Cat(0xd0, 0x70, asm.Const(1), 0xfc, 15, 0, asm.Drop, asm.Const64(0)), nil, func(m *asm.Module) { m.Table = asm.Cat(asm.FuncRef, 0, 1) }), wasmbin.ErrModule, "has no maximum"},
		{"memory of 4 GiB", guest(asm.Const64(0), nil, func(m *asm.Module) { m.Min = 65_536 }), wasmbin.ErrModule, "memory of 65536 pages"},
		{"names the fuel global", guest(asm.Const64(0), nil, func(m *asm.Module) {
			m.Exports, m.ExportsN = asm.Cat(asm.Name(meter.FuelExport), 3, 0), 1
			m.Globals = []asm.Global{{Type: 0x7e, Mutable: true, Init: asm.Const64(1 << 60)}}
		}), meter.ErrMeter, `export "parley_fuel": names beginning with "parley_" are reserved`},
		{"imports the fuel global", guest(asm.Const64(0), nil, func(m *asm.Module) {
			m.Imports = []asm.Import{{Module: "parley", Name: meter.FuelExport}}
		}), wasmbin.ErrModule, "is not available"},
		{"start function that costs each instance dearly", growing(extra(asm.Func{Locals: []byte{asm.I32}, Code: countdown(200_000)}), func(m *asm.Module) { m.Start = 4 }), plugins.ErrTrap, "start function trapped, or used more than 1000000 fuel"},
		{"set-up that costs each instance dearly", growing(replayed(200_000)), plugins.ErrFuel, "it changes tables while it is set up, so that each instance repeats that"},
		{"start function that recurses", guest(asm.Const64(0), nil, extra(asm.Func{Code: asm.Call(3)}), func(m *asm.Module) { m.Start = 4 }), plugins.ErrTrap, "start function trapped"},
		{"host call through a table", tabled(asm.Cat(1, 0, asm.Const(0), asm.End, 1, 0), asm.Const(0), 0x11, 0, 0, asm.Drop), wasmbin.ErrModule, "function 0 is imported and may only be called directly"},
		{"host call by ref.func", tabled(nil, asm.Const(0), 0xd2, 0, 0x26, 0, asm.Const(0), 0x11, 0, 0, asm.Drop), wasmbin.ErrModule, "function 0 is imported and may only be called directly"},
		{"threads", guest(asm.Cat(0xfe, 0, 2, 0, asm.Const64(0)), nil), wasmbin.ErrModule, "threads"},
	}
}

// countdown counts the first local down from n.
func countdown(n int32) []byte {
	return asm.Cat(asm.Const(n), asm.Set(0), asm.Loop, asm.Empty, asm.Get(0), asm.Const(1), asm.I32Sub, asm.Tee(0), asm.BrIf(0), asm.End)
}

// growing is a guest that grows its memory for texts of one byte, so that each
// such decision costs its instance.
func growing(edit ...func(*asm.Module)) []byte {
	return onXWith(asm.Cat(asm.Const(1), asm.Grow(), asm.Drop, asm.Const64(0)), nil, edit...)
}

// replayed gives a guest an _initialize that counts down from n and changes a
// table, so that it runs for each instance.
func replayed(n int32) func(*asm.Module) {
	return func(m *asm.Module) {
		m.Table = asm.Cat(asm.FuncRef, 1, asm.U(1), asm.U(1))
		m.Funcs = append(m.Funcs, asm.Func{Export: abi.ExportInitialize, Locals: []byte{asm.I32}, Code: asm.Cat(countdown(n), asm.Const(0), 0xd0, asm.FuncRef, 0x26, 0)})
	}
}

// What each instance repeats is paid for like a decision; what is done once may
// cost more.
func TestSetUpAgain(t *testing.T) {
	h := newHost(t)
	for name, wasm := range map[string][]byte{
		"start function": growing(extra(asm.Func{Locals: []byte{asm.I32}, Code: countdown(20_000)}), func(m *asm.Module) { m.Start = 4 }),
		"tables":         growing(replayed(20_000)),
		"neither":        growing(extra(asm.Func{Export: abi.ExportInitialize, Locals: []byte{asm.I32}, Code: countdown(1_000_000)})),
	} {
		p := mustLoad(t, h, wasm, "{}")
		for range 3 {
			if v, _, _, err := ask(p, "x"); v != abi.Allow || err != nil {
				t.Errorf("%s: got %v, %v, want allow", name, v, err)
			}
		}
	}
}

func TestRefusedAtLoad(t *testing.T) {
	h := newHost(t)
	for _, c := range refusedModules() {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, h, c.wasm, "{}")
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// onX runs code for messages of one byte, which the self-test is not.
func onX(answer []byte, code ...any) []byte { return onXWith(asm.Cat(code...), answer) }

// onXWith does the same in a module that edit changes.
func onXWith(code, answer []byte, edit ...func(*asm.Module)) []byte {
	return guest(asm.Cat(asm.Get(localPtr), asm.Load(textAt+4), asm.Const(1), asm.I32Eq,
		asm.If, asm.I64, code, asm.Else, asm.Const64(0), asm.End), answer, edit...)
}

// answers packs a result of any bytes.
func answers(v abi.Verdict, b []byte) []byte {
	return onX(b, asm.Const64(int64(abi.Pack(v, answerAt, uint32(len(b))))))
}

// tabled imports sched_yield as function 0 and random_get as function 1, has a
// table with these element segments, and runs code for ever. Function 5 calls
// random_get.
func tabled(elements []byte, code ...any) []byte {
	round := asm.Cat(asm.Loop, asm.Empty, asm.Cat(code...), asm.Br(0), asm.End, asm.Const64(0))
	return onXWith(round, nil, func(m *asm.Module) {
		i32 := []byte{asm.I32}
		m.Imports = []asm.Import{
			{Module: "wasi_snapshot_preview1", Name: "sched_yield", Results: i32},
			{Module: "wasi_snapshot_preview1", Name: "random_get", Params: []byte{asm.I32, asm.I32}, Results: i32},
		}
		m.Table, m.Elements = asm.Cat(asm.FuncRef, 1, asm.U(100_000), asm.U(100_000)), elements
	}, extra(asm.Func{Results: []byte{asm.I32}, Code: drawn}))
}

// drawn draws as many random numbers as one call may: the dearest of the
// host's functions.
var drawn = asm.Cat(asm.Const(16_384), asm.Const(1_024), asm.Call(1))

// stoppedModules pass the self-test and misbehave for texts of one byte.
func stoppedModules() []hostile {
	span := func(s ...abi.Span) []byte { return abi.AppendResult(nil, &abi.Result{Spans: s}) }
	recursive := guest(asm.Cat(asm.Get(localPtr), asm.Load(textAt+4), asm.Const(1), asm.I32Eq, asm.If, asm.Empty, asm.Call(3), asm.End, asm.Const64(0)), nil,
		extra(asm.Func{Code: asm.Call(3)}))
	return []hostile{
		{"endless loop", onX(nil, forever, asm.Const64(0)), plugins.ErrFuel, "more than 1000000"},
		{"endless recursion", recursive, plugins.ErrStack, "512 KiB of call stack"},
		{"memory.grow bomb", onX(nil, asm.Loop, asm.Empty, asm.Const(1), asm.Grow(), asm.Drop, asm.Br(0), asm.End, asm.Const64(0)), plugins.ErrFuel, "ran out of fuel"},
		{"memory.fill bomb", onX(nil, asm.Loop, asm.Empty, asm.Const(0), asm.Const(1), asm.Const(65536), asm.Fill(), asm.Br(0), asm.End, asm.Const64(0)), plugins.ErrFuel, "ran out of fuel"},
		{"read outside memory", onX(nil, asm.Const(-1), asm.Load(0), asm.Drop, asm.Const64(0)), plugins.ErrTrap, "out of bounds memory access"},
		{"division by zero", onX(nil, asm.Const(1), asm.Const(0), 0x6d, asm.Drop, asm.Const64(0)), plugins.ErrTrap, "integer divide by zero"},
		{"unreachable", onX(nil, asm.Unreachable), plugins.ErrTrap, "unreachable"},
		{"result outside memory", onX(nil, asm.Const64(int64(abi.Pack(abi.Deny, 0xfffffff0, 8)))), plugins.ErrAnswer, "outside its memory of 65536"},
		{"result across the end of memory", onX(nil, asm.Const64(int64(abi.Pack(abi.Deny, 65_532, 8)))), plugins.ErrAnswer, "outside its memory"},
		{"result too long", onX(nil, asm.Const64(int64(abi.Pack(abi.Deny, 0, 8_000)))), plugins.ErrAnswer, "8000 bytes, at most 4096 (limits.output_bytes)"},
		{"result too short", answers(abi.Deny, make([]byte, 7)), plugins.ErrAnswer, "7 bytes, the header has 8"},
		{"no result", onX(nil, asm.Const64(int64(abi.Deny))), plugins.ErrAnswer, "0 bytes, the header has 8"},
		{"allow with a result", answers(abi.Allow, make([]byte, 8)), plugins.ErrAnswer, "allow is plain 0"},
		{"verdict error", onX(nil, asm.Const64(int64(abi.Error))), plugins.ErrAnswer, "could not judge"},
		{"unknown verdict", answers(9, make([]byte, 8)), plugins.ErrAnswer, "unknown verdict 9"},
		{"span outside the text", answers(abi.Redact, span(abi.Span{Length: 9})), plugins.ErrAnswer, "outside its field"},
		{"span that wraps around", answers(abi.Redact, span(abi.Span{Start: 1<<32 - 1, Length: 2})), plugins.ErrAnswer, "outside its field"},
		{"empty span", answers(abi.Redact, span(abi.Span{})), plugins.ErrAnswer, "outside its field"},
		{"span in the user name", answers(abi.Redact, span(abi.Span{Field: abi.FieldUser, Length: 1})), plugins.ErrAnswer, "names field 2"},
		{"overlapping spans", answers(abi.Redact, span(abi.Span{Length: 1}, abi.Span{Length: 1})), plugins.ErrAnswer, "overlaps"},
		{"redact without spans", answers(abi.Redact, span()), plugins.ErrAnswer, "redact without spans"},
		{"spans with deny", answers(abi.Deny, span(abi.Span{Length: 1})), plugins.ErrAnswer, "spans with verdict deny"},
		{"reason not UTF-8", answers(abi.Deny, abi.AppendResult(nil, &abi.Result{Reason: "\xff"})), plugins.ErrAnswer, "not UTF-8"},
		{"recursion with large frames", guest(asm.Cat(asm.Get(localPtr), asm.Load(textAt+4), asm.Const(1), asm.I32Eq, asm.If, asm.Empty, asm.Const(0), asm.Call(3), asm.Drop, asm.End, asm.Const64(0)), nil,
			extra(asm.Func{Params: []byte{asm.I32}, Results: []byte{asm.I32}, Code: asm.Cat(bytes.Repeat(asm.Get(0), 1_000), asm.Get(0), asm.Call(3), bytes.Repeat([]byte{asm.I32Add}, 1_000))})), plugins.ErrStack, "512 KiB of call stack"},
		{"host call bomb", tabled(nil, drawn, asm.Drop), plugins.ErrFuel, "more than 50000000"},
		{"host call bomb through a table", tabled(asm.Cat(1, 0, asm.Const(0), asm.End, 1, 5), asm.Const(0), 0x11, 0, 0, asm.Drop), plugins.ErrFuel, "more than 50000000"},
		{"table.copy bomb", tabled(nil, asm.Const(1), asm.Const(0), asm.Const(99_999), 0xfc, 14, 0, 0), plugins.ErrFuel, "ran out of fuel"},
		{"bomb of divisions", onX(nil, asm.Const(7), asm.Set(localI), asm.Loop, asm.Empty, bytes.Repeat(asm.Cat(asm.Const(1_000_000_007), asm.Get(localI), 0x6d, asm.Set(localI)), 500), asm.Br(0), asm.End, asm.Const64(0)), plugins.ErrFuel, "ran out of fuel"},
		{"bomb of loads that wait for each other", onX(nil, asm.Loop, asm.Empty, asm.Get(localI), bytes.Repeat(asm.Load(0), 2_000), asm.Set(localI), asm.Br(0), asm.End, asm.Const64(0)), plugins.ErrFuel, "ran out of fuel"},
		{"ref.func bomb", tabled(asm.Cat(1, 3, 0, 1, 5), asm.Cat(0xd2, 5, asm.Drop)), plugins.ErrFuel, "ran out of fuel"},
		{"table.grow bomb", tabled(nil, 0xd0, asm.FuncRef, asm.Const(0), 0xfc, 15, 0, asm.Drop), plugins.ErrFuel, "ran out of fuel"},
		{"memory.grow by nothing", tabled(nil, asm.Const(0), asm.Grow(), asm.Drop), plugins.ErrFuel, "ran out of fuel"},
		{"table.fill bomb", tabled(nil, asm.Const(0), 0xd0, asm.FuncRef, asm.Const(100_000), 0xfc, 17, 0), plugins.ErrFuel, "ran out of fuel"},
		{"memory.copy bomb", onX(nil, asm.Loop, asm.Empty, asm.Const(0), asm.Const(1), asm.Const(65_535), asm.Copy(), asm.Br(0), asm.End, asm.Const64(0)), plugins.ErrFuel, "ran out of fuel"},
	}
}

// That decision fails with the cause, the next one is as good as ever.
func TestStoppedWhenDeciding(t *testing.T) {
	h := newHost(t)
	for _, c := range stoppedModules() {
		t.Run(c.name, func(t *testing.T) {
			p := mustLoad(t, h, c.wasm, "{}")
			for range 3 {
				v, r, _, err := ask(p, "x")
				if v != abi.Error || !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "plugin test: ") {
					t.Fatalf("got %v, %v, want an error with %q", v, err, c.want)
				}
				if r.Reason != "" || r.Spans != nil {
					t.Fatalf("got %+v with an error", r)
				}
				if v, _, _, err := ask(p, "hello"); v != abi.Allow || err != nil {
					t.Fatalf("got %v, %v after a fault, want allow", v, err)
				}
			}
		})
	}
}

// Spans may not cut a character: the text here is one of two bytes.
func TestSpanInsideACharacter(t *testing.T) {
	half := abi.AppendResult(nil, &abi.Result{Spans: []abi.Span{{Length: 1}}})
	p := mustLoad(t, newHost(t), guest(asm.Cat(asm.Get(localPtr), asm.Load(textAt+4), asm.Const(2), asm.I32Eq,
		asm.If, asm.I64, asm.Const64(int64(abi.Pack(abi.Redact, answerAt, uint32(len(half))))), asm.Else, asm.Const64(0), asm.End), half), "{}")
	if v, _, _, err := ask(p, "\u00e9"); v != abi.Error || !errors.Is(err, plugins.ErrAnswer) || !strings.Contains(err.Error(), "span 0 [0,1) cuts a rune") {
		t.Fatalf("got %v, %v, want the span refused", v, err)
	}
}

// What a guest says to people reaches them without control characters.
func TestReasonOfControlCharacters(t *testing.T) {
	reason := "\x1b[31mred\x07\x00\u202egnp.exe\u2028line\r\n\tend\u200f"
	p := mustLoad(t, newHost(t), always(abi.Deny, &abi.Result{Code: 1, Reason: reason}), "{}")
	stage, err := moderation.New(moderation.Defaults(), source{p})
	if err != nil {
		t.Fatal(err)
	}
	res, err := stage.Judge(t.Context(), &moderation.Message{Room: "lobby", User: "ann", Kind: "message", Text: "hi"}, nil)
	if err != nil || res.Verdict != abi.Deny || len(res.Reasons) != 1 {
		t.Fatalf("got %+v, %v", res, err)
	}
	if text := res.Reasons[0].Text; strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x202e || r == 0x2028 || r == 0x200f }) || !strings.Contains(text, "red") {
		t.Errorf("got %q, want no control characters", text)
	}
}

// source is a set of judges that never changes.
type source []moderation.Judge

func (s source) Judges() []moderation.Judge { return s }
