package wasmbin_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"parley/plugins/internal/asm"
	"parley/plugins/wasmbin"
)

func allow(module, name string) bool { return module == "env" && name == "ok" }

// one returns a module with one function of that code.
func one(code ...any) []byte {
	m := asm.Module{Min: 1, Funcs: []asm.Func{{Code: asm.Cat(code...)}}}
	return m.Encode()
}

// raw returns a module with one function of that whole body.
func raw(body ...any) []byte {
	m := asm.Module{Min: 1, Funcs: []asm.Func{{Raw: asm.Cat(body...)}}}
	return m.Encode()
}

func with(edit func(*asm.Module)) []byte {
	m := asm.Module{Min: 1, Funcs: []asm.Func{{Code: []byte{asm.Nop}}}}
	edit(&m)
	return m.Encode()
}

// sections returns a module of just these sections.
func sections(parts ...[]byte) []byte {
	return append(asm.Header(), bytes.Join(parts, nil)...)
}

// reached is what is said of an import that could be called through a table.
const reached = "function 0 is imported and may only be called directly"

// imported returns a module with an import, a table, these element segments
// and this code.
func imported(elements []byte, code ...byte) []byte {
	return with(func(m *asm.Module) {
		m.Imports = []asm.Import{{Module: "env", Name: "ok"}}
		m.Table, m.Elements = asm.Cat(asm.FuncRef, 0, 2), elements
		m.Funcs[0].Code = append([]byte{asm.Nop}, code...)
	})
}

func nested(n int) []byte {
	return asm.Cat(bytes.Repeat([]byte{asm.Block, asm.Empty}, n), bytes.Repeat([]byte{asm.End}, n))
}

