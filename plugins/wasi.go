package plugins

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/bits"
	"math/rand/v2"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// wasiModule is the only module a guest may import from. Language runtimes
// need some of its functions to start; what they get are stubs that answer the
// same to everyone: nothing exists, time stands still.
const wasiModule = "wasi_snapshot_preview1"

// Error numbers of WASI preview 1.
const (
	wasiOK     = 0
	wasiBadFD  = 8
	wasiFault  = 21
	wasiInval  = 28
	wasiNoSys  = 52
	maxRandom  = 1 << 10 // bytes of one random_get
	maxIOVecs  = 16      // of one fd_write
	maxStderr  = 1 << 10 // bytes of one fd_write that are kept
	wasiSeed   = 0x70617 // any number, as long as it never changes
	wasiUptime = 1e9     // ns: Go refuses to start at 0
)

// errExit ends a guest that calls proc_exit, which Go does after a panic.
var errExit = errors.New("the guest exited")

// guestIO is what the stubs know about the instance that calls. It belongs to
// one instance and is used by one goroutine at a time. It travels in the
// context of a call because that is what host functions are given.
type guestIO struct {
	timeMS int64 // the input's; the guest's wall clock stands there
	rng    rand.PCG
	stderr *stderrLog
	random bool // numbers were drawn since the last rewind
	// Blocks of memory that the host wrote to, as the guest's own mask has them.
	written uint64
	shift   uint
}

// wrote notes a write by the host, which the guest's mask does not know of.
func (g *guestIO) wrote(addr, n uint32) {
	first, last := addr>>g.shift, (addr+n)>>g.shift
	if last-first >= 63 {
		g.written = ^uint64(0)
		return
	}
	g.written |= bits.RotateLeft64(1<<(last-first+1)-1, int(first&63))
}

type guestIOKey struct{}

// rewind makes the next decision see the same world as the last.
func (g *guestIO) rewind(timeMS int64) {
	g.timeMS = timeMS
	if g.random {
		g.rng.Seed(wasiSeed, wasiSeed)
		g.random = false
	}
}

func newGuestIO(stderr *stderrLog) *guestIO {
	g := &guestIO{stderr: stderr, random: true}
	g.rewind(0)
	return g
}

// stderrLog passes on what guests of one plugin print, at most one message
// per second, in printable ASCII.
type stderrLog struct {
	log   *slog.Logger
	limit *allowance
}

func (s *stderrLog) write(b []byte) {
	text := strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, string(b)))
	if text != "" && s.limit.take() {
		s.log.Warn(LogStderr, "text", text)
	}
}

// stub is one WASI function: how many parameters of which type, and what it
// does. All return one i32, except proc_exit.
type stub struct {
	params string // 'i' for i32, 'l' for i64
	do     func(g *guestIO, mem api.Memory, p []uint64) uint64
}

func answer(code uint64) func(*guestIO, api.Memory, []uint64) uint64 {
	return func(*guestIO, api.Memory, []uint64) uint64 { return code }
}

// stubs are the functions that runtimes of Go, TinyGo, Rust, C and
// AssemblyScript import. Whatever would open something says it is not there.
var stubs = map[string]stub{
	"args_get":              {"ii", answer(wasiOK)},
	"args_sizes_get":        {"ii", twoZeros},
	"environ_get":           {"ii", answer(wasiOK)},
	"environ_sizes_get":     {"ii", twoZeros},
	"clock_res_get":         {"ii", clockResolution},
	"clock_time_get":        {"ili", clockTime},
	"random_get":            {"ii", random},
	"sched_yield":           {"", answer(wasiOK)},
	"proc_exit":             {"i", func(*guestIO, api.Memory, []uint64) uint64 { panic(errExit) }},
	"poll_oneoff":           {"iiii", answer(wasiNoSys)},
	"fd_write":              {"iiii", write},
	"fd_close":              {"i", answer(wasiBadFD)},
	"fd_fdstat_get":         {"ii", fdStat},
	"fd_fdstat_set_flags":   {"ii", answer(wasiOK)},
	"fd_filestat_get":       {"ii", answer(wasiBadFD)},
	"fd_prestat_get":        {"ii", answer(wasiBadFD)},
	"fd_prestat_dir_name":   {"iii", answer(wasiBadFD)},
	"fd_read":               {"iiii", answer(wasiBadFD)},
	"fd_pread":              {"iiili", answer(wasiBadFD)},
	"fd_readdir":            {"iiili", answer(wasiBadFD)},
	"fd_seek":               {"ilii", answer(wasiBadFD)},
	"fd_sync":               {"i", answer(wasiBadFD)},
	"path_filestat_get":     {"iiiii", answer(wasiNoSys)},
	"path_open":             {"iiiiillii", answer(wasiNoSys)},
	"path_create_directory": {"iii", answer(wasiNoSys)},
	"path_remove_directory": {"iii", answer(wasiNoSys)},
	"path_unlink_file":      {"iii", answer(wasiNoSys)},
	"path_readlink":         {"iiiiii", answer(wasiNoSys)},
	"path_rename":           {"iiiiii", answer(wasiNoSys)},
	"fd_filestat_set_size":  {"il", answer(wasiBadFD)},
	"fd_fdstat_set_rights":  {"ill", answer(wasiBadFD)},
	"fd_tell":               {"ii", answer(wasiBadFD)},
	"fd_renumber":           {"ii", answer(wasiBadFD)},
}

