package plugins_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

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

// Modules that must not be loaded, and what the error must say.
func TestRefusedAtLoad(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		name string
		wasm []byte
		is   error
		want string
	}{
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
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, h, c.wasm, "{}")
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// onX runs code for messages of one byte, which the self-test is not.
func onX(answer []byte, code ...any) []byte {
	return guest(asm.Cat(asm.Get(localPtr), asm.Load(textAt+4), asm.Const(1), asm.I32Eq,
		asm.If, asm.I64, asm.Cat(code...), asm.Else, asm.Const64(0), asm.End), answer)
}

// answers packs a result of any bytes.
func answers(v abi.Verdict, b []byte) []byte {
	return onX(b, asm.Const64(int64(abi.Pack(v, answerAt, uint32(len(b))))))
}

// Guests that pass the self-test and misbehave later: that decision fails with
// the cause, the next one is as good as ever.
func TestStoppedWhenDeciding(t *testing.T) {
	h := newHost(t, func(c *plugins.Config) { c.GoMemoryBytes = 1 << 20 })
	span := func(s ...abi.Span) []byte { return abi.AppendResult(nil, &abi.Result{Spans: s}) }
	recursive := guest(asm.Cat(asm.Get(localPtr), asm.Load(textAt+4), asm.Const(1), asm.I32Eq, asm.If, asm.Empty, asm.Call(3), asm.End, asm.Const64(0)), nil,
		extra(asm.Func{Code: asm.Call(3)}))
	for _, c := range []struct {
		name string
		wasm []byte
		is   error
		want string
	}{
		{"endless loop", onX(nil, forever, asm.Const64(0)), plugins.ErrFuel, "more than 1000000"},
		{"endless recursion", recursive, plugins.ErrStack, "1024 KiB of call stack"},
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
	} {
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