func TestRefused(t *testing.T) {
	memory := asm.Section(5, asm.Cat(1, 0, 1))
	for _, c := range []struct {
		name string
		wasm []byte
		want string
	}{
		{"empty", nil, "not a WebAssembly"},
		{"text", []byte("(module)"), "not a WebAssembly"},
		{"version 2", []byte{0, 'a', 's', 'm', 2, 0, 0, 0}, "not a WebAssembly"},
		{"component", []byte{0, 'a', 's', 'm', 13, 0, 1, 0}, "not a WebAssembly"},
		{"section beyond the end", sections([]byte{1, 100}), "unexpected end"},
		{"size beyond 32 bits", sections([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x7f}), "beyond 32 bits"},
		{"unknown section", sections(asm.Section(13, []byte{0})), "section 13 belongs to a proposal"},
		{"repeated section", sections(memory, memory), "section memory is repeated"},
		{"section order", sections(memory, asm.Section(1, []byte{0})), "section type is repeated or out of order"},
		{"section too long", sections(asm.Section(5, []byte{1, 0, 1, 0})), "1 bytes too long"},
		{"too many customs", sections(bytes.Repeat(asm.Section(0, asm.Name("x")), 101)), "custom sections"},

		{"1e8 locals", raw(1, asm.U(100_000_000), asm.I32, asm.End), "100000000 locals, at most"},
		{"4e9 locals", raw(1, asm.U(4_000_000_000), asm.I32, asm.End), "4000000000 locals, at most"},
		{"locals in groups", raw(asm.U(3_000), bytes.Repeat(asm.Cat(asm.U(4_000_000_000), asm.I32), 3_000), asm.End), "locals, at most"},
		{"more groups than bytes", raw(asm.U(4_000), asm.End), "do not fit"},
		{"local type", raw(1, 1, 0x64, asm.End), "local of type 0x64"},
		{"locals of all functions", with(func(m *asm.Module) {
			for range 200 {
				m.Funcs = append(m.Funcs, asm.Func{Raw: asm.Cat(1, asm.U(3_000), asm.I32, asm.End)})
			}
		}), "in all functions together"},
		{"nesting", one(nested(4_001)), "blocks nest deeper"},
		{"blocks with locals", raw(1, asm.U(4_000), asm.I32, bytes.Repeat([]byte{asm.Block, asm.Empty, asm.End}, 2_000), asm.End), "their product"},
		{"blocks with locals everywhere", with(func(m *asm.Module) {
			for range 30 {
				m.Funcs = append(m.Funcs, asm.Func{Raw: asm.Cat(1, asm.U(900), asm.I32, bytes.Repeat([]byte{asm.Block, asm.Empty, asm.End}, 100), asm.End)})
			}
		}), "of all functions together are above"},
		{"types", sections(asm.Section(1, asm.U(1_000_000))), "1000000 types, at most"},
		{"types that do not fit", sections(asm.Section(1, asm.U(3_000))), "do not fit"},
		{"type form", sections(asm.Section(1, asm.Cat(1, 0x5f, 0, 0))), "form 0x5f"},
		{"params", with(func(m *asm.Module) { m.Funcs[0].Params = bytes.Repeat([]byte{asm.I32}, 65) }), "65 params"},
		{"param type", with(func(m *asm.Module) { m.Funcs[0].Params = []byte{0x69} }), "value type 0x69"},
		{"functions", sections(asm.Section(3, asm.U(4_000_000_000))), "functions, at most"},
		{"function type", sections(asm.Section(3, asm.Cat(1, 0))), "type 0 of 0"},
		{"table", with(func(m *asm.Module) { m.Table = asm.Cat(asm.FuncRef, 0, asm.U(1_000_000)) }), "1000000 elements"},
		{"table maximum", with(func(m *asm.Module) { m.Table = asm.Cat(asm.FuncRef, 1, 1, asm.U(1_000_000)) }), "maximum of 1000000"},
		{"table type", with(func(m *asm.Module) { m.Table = asm.Cat(0x40, 0, 1) }), "type 0x40"},
		{"table that grows", with(func(m *asm.Module) {
			m.Table = asm.Cat(asm.FuncRef, 0, 1)
			m.Funcs[0].Code = asm.Cat(0xd0, 0x70, asm.Const(1), 0xfc, 15, 0, asm.Drop)
		}), "no maximum although"},
		{"no memory", with(func(m *asm.Module) { m.NoMemory = true }), "0 memories"},
		{"two memories", sections(asm.Section(5, asm.Cat(2, 0, 1, 0, 1))), "2 memories, at most 1"},
		{"big memory", with(func(m *asm.Module) { m.Min = 65_536 }), "65536 pages"},
		{"memory maximum below minimum", with(func(m *asm.Module) { m.Min, m.Max = 2, 1 }), "below minimum"},
		{"shared memory", sections(asm.Section(5, asm.Cat(1, 3, 1, 1))), "limits flag 0x3"},
		{"memory64", sections(asm.Section(5, asm.Cat(1, 4, 1))), "limits flag 0x4"},
		{"global type", sections(asm.Section(6, asm.Cat(1, 0x6e, 0, 0xd0, 0x6e, asm.End))), "type 0x6e"},
		{"extended constant", with(func(m *asm.Module) {
			m.Globals = []asm.Global{{Type: asm.I32, Init: asm.Cat(asm.Const(1), asm.Const(1), asm.I32Add)}}
		}), "extended constants"},
		{"global from a global", with(func(m *asm.Module) {
			m.Globals = []asm.Global{{Type: asm.I32, Init: asm.GlobalGet(0)}}
		}), "only one constant"},
		{"export twice", with(func(m *asm.Module) { m.Exports, m.ExportsN = asm.Cat(asm.Name("memory"), 2, 0), 1 }), "repeated"},
		{"export kind", with(func(m *asm.Module) { m.Exports, m.ExportsN = asm.Cat(asm.Name("x"), 4, 0), 1 }), "kind 4"},
		{"long name", with(func(m *asm.Module) { m.Exports, m.ExportsN = asm.Cat(asm.Name(strings.Repeat("x", 2_000)), 0, 0), 1 }), "bytes of a name"},
		{"name not UTF-8", with(func(m *asm.Module) { m.Exports, m.ExportsN = asm.Cat(asm.Name("\xff"), 0, 0), 1 }), "not UTF-8"},
		{"import of a function", with(func(m *asm.Module) { m.Imports = []asm.Import{{Module: "env", Name: "system"}} }), `import "env" "system" is not available`},
		{"import of a memory", sections(asm.Section(2, asm.Cat(1, asm.Name("env"), asm.Name("ok"), 2, 0, 1))), "is a memory"},
		{"import of a tag", sections(asm.Section(2, asm.Cat(1, asm.Name("env"), asm.Name("ok"), 4, 0, 0))), "of kind 4"},
		{"imported start", with(func(m *asm.Module) { m.Imports = []asm.Import{{Module: "env", Name: "ok"}}; m.Start = 1 }), "start function is imported"},
		{"import by ref.func", imported(nil, 0xd2, 0, asm.Drop), reached},
		{"import in an element segment", imported(asm.Cat(1, 0, asm.Const(0), asm.End, 2, 1, 0)), reached},
		{"import in an element segment of a table", imported(asm.Cat(1, 2, 0, asm.Const(0), asm.End, 0, 1, 0)), reached},
		{"import in a passive element segment", imported(asm.Cat(1, 1, 0, 1, 0)), reached},
		{"import in a declared element segment", imported(asm.Cat(1, 3, 0, 1, 0)), reached},
		{"import in expressions of an element segment", imported(asm.Cat(1, 4, asm.Const(0), asm.End, 1, 0xd2, 0, asm.End)), reached},
		{"import in expressions of a passive element segment", imported(asm.Cat(1, 5, asm.FuncRef, 1, 0xd2, 0, asm.End)), reached},
		{"import in expressions of a table's element segment", imported(asm.Cat(1, 6, 0, asm.Const(0), asm.End, asm.FuncRef, 1, 0xd2, 0, asm.End)), reached},
		{"import in expressions of a declared element segment", imported(asm.Cat(1, 7, asm.FuncRef, 1, 0xd2, 0, asm.End)), reached},
		{"import in a global", with(func(m *asm.Module) {
			m.Imports = []asm.Import{{Module: "env", Name: "ok"}}
			m.Globals = []asm.Global{{Type: asm.FuncRef, Init: asm.Cat(0xd2, 0)}}
		}), reached},
		{"bodies missing", sections(asm.Section(1, asm.Cat(1, 0x60, 0, 0)), asm.Section(3, asm.Cat(1, 0)), memory), "1 functions but 0 bodies"},
		{"bodies too many", sections(memory, asm.Section(10, asm.Cat(1, 2, 0, asm.End))), "0 functions but 1 bodies"},
		{"element flag", with(func(m *asm.Module) { m.Elements = asm.Cat(1, 8) }), "flag 8"},
		{"element items", with(func(m *asm.Module) { m.Elements = asm.Cat(1, 1, 0, asm.U(4_000_000_000)) }), "items of an element segment"},
		{"data flag", with(func(m *asm.Module) { m.Tail = asm.Section(11, asm.Cat(1, 3)) }), "flag 3"},
		{"data size", with(func(m *asm.Module) { m.Tail = asm.Section(11, asm.Cat(1, 1, asm.U(4_000_000_000))) }), "bytes of a data segment"},
		{"data count", sections(memory, asm.Section(12, asm.U(4_000_000_000))), "4000000000 data segments"},

		{"code after the end", raw(0, asm.End, asm.Nop), "after the end"},
		{"code without end", raw(0, asm.Nop), "unexpected end"},
		{"local index", one(asm.Get(3), asm.Drop), "local 3 of 0"},
		{"global index", one(asm.GlobalGet(0), asm.Drop), "global 0 of 0"},
		{"function index", one(asm.Call(9)), "function 9 of 1"},
		{"type index", one(asm.Const(0), 0x11, 7, 0), "type 7 of 1"},
		{"block type index", one(asm.Block, 7, asm.End), "block type 7 of 1"},
		{"table index", one(asm.Const(0), 0x25, 0, asm.Drop), "table 0 of 0"},
		{"label", one(asm.Br(1)), "label 1 of 1"},
		{"label of a table", one(asm.Const(0), 0x0e, 2, 0, 9, 0), "label 9 of 1"},
		{"branch targets", one(asm.Const(0), 0x0e, asm.U(1_000_000)), "branch targets, at most"},
		{"block type", one(asm.Block, 0x65, asm.End), "block type 0x65"},
		{"block type of many bytes", one(asm.Block, 0xff, 0x7f, asm.End), "malformed block type"},
		{"select of two", one(0x1c, 2, asm.I32, asm.I32), "select with 2 types"},
		{"constant too long", one(0x41, bytes.Repeat([]byte{0x80}, 6), 0), "beyond 32 bits"},

		{"exceptions", one(0x06, asm.Empty, asm.End), "exception handling"},
		{"try_table", one(0x1f, asm.Empty, 0, asm.End), "exception handling"},
		{"tail call", one(0x12, 0), "tail calls"},
		{"call_ref", one(0x14, 0), "typed function references"},
		{"garbage collection", one(0xfb, 0, 0), "garbage collection"},
		{"stack switching", one(0xe0, 0), "stack switching"},
		{"wide arithmetic", one(0xfc, 0x13), "wide arithmetic"},
		{"custom page sizes", sections(asm.Section(5, asm.Cat(1, 8, 1, 0))), "limits flag 0x8"},
		{"threads", one(0xfe, 0, 2, 0), "threads"},
		{"unknown opcode", one(0x27), "unknown"},
		{"relaxed SIMD", one(0xfd, asm.U(0x100)), "relaxed SIMD"},
		{"bulk opcode", one(0xfc, 18), "opcode 0xfc12"},
		{"multi-memory load", one(asm.Const(0), 0x28, 0x42, 1, 0, asm.Drop), "multiple memories"},
		{"multi-memory size", one(0x3f, 1, asm.Drop), "multiple memories"},
		{"null of a type", one(0xd0, 0x6e, asm.Drop), "reference type 0x6e"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := wasmbin.Parse(c.wasm, wasmbin.Defaults(), allow)
			if !errors.Is(err, wasmbin.ErrModule) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error naming %q", err, c.want)
			}
		})
	}
}

