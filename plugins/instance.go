package plugins

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"runtime/debug"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"parley/plugins/meter"
	"parley/sdk/abi"
)

// What a guest's call may end with. Errors of Decide and Load wrap them.
var (
	ErrFuel   = errors.New("it ran out of fuel")
	ErrStack  = errors.New("it called too deeply")
	ErrTrap   = errors.New("it trapped")
	ErrAnswer = errors.New("it broke the contract")
)

// instance is one running copy of a guest. One goroutine at a time uses it.
type instance struct {
	mod         api.Module
	memory      api.Memory
	decideFn    api.Function
	fuel, stack api.MutableGlobal
	reserve     api.MutableGlobal // nil if fuel is not burnt in slices: see meter.Slice
	written     api.MutableGlobal // blocks of memory the guest wrote to: see meter.WrittenExport
	dirty       api.MutableGlobal // nil if no table can change
	globals     []api.MutableGlobal
	io          *guestIO
	ctx         context.Context // carries io to the stubs, no deadline
	budget      uint64
	outputBytes int
	inputBytes  int
	buffer      uint32    // address of the input buffer
	view        []byte    // the whole memory, as long as it does not grow
	snap        *snapshot // what reset puts back
	params      [2]uint64
	said        string // what the guest printed to stderr in the last call
	setUp       uint64 // fuel that initialize has used
}

// snapshot is the state that every decision begins with. It is immutable.
type snapshot struct {
	memory  []byte
	globals []uint64
	buffer  uint32
	replay  bool // setting up changed tables, so it must be repeated instead of copied
}

