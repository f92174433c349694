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
	"strings"

	"parley/plugins/wasmbin"
)

// Version numbers what Rewrite produces; caches of its output include it.
const Version = 5

// Exports that the rewriter adds for the host.
const (
	Prefix      = "parley_"       // no export of the original may begin so
	FuelExport  = "parley_fuel"   // i64, mutable: fuel left; negative after running out
	StackExport = "parley_stack"  // i64, mutable: words of call stack left; negative after recursing too deeply
	DirtyExport = "parley_dirty"  // i32, mutable: not 0 after a table or segment changed; absent if none can
	globalName  = "parley_global" // followed by the index: each mutable global of the original

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
	Fuel       int64  // initial value of FuelExport
	StackWords int64  // initial value of StackExport, in words of 8 bytes
	MaxPages   uint32 // of 64 KiB; bounds the memory's maximum
}

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
	w := &rewriter{m: m, cfg: cfg, types: len(m.Types)}
	w.fuel = uint32(len(m.Globals))
	w.stack, w.written, w.dirty = w.fuel+1, w.fuel+2, w.fuel+3
	w.shift = blockShift(m.Memory.Min)
	if err := w.globalExports(); err != nil {
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
	m                           *wasmbin.Module
	cfg                         Config
	fuel, stack, written, dirty uint32 // indices of the added globals
	shift                       uint
	names                       []string
	exports                     []byte // encoded exports to add
	nexports                    int
	types                       int    // with those added
	addedTypes                  []byte // encoded
}

func (w *rewriter) export(name string, global uint32) {
	w.exports = appendU32(w.exports, uint32(len(name)))
	w.exports = append(w.exports, name...)
	w.exports = append(w.exports, wasmbin.KindGlobal)
	w.exports = appendU32(w.exports, global)
	w.nexports++
}

// globalExports lists what the host must be able to read and write.
func (w *rewriter) globalExports() error {
	w.export(FuelExport, w.fuel)
	w.export(StackExport, w.stack)
	w.export(WrittenExport, w.written)
	if w.m.TableWrites {
		w.export(DirtyExport, w.dirty)
	}
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
	globals, nglobals := w.newGlobals()
	bodies[wasmbin.SectionGlobal] = extend(bodies[wasmbin.SectionGlobal], len(w.m.Globals), globals, nglobals)
	bodies[wasmbin.SectionExport] = extend(bodies[wasmbin.SectionExport], len(w.m.Exports), w.exports, w.nexports)
	if w.types > len(w.m.Types) {
		bodies[wasmbin.SectionType] = extend(bodies[wasmbin.SectionType], len(w.m.Types), w.addedTypes, w.types-len(w.m.Types))
	}
	if len(w.m.Codes) > 0 {
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

// newGlobals encodes the added globals in the order of their indices and
// returns how many they are.
func (w *rewriter) newGlobals() ([]byte, int) {
	b := append([]byte{wasmbin.I64, 1, byte(wasmbin.OpI64Const)}, appendS64(nil, w.cfg.Fuel)...)
	b = append(b, byte(wasmbin.OpEnd), wasmbin.I64, 1, byte(wasmbin.OpI64Const))
	b = append(appendS64(b, w.cfg.StackWords), byte(wasmbin.OpEnd))
	b = append(b, wasmbin.I64, 1, byte(wasmbin.OpI64Const), 0, byte(wasmbin.OpEnd))
	if !w.m.TableWrites {
		return b, 3
	}
	return append(b, wasmbin.I32, 1, byte(wasmbin.OpI32Const), 0, byte(wasmbin.OpEnd)), 4
}

// resultBlock returns the block type that has a function's results.
func (w *rewriter) resultBlock(results []byte) []byte {
	switch len(results) {
	case 0:
		return []byte{0x40}
	case 1:
		return results
	}
	for i, t := range w.m.Types {
		if len(t.Params) == 0 && string(t.Results) == string(results) {
			return appendS64(nil, int64(i))
		}
	}
	w.addedTypes = append(w.addedTypes, 0x60, 0)
	w.addedTypes = appendU32(w.addedTypes, uint32(len(results)))
	w.addedTypes = append(w.addedTypes, results...)
	w.types++
	return appendS64(nil, int64(w.types-1))
}