func TestFileSize(t *testing.T) {
	lim := wasmbin.Defaults()
	lim.FileBytes = 10
	if _, err := wasmbin.Parse(one(), lim, allow); err == nil || !strings.Contains(err.Error(), "at most 10") {
		t.Fatalf("got %v, want the limit of 10 named", err)
	}
}

func TestBodySize(t *testing.T) {
	lim := wasmbin.Defaults()
	lim.BodyBytes = 10
	if _, err := wasmbin.Parse(one(bytes.Repeat([]byte{asm.Nop}, 20)), lim, allow); err == nil || !strings.Contains(err.Error(), "bytes of a function, at most 10") {
		t.Fatalf("got %v, want the limit of 10 named", err)
	}
}

// An error in a body says in which function, counting imports.
func TestErrorNamesFunction(t *testing.T) {
	wasm := with(func(m *asm.Module) {
		m.Imports = []asm.Import{{Module: "env", Name: "ok"}}
		m.Funcs = append(m.Funcs, asm.Func{Code: asm.Get(1)})
	})
	_, err := wasmbin.Parse(wasm, wasmbin.Defaults(), allow)
	if err == nil || !strings.Contains(err.Error(), "section code: function 2: at byte 0") {
		t.Fatalf("got %v, want section, function and byte", err)
	}
}

