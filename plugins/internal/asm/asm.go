// Package asm assembles small WebAssembly modules for tests: right ones, wrong
// ones and hostile ones. It checks nothing, since a test of a checker must be
// able to write nonsense. Values may be used from any goroutine.
package asm

import "encoding/binary"

// Value types.
const (
	I32     = 0x7f
	I64     = 0x7e
	F32     = 0x7d
	F64     = 0x7c
	V128    = 0x7b
	FuncRef = 0x70
	Empty   = 0x40 // block type without result
)

// Instructions without immediates, and prefixes of those with.
const (
	Unreachable = 0x00
	Nop         = 0x01
	Block       = 0x02
	Loop        = 0x03
	If          = 0x04
	Else        = 0x05
	End         = 0x0b
	Return      = 0x0f
	Drop        = 0x1a
	Select      = 0x1b
	I32Eqz      = 0x45
	I32Eq       = 0x46
	I32LtU      = 0x49
	I32GtU      = 0x4b
	I32Add      = 0x6a
	I32Sub      = 0x6b
	I32Mul      = 0x6c
	I64Add      = 0x7c
	I64Or       = 0x84
	I64Shl      = 0x86
	ExtendU     = 0xad // i64.extend_i32_u
	I32Wrap     = 0xa7 // i32.wrap_i64
)

// U encodes an unsigned LEB128.
func U(v uint32) []byte { return binary.AppendUvarint(nil, uint64(v)) }

// S encodes a signed LEB128.
func S(v int64) (b []byte) {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// Name encodes a name: length and bytes.
func Name(s string) []byte { return append(U(uint32(len(s))), s...) }

// Cat joins instructions: bytes, byte slices and opcode constants.
func Cat(parts ...any) (b []byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case []byte:
			b = append(b, p...)
		case byte:
			b = append(b, p)
		case int:
			b = append(b, byte(p))
		case rune:
			b = append(b, byte(p))
		default:
			panic("asm: neither bytes nor a number")
		}
	}
	return b
}

// Instructions with immediates.

// Const is i32.const.
func Const(v int32) []byte { return Cat(0x41, S(int64(v))) }

// Const64 is i64.const.
func Const64(v int64) []byte { return Cat(0x42, S(v)) }

// Get is local.get.
func Get(i uint32) []byte { return Cat(0x20, U(i)) }

// Set is local.set.
func Set(i uint32) []byte { return Cat(0x21, U(i)) }

// Tee is local.tee.
func Tee(i uint32) []byte { return Cat(0x22, U(i)) }

// GlobalGet is global.get.
func GlobalGet(i uint32) []byte { return Cat(0x23, U(i)) }

// GlobalSet is global.set.
func GlobalSet(i uint32) []byte { return Cat(0x24, U(i)) }

// Br is br.
func Br(l uint32) []byte { return Cat(0x0c, U(l)) }

// BrIf is br_if.
func BrIf(l uint32) []byte { return Cat(0x0d, U(l)) }

// Call is call.
func Call(f uint32) []byte { return Cat(0x10, U(f)) }

// Load is i32.load at a constant offset.
func Load(off uint32) []byte { return Cat(0x28, 2, U(off)) }

// Load8 is i32.load8_u at a constant offset.
func Load8(off uint32) []byte { return Cat(0x2d, 0, U(off)) }

// Load8At is i32.load8_u of a constant address.
func Load8At(addr int32) []byte { return Cat(Const(addr), Load8(0)) }

// Store is i32.store at a constant offset.
func Store(off uint32) []byte { return Cat(0x36, 2, U(off)) }

// Grow is memory.grow.
func Grow() []byte { return []byte{0x40, 0} }

// Fill is memory.fill.
func Fill() []byte { return []byte{0xfc, 11, 0} }

// Copy is memory.copy.
func Copy() []byte { return []byte{0xfc, 10, 0, 0} }

// Func is a function: its type, locals and code without the final end.
type Func struct {
	Params, Results []byte
	Locals          []byte // one value type each
	Code            []byte
	Export          string // "" for none
	Raw             []byte // the whole body in place of Locals and Code
}

// Import is a function import.
type Import struct {
	Module, Name    string
	Params, Results []byte
}

