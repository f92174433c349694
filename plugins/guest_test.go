package plugins_test

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"parley/plugins"
	"parley/plugins/internal/asm"
	"parley/sdk/abi"
)

var quietLog = slog.New(slog.NewTextHandler(io.Discard, nil))

const (
	bufferAt = 4096 // where test guests take their input
	answerAt = 1024 // where they keep their answer
	textAt   = abi.InputHeaderSize
)

// guest assembles a test guest: decide's code, which leaves an i64, and what
// else the module has. answer lies at answerAt.
func guest(decide []byte, answer []byte, edit ...func(*asm.Module)) []byte {
	i32, i64 := []byte{asm.I32}, []byte{asm.I64}
	m := &asm.Module{
		Min: 1, DataAt: answerAt, Data: answer,
		Funcs: []asm.Func{
			{Export: abi.ExportVersion, Results: i32, Code: asm.Const(abi.Version)},
			{Export: abi.ExportInputBuffer, Params: i32, Results: i32, Code: asm.Const(bufferAt)},
			{Export: abi.ExportDecide, Params: []byte{asm.I32, asm.I32}, Results: i64,
				Locals: []byte{asm.I32, asm.I32, asm.I32, asm.I64}, Code: decide},
		},
	}
	if len(answer) == 0 {
		m.Data = nil
	}
	for _, f := range edit {
		f(m)
	}
	return m.Encode()
}

// Locals of decide: its two params, then these.
const (
	localPtr, localLen = 0, 1
	localI, localEnd   = 2, 3
	local64            = 5
)

// always answers the same.
func always(v abi.Verdict, r *abi.Result) []byte {
	b := abi.AppendResult(nil, r)
	return guest(asm.Const64(int64(abi.Pack(v, answerAt, uint32(len(b))))), b)
}

// allower answers allow.
func allower() []byte { return guest(asm.Const64(0), nil) }

// masker redacts the first byte '!' of the text, if there is one: a loop over
// the text, as a real guest has.
func masker() []byte {
	b := abi.AppendResult(nil, &abi.Result{Code: 7, Score: 900, Reason: "no shouting", Spans: []abi.Span{{Field: abi.FieldText, Start: 0, Length: 1}}})
	start := answerAt + abi.ResultHeaderSize + len("no shouting") + 4
	return guest(asm.Cat(
		// i = ptr + text offset; end = i + text length
		asm.Get(localPtr), asm.Get(localPtr), asm.Load(textAt), asm.I32Add, asm.Tee(localI),
		asm.Get(localPtr), asm.Load(textAt+4), asm.I32Add, asm.Set(localEnd),
		asm.Block, asm.Empty,
		asm.Loop, asm.Empty,
		asm.Get(localI), asm.Get(localEnd), asm.I32Eq, asm.BrIf(1),
		asm.Get(localI), asm.Load8(0), asm.Const('!'), asm.I32Eq,
		asm.If, asm.Empty,
		// the span's start = i - ptr - text offset
		asm.Const(int32(start)),
		asm.Get(localI), asm.Get(localPtr), asm.I32Sub, asm.Get(localPtr), asm.Load(textAt), asm.I32Sub,
		asm.Cat(0x36, 0, 0), // i32.store, unaligned
		asm.Const64(int64(abi.Pack(abi.Redact, answerAt, uint32(len(b))))), asm.Return,
		asm.End,
		asm.Get(localI), asm.Const(1), asm.I32Add, asm.Set(localI),
		asm.Br(0),
		asm.End,
		asm.End,
		asm.Const64(0),
	), b)
}

func newHost(t testing.TB, edit ...func(*plugins.Config)) *plugins.Host {
	t.Helper()
	cfg := plugins.Defaults()
	for _, f := range edit {
		f(&cfg)
	}
	h, err := plugins.NewHost(cfg, quietLog)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func load(t testing.TB, h *plugins.Host, wasm []byte, manifest string) (*plugins.Plugin, error) {
	t.Helper()
	m, err := plugins.ParseManifest([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	return h.Load(t.Context(), "test", wasm, m)
}

func mustLoad(t testing.TB, h *plugins.Host, wasm []byte, manifest string) *plugins.Plugin {
	t.Helper()
	p, err := load(t, h, wasm, manifest)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ask encodes a message and has p judge it.
func ask(p *plugins.Plugin, text string) (abi.Verdict, abi.Result, uint64, error) {
	in := abi.Input{TimeMS: 1, Text: []byte(text), Normalized: []byte(text), User: "ann", Room: "lobby", Kind: "message"}
	return p.Decide(abi.AppendInput(nil, &in), in.Text, in.Normalized)
}

func write(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	tmp := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}
