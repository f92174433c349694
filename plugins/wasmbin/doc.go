// Package wasmbin reads the WebAssembly binary format under strict bounds.
//
// A compiler may spend seconds and gigabytes on a file of forty bytes: one
// that declares a hundred million locals, say. Parse therefore looks at every
// count, size and index of a module before any compiler sees it, and refuses
// by name what is too large, malformed or not metered (see package meter). Its
// own work and memory are linear in the file's size, because every count is
// checked against its limit before anything is allocated for it.
//
// Accepted is WebAssembly 2.0 (W3C, 2022) with one memory that the module
// defines itself, function imports from an allow-list only, which nothing may
// refer to but a direct call, and no other proposal. Parse does not check types; wazero's validation does that
// afterwards. Custom sections (names, DWARF) are skipped and are not part of
// a Module, so nothing behind Parse can stumble over them.
//
// Everything here is a pure function of its arguments and may be called from
// any goroutine.
package wasmbin

import (
	"errors"
	"fmt"
)

// ErrModule is wrapped by every error of this package.
var ErrModule = errors.New("wasm module refused")

// refuse builds an error that wraps ErrModule.
func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrModule, fmt.Sprintf(format, args...))
}

// Limits bounds a module. Counts unless said otherwise.
type Limits struct {
	FileBytes   int // the whole file
	Types       int
	Params      int // params plus results of one type
	Imports     int
	Functions   int // that the module defines
	Locals      int // of one function, without its params
	LocalsTotal int // of all functions
	BodyBytes   int // code of one function
	Depth       int // nesting of blocks in one function
	// ControlWork is (params + locals + 1) x blocks of one function. A compiler
	// may have to merge every local at every block: 1,000 nested loops over
	// 1,000 locals, a module of 16 KB, took half a minute and 1.2 GB.
	ControlWork      int
	ControlWorkTotal int // of all functions
	BranchTargets    int // of one br_table
	Tables           int
	TableElements    int // of one table, both minimum and maximum
	MemoryPages      int // of 64 KiB; the memory's minimum
	Globals          int
	Exports          int
	NameBytes        int // of one import or export name
	Elements         int // element segments
	ElementItems     int // items of all element segments
	DataSegments     int
	DataBytes        int // of all data segments
	CustomSections   int
}

// Defaults returns limits that a Go guest with the standard library's JSON
// package stays well below.
func Defaults() Limits {
	return Limits{
		FileBytes:        8 << 20, // a Go guest is 2-4 MB
		Types:            4_000,
		Params:           64,
		Imports:          64,
		Functions:        30_000,
		Locals:           4_000,
		LocalsTotal:      500_000,
		BodyBytes:        256 << 10, // Go guests: 30 KB; compiling takes some 500 times that in memory
		Depth:            4_000,     // Go nests one block for each resume point of a function
		ControlWork:      100_000,   // Go guests: 7 thousand
		ControlWorkTotal: 2_000_000, // Go guests: 0.6 million
		BranchTargets:    10_000,
		Tables:           4,
		TableElements:    100_000,
		MemoryPages:      1_024, // 64 MiB
		Globals:          1_000,
		Exports:          1_000,
		NameBytes:        1_024,
		Elements:         1_000,
		ElementItems:     100_000,
		DataSegments:     200_000, // Go skips runs of zeros, which makes tens of thousands
		DataBytes:        8 << 20,
		CustomSections:   100,
	}
}