// instantiate makes an instance and runs the module's start function, which
// is metered like everything else.
func (p *Plugin) instantiate() (in *instance, err error) {
	defer recovered("instantiate", &err)
	in = &instance{io: newGuestIO(p.stderr), budget: p.limits.Fuel, inputBytes: p.limits.InputBytes, outputBytes: p.limits.OutputBytes}
	in.io.shift = p.prep.Shift
	// Instances outlive the context of whoever had them made. An own one is
	// also the shortest to look through.
	in.ctx = context.WithValue(context.Background(), guestIOKey{}, in.io)
	// No start functions: _initialize runs on a budget of its own.
	mod, err := p.runtime.InstantiateModule(in.ctx, p.code, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil && p.prep.Start {
		// The counters that would tell which are gone with the instance.
		return nil, fmt.Errorf("%w: its start function trapped, or used more than %d fuel: %w", ErrTrap, p.limits.Fuel, firstLine(err))
	}
	if err != nil {
		return nil, fmt.Errorf("instantiate: %w", firstLine(err))
	}
	in.mod, in.memory, in.decideFn = mod, mod.Memory(), mod.ExportedFunction(abi.ExportDecide)
	in.fuel = mutable(mod, meter.FuelExport)
	if mod.ExportedGlobal(meter.ReserveExport) != nil {
		in.reserve = mutable(mod, meter.ReserveExport)
	}
	in.stack = mutable(mod, meter.StackExport)
	in.written = mutable(mod, meter.WrittenExport)
	if p.prep.Dirty {
		in.dirty = mutable(mod, meter.DirtyExport)
	}
	for _, name := range p.prep.Globals {
		in.globals = append(in.globals, mutable(mod, name))
	}
	return in, nil
}

func mutable(mod api.Module, name string) api.MutableGlobal {
	return mod.ExportedGlobal(name).(api.MutableGlobal) // the rewriter made it so
}

func (in *instance) close() error { return in.mod.Close(in.ctx) }

// initialize runs the guest's own set-up, tests it with one neutral message
// and returns the state it is in.
func (in *instance) initialize(p *Plugin) (*snapshot, error) {
	if p.prep.Init {
		if _, err := in.setUpCall(abi.ExportInitialize); err != nil {
			return nil, err
		}
	}
	version, err := in.setUpCall(abi.ExportVersion)
	if err != nil {
		return nil, err
	}
	if version != abi.Version {
		return nil, fmt.Errorf("%w: %s() is %d, this server speaks %d", ErrAnswer, abi.ExportVersion, version, abi.Version)
	}
	config := p.manifest.Config
	room := max(in.inputBytes, len(config)) // configure is passed the same buffer
	if !p.prep.Configure && len(config) > 0 {
		return nil, fmt.Errorf("its manifest has a config, but it does not export %s", abi.ExportConfigure)
	}
	buffer, err := in.setUpCall(abi.ExportInputBuffer, uint64(room))
	if err != nil {
		return nil, err
	}
	if end := buffer + uint64(room); buffer == 0 || end > uint64(in.memory.Size()) {
		return nil, fmt.Errorf("%w: %s(%d) is %d, which with that many bytes ends outside its memory of %d", ErrAnswer, abi.ExportInputBuffer, room, buffer, in.memory.Size())
	}
	in.buffer = uint32(buffer)
	if p.prep.Configure && len(config) > 0 {
		in.memory.Write(in.buffer, config)
		code, err := in.setUpCall(abi.ExportConfigure, buffer, uint64(len(config)))
		if err != nil {
			return nil, err
		}
		if code != 0 {
			return nil, fmt.Errorf("it refused its config: %s returned %d%s", abi.ExportConfigure, int32(code), in.words())
		}
	}
	if err := in.selfTest(); err != nil {
		return nil, err
	}
	if in.dirty != nil && in.dirty.Get() != 0 && in.setUp > p.limits.Fuel {
		return nil, fmt.Errorf("%w: it changes tables while it is set up, so that each instance repeats that, for %d fuel; at most %d (limits.fuel)", ErrFuel, in.setUp, p.limits.Fuel)
	}
	snap := &snapshot{buffer: in.buffer, globals: make([]uint64, len(in.globals))}
	view, _ := in.memory.Read(0, in.memory.Size())
	snap.memory = append(snap.memory, view...)
	for i, g := range in.globals {
		snap.globals[i] = g.Get()
	}
	if in.dirty != nil {
		snap.replay = in.dirty.Get() != 0
		in.dirty.Set(0)
	}
	in.view = view
	in.written.Set(0)
	in.io.written = 0
	return snap, nil
}

// words is what the guest printed in the last call, to be put behind an error
// of setting up: an author's own words say best what is wrong, and no message
// of anybody is in them.
func (in *instance) words() string {
	if in.said == "" {
		return ""
	}
	return fmt.Sprintf("; it printed %q", in.said)
}

// setUpCall calls one export on a budget for setting up and returns its
// result, 0 if it has none.
func (in *instance) setUpCall(name string, params ...uint64) (uint64, error) {
	stack := make([]uint64, max(len(params), 1))
	copy(stack, params)
	used, err := in.call(in.mod.ExportedFunction(name), setupFuel, stack)
	in.setUp += used
	if err != nil {
		return 0, fmt.Errorf("%s: %w%s", name, err, in.words())
	}
	if name == abi.ExportInitialize {
		return 0, nil
	}
	return stack[0] & 0xffffffff, nil
}

// neutral is what the self-test asks about. It also makes a guest that
// allocates grow its memory before the snapshot instead of after.
var neutral = abi.Input{
	TimeMS: 1_735_689_600_000, // 2025-01-01
	Text:   []byte("Good morning, how are you?"), Normalized: []byte("good morning, how are you?"),
	User: "ann", Room: "lobby", Kind: "message",
	Signals: abi.Signals{RecentPerMinute: 1, AccountAgeHours: 1_000},
}

func (in *instance) selfTest() error {
	input := abi.AppendInput(nil, &neutral)
	if len(input) > in.inputBytes { // it would run past the guest's buffer
		return fmt.Errorf("limits.input_bytes is %d, too small for any message: want %d at least", in.inputBytes, len(input))
	}
	view, _ := in.memory.Read(0, in.memory.Size())
	in.view = view
	if _, _, _, err := in.decide(input, neutral.Text, neutral.Normalized); err != nil {
		return fmt.Errorf("self-test with a neutral message: %w%s", err, in.words())
	}
	return nil
}

// another makes an instance in the state of the snapshot.
func (p *Plugin) another() (*instance, error) {
	in, err := p.instantiate()
	if err != nil {
		return nil, err
	}
	if p.snap.replay {
		if _, err := in.initialize(p); err != nil {
			return nil, errors.Join(err, in.close())
		}
	}
	in.snap, in.buffer = p.snap, p.snap.buffer
	if more := len(p.snap.memory) - int(in.memory.Size()); more > 0 {
		in.memory.Grow(uint32(more / pageBytes))
	}
	in.view, _ = in.memory.Read(0, in.memory.Size())
	in.written.Set(^uint64(0))
	if !in.reset() {
		return nil, errors.Join(fmt.Errorf("%w: its set-up is not the same twice", ErrAnswer), in.close())
	}
	return in, nil
}

// reset puts the snapshot back. It reports false if that cannot be done: then
// the instance is to be thrown away.
func (in *instance) reset() bool {
	if int(in.memory.Size()) != len(in.snap.memory) || in.dirty != nil && in.dirty.Get() != 0 {
		return false
	}
	if written := in.written.Get() | in.io.written; written != 0 {
		in.restore(written)
		in.written.Set(0)
		in.io.written = 0
	}
	for i, g := range in.globals {
		g.Set(in.snap.globals[i])
	}
	return true
}

// restore copies the blocks of the mask back, as long runs as there are.
func (in *instance) restore(written uint64) {
	snap, shift := in.snap.memory, in.io.shift
	blocks := (len(snap) + 1<<shift - 1) >> shift
	for i := 0; i < blocks; {
		// The next block that was written to, then the next that was not. The
		// mask is turned so that bit 0 is block i.
		turned := bits.RotateLeft64(written, -i)
		i += bits.TrailingZeros64(turned)
		if turned == 0 || i >= blocks {
			return
		}
		from := i << shift
		i += bits.TrailingZeros64(^bits.RotateLeft64(written, -i)) // 64 if all are set
		to := min(i<<shift+meter.MaxSpill, len(snap))
		copy(in.view[from:to], snap[from:to])
	}
}

// decide asks the guest about one input and checks its answer.
func (in *instance) decide(input, text, normalized []byte) (abi.Verdict, abi.Result, uint64, error) {
	in.io.rewind(abi.InputTime(input))
	copy(in.view[in.buffer:], input)
	in.io.wrote(in.buffer, uint32(len(input)))
	in.params[0], in.params[1] = uint64(in.buffer), uint64(len(input))
	used, err := in.call(in.decideFn, in.budget, in.params[:])
	if err != nil {
		return abi.Error, abi.Result{}, used, err
	}
	v, r, err := in.answer(in.params[0], text, normalized)
	return v, r, used, err
}

// answer decodes what decide returned.
func (in *instance) answer(packed uint64, text, normalized []byte) (abi.Verdict, abi.Result, error) {
	if packed == 0 {
		return abi.Allow, abi.Result{}, nil
	}
	v, ptr, size := abi.Unpack(packed)
	switch v {
	case abi.Flag, abi.Redact, abi.Hold, abi.Deny:
	case abi.Error:
		return v, abi.Result{}, fmt.Errorf("%w: it could not judge (verdict 255)", ErrAnswer)
	case abi.Allow:
		return v, abi.Result{}, fmt.Errorf("%w: allow with a result; allow is plain 0", ErrAnswer)
	default:
		return abi.Error, abi.Result{}, fmt.Errorf("%w: unknown verdict %d", ErrAnswer, uint8(v))
	}
	if int64(size) > int64(in.outputBytes) {
		return v, abi.Result{}, fmt.Errorf("%w: a result of %d bytes, at most %d (limits.output_bytes)", ErrAnswer, size, in.outputBytes)
	}
	b, ok := in.memory.Read(ptr, size)
	if !ok {
		return v, abi.Result{}, fmt.Errorf("%w: a result of %d bytes at %d, outside its memory of %d", ErrAnswer, size, ptr, in.memory.Size())
	}
	r, err := abi.DecodeResult(v, b, text, normalized)
	if err != nil {
		return v, abi.Result{}, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return v, r, nil
}

// call runs a guest function on a budget of fuel and returns what it used.
func (in *instance) call(fn api.Function, budget uint64, stack []uint64) (used uint64, err error) {
	defer func() {
		if r := recover(); r != nil { // a fault in wazero itself
			err = fmt.Errorf("%w: the runtime failed: %v\n%s", ErrTrap, r, debug.Stack())
		}
	}()
	in.setFuel(budget)
	in.stack.Set(stackWords)
	err = fn.CallWithStack(in.ctx, stack)
	in.said = in.io.flush()
	left := in.fuelLeft()
	used = budget - uint64(max(left, 0))
	if err != nil {
		err = in.explain(err, budget, left)
	}
	return used, err
}

func (in *instance) setFuel(budget uint64) {
	fuel, reserve := meter.Split(budget, in.reserve != nil)
	in.fuel.Set(fuel)
	if in.reserve != nil {
		in.reserve.Set(reserve)
	}
}

// fuelLeft is negative after running out.
func (in *instance) fuelLeft() int64 {
	left := in.fuel.Get()
	if in.reserve != nil {
		left += in.reserve.Get()
	}
	return int64(left)
}

// explain says why a call failed. The counters tell, because running out of
// either ends in the same trap as a guest's own unreachable.
func (in *instance) explain(err error, budget uint64, left int64) error {
	switch {
	case left < 0:
		return fmt.Errorf("%w: more than %d (an endless loop, or raise limits.fuel)", ErrFuel, budget)
	case int64(in.stack.Get()) < 0:
		return fmt.Errorf("%w: more than %d KiB of call stack (endless recursion)", ErrStack, stackWords*8>>10)
	case errors.Is(err, errExit):
		return fmt.Errorf("%w: it exited, as Go guests do after a panic", ErrTrap)
	}
	text := strings.TrimPrefix(firstLine(err).Error(), "wasm error: ")
	return fmt.Errorf("%w: %s", ErrTrap, text)
}
