package meter

import (
	"fmt"

	"parley/plugins/wasmbin"
)

// Prices in fuel. One unit is about the time of a simple instruction; a guest
// that only runs dear instructions must not gain much over one that runs
// cheap ones.
const (
	callPrice   = 8     // a call's own work, paid by the callee with its locals
	loopPrice   = 6     // a loop's round: paying takes longer than an empty loop itself
	hostPrice   = 2_000 // a call into the host: its stubs copy up to 1 KiB
	dividePrice = 16
	rootPrice   = 8  // float division and square root
	bulkShift   = 3  // bulk memory: 8 bytes a unit
	growShift   = 13 // memory.grow: 8 bytes a unit, 64 KiB a page
	frameWords  = 8  // call stack of a function without params and locals
)

// price returns what one instruction costs apart from its operand.
func (w *rewriter) price(in wasmbin.Instr) int64 {
	switch op := in.Op; {
	case op == wasmbin.OpCall && in.Index < uint32(len(w.m.Imports)):
		return hostPrice
	case op == wasmbin.OpCall, op == wasmbin.OpCallIndirect, op>>8 == 0xfc && op >= wasmbin.OpMemoryInit,
		op == wasmbin.OpMemoryGrow:
		return callPrice
	case op >= 0x6d && op <= 0x70, op >= 0x7f && op <= 0x82: // i32, i64: div and rem
		return dividePrice
	case op == 0x91, op == 0x95, op == 0x9f, op == 0xa3: // f32, f64: sqrt and div
		return rootPrice
	case op == 0xfde3, op == 0xfde7, op == 0xfdef, op == 0xfdf3: // f32x4, f64x2: sqrt and div
		return rootPrice
	case op == wasmbin.OpEnd, op == 0x01: // no code
		return 0
	}
	return 1
}

// code returns the code section with every body rewritten.
func (w *rewriter) code() ([]byte, error) {
	out := appendU32(nil, uint32(len(w.m.Codes)))
	var body []byte
	for i := range w.m.Codes {
		var err error
		if body, err = w.body(body[:0], i); err != nil {
			return nil, fmt.Errorf("%w: function %d: %w", ErrMeter, len(w.m.Imports)+i, err)
		}
		out = appendU32(out, uint32(len(body)))
		out = append(out, body...)
	}
	return out, nil
}

// body appends function i, rewritten.
func (w *rewriter) body(out []byte, i int) ([]byte, error) {
	c := &w.m.Codes[i]
	sig := w.m.Types[w.m.Funcs[i]]
	frame := int64(frameWords + len(sig.Params) + len(sig.Results) + c.Locals)
	prices, err := w.prices(c, callPrice+int64(c.Locals))
	if err != nil {
		return nil, err
	}
	out = appendU32(out, uint32(c.Groups+2))
	out = append(out, c.LocalGroups...)
	out = append(out, 1, wasmbin.I64, 1, wasmbin.I32)
	e := emitter{w: w, out: out, l64: uint32(len(sig.Params) + c.Locals)}
	e.l32 = e.l64 + 1
	e.enter(prices[0], frame, c.Calls)
	if !c.Calls {
		if err := e.instructions(c, prices, false); err != nil {
			return nil, err
		}
		return append(e.out, byte(wasmbin.OpEnd)), nil
	}
	// Every way out of the function leads through the end of this block,
	// where the frame is given back.
	e.op(wasmbin.OpBlock)
	e.out = append(e.out, w.resultBlock(sig.Results)...)
	if err := e.instructions(c, prices, true); err != nil {
		return nil, err
	}
	e.op(wasmbin.OpEnd)
	e.index(wasmbin.OpGlobalGet, w.stack)
	e.const64(frame)
	e.op(i64Add)
	e.index(wasmbin.OpGlobalSet, w.stack)
	return append(e.out, byte(wasmbin.OpEnd)), nil
}

// prices returns what to charge at the function's entry, to which entry is
// added, and then at each loop in the order of their headers: the price of
// the instructions inside, those of inner loops excepted.
func (w *rewriter) prices(c *wasmbin.Code, entry int64) ([]int64, error) {
	prices := []int64{entry}
	point := []int{0} // charge point of each open block, innermost last
	for at := 0; at < len(c.Body); {
		in, err := wasmbin.Decode(c.Body, at, len(c.Body))
		if err != nil {
			return nil, err
		}
		at = in.Next
		now := point[len(point)-1]
		switch in.Op {
		case wasmbin.OpLoop:
			point = append(point, len(prices))
			prices = append(prices, loopPrice)
		case wasmbin.OpBlock, wasmbin.OpIf:
			point = append(point, now)
		case wasmbin.OpEnd:
			point = point[:len(point)-1]
		}
		prices[now] += w.price(in)
	}
	return prices, nil
}

