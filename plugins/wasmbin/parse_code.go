package wasmbin

import "fmt"

// constant reads a constant expression. Only single constants are metered:
// there are no imported globals to read, and extended constants are a later
// proposal.
func (p *parser) constant(r *reader) {
	in, err := Decode(r.b, r.at, 0)
	if r.err != nil {
		return
	}
	if err != nil {
		r.fail("constant expression: %v", err)
		return
	}
	switch in.Op {
	case OpI32Const, OpI64Const, OpF32Const, OpF64Const, OpRefNull, OpV128Const:
	case OpRefFunc:
		if r.err = p.reference(in.Index); r.err != nil {
			return
		}
	default:
		r.fail("constant expression with %s; only one constant is metered", in.Op)
		return
	}
	r.at = in.Next
	if end := r.byte(); r.err == nil && Op(end) != OpEnd {
		r.fail("constant expression of several instructions (extended constants) is not metered")
	}
}

// reference checks a function that something refers to other than by calling
// it: an element segment or ref.func. An imported one is refused. Calling it is
// the dearest thing a guest can do, and only a direct call shows its price.
func (p *parser) reference(function uint32) error {
	if function < uint32(len(p.m.Imports)) {
		im := p.m.Imports[function]
		return refuse("function %d is imported and may only be called directly, so no element segment or ref.func may name it (%q %q): "+
			"name a function of the module that calls it", function, im.Module, im.Name)
	}
	return nil
}

// elements reads element segments (WebAssembly 2.0, section 5.5.12). The flag
// bits say: 0 passive or declarative, 1 explicit table or declarative, 2
// items are expressions.
func (p *parser) elements(r *reader) {
	n := r.count("element segments", p.lim.Elements)
	for i := 0; i < n && r.err == nil; i++ {
		flag := r.u32()
		if flag > 7 {
			r.fail("element segment %d has flag %d", i, flag)
			return
		}
		if flag&1 == 0 { // active
			if flag&2 != 0 {
				r.u32() // table
			}
			p.constant(r)
		}
		if flag&3 != 0 {
			r.byte() // element kind or reference type
		}
		items := r.count("items of an element segment", p.lim.ElementItems-p.m.Items)
		p.m.Items += items
		for ; items > 0 && r.err == nil; items-- {
			if flag&4 != 0 {
				p.constant(r)
			} else if err := p.reference(r.u32()); r.err == nil {
				r.err = err
			}
		}
	}
}

func (p *parser) dataSegments(r *reader) {
	n := r.count("data segments", p.lim.DataSegments)
	for i := 0; i < n && r.err == nil; i++ {
		switch flag := r.u32(); {
		case flag == 1: // passive
		case flag == 2:
			zero(r)
			p.constant(r)
		case flag == 0:
			p.constant(r)
		default:
			r.fail("data segment %d has flag %d", i, flag)
		}
		size := r.count("bytes of a data segment", p.lim.DataBytes-p.data)
		p.data += size
		r.bytes(size)
	}
}

func (p *parser) code(r *reader) {
	n := r.count("function bodies", p.lim.Functions)
	if r.err == nil && n != len(p.m.Funcs) {
		r.fail("%d functions but %d bodies", len(p.m.Funcs), n)
		return
	}
	p.m.Codes = make([]Code, 0, n)
	for i := 0; i < n && r.err == nil; i++ {
		body := r.bytes(r.count("bytes of a function", p.lim.BodyBytes))
		if r.err != nil {
			return
		}
		if err := p.function(i, body); err != nil {
			r.err = fmt.Errorf("function %d: %w", len(p.m.Imports)+i, err)
		}
	}
}

