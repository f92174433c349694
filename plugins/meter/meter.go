// Package meter makes a WebAssembly module pay for what it does.
//
// Rewrite adds a fuel counter to a module: at each function's entry and at
// each loop's header the guest pays, in advance, for every instruction it could
// run until the next such point, and traps when the counter is negative.
// Between two of these points an instruction runs at most once, so the price is
// an upper bound, and since no clock is involved the same input costs the same
// on every machine. Instructions whose work depends on an operand (bulk memory,
// tables, memory.grow) also pay by that operand.
//
// A second counter bounds the call stack: functions that call others take the
// size of their frame (locals, and the most operands they could have to keep)
// at entry and give it back at exit, so endless recursion ends long before the
// compiler's own limit of hundreds of megabytes.
//
// A mask notes which blocks of memory were written, so that the host can put
// back those instead of all.
//
// Rewrite relies on what wasmbin.Parse has checked, above all that no
// instruction names a local, global or type that the module does not have:
// those numbers belong to what is added here. The original must also have been
// validated; the rewritten module is then valid and behaves the same, apart
// from trapping. Rewrite is a pure function.
package meter

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"parley/plugins/wasmbin"
)

// Version numbers what Rewrite produces; caches of its output include it.
const Version = 7

// Exports that the rewriter adds for the host.
const (
	Prefix        = "parley_"        // no export of the original may begin so
	FuelExport    = "parley_fuel"    // i64, mutable: fuel left; with that of ReserveExport negative after running out
	ReserveExport = "parley_reserve" // i64, mutable: fuel left beside the slice in use; absent if there are no slices
	StackExport   = "parley_stack"   // i64, mutable: words of call stack left; negative after recursing too deeply
	DirtyExport   = "parley_dirty"   // i32, mutable: not 0 after a table or segment changed; absent if none can
	globalName    = "parley_global"  // followed by the index: each mutable global of the original

	// WrittenExport is an i64, mutable: bit n is set if the guest may have
	// written to a block of memory whose number is n modulo 64. A write that
	// began in a block may reach at most MaxSpill bytes into the one after it.
	WrittenExport = "parley_written"
	MaxSpill      = 15
)

// ErrMeter is wrapped by every error of Rewrite.
var ErrMeter = errors.New("wasm module cannot be metered")

// Config says what the start function may use and how far memory may grow.
// Later calls use what the host puts into the counters.
type Config struct {
	Fuel       uint64 // initial value of FuelExport, and of ReserveExport if there are slices: see Split
	Budget     uint64 // fuel of the largest later call; above SliceAbove it is burnt in slices
	StackWords int64  // initial value of StackExport, in words of 8 bytes
	MaxPages   uint32 // of 64 KiB; bounds the memory's maximum
}

func (c Config) slices() bool { return c.Budget > SliceAbove }

// Metered is a rewritten module.
type Metered struct {
	Wasm    []byte
	Globals []string // exports of the original's mutable globals, for snapshot and reset
	Dirty   bool     // DirtyExport exists
	// BlockShift is the binary logarithm of a block's size; see WrittenExport.
	BlockShift uint
}

// blockShift makes 64 blocks of a memory's first pages, or more where that
// would make them smaller than copying one is worth.
func blockShift(pages uint32) uint {
	const least = 10 // 1 KiB
	shift := uint(least)
	for uint64(64)<<shift < uint64(pages)<<16 {
		shift++
	}
	return shift
}

// Rewrite returns m with metering added. The memory's maximum becomes its
// minimum if the module never grows it, and at most cfg.MaxPages otherwise.
func Rewrite(m *wasmbin.Module, cfg Config) (*Metered, error) {
	if m.Memory.Min > cfg.MaxPages {
		return nil, fmt.Errorf("%w: its memory begins with %d KiB, at most %d KiB (limits.memory_bytes)",
			ErrMeter, m.Memory.Min*64, cfg.MaxPages*64)
	}
	for _, e := range m.Exports {
		if strings.HasPrefix(e.Name, Prefix) {
			return nil, fmt.Errorf("%w: export %q: names beginning with %q are reserved for the host", ErrMeter, e.Name, Prefix)
		}
	}
	w := &rewriter{m: m, cfg: cfg, types: slices.Clone(m.Types)}
	w.addGlobals()
	if cfg.slices() {
		w.refill, w.refillType = uint32(len(m.Imports)+len(m.Funcs)), w.typeOf(nil, nil)
	}
	w.shift = blockShift(m.Memory.Min)
	if err := w.exportGlobals(); err != nil {
		return nil, err
	}
	code, err := w.code()
	if err != nil {
		return nil, err
	}
	return &Metered{Wasm: w.assemble(code), Globals: w.names, Dirty: m.TableWrites, BlockShift: w.shift}, nil
}

// rewriter is the state of one Rewrite.
type rewriter struct {
	m     *wasmbin.Module
	cfg   Config
	shift uint
	names []string
	types []wasmbin.FuncType // the module's, then those added

	// Indices of the added globals, those that there are.
	fuel, stack, written, dirty, reserve uint32
	globals                              []byte // those, encoded
	nglobals                             int
	exports                              []byte // encoded exports to add
	nexports                             int

	// The added function, if there are slices.
	refill, refillType uint32
}

