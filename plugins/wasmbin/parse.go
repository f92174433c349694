package wasmbin

import (
	"bytes"
	"fmt"
)

// header is the magic number and version 1.
var header = []byte{0, 'a', 's', 'm', 1, 0, 0, 0}

// parser is the state of one Parse.
type parser struct {
	lim    Limits
	allow  func(module, name string) bool
	m      *Module
	locals int // of all functions so far
	work   int // control work of all functions so far
	data   int // bytes of all data segments so far
	memory int // memories seen
}

// Parse reads a module. An import of a function that allow refuses, and any
// other import, is an error. Errors wrap ErrModule and say which section,
// function or entry is wrong and which limit it broke.
func Parse(file []byte, lim Limits, allow func(module, name string) bool) (*Module, error) {
	if len(file) > lim.FileBytes {
		return nil, refuse("file has %d bytes, at most %d", len(file), lim.FileBytes)
	}
	if !bytes.HasPrefix(file, header) {
		return nil, refuse("not a WebAssembly 1 binary: want it to begin with %q", header)
	}
	p := &parser{lim: lim, allow: allow, m: &Module{}}
	r := &reader{b: file, at: len(header)}
	custom, last := 0, 0
	for r.at < len(file) {
		id := r.byte()
		n := r.u32()
		body := r.bytes(int(n))
		if r.err != nil {
			return nil, fmt.Errorf("section %d at byte %d: %w", id, r.at, r.err)
		}
		if id == SectionCustom {
			if custom++; custom > lim.CustomSections {
				return nil, refuse("more than %d custom sections", lim.CustomSections)
			}
			continue
		}
		order := sectionOrder(id)
		if order == 0 {
			return nil, refuse("section %d belongs to a proposal that is not metered", id)
		}
		if order <= last {
			return nil, refuse("section %s is repeated or out of order", sectionNames[id])
		}
		last = order
		if err := p.section(id, body); err != nil {
			return nil, fmt.Errorf("section %s: %w", sectionNames[id], err)
		}
		p.m.Sections = append(p.m.Sections, Section{id, body})
	}
	return p.m, p.whole()
}

// sectionOrder returns where a section stands, 0 for unknown ones. The data
// count section precedes the code.
func sectionOrder(id byte) int {
	switch {
	case id == SectionDataCount:
		return 10
	case id >= SectionType && id <= SectionElement:
		return int(id)
	case id == SectionCode || id == SectionData:
		return int(id) + 1
	}
	return 0
}

// whole checks what only the whole module shows.
func (p *parser) whole() error {
	m := p.m
	switch {
	case len(m.Codes) != len(m.Funcs):
		return refuse("%d functions but %d bodies", len(m.Funcs), len(m.Codes))
	case p.memory != 1:
		return refuse("%d memories, want exactly one", p.memory)
	case m.HasStart && m.Start < uint32(len(m.Imports)):
		return refuse("the start function is imported")
	}
	if m.TableGrow {
		for i, t := range m.Tables {
			if !t.HasMax {
				return refuse("table %d has no maximum although the module has table.grow", i)
			}
		}
	}
	return nil
}

func (p *parser) section(id byte, body []byte) error {
	r := &reader{b: body}
	switch id {
	case SectionType:
		p.types(r)
	case SectionImport:
		p.imports(r)
	case SectionFunction:
		p.functions(r)
	case SectionTable:
		p.tables(r)
	case SectionMemory:
		p.memories(r)
	case SectionGlobal:
		p.globals(r)
	case SectionExport:
		p.exports(r)
	case SectionStart:
		p.m.HasStart, p.m.Start = true, r.u32()
	case SectionElement:
		p.elements(r)
	case SectionCode:
		p.code(r)
	case SectionData:
		p.dataSegments(r)
	case SectionDataCount:
		if n := r.u32(); uint64(n) > uint64(p.lim.DataSegments) {
			r.fail("%d data segments, at most %d", n, p.lim.DataSegments)
		}
	}
	if r.err == nil && r.at != len(body) {
		return refuse("%d bytes too long", len(body)-r.at)
	}
	return r.err
}

func (p *parser) types(r *reader) {
	n := r.count("types", p.lim.Types)
	for i := 0; i < n && r.err == nil; i++ {
		if form := r.byte(); r.err == nil && form != 0x60 {
			r.fail("type %d has form %#x, only functions are metered", i, form)
		}
		params := p.valueTypes(r, "params", p.lim.Params)
		results := p.valueTypes(r, "results", p.lim.Params-len(params))
		p.m.Types = append(p.m.Types, FuncType{params, results})
	}
}

