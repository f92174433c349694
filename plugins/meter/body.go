package meter

import (
	"fmt"

	"parley/plugins/wasmbin"
)

// Prices in fuel. One unit is about the time of a simple instruction; a guest
// that only runs dear instructions must not gain much over one that runs
// cheap ones. So each is priced by how long it takes where the next one needs
// its result: whatever a million fuel buys is done in a millisecond, as
// BenchmarkInstructions shows. Memory that lies in no cache makes an exception.
const (
	callPrice    = 8     // a call's own work, paid by the callee with its locals
	loopPrice    = 6     // a loop's round: paying takes longer than an empty loop itself
	hostPrice    = 2_000 // what Go code does: a call of an import, whose stubs copy up to 1 KiB; growing; ref.func
	loadPrice    = 4     // from the second cache
	dividePrice  = 16
	rootPrice    = 8  // float division and square root
	convertPrice = 4  // float to integer
	vectorPrice  = 6  // SIMD: many are made of several machine instructions
	bulkPrice    = 16 // bulk memory and tables, besides their length
	bulkShift    = 3  // bulk memory: 8 bytes a unit
	growShift    = 18 // memory.grow: 4 units a byte, since each time all memory is allocated anew, cleared and copied
	frameWords   = 8  // call stack of a function without params and locals
)

// price returns what one instruction costs apart from its operand.
func (w *rewriter) price(in wasmbin.Instr) int64 {
	switch op := in.Op; {
	case op == wasmbin.OpCall && in.Index < uint32(len(w.m.Imports)),
		op == wasmbin.OpMemoryGrow, op == wasmbin.OpTableGrow, op == wasmbin.OpRefFunc:
		return hostPrice
	case op == wasmbin.OpCall, op == wasmbin.OpCallIndirect:
		return callPrice
	case op >= 0x28 && op <= 0x35:
		return loadPrice
	case op >= 0x6d && op <= 0x70, op >= 0x7f && op <= 0x82: // i32, i64: div and rem
		return dividePrice
	case op == 0x91, op == 0x95, op == 0x9f, op == 0xa3: // f32, f64: sqrt and div
		return rootPrice
	case op >= 0xa8 && op <= 0xab, op >= 0xae && op <= 0xb1, op>>8 == 0xfc && op < wasmbin.OpMemoryInit: // trunc
		return convertPrice
	case op>>8 == 0xfc: // memory.init and those after it
		return bulkPrice
	case op == 0xfde3, op == 0xfde7, op == 0xfdef, op == 0xfdf3: // f32x4, f64x2: sqrt and div
		return rootPrice
	case op>>8 == 0xfd:
		return vectorPrice
	case op == wasmbin.OpEnd, op == 0x01: // no code
		return 0
	}
	return 1
}

// moves is what a block's params and results cost each time it runs: branches
// to it move them, and one instruction may turn all of them around. Compilers
// hardly use more than the one result that is free.
func (w *rewriter) moves(in wasmbin.Instr) int64 {
	if in.Block < 0 { // no params, and one result at most
		return 0
	}
	t := w.m.Types[in.Block]
	return int64(carried(len(t.Params), len(t.Results)))
}

// carried is how many values are moved beyond one result.
func carried(params, results int) int { return params + max(results-1, 0) }

// code returns the code section with every body rewritten, and the one added.
func (w *rewriter) code() ([]byte, error) {
	n := len(w.m.Codes)
	if w.cfg.slices() {
		n++
	}
	out := appendU32(nil, uint32(n))
	var body []byte
	for i := range w.m.Codes {
		var err error
		if body, err = w.body(body[:0], i); err != nil {
			return nil, fmt.Errorf("%w: function %d: %w", ErrMeter, len(w.m.Imports)+i, err)
		}
		out = appendU32(out, uint32(len(body)))
		out = append(out, body...)
	}
	if w.cfg.slices() {
		body = w.refillBody()
		out = append(appendU32(out, uint32(len(body))), body...)
	}
	return out, nil
}

// body appends function i, rewritten.
func (w *rewriter) body(out []byte, i int) ([]byte, error) {
	c := &w.m.Codes[i]
	sig := w.m.Types[w.m.Funcs[i]]
	prices, operands, err := w.prices(c, callPrice+int64(c.Locals+carried(0, len(sig.Results))))
	if err != nil {
		return nil, err
	}
	frame := int64(frameWords + len(sig.Params) + len(sig.Results) + c.Locals + operands)
	e := emitter{w: w, l64: uint32(len(sig.Params) + c.Locals)}
	e.out = e.declare(out, c)
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
// the instructions inside, those of inner loops excepted. It also returns the
// greatest height of the operand stack.
func (w *rewriter) prices(c *wasmbin.Code, entry int64) ([]int64, int, error) {
	prices := []int64{entry}
	operands := newHeight(w.m)
	point := []int{0} // charge point of each open block, innermost last
	for at := 0; at < len(c.Body); {
		in, err := wasmbin.Decode(c.Body, at, len(c.Body))
		if err != nil {
			return nil, 0, err
		}
		at = in.Next
		operands.step(in)
		now := point[len(point)-1]
		switch in.Op {
		case wasmbin.OpLoop:
			point = append(point, len(prices))
			prices = append(prices, loopPrice+w.moves(in))
		case wasmbin.OpBlock, wasmbin.OpIf:
			point = append(point, now)
		case wasmbin.OpEnd:
			point = point[:len(point)-1]
		}
		prices[now] += w.price(in)
		if in.Op == wasmbin.OpBlock || in.Op == wasmbin.OpIf {
			prices[now] += w.moves(in)
		}
	}
	return prices, operands.most, nil
}
