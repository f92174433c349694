package plugins

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"parley/core/watch"
	"parley/plugins/wasmbin"
	"parley/sdk/abi"
)

// Config says where plugins lie and what they may use. The limits are defaults;
// a manifest may set others: of input and result within the hard ones below, of
// fuel and memory up to the larger of the two given here.
type Config struct {
	Dir      string // folder of NAME.wasm and NAME.json; "" means no plugins
	CacheDir string // for compiled modules; "" compiles at every start

	Fuel          uint64 // of one decision
	GoFuel        uint64 // the same, for guests that import WASI: metering overcharges Go several times
	MemoryBytes   int    // multiple of 64 KiB
	GoMemoryBytes int    // the same, for guests that import WASI
	InputBytes    int    // of one encoded input
	OutputBytes   int    // of one encoded result

	MaxPlugins int // files in Dir
	PoolSize   int // instances of one plugin, and so its decisions at a time

	// StateDir is where rollouts are remembered; "" forgets them at the end.
	StateDir string
	Replaced Replaced // kept there

	FaultLimit  int           // so many people whose messages it failed at within FaultWindow put a plugin into quarantine; 0: none do
	FaultWindow time.Duration //
	ProbeFirst  time.Duration // until the first probe, and between good ones
	ProbeMost   time.Duration // the interval doubles with each bad probe, up to this
	ProbesGood  int           // that many in a row end a quarantine

	// StartTrials is how long Catalog.Open tries modules of which nothing judges
	// yet; 0: until it is done.
	StartTrials time.Duration
	Retry       Retry // of files that another try may let pass

	StderrEvery time.Duration // between two messages of one plugin's guests that are logged; 0: log all

	OnError abi.Verdict // of plugins whose manifest does not say: Allow (open), Deny (closed) or Hold

	TrustedKeys      []ed25519.PublicKey // signers of modules
	RequireSignature bool                // refuse modules that none of them signed

	Trial  Trial          // of modules not tried before
	Module wasmbin.Limits // of module files
	Watch  watch.Config   // Dir is filled in
}

// Hard limits of what a manifest may ask for.
const (
	maxFuel        = 1_000_000_000 // about 0.15 s of one core
	maxMemoryBytes = 64 << 20
	maxInputBytes  = 1 << 20
	maxOutputBytes = 1 << 20
	pageBytes      = 64 << 10 // of WebAssembly memory
)

// Budgets that are the same for every plugin.
const (
	// setupFuel is for each of _initialize, configure and the other calls at
	// load. A Go runtime with encoding/json needs 17 million to start. What each
	// instance repeats has a decision's budget instead: a start function, and all
	// of it where it changes tables. Decisions can make instances necessary.
	setupFuel = 300_000_000
	// stackWords bounds the call stack, in words of 8 bytes: 512 KiB, which is
	// 8,000 calls of the smallest function.
	stackWords = 64 << 10
)

// Defaults returns a Config with everything but Dir and CacheDir set.
func Defaults() Config {
	return Config{
		Fuel:          1_000_000,
		GoFuel:        50_000_000,
		MemoryBytes:   1 << 20,
		GoMemoryBytes: 16 << 20,
		InputBytes:    abi.MaxInput,
		OutputBytes:   abi.MaxOutput,
		MaxPlugins:    64,
		PoolSize:      runtime.GOMAXPROCS(0), // guests are not preempted, more would only queue
		FaultLimit:    5,
		FaultWindow:   time.Minute,
		ProbeFirst:    time.Second,
		ProbeMost:     5 * time.Minute,
		ProbesGood:    3,
		StartTrials:   30 * time.Second,
		Retry:         Retry{First: 5 * time.Second, Most: 10 * time.Minute},
		StderrEvery:   time.Second,
		OnError:       abi.Deny,
		Replaced:      Replaced{For: 72 * time.Hour, Count: 64, Bytes: 256 << 20},
		Trial: Trial{
			InProcess:   true,
			MemoryBytes: 1 << 30, // a Go guest needs some hundred MiB
			CPU:         60 * time.Second,
			Wall:        2 * time.Minute,
		},
		Module: wasmbin.Defaults(),
		Watch:  watch.Defaults(),
	}
}

