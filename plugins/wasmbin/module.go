package wasmbin

import "encoding/binary"

// The section numbers (WebAssembly 2.0, section 5.5.2).
const (
	SectionCustom byte = iota
	SectionType
	SectionImport
	SectionFunction
	SectionTable
	SectionMemory
	SectionGlobal
	SectionExport
	SectionStart
	SectionElement
	SectionCode
	SectionData
	SectionDataCount
)

var sectionNames = [...]string{"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count"}

// Value types.
const (
	I32       byte = 0x7f
	I64       byte = 0x7e
	F32       byte = 0x7d
	F64       byte = 0x7c
	V128      byte = 0x7b
	FuncRef   byte = 0x70
	ExternRef byte = 0x6f
)

// Kinds of imports and exports.
const (
	KindFunc byte = iota
	KindTable
	KindMemory
	KindGlobal
)

// Section is one section as it stands in the file, custom ones excepted.
type Section struct {
	ID   byte
	Body []byte // shares the file's bytes
}

// FuncType is a function's signature.
type FuncType struct {
	Params, Results []byte // value types; share the file's bytes
}

// Import is an imported function, the only kind allowed.
type Import struct {
	Module, Name string
	Type         uint32 // index into Types
}

// Table is a table's reference type and size in elements.
type Table struct {
	Type     byte
	Min, Max uint32
	HasMax   bool
}

// Memory is the memory's size in pages of 64 KiB.
type Memory struct {
	Min, Max uint32
	HasMax   bool
}

// Global is a global's type.
type Global struct {
	Type    byte
	Mutable bool
}

// Export names a function, table, memory or global.
type Export struct {
	Name  string
	Kind  byte
	Index uint32
}

// Code is the body of a function the module defines.
type Code struct {
	LocalGroups []byte // the declarations without their count, as they stand
	Groups      int    // how many declarations
	Locals      int    // how many locals they declare
	Body        []byte // instructions with the final end
	Calls       bool   // has a call or call_indirect
	Writes      uint8  // how its instructions write to memory: see func Writes
}

// Module is what Parse found. It shares the file's bytes; treat both as
// read-only.
type Module struct {
	Sections []Section // in order, without custom sections
	Types    []FuncType
	Imports  []Import
	Funcs    []uint32 // type index of each function the module defines
	Tables   []Table
	Memory   Memory
	Globals  []Global
	Exports  []Export
	Codes    []Code
	HasStart bool
	Start    uint32 // function index, if HasStart

	MemoryGrow  bool // has a memory.grow instruction
	TableGrow   bool // has a table.grow instruction
	TableWrites bool // changes tables or drops segments, which no reset undoes
	Items       int  // items of all element segments
}

// Export returns the export of that name.
func (m *Module) Export(name string) (Export, bool) {
	for _, e := range m.Exports {
		if e.Name == name {
			return e, true
		}
	}
	return Export{}, false
}

// Signature returns the type of function index, which counts imports first.
func (m *Module) Signature(index uint32) (FuncType, bool) {
	switch n := uint32(len(m.Imports)); {
	case index < n:
		return m.Types[m.Imports[index].Type], true
	case index-n < uint32(len(m.Funcs)):
		return m.Types[m.Funcs[index-n]], true
	}
	return FuncType{}, false
}

// Encode returns the module as a file again, without custom sections.
func (m *Module) Encode() []byte {
	out := append([]byte(nil), header...)
	for _, s := range m.Sections {
		out = append(out, s.ID)
		out = binary.AppendUvarint(out, uint64(len(s.Body)))
		out = append(out, s.Body...)
	}
	return out
}

func appendLength(b []byte, n int) []byte { return binary.AppendUvarint(b, uint64(n)) }

func appendName(b []byte, s string) []byte { return append(appendLength(b, len(s)), s...) }