// Global is a global with a constant initial value.
type Global struct {
	Type    byte
	Mutable bool
	Init    []byte // one constant instruction
}

// Module is what Encode assembles. Function indices count imports first; each
// function and import has a type of its own.
type Module struct {
	Imports  []Import
	Funcs    []Func
	Table    []byte // body of the table section without its count of 1; nil for none
	NoMemory bool
	Hide     bool   // do not export the memory
	Min, Max uint32 // pages; Max 0 means none declared
	Globals  []Global
	Start    int    // index+1 of the start function; 0 for none
	Elements []byte // body of the element section
	Count    uint32 // of the data count section; 0 for none
	Data     []byte // written at address DataAt
	DataAt   int32
	Exports  []byte // further exports: name, kind, index each, ExportsN of them
	ExportsN int
	Tail     []byte // bytes appended as they are
}

// Header is the magic number and the version.
func Header() []byte { return []byte{0, 'a', 's', 'm', 1, 0, 0, 0} }

// Section encodes one section.
func Section(id byte, body []byte) []byte { return Cat(id, U(uint32(len(body))), body) }

// Vec encodes a vector of encoded items.
func Vec(items ...[]byte) []byte {
	b := U(uint32(len(items)))
	for _, it := range items {
		b = append(b, it...)
	}
	return b
}

// Encode returns the binary. The memory is exported as "memory".
func (m *Module) Encode() []byte {
	var types, imports, funcs, exports, codes [][]byte
	fn := func(params, results []byte) []byte {
		t := U(uint32(len(types)))
		types = append(types, Cat(0x60, U(uint32(len(params))), params, U(uint32(len(results))), results))
		return t
	}
	for _, im := range m.Imports {
		imports = append(imports, Cat(Name(im.Module), Name(im.Name), 0, fn(im.Params, im.Results)))
	}
	if !m.NoMemory && !m.Hide {
		exports = append(exports, Cat(Name("memory"), 2, 0))
	}
	for i, f := range m.Funcs {
		funcs = append(funcs, fn(f.Params, f.Results))
		if f.Export != "" {
			exports = append(exports, Cat(Name(f.Export), 0, U(uint32(len(m.Imports)+i))))
		}
		codes = append(codes, f.body())
	}
	out := Header()
	out = append(out, Section(1, Vec(types...))...)
	if len(imports) > 0 {
		out = append(out, Section(2, Vec(imports...))...)
	}
	out = append(out, Section(3, Vec(funcs...))...)
	if m.Table != nil {
		out = append(out, Section(4, Cat(1, m.Table))...)
	}
	switch {
	case m.NoMemory:
	case m.Max > 0:
		out = append(out, Section(5, Cat(1, 1, U(m.Min), U(m.Max)))...)
	default:
		out = append(out, Section(5, Cat(1, 0, U(m.Min)))...)
	}
	if len(m.Globals) > 0 {
		var globals [][]byte
		for _, g := range m.Globals {
			mutable := 0
			if g.Mutable {
				mutable = 1
			}
			globals = append(globals, Cat(g.Type, mutable, g.Init, End))
		}
		out = append(out, Section(6, Vec(globals...))...)
	}
	all := Vec(exports...)
	out = append(out, Section(7, Cat(U(uint32(len(exports)+m.ExportsN)), all[1:], m.Exports))...)
	if m.Start > 0 {
		out = append(out, Section(8, U(uint32(m.Start-1)))...)
	}
	if m.Elements != nil {
		out = append(out, Section(9, m.Elements)...)
	}
	if m.Count > 0 {
		out = append(out, Section(12, U(m.Count))...)
	}
	out = append(out, Section(10, Vec(codes...))...)
	if m.Data != nil {
		out = append(out, Section(11, Cat(1, 0, Const(m.DataAt), End, U(uint32(len(m.Data))), m.Data))...)
	}
	return append(out, m.Tail...)
}

func (f *Func) body() []byte {
	raw := f.Raw
	if raw == nil {
		var locals [][]byte
		for _, t := range f.Locals {
			locals = append(locals, Cat(1, t))
		}
		raw = Cat(Vec(locals...), f.Code, End)
	}
	return Cat(U(uint32(len(raw))), raw)
}
