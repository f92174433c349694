package wasmbin

import "fmt"

// Op is an opcode. Those behind a prefix byte are prefix<<8 | number.
type Op uint16

// The opcodes that package meter and Parse treat specially.
const (
	OpUnreachable  Op = 0x00
	OpBlock        Op = 0x02
	OpLoop         Op = 0x03
	OpIf           Op = 0x04
	OpElse         Op = 0x05
	OpEnd          Op = 0x0b
	OpBr           Op = 0x0c
	OpBrIf         Op = 0x0d
	OpBrTable      Op = 0x0e
	OpReturn       Op = 0x0f
	OpCall         Op = 0x10
	OpCallIndirect Op = 0x11
	OpSelectT      Op = 0x1c
	OpLocalGet     Op = 0x20
	OpLocalSet     Op = 0x21
	OpLocalTee     Op = 0x22
	OpGlobalGet    Op = 0x23
	OpGlobalSet    Op = 0x24
	OpTableGet     Op = 0x25
	OpTableSet     Op = 0x26
	OpMemorySize   Op = 0x3f
	OpMemoryGrow   Op = 0x40
	OpI32Const     Op = 0x41
	OpI64Const     Op = 0x42
	OpF32Const     Op = 0x43
	OpF64Const     Op = 0x44
	OpRefNull      Op = 0xd0
	OpRefIsNull    Op = 0xd1
	OpRefFunc      Op = 0xd2
	OpMemoryInit   Op = 0xfc08
	OpDataDrop     Op = 0xfc09
	OpMemoryCopy   Op = 0xfc0a
	OpMemoryFill   Op = 0xfc0b
	OpTableInit    Op = 0xfc0c
	OpElemDrop     Op = 0xfc0d
	OpTableCopy    Op = 0xfc0e
	OpTableGrow    Op = 0xfc0f
	OpTableSize    Op = 0xfc10
	OpTableFill    Op = 0xfc11
	OpV128Const    Op = 0xfd0c
)

// Instr is one instruction.
type Instr struct {
	Op    Op
	Index uint32 // the local, global, function, type, label or table it names; else 0
	Block int64  // block type of block, loop and if: a type index, or negative
	// Offset is the constant that a load or store adds to its address.
	Offset uint32
	Next   int // where the following instruction begins
}

// Decode reads the instruction of body that begins at at. It refuses opcodes
// outside WebAssembly 2.0 by the name of their proposal.
func Decode(body []byte, at int, branchTargets int) (Instr, error) {
	r := reader{b: body, at: at}
	in := Instr{Op: Op(r.byte())}
	switch in.Op {
	case 0xfc, 0xfd:
		sub := r.u32()
		if sub > 0xff {
			r.fail("opcode %#x %#x belongs to a proposal that is not metered (relaxed SIMD)", in.Op, sub)
			return in, r.err
		}
		in.Op = in.Op<<8 | Op(sub)
	}
	if r.err == nil {
		immediates(&r, &in, branchTargets)
	}
	in.Next = r.at
	return in, r.err
}

// immediates reads what follows the opcode.
func immediates(r *reader, in *Instr, branchTargets int) {
	switch op := in.Op; {
	case op == OpBlock || op == OpLoop || op == OpIf:
		in.Block = blockType(r)
	case op == OpBr || op == OpBrIf || op == OpCall || op >= OpLocalGet && op <= OpTableSet || op == OpRefFunc:
		in.Index = r.u32()
	case op == OpBrTable:
		// The index is the largest label: the only one Parse must check.
		for n := r.count("branch targets", branchTargets) + 1; n > 0 && r.err == nil; n-- {
			in.Index = max(in.Index, r.u32())
		}
	case op == OpCallIndirect:
		in.Index = r.u32()
		r.u32() // table
	case op == OpSelectT:
		if n := r.u32(); n != 1 { // WebAssembly 2.0 allows one
			r.fail("select with %d types", n)
		}
		r.byte()
	case op >= 0x28 && op <= 0x3e:
		in.Offset = memArg(r)
	case op == OpMemorySize || op == OpMemoryGrow:
		zero(r)
	case op == OpI32Const:
		r.signed(32)
	case op == OpI64Const:
		r.signed(64)
	case op == OpF32Const:
		r.bytes(4)
	case op == OpF64Const:
		r.bytes(8)
	case op == OpRefNull:
		if t := r.byte(); t != FuncRef && t != ExternRef {
			r.fail("reference type %#x belongs to a proposal that is not metered", t)
		}
	case op>>8 == 0xfc:
		bulk(r, in)
	case op>>8 == 0xfd:
		vector(r, in, op&0xff)
	case op == OpUnreachable, op == 0x01, op == OpElse, op == OpEnd, op == OpReturn,
		op == 0x1a, op == 0x1b, op >= 0x45 && op <= 0xc4, op == OpRefIsNull: // none
	default:
		r.fail("opcode %#x belongs to a proposal that is not metered (%s)", uint16(op), proposal(op))
	}
}