// check names the first field that cannot be.
func (c *Config) check() error {
	for _, f := range []struct {
		name      string
		got, most uint64
	}{
		{"fuel", c.Fuel, maxFuel},
		{"go_fuel", c.GoFuel, maxFuel},
		{"memory_bytes", uint64(c.MemoryBytes), maxMemoryBytes},
		{"go_memory_bytes", uint64(c.GoMemoryBytes), maxMemoryBytes},
		{"input_bytes", uint64(c.InputBytes), maxInputBytes},
		{"output_bytes", uint64(c.OutputBytes), maxOutputBytes},
		{"max_plugins", uint64(c.MaxPlugins), 10_000},
		{"pool_size", uint64(c.PoolSize), 1_000},
		{"fault_window", uint64(c.FaultWindow), uint64(24 * time.Hour)},
		{"probe_first", uint64(c.ProbeFirst), uint64(24 * time.Hour)},
		{"probe_most", uint64(c.ProbeMost), uint64(24 * time.Hour)},
		{"probes_good", uint64(c.ProbesGood), 1_000},
	} {
		if f.got == 0 || f.got > f.most {
			return fmt.Errorf("plugins: %s is %d, want 1 to %d", f.name, int64(f.got), f.most)
		}
	}
	if c.FaultLimit < 0 || c.FaultLimit > maxFaulters {
		return fmt.Errorf("plugins: fault_limit is %d, want 0 to %d", c.FaultLimit, maxFaulters)
	}
	if err := c.Trial.check(c.CacheDir); err != nil {
		return err
	}
	if err := errors.Join(c.Replaced.check(), c.Retry.check()); err != nil {
		return err
	}
	switch c.OnError {
	case abi.Allow, abi.Deny, abi.Hold:
	default:
		return fmt.Errorf("plugins: on_error is %v, want %v, %v or %v", c.OnError, abi.Allow, abi.Deny, abi.Hold)
	}
	for _, k := range c.TrustedKeys {
		if len(k) != ed25519.PublicKeySize {
			return fmt.Errorf("plugins: a key of trusted_keys has %d bytes, want %d", len(k), ed25519.PublicKeySize)
		}
	}
	if c.RequireSignature && len(c.TrustedKeys) == 0 {
		return errors.New("plugins: require_signature is on and trusted_keys is empty, so no module could be loaded")
	}
	return nil
}

// cache returns a folder inside the cache folder, or "" without one.
func (c *Config) cache(name string) string {
	if c.CacheDir == "" {
		return ""
	}
	return filepath.Join(c.CacheDir, name)
}

// afford names the limit of a manifest that is above what the server gives.
func (c *Config) afford(l Limits) error {
	for _, f := range []struct {
		name      string
		got, most uint64
	}{
		{"fuel", l.Fuel, max(c.Fuel, c.GoFuel)},
		{"memory_bytes", uint64(l.MemoryBytes), uint64(max(c.MemoryBytes, c.GoMemoryBytes))},
	} {
		if f.got > f.most {
			return fmt.Errorf("limits.%s is %d, more than the server gives: %d (plugins.%[1]s)", f.name, f.got, f.most)
		}
	}
	return nil
}

// limits completes a manifest's limits with the defaults.
func (c *Config) limits(l Limits, wasi bool) Limits {
	d := Limits{c.Fuel, c.MemoryBytes, c.InputBytes, c.OutputBytes}
	if wasi {
		d.Fuel, d.MemoryBytes = c.GoFuel, c.GoMemoryBytes
	}
	if l.Fuel == 0 {
		l.Fuel = d.Fuel
	}
	if l.MemoryBytes == 0 {
		l.MemoryBytes = d.MemoryBytes
	}
	if l.InputBytes == 0 {
		l.InputBytes = d.InputBytes
	}
	if l.OutputBytes == 0 {
		l.OutputBytes = d.OutputBytes
	}
	return l
}
