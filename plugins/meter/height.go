package meter

import "parley/plugins/wasmbin"

// height follows the operand stack of one function, to bound how many values
// its frame may have to keep across a call. It never counts too few: an
// instruction whose effect is not listed counts as if it popped nothing but
// what it pushes, and each block's end sets the count right again.
type height struct {
	m      *wasmbin.Module
	now    int
	most   int
	blocks []openBlock
}

type openBlock struct{ base, params, results int }

func newHeight(m *wasmbin.Module) *height {
	return &height{m: m, blocks: []openBlock{{}}}
}

// step takes one instruction.
func (h *height) step(in wasmbin.Instr) {
	switch in.Op {
	case wasmbin.OpIf:
		h.move(-1)
		h.open(in)
	case wasmbin.OpBlock, wasmbin.OpLoop:
		h.open(in)
	case wasmbin.OpElse:
		b := h.blocks[len(h.blocks)-1]
		h.now = b.base + b.params
	case wasmbin.OpEnd:
		b := h.blocks[len(h.blocks)-1]
		h.blocks = h.blocks[:len(h.blocks)-1]
		h.now = b.base + b.results
		h.most = max(h.most, h.now)
	case wasmbin.OpCall:
		t, _ := h.m.Signature(in.Index)
		h.move(len(t.Results) - len(t.Params))
	case wasmbin.OpCallIndirect:
		t := h.m.Types[in.Index]
		h.move(len(t.Results) - len(t.Params) - 1)
	default:
		h.move(effect(in.Op))
	}
}

func (h *height) open(in wasmbin.Instr) {
	params, results := 0, 0
	if in.Block >= 0 {
		t := h.m.Types[in.Block]
		params, results = len(t.Params), len(t.Results)
	} else if in.Block != emptyBlock {
		results = 1
	}
	h.blocks = append(h.blocks, openBlock{max(h.now-params, 0), params, results})
}

// emptyBlock is the block type without params and results, 0x40 read as a
// signed number.
const emptyBlock = -64

// move changes the height, which dead code may let fall below its block's
// base.
func (h *height) move(by int) {
	h.now = max(h.now+by, h.blocks[len(h.blocks)-1].base)
	h.most = max(h.most, h.now)
}

// effect is how an instruction changes the operand stack.
func effect(op wasmbin.Op) int {
	switch {
	case op == wasmbin.OpLocalGet, op == wasmbin.OpGlobalGet, op == wasmbin.OpMemorySize,
		op >= wasmbin.OpI32Const && op <= wasmbin.OpF64Const,
		op == wasmbin.OpRefNull, op == wasmbin.OpRefFunc, op == wasmbin.OpTableSize, op == wasmbin.OpV128Const:
		return 1
	case op == wasmbin.OpLocalSet, op == wasmbin.OpGlobalSet, op == wasmbin.OpBrIf, op == wasmbin.OpBrTable, op == 0x1a:
		return -1
	case op == 0x1b, op == wasmbin.OpSelectT, op == wasmbin.OpTableSet, op >= 0x36 && op <= 0x3e: // select, stores
		return -2
	case op >= 0x46 && op <= 0x4f, op >= 0x51 && op <= 0x66, op >= 0x6a && op <= 0x78,
		op >= 0x7c && op <= 0x8a, op >= 0x92 && op <= 0x98, op >= 0xa0 && op <= 0xa6: // of two operands
		return -1
	case op == wasmbin.OpMemoryInit, op == wasmbin.OpMemoryCopy, op == wasmbin.OpMemoryFill,
		op == wasmbin.OpTableInit, op == wasmbin.OpTableCopy, op == wasmbin.OpTableFill:
		return -3
	case op == wasmbin.OpTableGrow:
		return -1
	case op>>8 == 0xfd:
		return vectorEffect(op & 0xff)
	}
	return 0
}

func vectorEffect(sub wasmbin.Op) int {
	switch {
	case sub == 0x0b, sub == 0x52, sub >= 0x58 && sub <= 0x5b: // store, bitselect, store lane
		return -2
	case sub == 0x0d, sub == 0x0e, sub >= 0x23 && sub <= 0x4c, sub >= 0x4e && sub <= 0x51, sub >= 0x54 && sub <= 0x57,
		sub == 0x17, sub == 0x1a, sub == 0x1c, sub == 0x1e, sub == 0x20, sub == 0x22: // of two operands, load lane
		return -1
	}
	return 0
}
