package plugins

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"parley/sdk/abi"
)

// ErrEngines says that wazero's compiler and its interpreter, which share no
// code generator, disagree about a module: one of them miscompiles it.
var ErrEngines = errors.New("compiler and interpreter disagree about it")

// newRuntime returns wazero's runtime with our stubs defined.
func newRuntime(ctx context.Context, rc wazero.RuntimeConfig) (wazero.Runtime, error) {
	r := wazero.NewRuntimeWithConfig(ctx, rc.
		WithCoreFeatures(api.CoreFeaturesV2).
		WithMemoryLimitPages(maxMemoryBytes/pageBytes).
		WithDebugInfoEnabled(false))
	if err := instantiateWASI(ctx, r); err != nil {
		return nil, errors.Join(fmt.Errorf("plugins: define stubs: %w", err), r.Close(ctx))
	}
	return r, nil
}

// compareEngines sets the module of p up again in the interpreter and holds
// every answer against p's: the neutral message's and the vectors'.
func (h *Host) compareEngines(ctx context.Context, p *Plugin, wasm []byte) (err error) {
	defer recovered("interpret", &err)
	r, err := newRuntime(ctx, wazero.NewRuntimeConfigInterpreter())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close(ctx)) }()
	code, err := r.CompileModule(ctx, wasm)
	if err != nil {
		return fmt.Errorf("%w: the interpreter refuses it: %w", ErrEngines, firstLine(err))
	}
	q := newPlugin(h, p.name, p.digest, p.manifest, p.prep, code)
	q.runtime = r
	if err := q.setUp(); err != nil {
		return fmt.Errorf("%w: the interpreter: %w", ErrEngines, err)
	}
	defer q.retire()
	if !bytes.Equal(p.snap.memory, q.snap.memory) {
		return fmt.Errorf("%w: memory after its set-up differs", ErrEngines)
	}
	both := manifestVectors(p.manifest)
	want, err := RunVectors(ctx, p, both)
	if err != nil {
		return err
	}
	got, err := RunVectors(ctx, q, both)
	if err != nil {
		return err
	}
	for i := range want {
		w, g := &want[i], &got[i]
		if w.Verdict != g.Verdict || w.Fuel != g.Fuel || !bytes.Equal(abi.AppendResult(nil, &w.Result), abi.AppendResult(nil, &g.Result)) {
			return fmt.Errorf("%w: vector %q: the compiler says %v with %d fuel (%v), the interpreter %v with %d (%v)",
				ErrEngines, w.Vector.Name, w.Verdict, w.Fuel, w.Err, g.Verdict, g.Fuel, g.Err)
		}
	}
	return nil
}

// manifestVectors are m's own after the neutral message.
func manifestVectors(m Manifest) Manifest {
	v := newVector()
	v.Name, v.Text = "neutral message", string(neutral.Text)
	m.Vectors = append([]Vector{v}, m.Vectors...)
	m.Kinds, m.Rooms = nil, nil
	return m
}
