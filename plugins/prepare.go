package plugins

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"

	"parley/core/atomicfile"
	"parley/plugins/meter"
	"parley/plugins/wasmbin"
	"parley/sdk/abi"
)

// prepared is a module that has passed every check before compilation and has
// been rewritten.
type prepared struct {
	Wasm      []byte   `json:"-"`
	WASI      bool     // imports WASI, as Go guests do
	Configure bool     // exports configure
	Init      bool     // exports _initialize
	Start     bool     // has a start function
	Globals   []string // exports of the mutable globals
	Dirty     bool     // exports meter.DirtyExport
	Shift     uint     // of blocks of memory: see meter.WrittenExport
}

// prepare reads, validates and rewrites a module. The result depends on the
// file and the limits alone, so it is kept in the cache folder under a digest
// of both: validating a Go guest takes a third of a second.
func (h *Host) prepare(ctx context.Context, file []byte, limits Limits) (*prepared, error) {
	key := h.prepareKey(file, limits)
	if p := h.readPrepared(key); p != nil {
		return p, nil
	}
	if h.cfg.Trial.apart() { // it is written by the trial
		return nil, errDamaged
	}
	m, err := wasmbin.Parse(file, h.cfg.Module, allowImport)
	if err != nil {
		return nil, err
	}
	p := &prepared{WASI: len(m.Imports) > 0, Start: m.HasStart}
	if err := p.contract(m); err != nil {
		return nil, err
	}
	if err := h.validate(ctx, m); err != nil {
		return nil, err
	}
	granted := h.cfg.limits(limits, p.WASI)
	metered, err := meter.Rewrite(m, meter.Config{
		Fuel: granted.Fuel, Budget: granted.Fuel, StackWords: stackWords,
		MaxPages: uint32(granted.MemoryBytes / pageBytes),
	})
	if err != nil {
		return nil, err
	}
	p.Wasm, p.Globals, p.Dirty, p.Shift = metered.Wasm, metered.Globals, metered.Dirty, metered.BlockShift
	h.writePrepared(key, p)
	return p, nil
}

// contract checks the exports against package abi.
func (p *prepared) contract(m *wasmbin.Module) error {
	if e, ok := m.Export(abi.ExportMemory); !ok || e.Kind != wasmbin.KindMemory {
		return fmt.Errorf("it does not export its memory as %q", abi.ExportMemory)
	}
	for _, f := range []struct {
		name, params, results string
		present               *bool // nil: must be there
		signature             string
	}{
		{abi.ExportVersion, "", "\x7f", nil, "() -> i32"},
		{abi.ExportInputBuffer, "\x7f", "\x7f", nil, "(i32) -> i32"},
		{abi.ExportDecide, "\x7f\x7f", "\x7e", nil, "(i32, i32) -> i64"},
		{abi.ExportConfigure, "\x7f\x7f", "\x7f", &p.Configure, "(i32, i32) -> i32"},
		{abi.ExportInitialize, "", "", &p.Init, "()"},
	} {
		e, ok := m.Export(f.name)
		if !ok && f.present == nil {
			return fmt.Errorf("it does not export %s%s", f.name, f.signature)
		}
		if !ok {
			continue
		}
		sig, isFunc := m.Signature(e.Index)
		if e.Kind != wasmbin.KindFunc || !isFunc || string(sig.Params) != f.params || string(sig.Results) != f.results {
			return fmt.Errorf("its export %s is not a function %s", f.name, f.signature)
		}
		if f.present != nil {
			*f.present = true
		}
	}
	return nil
}

// preparedFormat begins each cached file; it changes with the layout.
const preparedFormat = "parley prepared module 3\n"

func (h *Host) prepareKey(file []byte, limits Limits) string {
	d := sha256.New()
	fmt.Fprintf(d, "%s%d %v %v %d %d %d %d %d %d\n", preparedFormat, meter.Version, h.cfg.Module, limits,
		h.cfg.Fuel, h.cfg.GoFuel, h.cfg.MemoryBytes, h.cfg.GoMemoryBytes, setupFuel, stackWords)
	d.Write(file)
	return hex.EncodeToString(d.Sum(nil))
}

// A cached file is the format line, the SHA-256 of what follows, the length of
// the JSON, the JSON and the module. One that does not add up is as good as
// none: it is written anew.

func (h *Host) readPrepared(key string) *prepared {
	dir := h.cfg.cache(cachePrepared)
	if dir == "" {
		return nil
	}
	b, err := readBounded(filepath.Join(dir, key), maxCompiled)
	if err != nil {
		return nil
	}
	b, ok := bytes.CutPrefix(b, []byte(preparedFormat))
	if !ok || len(b) < sha256.Size+4 {
		return nil
	}
	sum, rest := b[:sha256.Size], b[sha256.Size:]
	if got := sha256.Sum256(rest); !bytes.Equal(sum, got[:]) {
		return nil
	}
	n := binary.LittleEndian.Uint32(rest)
	rest = rest[4:]
	var p prepared
	if uint64(n) > uint64(len(rest)) || json.Unmarshal(rest[:n], &p) != nil {
		return nil
	}
	p.Wasm = rest[n:]
	return &p
}

func (h *Host) writePrepared(key string, p *prepared) {
	dir := h.cfg.cache(cachePrepared)
	if dir == "" {
		return
	}
	meta, err := json.Marshal(p)
	if err == nil {
		body := append(binary.LittleEndian.AppendUint32(nil, uint32(len(meta))), meta...)
		body = append(body, p.Wasm...)
		sum := sha256.Sum256(body)
		err = atomicfile.Write(filepath.Join(dir, key), bytes.Join([][]byte{[]byte(preparedFormat), sum[:], body}, nil), 0o600)
	}
	if err != nil {
		h.log.Warn("prepared module not cached, the next start takes longer", "dir", dir, "err", err)
	}
}