// addGlobals adds the globals that count and their exports.
func (w *rewriter) addGlobals() {
	fuel, reserve := Split(w.cfg.Fuel, w.cfg.slices())
	w.fuel = w.addGlobal(FuelExport, wasmbin.I64, int64(fuel))
	w.stack = w.addGlobal(StackExport, wasmbin.I64, w.cfg.StackWords)
	w.written = w.addGlobal(WrittenExport, wasmbin.I64, 0)
	if w.m.TableWrites {
		w.dirty = w.addGlobal(DirtyExport, wasmbin.I32, 0)
	}
	if w.cfg.slices() {
		w.reserve = w.addGlobal(ReserveExport, wasmbin.I64, int64(reserve))
	}
}

// addGlobal adds a mutable integer and returns its index.
func (w *rewriter) addGlobal(export string, t byte, initial int64) uint32 {
	op := wasmbin.OpI64Const
	if t == wasmbin.I32 {
		op = wasmbin.OpI32Const
	}
	w.globals = append(w.globals, t, 1, byte(op))
	w.globals = append(appendS64(w.globals, initial), byte(wasmbin.OpEnd))
	index := uint32(len(w.m.Globals) + w.nglobals)
	w.nglobals++
	w.export(export, index)
	return index
}

func (w *rewriter) export(name string, global uint32) {
	w.exports = appendU32(w.exports, uint32(len(name)))
	w.exports = append(w.exports, name...)
	w.exports = append(w.exports, wasmbin.KindGlobal)
	w.exports = appendU32(w.exports, global)
	w.nexports++
}

// exportGlobals exports the module's own globals that a reset must put back.
func (w *rewriter) exportGlobals() error {
	for i, g := range w.m.Globals {
		if !g.Mutable {
			continue
		}
		switch g.Type {
		case wasmbin.I32, wasmbin.I64, wasmbin.F32, wasmbin.F64:
		default:
			return fmt.Errorf("%w: mutable global %d holds a vector or a reference, which the host cannot reset", ErrMeter, i)
		}
		name := fmt.Sprint(globalName, i)
		w.names = append(w.names, name)
		w.export(name, uint32(i))
	}
	return nil
}

// assemble writes the sections in order, changed ones anew.
func (w *rewriter) assemble(code []byte) []byte {
	bodies := make(map[byte][]byte, len(w.m.Sections)+2)
	for _, s := range w.m.Sections {
		bodies[s.ID] = s.Body
	}
	bodies[wasmbin.SectionMemory] = w.memory()
	bodies[wasmbin.SectionGlobal] = extend(bodies[wasmbin.SectionGlobal], len(w.m.Globals), w.globals, w.nglobals)
	bodies[wasmbin.SectionExport] = extend(bodies[wasmbin.SectionExport], len(w.m.Exports), w.exports, w.nexports)
	if w.cfg.slices() {
		bodies[wasmbin.SectionFunction] = extend(bodies[wasmbin.SectionFunction], len(w.m.Funcs), appendU32(nil, w.refillType), 1)
	}
	if added := w.types[len(w.m.Types):]; len(added) > 0 {
		bodies[wasmbin.SectionType] = extend(bodies[wasmbin.SectionType], len(w.m.Types), encodeTypes(added), len(added))
	}
	if len(w.m.Codes) > 0 || w.cfg.slices() {
		bodies[wasmbin.SectionCode] = code
	}
	out := []byte{0, 'a', 's', 'm', 1, 0, 0, 0}
	for _, id := range []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, wasmbin.SectionDataCount, wasmbin.SectionCode, wasmbin.SectionData} {
		if body, ok := bodies[id]; ok {
			out = append(out, id)
			out = appendU32(out, uint32(len(body)))
			out = append(out, body...)
		}
	}
	return out
}

// memory returns the memory section with its maximum.
func (w *rewriter) memory() []byte {
	most := w.m.Memory.Min
	if w.m.MemoryGrow {
		most = w.cfg.MaxPages
		if w.m.Memory.HasMax {
			most = min(most, w.m.Memory.Max)
		}
	}
	return appendU32(appendU32([]byte{1, 1}, w.m.Memory.Min), most)
}

// resultBlock returns the block type that has a function's results.
func (w *rewriter) resultBlock(results []byte) []byte {
	switch len(results) {
	case 0:
		return []byte{0x40}
	case 1:
		return results
	}
	return appendS64(nil, int64(w.typeOf(nil, results)))
}

// typeOf returns the index of a function type, which is added if the module
// has none such.
func (w *rewriter) typeOf(params, results []byte) uint32 {
	for i, t := range w.types {
		if string(t.Params) == string(params) && string(t.Results) == string(results) {
			return uint32(i)
		}
	}
	w.types = append(w.types, wasmbin.FuncType{Params: params, Results: results})
	return uint32(len(w.types) - 1)
}

func encodeTypes(types []wasmbin.FuncType) (b []byte) {
	for _, t := range types {
		b = appendU32(append(b, 0x60), uint32(len(t.Params)))
		b = appendU32(append(b, t.Params...), uint32(len(t.Results)))
		b = append(b, t.Results...)
	}
	return b
}
