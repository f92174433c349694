package plugins

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"

	"parley/plugins/wasmbin"
)

// Folders inside the cache folder.
const (
	cachePrepared = "prepared" // rewritten modules
	cacheCompiled = "compiled" // wazero's machine code
	// Bounds of all of them together; what was not used for the longest time goes
	// first.
	maxCacheBytes = 512 << 20
	maxCacheFiles = 10_000
)

// Host compiles modules and owns what all of them share: wazero's runtime and
// its cache on disk. Use it through a Catalog, or alone where one module is to
// be judged by hand.
type Host struct {
	cfg     Config
	log     *slog.Logger
	runtime wazero.Runtime
	cache   wazero.CompilationCache // nil without CacheDir

	closing  sync.Once
	closeErr error
}

// NewHost returns a Host without plugins. It starts nothing; Close frees it.
func NewHost(cfg Config, log *slog.Logger) (*Host, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.CacheDir != "" { // a child works in a folder of its own, where a relative path leads elsewhere
		var err error
		if cfg.CacheDir, err = filepath.Abs(cfg.CacheDir); err != nil {
			return nil, fmt.Errorf("plugins: find cache folder: %w", err)
		}
	}
	h := &Host{cfg: cfg, log: log}
	rc := wazero.NewRuntimeConfigCompiler()
	if cfg.CacheDir != "" {
		for _, name := range []string{cachePrepared, cacheCompiled, cacheTrials, cacheOngoing} {
			if err := os.MkdirAll(cfg.cache(name), 0o700); err != nil {
				return nil, fmt.Errorf("plugins: make cache folder: %w", err)
			}
		}
		h.prune()
		sweep(cfg.cache(cacheOngoing), time.Now().Add(-time.Hour))
		cache, err := wazero.NewCompilationCacheWithDir(cfg.cache(cacheCompiled))
		if err != nil {
			return nil, fmt.Errorf("plugins: open cache %s: %w", cfg.CacheDir, err)
		}
		h.cache = cache
		rc = rc.WithCompilationCache(cache)
	}
	var err error
	if h.runtime, err = newRuntime(context.Background(), rc); err != nil {
		_ = h.Close() // nothing runs yet
		return nil, err
	}
	return h, nil
}

// Close frees all modules. No decision may be running or come after it. It may
// be called twice.
func (h *Host) Close() error {
	h.closing.Do(func() {
		ctx := context.Background()
		if h.runtime != nil {
			h.closeErr = h.runtime.Close(ctx)
		}
		if h.cache != nil {
			h.closeErr = errors.Join(h.closeErr, h.cache.Close(ctx))
		}
	})
	return h.closeErr
}

// Load builds a plugin from a module and its manifest: every step that the
// package comment lists. name is the plugin's name. The error says what is
// wrong with the module; nothing remains of it then.
func (h *Host) Load(ctx context.Context, name string, file []byte, manifest Manifest) (*Plugin, error) {
	started := time.Now()
	if !validName(name) {
		return nil, fmt.Errorf("%q is not a plugin name: want %s", name, nameRule)
	}
	if manifest.Name != "" && manifest.Name != name {
		return nil, fmt.Errorf("its manifest names it %q, its file %q", manifest.Name, name)
	}
	sum, named := sha256.Sum256(file), ModuleDigest(file)
	digest := hex.EncodeToString(sum[:])
	if got := hex.EncodeToString(named[:]); manifest.SHA256 != "" && manifest.SHA256 != got {
		return nil, fmt.Errorf("its SHA-256 is %s, its manifest says %s", got, manifest.SHA256)
	}
	if err := h.cfg.verify(manifest, file); err != nil {
		return nil, err
	}
	if err := h.cfg.afford(manifest.Limits); err != nil {
		return nil, err
	}
	if h.cfg.Trial.apart() {
		if err := h.tried(ctx, name, file, manifest, false); err != nil {
			return nil, err
		}
	}
	p, err := h.build(ctx, name, digest, file, manifest)
	if errors.Is(err, errDamaged) && h.cfg.Trial.apart() {
		if err := h.tried(ctx, name, file, manifest, true); err != nil {
			return nil, err
		}
		p, err = h.build(ctx, name, digest, file, manifest)
	}
	if err != nil && h.cfg.Trial.apart() {
		err = passing(err) // it passed its trial: this is not its fault
	}
	if err != nil {
		return nil, err
	}
	p.loadedAt = time.Now()
	p.log.Info("plugin loaded", "version", manifest.Version, "digest", digest[:12], "took", p.loadedAt.Sub(started).Round(time.Millisecond))
	return p, nil
}