// proposal names where an unknown opcode comes from.
func proposal(op Op) string {
	switch {
	case op >= 0x06 && op <= 0x0a, op == 0x18, op == 0x19, op == 0x1f:
		return "exception handling"
	case op == 0x12 || op == 0x13:
		return "tail calls"
	case op == 0x14 || op == 0x15 || op >= 0xd3 && op <= 0xd6:
		return "typed function references"
	case op == 0xfb:
		return "garbage collection"
	case op >= 0xe0 && op <= 0xe6:
		return "stack switching"
	case op == 0xfe:
		return "threads"
	}
	return "unknown"
}

func blockType(r *reader) int64 {
	start := r.at
	t := r.signed(33)
	if r.err != nil || t >= 0 {
		return t
	}
	switch c := r.b[start]; {
	case r.at-start != 1:
		r.fail("malformed block type")
	case c == 0x40 || isValueType(c):
	default:
		r.fail("block type %#x belongs to a proposal that is not metered", c)
	}
	return t
}

// memArg reads alignment and offset, and returns the offset.
func memArg(r *reader) uint32 {
	if align := r.u32(); align >= 32 { // bit 6 announces a memory index
		r.fail("alignment %d: multiple memories are not metered", align)
	}
	return r.u32()
}

func zero(r *reader) {
	if c := r.byte(); c != 0 {
		r.fail("memory index %d: multiple memories are not metered", c)
	}
}

func bulk(r *reader, in *Instr) {
	switch op := in.Op; {
	case op <= 0xfc07: // saturating truncation
	case op == OpMemoryInit:
		r.u32()
		zero(r)
	case op == OpMemoryCopy:
		zero(r)
		zero(r)
	case op == OpMemoryFill:
		zero(r)
	case op == OpDataDrop, op == OpElemDrop, op >= OpTableGrow && op <= OpTableFill:
		in.Index = r.u32()
	case op == OpTableInit, op == OpTableCopy:
		r.u32()
		in.Index = r.u32()
	case op >= 0xfc13 && op <= 0xfc16:
		r.fail("opcode %#x belongs to a proposal that is not metered (wide arithmetic)", uint16(op))
	default:
		r.fail("opcode %#x belongs to a proposal that is not metered", uint16(op))
	}
}

// vector reads the immediates of a SIMD instruction (0xfd prefix).
func vector(r *reader, in *Instr, sub Op) {
	switch {
	case sub <= 0x0b, sub == 0x5c, sub == 0x5d: // loads and the store
		in.Offset = memArg(r)
	case sub >= 0x54 && sub <= 0x5b: // one lane of memory
		in.Offset = memArg(r)
		r.byte()
	case sub == 0x0c, sub == 0x0d: // v128.const, i8x16.shuffle
		r.bytes(16)
	case sub >= 0x15 && sub <= 0x22: // extract and replace a lane
		r.byte()
	}
	// The gaps between the numbers are refused by wazero's validation.
}

// Kinds of instructions that write to memory, by the type of value they store.
const (
	WritesI32  = 1 << iota
	WritesI64  //
	WritesF32  //
	WritesF64  //
	WritesV128 //
	WritesBulk // memory.fill, copy and init
)

// Writes returns how op writes to memory, 0 if it does not.
func Writes(op Op) uint8 {
	switch {
	case op == 0x36, op == 0x3a, op == 0x3b:
		return WritesI32
	case op == 0x37, op >= 0x3c && op <= 0x3e:
		return WritesI64
	case op == 0x38:
		return WritesF32
	case op == 0x39:
		return WritesF64
	case op == 0xfd0b, op >= 0xfd58 && op <= 0xfd5b:
		return WritesV128
	case op == OpMemoryInit, op == OpMemoryCopy, op == OpMemoryFill:
		return WritesBulk
	}
	return 0
}

func isValueType(c byte) bool {
	return c >= V128 && c <= I32 || c == FuncRef || c == ExternRef
}

// String names control instructions and prints others as numbers.
func (op Op) String() string {
	switch op {
	case OpMemoryGrow:
		return "memory.grow"
	case OpTableGrow:
		return "table.grow"
	}
	return fmt.Sprintf("opcode %#x", uint16(op))
}
