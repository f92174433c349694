package plugins

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"parley/sdk/abi"
)

// Clean compares every idle instance with the snapshot, byte for byte.
func (p *Plugin) Clean() error {
	p.pool.mu.Lock()
	defer p.pool.mu.Unlock()
	for _, in := range p.pool.idle {
		now, _ := in.memory.Read(0, in.memory.Size())
		if !bytes.Equal(now, p.snap.memory) {
			for i := range now {
				if now[i] != p.snap.memory[i] {
					return fmt.Errorf("byte %d of %d is %d, in the snapshot %d", i, len(now), now[i], p.snap.memory[i])
				}
			}
			return fmt.Errorf("memory has %d bytes, the snapshot %d", len(now), len(p.snap.memory))
		}
		for i, g := range in.globals {
			if g.Get() != p.snap.globals[i] {
				return fmt.Errorf("global %d is %d, in the snapshot %d", i, g.Get(), p.snap.globals[i])
			}
		}
	}
	return nil
}

// Run decides whether or not the plugin is in quarantine.
func (p *Plugin) Run(input, text, normalized []byte) (abi.Verdict, abi.Result, uint64, error) {
	return p.run(input, text, normalized)
}

// Break makes the next decision panic in the host's code.
func (p *Plugin) Break() { p.pool.idle[len(p.pool.idle)-1].view = nil }

// Idle returns how many instances the pool keeps.
func (p *Plugin) Idle() int {
	p.pool.mu.Lock()
	defer p.pool.mu.Unlock()
	return len(p.pool.idle)
}

// MemoryBytes is the size of an instance's memory.
func (p *Plugin) MemoryBytes() int { return len(p.snap.memory) }

// Another makes an instance and returns how to close it.
func (p *Plugin) Another() (func() error, error) {
	in, err := p.another()
	if err != nil {
		return nil, err
	}
	return in.close, nil
}

// DecideFully decides and puts the whole memory back, as if the guest had
// written to all of it.
func (p *Plugin) DecideFully(input, text, normalized []byte) error {
	in, err := p.pool.get(p)
	if err != nil {
		return err
	}
	_, _, _, err = in.decide(input, text, normalized)
	in.io.written = ^uint64(0)
	p.pool.put(in, in.reset())
	return err
}

// RunPlain runs a module as its author built it, without metering, on one of
// wazero's engines, and returns what decide answers to each input: the packed
// result and the bytes it points to, or the error's first line.
func RunPlain(engine string, wasm, config []byte, inputs [][]byte) ([]string, error) {
	ctx := context.Background()
	rc := wazero.NewRuntimeConfigCompiler()
	if engine == "interpreter" {
		rc = wazero.NewRuntimeConfigInterpreter()
	}
	r, err := newRuntime(ctx, rc)
	if err != nil {
		return nil, err
	}
	defer r.Close(ctx)
	io := newGuestIO(&stderrLog{log: discard, limit: &allowance{every: 1 << 62}})
	ctx = context.WithValue(ctx, guestIOKey{}, io)
	code, err := r.CompileModule(ctx, wasm)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, input := range inputs {
		mod, err := r.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName("").WithStartFunctions())
		if err != nil {
			return nil, err
		}
		answer, err := runPlain(ctx, mod, config, input)
		if err != nil {
			answer = firstLine(err).Error()
		}
		out = append(out, answer)
		if err := mod.Close(ctx); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func runPlain(ctx context.Context, mod api.Module, config, input []byte) (string, error) {
	io := ctx.Value(guestIOKey{}).(*guestIO)
	io.random = true
	io.rewind(0)
	if f := mod.ExportedFunction(abi.ExportInitialize); f != nil {
		if _, err := f.Call(ctx); err != nil {
			return "", err
		}
	}
	buffer, err := mod.ExportedFunction(abi.ExportInputBuffer).Call(ctx, abi.MaxInput)
	if err != nil {
		return "", err
	}
	if config != nil {
		mod.Memory().Write(uint32(buffer[0]), config)
		if _, err := mod.ExportedFunction(abi.ExportConfigure).Call(ctx, buffer[0], uint64(len(config))); err != nil {
			return "", err
		}
	}
	answer := ""
	// The plugin has been asked about the neutral message before.
	for _, b := range [][]byte{abi.AppendInput(nil, &neutral), input} {
		io.rewind(abi.InputTime(b))
		mod.Memory().Write(uint32(buffer[0]), b)
		packed, err := mod.ExportedFunction(abi.ExportDecide).Call(ctx, buffer[0], uint64(len(b)))
		if err != nil {
			return "", err
		}
		_, ptr, n := abi.Unpack(packed[0])
		result, _ := mod.Memory().Read(ptr, n)
		answer = PlainAnswer(abi.Verdict(packed[0]), result)
	}
	return answer, nil
}

// PlainAnswer is an answer as RunPlain returns it.
func PlainAnswer(v abi.Verdict, result []byte) string { return fmt.Sprintf("%v %x", v, result) }

// ServeTrial answers one request in a child.
func ServeTrial(b []byte) []byte { return serveTrial(b) }

// IsPassing reports whether another try may not find the error again.
func IsPassing(err error) bool { return isPassing(err) }

var discard = slog.New(slog.DiscardHandler)

// Look looks at one file of the folder, as Load does; place goes on with what came of it.
func (c *Catalog) Look(ctx context.Context, name string) (place func()) {
	c.loading.Lock()
	defer c.loading.Unlock()
	a := c.try(ctx, name, c.set.Load().find(name), false)
	return func() { c.place(a) }
}