func TestAccepted(t *testing.T) {
	wasm := with(func(m *asm.Module) {
		m.Imports = []asm.Import{{Module: "env", Name: "ok", Params: []byte{asm.I32}}}
		m.Funcs[0] = asm.Func{
			Export: "f", Params: []byte{asm.I32}, Results: []byte{asm.I64}, Locals: []byte{asm.I32, asm.V128},
			Code: asm.Cat(
				asm.Const(1), asm.Call(0),
				asm.Const(0), 0x0e, 2, 0, 0, 0, // br_table
				asm.Const(0), 0x11, 0, 0, // call_indirect
				asm.Const(0), asm.Const(0), asm.Const(1), 0x1c, 1, asm.I32, asm.Drop, // select i32
				0x43, 0, 0, 0, 0, asm.Drop, 0x44, make([]byte, 8), asm.Drop,
				asm.Const(1), asm.Grow(), asm.Drop, 0x3f, 0, asm.Drop,
				0xfd, 12, make([]byte, 16), 0xfd, 0x15, 0, asm.Drop, // v128.const, extract lane
				asm.Const(0), 0xfd, 0, 0, 0, asm.Drop, // v128.load
				asm.Const(0), 0xfd, 12, make([]byte, 16), 0xfd, 0x54, 0, 0, 0, asm.Drop, // load lane
				0xd0, 0x70, 0xd1, asm.Drop, 0xd2, 1, asm.Drop, // ref.null, is_null, ref.func
				asm.Const(0), asm.Const(0), asm.Const(0), 0xfc, 8, 0, 0, // memory.init
				0xfc, 9, 0, // data.drop
				asm.Const(0), asm.Const(0), asm.Const(0), 0xfc, 12, 0, 0, 0xfc, 13, 0, 0xfc, 16, 0, asm.Drop,
				asm.If, asm.Empty, asm.Else, asm.End,
				asm.Const64(-1<<63),
			),
		}
		m.Table = asm.Cat(asm.FuncRef, 1, 1, 2)
		m.Globals = []asm.Global{{Type: asm.I32, Mutable: true, Init: asm.Const(-5)}, {Type: asm.F64, Init: asm.Cat(0x44, make([]byte, 8))}}
		m.Elements = asm.Cat(3,
			0, asm.Const(0), asm.End, 1, 1, // active
			1, 0, 1, 1, // passive
			6, 0, asm.Const(0), asm.End, 0x70, 1, 0xd2, 1, asm.End) // active, expressions
		m.Start = 2
		m.Tail = asm.Cat(asm.Section(11, asm.Cat(3, 0, asm.Const(0), asm.End, 1, 'a', 1, 1, 'b', 2, 0, asm.Const(0), asm.End, 0)),
			asm.Section(0, asm.Cat(asm.Name("name"), []byte("nonsense that nobody reads"))))
	})
	m, err := wasmbin.Parse(wasm, wasmbin.Defaults(), allow)
	if err != nil {
		t.Fatal(err)
	}
	if !m.MemoryGrow || m.TableGrow || !m.TableWrites || !m.HasStart || m.Items != 3 {
		t.Errorf("got grow %t, table grow %t, table writes %t, start %t, items %d", m.MemoryGrow, m.TableGrow, m.TableWrites, m.HasStart, m.Items)
	}
	if !m.Codes[0].Calls || m.Codes[0].Locals != 2 {
		t.Errorf("got %+v, want calls and 2 locals", m.Codes[0])
	}
	if e, ok := m.Export("f"); !ok || e.Index != 1 {
		t.Errorf("got export %+v %t, want function 1", e, ok)
	}
	if _, ok := m.Export("g"); ok {
		t.Error("got an export g")
	}
	if s, ok := m.Signature(0); !ok || len(s.Params) != 1 || len(s.Results) != 0 {
		t.Errorf("got signature %v of the import", s)
	}
	if s, ok := m.Signature(1); !ok || string(s.Results) != string([]byte{asm.I64}) {
		t.Errorf("got signature %v of the function", s)
	}
	if _, ok := m.Signature(2); ok {
		t.Error("got a signature of a function that is not there")
	}
	if got, want := m.Encode(), wasm[:bytes.Index(wasm, asm.Section(0, asm.Cat(asm.Name("name"), []byte("nonsense that nobody reads"))))]; !bytes.Equal(got, want) {
		t.Errorf("got %x encoded again, want %x", got, want)
	}
}

// FuzzParse must neither panic nor take more memory than the input allows, and
// what it accepts must survive encoding.
func FuzzParse(f *testing.F) {
	f.Add(one(asm.Const(1), asm.Drop))
	f.Add(raw(1, asm.U(100_000_000), asm.I32, asm.End))
	f.Add(one(nested(20)))
	f.Add(with(func(m *asm.Module) {
		m.Table = asm.Cat(asm.FuncRef, 1, 1, 2)
		m.Elements = asm.Cat(1, 0, asm.Const(0), asm.End, 1, 0)
		m.Data, m.Start = []byte("x"), 1
		m.Globals = []asm.Global{{Type: asm.I32, Mutable: true, Init: asm.Const(1)}}
	}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wasmbin.Parse(b, wasmbin.Defaults(), allow)
		if err != nil {
			if !errors.Is(err, wasmbin.ErrModule) {
				t.Fatalf("error %v does not wrap ErrModule", err)
			}
			return
		}
		if _, err := wasmbin.Parse(m.Encode(), wasmbin.Defaults(), allow); err != nil {
			t.Fatalf("accepted once, then: %v", err)
		}
	})
}