func (p *parser) valueTypes(r *reader, what string, limit int) []byte {
	b := r.bytes(r.count(what, limit))
	for _, c := range b {
		if !isValueType(c) {
			r.fail("value type %#x belongs to a proposal that is not metered", c)
		}
	}
	return b
}

func (p *parser) typeIndex(r *reader) uint32 {
	t := r.u32()
	if r.err == nil && t >= uint32(len(p.m.Types)) {
		r.fail("type %d of %d", t, len(p.m.Types))
	}
	return t
}

var kindNames = [...]string{"function", "table", "memory", "global"}

func (p *parser) imports(r *reader) {
	n := r.count("imports", p.lim.Imports)
	for i := 0; i < n && r.err == nil; i++ {
		mod, name := r.name(p.lim.NameBytes), r.name(p.lim.NameBytes)
		kind := r.byte()
		switch {
		case r.err != nil:
		case kind != KindFunc && int(kind) < len(kindNames):
			r.fail("import %q %q is a %s; only functions may be imported", mod, name, kindNames[kind])
		case kind != KindFunc:
			r.fail("import %q %q is of kind %d, which is not metered", mod, name, kind)
		case !p.allow(mod, name):
			r.fail("import %q %q is not available: a plugin has no files, network or clock", mod, name)
		}
		t := p.typeIndex(r)
		p.m.Imports = append(p.m.Imports, Import{mod, name, t})
	}
}

func (p *parser) functions(r *reader) {
	n := r.count("functions", p.lim.Functions)
	p.m.Funcs = make([]uint32, 0, n)
	for i := 0; i < n && r.err == nil; i++ {
		p.m.Funcs = append(p.m.Funcs, p.typeIndex(r))
	}
}

// limits reads the limits of a table or memory.
func limits(r *reader) (least, most uint32, hasMax bool) {
	switch flag := r.byte(); {
	case r.err != nil:
	case flag > 1:
		r.fail("limits flag %#x: shared or 64-bit memories are not metered", flag)
	default:
		least, hasMax = r.u32(), flag == 1
		if hasMax {
			most = r.u32()
		}
		if hasMax && most < least && r.err == nil {
			r.fail("maximum %d is below minimum %d", most, least)
		}
	}
	return least, most, hasMax
}

func (p *parser) tables(r *reader) {
	n := r.count("tables", p.lim.Tables)
	for i := 0; i < n && r.err == nil; i++ {
		t := Table{Type: r.byte()}
		if r.err == nil && t.Type != FuncRef && t.Type != ExternRef {
			r.fail("table %d has type %#x, which is not metered", i, t.Type)
		}
		t.Min, t.Max, t.HasMax = limits(r)
		if t.Min > uint32(p.lim.TableElements) {
			r.fail("table %d has %d elements, at most %d", i, t.Min, p.lim.TableElements)
		}
		if t.HasMax && t.Max > uint32(p.lim.TableElements) {
			r.fail("table %d has a maximum of %d elements, at most %d", i, t.Max, p.lim.TableElements)
		}
		p.m.Tables = append(p.m.Tables, t)
	}
}

func (p *parser) memories(r *reader) {
	p.memory = r.count("memories", 1)
	if p.memory == 0 {
		return
	}
	m := &p.m.Memory
	m.Min, m.Max, m.HasMax = limits(r)
	if m.Min > uint32(p.lim.MemoryPages) {
		r.fail("memory of %d pages of 64 KiB, at most %d", m.Min, p.lim.MemoryPages)
	}
}

func (p *parser) globals(r *reader) {
	n := r.count("globals", p.lim.Globals)
	for i := 0; i < n && r.err == nil; i++ {
		g := Global{Type: r.byte()}
		mutable := r.byte()
		if r.err == nil && (!isValueType(g.Type) || mutable > 1) {
			r.fail("global %d has type %#x %#x, which is not metered", i, g.Type, mutable)
		}
		g.Mutable = mutable == 1
		p.constant(r)
		p.m.Globals = append(p.m.Globals, g)
	}
}

func (p *parser) exports(r *reader) {
	n := r.count("exports", p.lim.Exports)
	seen := make(map[string]bool, n)
	for i := 0; i < n && r.err == nil; i++ {
		e := Export{Name: r.name(p.lim.NameBytes), Kind: r.byte(), Index: r.u32()}
		if r.err == nil && int(e.Kind) >= len(kindNames) {
			r.fail("export %q is of kind %d, which is not metered", e.Name, e.Kind)
		}
		if seen[e.Name] {
			r.fail("export %q is repeated", e.Name)
		}
		seen[e.Name] = true
		p.m.Exports = append(p.m.Exports, e)
	}
}
