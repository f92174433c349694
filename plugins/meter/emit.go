package meter

import "parley/plugins/wasmbin"

// Opcodes the emitter uses beyond those wasmbin names.
const (
	dropOp    wasmbin.Op = 0x1a
	selectOp  wasmbin.Op = 0x1b
	i32LtU    wasmbin.Op = 0x49
	i64LtS    wasmbin.Op = 0x53
	i32Add    wasmbin.Op = 0x6a
	i32And    wasmbin.Op = 0x71
	i32ShrU   wasmbin.Op = 0x76
	i64Add    wasmbin.Op = 0x7c
	i64Sub    wasmbin.Op = 0x7d
	i64Or     wasmbin.Op = 0x84
	i64Shl    wasmbin.Op = 0x86
	i64ShrU   wasmbin.Op = 0x88
	i64Rotl   wasmbin.Op = 0x89
	extendU32 wasmbin.Op = 0xad
)

// emitter writes one function's instructions.
type emitter struct {
	w   *rewriter
	out []byte
	// Scratch locals, as far as the function needs them.
	l64, l32, address    uint32
	f32, f64, v128, size uint32
}

// declare appends the function's locals and the scratch ones after them.
func (e *emitter) declare(out []byte, c *wasmbin.Code) []byte {
	types := []byte{wasmbin.I64, wasmbin.I32}
	e.l32 = e.l64 + 1
	next := e.l32 + 1
	add := func(needed bool, t byte) uint32 {
		if !needed {
			return 0
		}
		types = append(types, t)
		next++
		return next - 1
	}
	writes := c.Writes != 0
	e.address = add(writes, wasmbin.I32)
	e.size = add(c.Writes&wasmbin.WritesBulk != 0, wasmbin.I32)
	e.f32 = add(c.Writes&wasmbin.WritesF32 != 0, wasmbin.F32)
	e.f64 = add(c.Writes&wasmbin.WritesF64 != 0, wasmbin.F64)
	e.v128 = add(c.Writes&wasmbin.WritesV128 != 0, wasmbin.V128)
	out = appendU32(out, uint32(c.Groups+len(types)))
	out = append(out, c.LocalGroups...)
	for _, t := range types {
		out = append(out, 1, t)
	}
	return out
}

func (e *emitter) op(op wasmbin.Op)              { e.out = append(e.out, byte(op)) }
func (e *emitter) index(op wasmbin.Op, i uint32) { e.out = appendU32(append(e.out, byte(op)), i) }
func (e *emitter) const64(v int64)               { e.out = appendS64(append(e.out, byte(wasmbin.OpI64Const)), v) }
func (e *emitter) const32(v int32) {
	e.out = appendS64(append(e.out, byte(wasmbin.OpI32Const)), int64(v))
}

// instructions copies a body without its final end, charging at loops and
// before instructions that pay by their operand, and noting what is written.
// In a wrapped function, return becomes a branch to the wrapping block.
func (e *emitter) instructions(c *wasmbin.Code, prices []int64, wrapped bool) error {
	depth, loops := uint32(0), 0
	for at := 0; at < len(c.Body)-1; {
		in, err := wasmbin.Decode(c.Body, at, len(c.Body))
		if err != nil {
			return err
		}
		raw := c.Body[at:in.Next]
		at = in.Next
		switch in.Op {
		case wasmbin.OpBlock, wasmbin.OpIf, wasmbin.OpLoop:
			depth++
		case wasmbin.OpEnd:
			depth--
		case wasmbin.OpReturn:
			if wrapped {
				e.index(wasmbin.OpBr, depth)
				continue
			}
		case wasmbin.OpMemoryInit, wasmbin.OpMemoryCopy, wasmbin.OpMemoryFill:
			e.chargeOperand(-bulkShift)
			e.bulk(raw)
			continue
		case wasmbin.OpMemoryGrow:
			e.chargeOperand(growShift)
		case wasmbin.OpTableInit, wasmbin.OpTableCopy, wasmbin.OpTableFill, wasmbin.OpTableGrow:
			e.chargeOperand(0)
			e.markDirty()
		case wasmbin.OpTableSet, wasmbin.OpDataDrop, wasmbin.OpElemDrop:
			e.markDirty()
		default:
			if wasmbin.Writes(in.Op) != 0 {
				e.store(in, raw)
				continue
			}
		}
		e.out = append(e.out, raw...)
		if in.Op == wasmbin.OpLoop {
			loops++
			e.charge(prices[loops])
		}
	}
	return nil
}