// function reads one body: local declarations, then instructions.
func (p *parser) function(i int, body []byte) error {
	r := &reader{b: body}
	groups := r.count("declarations of locals", p.lim.Locals)
	start, locals := r.at, uint64(0)
	for range groups {
		locals += uint64(r.u32())
		if t := r.byte(); r.err == nil && !isValueType(t) {
			r.fail("local of type %#x, which is not metered", t)
		}
		if r.err != nil {
			return r.err
		}
	}
	switch {
	case r.err != nil:
		return r.err
	case locals > uint64(p.lim.Locals):
		return refuse("%d locals, at most %d", locals, p.lim.Locals)
	case p.locals+int(locals) > p.lim.LocalsTotal:
		return refuse("more than %d locals in all functions together", p.lim.LocalsTotal)
	}
	p.locals += int(locals)
	c := Code{LocalGroups: body[start:r.at], Groups: groups, Locals: int(locals), Body: body[r.at:]}
	err := p.instructions(&c, int(locals)+len(p.m.Types[p.m.Funcs[i]].Params))
	p.m.Codes = append(p.m.Codes, c)
	return err
}

// instructions walks a body: every opcode must be known, every index that
// could name something the meter adds must be in range, blocks must nest.
func (p *parser) instructions(c *Code, locals int) error {
	depth, blocks := 1, 1
	for at := 0; ; {
		in, err := Decode(c.Body, at, p.lim.BranchTargets)
		if err == nil {
			err = p.indices(in, locals, depth)
		}
		if err != nil {
			return fmt.Errorf("at byte %d: %w", at, err)
		}
		at = in.Next
		switch in.Op {
		case OpBlock, OpLoop, OpIf:
			depth++
			blocks++
			if depth > p.lim.Depth {
				return refuse("blocks nest deeper than %d", p.lim.Depth)
			}
			if blocks*(locals+1) > p.lim.ControlWork {
				return refuse("%d blocks with %d params and locals: their product is above %d", blocks, locals, p.lim.ControlWork)
			}
		case OpEnd:
			if depth--; depth == 0 {
				if at != len(c.Body) {
					return refuse("%d bytes after the end", len(c.Body)-at)
				}
				if p.work += blocks * (locals + 1); p.work > p.lim.ControlWorkTotal {
					return refuse("blocks times locals of all functions together are above %d", p.lim.ControlWorkTotal)
				}
				return nil
			}
		}
		p.note(c, in.Op)
	}
}

// note records which kinds of instruction a module has.
func (p *parser) note(c *Code, op Op) {
	c.Writes |= Writes(op)
	switch op {
	case OpCall, OpCallIndirect:
		c.Calls = true
	case OpMemoryGrow:
		p.m.MemoryGrow = true
	case OpTableGrow:
		p.m.TableGrow, p.m.TableWrites = true, true
	case OpTableSet, OpTableFill, OpTableCopy, OpTableInit, OpDataDrop, OpElemDrop:
		p.m.TableWrites = true
	}
}

// indices checks the indices of one instruction against what the module has.
func (p *parser) indices(in Instr, locals, depth int) error {
	limit, what := 0, ""
	switch in.Op {
	case OpLocalGet, OpLocalSet, OpLocalTee:
		limit, what = locals, "local"
	case OpGlobalGet, OpGlobalSet:
		limit, what = len(p.m.Globals), "global"
	case OpRefFunc:
		if err := p.reference(in.Index); err != nil {
			return err
		}
		limit, what = len(p.m.Imports)+len(p.m.Funcs), "function"
	case OpCall:
		limit, what = len(p.m.Imports)+len(p.m.Funcs), "function"
	case OpCallIndirect:
		limit, what = len(p.m.Types), "type"
	case OpBr, OpBrIf, OpBrTable:
		limit, what = depth, "label"
	case OpTableGet, OpTableSet, OpTableGrow, OpTableSize, OpTableFill:
		limit, what = len(p.m.Tables), "table"
	case OpBlock, OpLoop, OpIf:
		if in.Block < int64(len(p.m.Types)) {
			return nil
		}
		return refuse("block type %d of %d", in.Block, len(p.m.Types))
	default:
		return nil
	}
	if uint64(in.Index) >= uint64(limit) {
		return refuse("%s %d of %d", what, in.Index, limit)
	}
	return nil
}