// build prepares, compiles and sets up a module. Without a child process that
// has done so before, it also does what a trial does: tests the config, the
// vectors and the other engine.
func (h *Host) build(ctx context.Context, name, digest string, file []byte, manifest Manifest) (*Plugin, error) {
	trial, key := !h.cfg.Trial.apart(), ""
	if trial && h.cfg.CacheDir != "" {
		key = h.trialKey(file, manifest)
		v, ok := h.recall(key)
		trial = !ok || !v.OK
	}
	if trial {
		if err := manifest.CheckConfig(); err != nil {
			return nil, err
		}
	}
	prep, err := h.prepare(ctx, file, manifest.Limits)
	if err != nil {
		return nil, err
	}
	compiled, err := h.compile(ctx, prep.Wasm)
	if err != nil {
		return nil, fmt.Errorf("compile: %w", firstLine(err))
	}
	p := newPlugin(h, name, digest, manifest, prep, compiled)
	err = p.setUp()
	if err == nil && trial {
		err = p.passVectors(ctx)
	}
	if err == nil && trial {
		err = h.compareEngines(ctx, p, prep.Wasm)
	}
	if err != nil {
		p.retire()
		return nil, errors.Join(err, compiled.Close(ctx))
	}
	if trial && key != "" {
		h.remember(key, verdict{OK: true})
	}
	prep.Wasm = nil // the machine code is what counts from here on
	p.decisions.Store(0)
	p.fuel.Store(0)
	// The code lives as long as anyone may still decide with it: a message
	// keeps the set of plugins it began with, past the swap that replaced it.
	runtime.AddCleanup(p, func(c wazero.CompiledModule) { _ = c.Close(context.Background()) }, compiled)
	return p, nil
}

// validate has wazero check the types of the original. The interpreter's
// front end is used because it stops short of machine code.
func (h *Host) validate(ctx context.Context, m *wasmbin.Module) (err error) {
	defer recovered("validate", &err)
	r, err := newRuntime(ctx, wazero.NewRuntimeConfigInterpreter())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close(ctx)) }()
	if _, err := r.CompileModule(ctx, m.Encode()); err != nil {
		return fmt.Errorf("not a valid module: %w", firstLine(err))
	}
	return nil
}

// compile turns a rewritten module into machine code, from the cache if it is
// there.
func (h *Host) compile(ctx context.Context, wasm []byte) (c wazero.CompiledModule, err error) {
	defer recovered("compile", &err)
	ctx = experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0))
	c, err = h.runtime.CompileModule(ctx, wasm)
	if err == nil || h.cache == nil || !strings.Contains(err.Error(), "compilationcache") {
		return c, err
	}
	// A damaged file in the cache. Which one is wazero's secret, so all go.
	h.log.Warn("cache of compiled plugins is damaged, building it anew", "dir", h.cfg.CacheDir, "err", err)
	emptyDir(h.cfg.cache(cacheCompiled))
	if h.cfg.Trial.apart() {
		return nil, errDamaged
	}
	return h.runtime.CompileModule(ctx, wasm)
}

// errDamaged says that a module passed its trial and what the trial compiled
// cannot be read any more.
var errDamaged = errors.New("what its trial compiled is damaged")

// recovered turns a panic of the compiler into an error: a module that breaks
// it must not end the server.
func recovered(what string, err *error) {
	if r := recover(); r != nil {
		cause, ok := r.(error)
		if !ok {
			cause = fmt.Errorf("%v", r)
		}
		*err = fmt.Errorf("%s: the compiler failed on this module: %w\n%s", what, cause, debug.Stack())
	}
}

// firstLine keeps an error's first line; wazero appends stack traces.
func firstLine(err error) error {
	text, _, found := strings.Cut(err.Error(), "\n")
	if !found {
		return err
	}
	return &shortError{text, err}
}

// shortError is an error with less text.
type shortError struct {
	text string
	err  error
}

func (e *shortError) Error() string { return e.text }
func (e *shortError) Unwrap() error { return e.err }

// emptyDir removes the files below dir and keeps its folders, one of which
// wazero made for itself.
func emptyDir(dir string) {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			_ = os.Remove(path) // what stays is compiled over
		}
		return nil
	})
}

// prune keeps the cache within its bounds.
func (h *Host) prune() {
	if h.cfg.CacheDir != "" {
		pruneCache(h.cfg.CacheDir, maxCacheBytes, maxCacheFiles)
	}
}

// pruneCache removes the files that were not used for the longest time until the
// rest fits. Children at work are left alone.
func pruneCache(dir string, bytes int64, most int) {
	type entry struct {
		path string
		info fs.FileInfo
	}
	var files []entry
	total := int64(0)
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // unreadable: nothing to prune there
		}
		if e.IsDir() {
			if e.Name() == cacheOngoing {
				return fs.SkipDir
			}
			return nil
		}
		if info, err := e.Info(); err == nil {
			files = append(files, entry{path, info})
			total += info.Size()
		}
		return nil
	})
	left := len(files)
	if total <= bytes && left <= most {
		return
	}
	slices.SortFunc(files, func(a, b entry) int { return a.info.ModTime().Compare(b.info.ModTime()) })
	for _, f := range files {
		if total <= bytes && left <= most {
			return
		}
		if os.Remove(f.path) == nil {
			total -= f.info.Size()
			left--
		}
	}
}

// sweep removes folders that children of a process that was killed left
// behind: those last changed before then.
func sweep(dir string, then time.Time) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.ModTime().Before(then) {
			_ = os.RemoveAll(filepath.Join(dir, e.Name())) // next time, then
		}
	}
}