// allowImport is the allow-list that wasmbin.Parse asks.
func allowImport(module, name string) bool {
	_, ok := stubs[name]
	return ok && module == wasiModule
}

func twoZeros(g *guestIO, mem api.Memory, p []uint64) uint64 {
	g.wrote(uint32(p[0]), 4)
	g.wrote(uint32(p[1]), 4)
	if !mem.WriteUint32Le(uint32(p[0]), 0) || !mem.WriteUint32Le(uint32(p[1]), 0) {
		return wasiFault
	}
	return wasiOK
}

func clockResolution(g *guestIO, mem api.Memory, p []uint64) uint64 {
	g.wrote(uint32(p[1]), 8)
	if !mem.WriteUint64Le(uint32(p[1]), 1_000_000) { // ns
		return wasiFault
	}
	return wasiOK
}

// clockTime answers with the input's time for the wall clock, and with a
// constant for the others.
func clockTime(g *guestIO, mem api.Memory, p []uint64) uint64 {
	ns := uint64(wasiUptime)
	if uint32(p[0]) == 0 {
		ns = uint64(g.timeMS) * 1_000_000
	}
	g.wrote(uint32(p[2]), 8)
	if !mem.WriteUint64Le(uint32(p[2]), ns) {
		return wasiFault
	}
	return wasiOK
}

func random(g *guestIO, mem api.Memory, p []uint64) uint64 {
	n := uint32(p[1])
	if n > maxRandom {
		return wasiInval
	}
	b, ok := mem.Read(uint32(p[0]), n) // a view: writing to it writes memory
	if !ok {
		return wasiFault
	}
	g.random = true
	g.wrote(uint32(p[0]), n)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, g.rng.Uint64())
		b = b[8:]
	}
	for i := range b {
		b[i] = byte(g.rng.Uint64())
	}
	return wasiOK
}

// write takes what a guest prints and keeps the beginning of what goes to
// stderr.
func write(g *guestIO, mem api.Memory, p []uint64) uint64 {
	fd, vecs, n := uint32(p[0]), uint32(p[1]), uint32(p[2])
	if fd != 1 && fd != 2 {
		return wasiBadFD
	}
	if n > maxIOVecs {
		return wasiInval
	}
	var kept []byte
	total := uint32(0)
	for i := range n {
		ptr, ok1 := mem.ReadUint32Le(vecs + 8*i)
		size, ok2 := mem.ReadUint32Le(vecs + 8*i + 4)
		b, ok3 := mem.Read(ptr, size)
		if !ok1 || !ok2 || !ok3 {
			return wasiFault
		}
		total += size
		if fd == 2 {
			kept = append(kept, b[:min(len(b), maxStderr-len(kept))]...)
		}
	}
	g.stderr.write(kept)
	g.wrote(uint32(p[3]), 4)
	if !mem.WriteUint32Le(uint32(p[3]), total) {
		return wasiFault
	}
	return wasiOK
}

// fdStat says that 0, 1 and 2 are character devices without any rights.
func fdStat(g *guestIO, mem api.Memory, p []uint64) uint64 {
	if uint32(p[0]) > 2 {
		return wasiBadFD
	}
	b, ok := mem.Read(uint32(p[1]), 24)
	if !ok {
		return wasiFault
	}
	g.wrote(uint32(p[1]), 24)
	clear(b)
	b[0] = 2 // character device
	return wasiOK
}

// instantiateWASI adds the stubs to a runtime.
func instantiateWASI(ctx context.Context, r wazero.Runtime) error {
	b := r.NewHostModuleBuilder(wasiModule)
	for name, s := range stubs {
		params := make([]api.ValueType, len(s.params))
		for i, c := range s.params {
			params[i] = api.ValueTypeI32
			if c == 'l' {
				params[i] = api.ValueTypeI64
			}
		}
		results := []api.ValueType{api.ValueTypeI32}
		if name == "proc_exit" {
			results = nil
		}
		do := s.do
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, m api.Module, stack []uint64) {
			g, _ := ctx.Value(guestIOKey{}).(*guestIO)
			code := do(g, m.Memory(), stack)
			if len(stack) > 0 {
				stack[0] = code
			}
		}), params, results).Export(name)
	}
	_, err := b.Instantiate(ctx)
	return err
}