// markDirty tells the host that resetting memory and globals will not do.
func (e *emitter) markDirty() {
	e.const32(1)
	e.index(wasmbin.OpGlobalSet, e.w.dirty)
}

// store writes a store instruction and notes its block in the mask of
// WrittenExport: bit (address >> blockShift) modulo 64. A store may reach up
// to 15 bytes into the block after; the host knows.
func (e *emitter) store(in wasmbin.Instr, raw []byte) {
	value := e.l32
	switch wasmbin.Writes(in.Op) {
	case wasmbin.WritesI64:
		value = e.l64
	case wasmbin.WritesF32:
		value = e.f32
	case wasmbin.WritesF64:
		value = e.f64
	case wasmbin.WritesV128:
		value = e.v128
	}
	e.index(wasmbin.OpLocalSet, value)
	e.index(wasmbin.OpLocalTee, e.address)
	e.index(wasmbin.OpLocalGet, value)
	e.out = append(e.out, raw...)
	// It did not trap, so address + offset lies in memory.
	e.index(wasmbin.OpGlobalGet, e.w.written)
	e.const64(1)
	e.block(in.Offset)
	e.op(extendU32)
	e.op(i64Shl)
	e.op(i64Or)
	e.index(wasmbin.OpGlobalSet, e.w.written)
}

// block leaves the number of the block that holds address + offset.
func (e *emitter) block(offset uint32) {
	e.index(wasmbin.OpLocalGet, e.address)
	if offset != 0 {
		e.const32(int32(offset))
		e.op(i32Add)
	}
	e.const32(int32(e.w.shift))
	e.op(i32ShrU)
}

// bulk writes a bulk memory instruction, whose length lies in l32 and on the
// stack, and notes the blocks it wrote: as many ones as blocks, turned to the
// first of them.
func (e *emitter) bulk(raw []byte) {
	e.index(wasmbin.OpLocalSet, e.l32)
	e.index(wasmbin.OpLocalSet, e.size) // the source, or the value
	e.index(wasmbin.OpLocalTee, e.address)
	e.index(wasmbin.OpLocalGet, e.size)
	e.index(wasmbin.OpLocalGet, e.l32)
	e.out = append(e.out, raw...)
	// size = ((address & (block-1)) + length) >> shift + 1, the blocks or one
	// more. It did not trap, so nothing wraps around.
	e.index(wasmbin.OpLocalGet, e.address)
	e.const32(1<<e.w.shift - 1)
	e.op(i32And)
	e.index(wasmbin.OpLocalGet, e.l32)
	e.op(i32Add)
	e.const32(int32(e.w.shift))
	e.op(i32ShrU)
	e.const32(1)
	e.op(i32Add)
	e.index(wasmbin.OpLocalSet, e.size)

	e.index(wasmbin.OpGlobalGet, e.w.written)
	e.const64(1)
	e.index(wasmbin.OpLocalGet, e.size)
	e.op(extendU32)
	e.op(i64Shl)
	e.const64(1)
	e.op(i64Sub)
	e.const64(-1)
	e.index(wasmbin.OpLocalGet, e.size)
	e.const32(64)
	e.op(i32LtU)
	e.op(selectOp)
	e.block(0)
	e.op(extendU32)
	e.op(i64Rotl)
	e.op(i64Or)
	e.index(wasmbin.OpGlobalSet, e.w.written)
}