// Opcodes the emitter uses beyond those wasmbin names.
const (
	i64LtS    wasmbin.Op = 0x53
	i64Add    wasmbin.Op = 0x7c
	i64Sub    wasmbin.Op = 0x7d
	i64Or     wasmbin.Op = 0x84
	i64Shl    wasmbin.Op = 0x86
	i64ShrU   wasmbin.Op = 0x88
	extendU32 wasmbin.Op = 0xad
)

// emitter writes one function's instructions.
type emitter struct {
	w        *rewriter
	out      []byte
	l64, l32 uint32 // scratch locals
}

func (e *emitter) op(op wasmbin.Op)              { e.out = append(e.out, byte(op)) }
func (e *emitter) index(op wasmbin.Op, i uint32) { e.out = appendU32(append(e.out, byte(op)), i) }
func (e *emitter) const64(v int64)               { e.out = appendS64(append(e.out, byte(wasmbin.OpI64Const)), v) }

// enter charges at a function's entry and takes its frame from the stack.
func (e *emitter) enter(price, frame int64, calls bool) {
	e.index(wasmbin.OpGlobalGet, e.w.fuel)
	e.const64(price)
	e.op(i64Sub)
	e.index(wasmbin.OpLocalTee, e.l64)
	e.index(wasmbin.OpGlobalSet, e.w.fuel)
	e.index(wasmbin.OpLocalGet, e.l64)
	if calls {
		e.index(wasmbin.OpGlobalGet, e.w.stack)
		e.const64(frame)
		e.op(i64Sub)
		e.index(wasmbin.OpLocalTee, e.l64)
		e.index(wasmbin.OpGlobalSet, e.w.stack)
		e.index(wasmbin.OpLocalGet, e.l64)
		e.op(i64Or) // one test for both: negative if either is
	}
	e.trapIfNegative()
}

// charge takes a fixed price.
func (e *emitter) charge(price int64) {
	e.index(wasmbin.OpGlobalGet, e.w.fuel)
	e.const64(price)
	e.pay()
}

// chargeOperand takes a price from the i32 on top of the stack, which stays
// there, shifted by shift: to the left if positive.
func (e *emitter) chargeOperand(shift int64) {
	e.index(wasmbin.OpLocalTee, e.l32)
	e.index(wasmbin.OpGlobalGet, e.w.fuel)
	e.index(wasmbin.OpLocalGet, e.l32)
	e.op(extendU32)
	switch {
	case shift > 0:
		e.const64(shift)
		e.op(i64Shl)
	case shift < 0:
		e.const64(-shift)
		e.op(i64ShrU)
	}
	e.pay()
}

// pay subtracts, stores and tests. The counter cannot wrap: it traps at the
// first negative value, and no single price reaches 2^46.
func (e *emitter) pay() {
	e.op(i64Sub)
	e.index(wasmbin.OpLocalTee, e.l64)
	e.index(wasmbin.OpGlobalSet, e.w.fuel)
	e.index(wasmbin.OpLocalGet, e.l64)
	e.trapIfNegative()
}

func (e *emitter) trapIfNegative() {
	e.const64(0)
	e.op(i64LtS)
	e.out = append(e.out, byte(wasmbin.OpIf), 0x40, byte(wasmbin.OpUnreachable), byte(wasmbin.OpEnd))
}

// instructions copies a body without its final end, charging at loops and
// before instructions that pay by their operand. In a wrapped function,
// return becomes a branch to the wrapping block.
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
		case wasmbin.OpMemoryGrow:
			e.chargeOperand(growShift)
		case wasmbin.OpTableInit, wasmbin.OpTableCopy, wasmbin.OpTableFill, wasmbin.OpTableGrow:
			e.chargeOperand(0)
			e.markDirty()
		case wasmbin.OpTableSet, wasmbin.OpDataDrop, wasmbin.OpElemDrop:
			e.markDirty()
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
	e.out = append(e.out, byte(wasmbin.OpI32Const), 1)
	e.index(wasmbin.OpGlobalSet, e.w.dirty)
}
