package meter

import "parley/plugins/wasmbin"

// The compiled code of a guest cannot be interrupted, so Go's garbage
// collector, which has to stop everything for a moment, waits for it. A guest
// with a large budget therefore burns it in slices, and leaves its compiled code
// for a moment when one is used up; there Go's scheduler can stop it. Slices
// change neither what a guest does nor what it burns.
const (
	Slice = 100_000 // fuel; an endless loop burns it in some 10 µs
	// SliceAbove is the budget up to which there are no slices: in a short
	// function of C the call that takes one costs some 15 % even where it is never
	// made, because the compiler keeps registers free for it.
	SliceAbove = 1_000_000
)

// Split divides a budget into the values of FuelExport and, where there are
// slices, ReserveExport that a call begins with.
func Split(budget uint64, slices bool) (fuel, reserve uint64) {
	if !slices {
		return budget, 0
	}
	fuel = min(budget, Slice)
	return fuel, budget - fuel
}

// enter charges at a function's entry and takes its frame from the stack.
func (e *emitter) enter(price, frame int64, calls bool) {
	e.index(wasmbin.OpGlobalGet, e.w.fuel)
	e.const64(price)
	e.take()
	if calls {
		e.index(wasmbin.OpGlobalGet, e.w.stack)
		e.const64(frame)
		e.op(i64Sub)
		e.index(wasmbin.OpLocalTee, e.l64)
		e.index(wasmbin.OpGlobalSet, e.w.stack)
		e.index(wasmbin.OpLocalGet, e.l64)
		e.op(i64Or) // one test for both: negative if either is
	}
	e.stopIfNegative()
}

// charge takes a fixed price.
func (e *emitter) charge(price int64) {
	e.index(wasmbin.OpGlobalGet, e.w.fuel)
	e.const64(price)
	e.take()
	e.stopIfNegative()
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
	e.take()
	e.stopIfNegative()
}

// take subtracts, stores and leaves the difference. The counter cannot wrap: a
// negative value is either paid from the reserve or traps at once, and no
// single price reaches 2^51.
func (e *emitter) take() {
	e.op(i64Sub)
	e.index(wasmbin.OpLocalTee, e.l64)
	e.index(wasmbin.OpGlobalSet, e.w.fuel)
	e.index(wasmbin.OpLocalGet, e.l64)
}

// stopIfNegative ends the guest, or its slice, if the number on top of the
// stack is negative.
func (e *emitter) stopIfNegative() {
	e.negative()
	if e.w.cfg.slices() {
		e.index(wasmbin.OpCall, e.w.refill)
	} else {
		e.op(wasmbin.OpUnreachable)
	}
	e.op(wasmbin.OpEnd)
}

// negative begins a block for when the number on top of the stack is negative.
func (e *emitter) negative() {
	e.const64(0)
	e.op(i64LtS)
	e.out = append(e.out, byte(wasmbin.OpIf), 0x40)
}

// refillBody is the function that is called when a slice is used up, or the
// call stack: it takes the next slice, or traps where a guest without slices
// would have.
func (w *rewriter) refillBody() []byte {
	const left = 0 // its local: all the fuel there is
	e := emitter{w: w, out: []byte{1, 1, wasmbin.I64}}
	e.index(wasmbin.OpGlobalGet, w.reserve)
	e.index(wasmbin.OpGlobalGet, w.fuel)
	e.op(i64Add)
	e.index(wasmbin.OpLocalTee, left)
	e.index(wasmbin.OpGlobalGet, w.stack)
	e.op(i64Or)
	e.negative()
	e.op(wasmbin.OpUnreachable)
	e.op(wasmbin.OpEnd)

	// Growing by nothing changes nothing, but Go code does it, where the
	// scheduler can stop the guest.
	e.const32(0)
	e.index(wasmbin.OpMemoryGrow, 0)
	e.op(dropOp)

	// fuel = min(left, Slice), reserve = left - fuel
	e.index(wasmbin.OpLocalGet, left)
	e.const64(Slice)
	e.index(wasmbin.OpLocalGet, left)
	e.const64(Slice)
	e.op(i64LtS)
	e.op(selectOp)
	e.index(wasmbin.OpGlobalSet, w.fuel)
	e.index(wasmbin.OpLocalGet, left)
	e.index(wasmbin.OpGlobalGet, w.fuel)
	e.op(i64Sub)
	e.index(wasmbin.OpGlobalSet, w.reserve)
	return append(e.out, byte(wasmbin.OpEnd))
}
