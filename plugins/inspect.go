package plugins

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"

	"parley/plugins/wasmbin"
)

// manifestOf returns a plugin's manifest: the file beside the module if there
// is one (sidecar not nil), else the one within the module, else one that says
// nothing. The first replaces the second whole.
func manifestOf(name string, file, sidecar []byte) (Manifest, error) {
	where := name + ".json"
	if sidecar == nil {
		inside, _, err := wasmbin.Custom(file, manifestSection)
		if err != nil {
			return Manifest{}, err
		}
		if sidecar = inside; sidecar == nil {
			sidecar = []byte("{}")
		}
		where = "custom section " + manifestSection
	}
	m, err := ParseManifest(sidecar)
	if err != nil {
		return m, fmt.Errorf("%s: %w", where, err)
	}
	return m, nil
}

// Embed returns the module with the manifest in a custom section, in place of
// one that it may have.
func Embed(file []byte, m Manifest) ([]byte, error) {
	_, rest, err := wasmbin.Custom(file, manifestSection)
	if err != nil {
		return nil, err
	}
	return wasmbin.AppendCustom(rest, manifestSection, m.JSON()), nil
}

// Inspection is what can be said of a module without running it.
type Inspection struct {
	Name         string   `json:"name"`
	Digest       string   `json:"digest"`        // SHA-256 of the file, hex
	ModuleDigest string   `json:"module_digest"` // see ModuleDigest, hex
	Bytes        int      `json:"bytes"`         // of the file
	CodeBytes    int      `json:"code_bytes"`
	DataBytes    int      `json:"data_bytes"` // of the data section
	Functions    int      `json:"functions"`  // the module's own
	Imports      []string `json:"imports"`    // "module name(params) -> results"
	Exports      []string `json:"exports"`    // "func name(params) -> results", "memory memory"
	MemoryPages  uint32   `json:"memory_pages"`
	MemoryMax    uint32   `json:"memory_max_pages"` // 0: not declared
	MemoryGrows  bool     `json:"memory_grows"`
	WASI         bool     `json:"wasi"`
	// Where the manifest comes from: "file", "section" or "none".
	Source    string   `json:"manifest_source"`
	Manifest  Manifest `json:"-"`
	Limits    Limits   `json:"limits"`          // in force: the manifest's over the server's
	Signature string   `json:"signature"`       // "none", "trusted", "untrusted" or "wrong"
	Signer    string   `json:"signer,omitzero"` // public key, base64
}

// Inspect reads NAME.wasm and the manifest beside or within it, and runs
// nothing. cfg gives bounds, default limits and trusted keys.
func Inspect(path string, cfg Config) (Inspection, error) {
	name := strings.TrimSuffix(filepath.Base(path), ".wasm")
	file, sidecar, err := readPlugin(filepath.Dir(path), name, cfg.Module.FileBytes)
	if err != nil {
		return Inspection{}, err
	}
	m, err := wasmbin.Parse(file, cfg.Module, func(_, _ string) bool { return true })
	if err != nil {
		return Inspection{}, err
	}
	manifest, err := manifestOf(name, file, sidecar)
	if err != nil {
		return Inspection{}, err
	}
	whole, module := sha256.Sum256(file), ModuleDigest(file)
	out := Inspection{
		Name: name, Digest: hex.EncodeToString(whole[:]), ModuleDigest: hex.EncodeToString(module[:]),
		Bytes: len(file), Functions: len(m.Funcs), MemoryPages: m.Memory.Min, MemoryMax: m.Memory.Max,
		MemoryGrows: m.MemoryGrow, WASI: len(m.Imports) > 0, Manifest: manifest, Source: "none",
	}
	for _, s := range m.Sections {
		switch s.ID {
		case wasmbin.SectionCode:
			out.CodeBytes = len(s.Body)
		case wasmbin.SectionData:
			out.DataBytes = len(s.Body)
		}
	}
	if inside, _, _ := wasmbin.Custom(file, manifestSection); sidecar != nil {
		out.Source = "file"
	} else if inside != nil {
		out.Source = "section"
	}
	for i, im := range m.Imports {
		sig, _ := m.Signature(uint32(i))
		out.Imports = append(out.Imports, im.Module+" "+im.Name+signatureText(sig))
	}
	for _, e := range m.Exports {
		out.Exports = append(out.Exports, exportText(m, e))
	}
	out.Limits = cfg.limits(manifest.Limits, out.WASI)
	out.Signature, out.Signer = signatureState(manifest, file, cfg.TrustedKeys)
	return out, nil
}

func exportText(m *wasmbin.Module, e wasmbin.Export) string {
	switch e.Kind {
	case wasmbin.KindFunc:
		sig, _ := m.Signature(e.Index)
		return "func " + e.Name + signatureText(sig)
	case wasmbin.KindTable:
		return "table " + e.Name
	case wasmbin.KindMemory:
		return "memory " + e.Name
	}
	return "global " + e.Name
}

var valueTypeNames = map[byte]string{
	wasmbin.I32: "i32", wasmbin.I64: "i64", wasmbin.F32: "f32", wasmbin.F64: "f64", wasmbin.V128: "v128",
	wasmbin.FuncRef: "funcref", wasmbin.ExternRef: "externref",
}

func signatureText(t wasmbin.FuncType) string {
	list := func(types []byte) string {
		out := make([]string, len(types))
		for i, c := range types {
			out[i] = valueTypeNames[c]
		}
		return "(" + strings.Join(out, ", ") + ")"
	}
	return list(t.Params) + " -> " + list(t.Results)
}
