package plugins

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"parley/core/atomicfile"
	"parley/core/child"
	"parley/plugins/meter"
	"parley/plugins/wasmbin"
)

// Trial says how a module that has not been tried before is tried. A module is
// known by its bytes and by what its manifest and the configuration say about
// running it; see trialKey.
type Trial struct {
	// Command starts a child process that calls TrialMain: its argv. The child
	// is given no environment, and limits itself before it reads a byte. It
	// needs Config.CacheDir, through which the results come back.
	Command []string
	// InProcess lets a Host without a Command try modules in its own process:
	// for modules of one's own making, since a compiler that a module drives
	// mad takes the process with it.
	InProcess bool

	MemoryBytes uint64        // of address space, beyond what the child's program itself takes (RLIMIT_AS)
	CPU         time.Duration // its processor time (RLIMIT_CPU), whole seconds
	Wall        time.Duration // from its start to its last byte
}

// ErrTrial is wrapped by what a trial ended with when the child did not live
// to say what it found.
var ErrTrial = errors.New("its trial failed")

const (
	cacheTrials  = "trials" // verdicts, inside the cache folder
	cacheOngoing = "trying" // scratch folders of children

	maxTrialAnswer = 64 << 10 // bytes of a child's stdout
	maxVerdict     = 64 << 10 // bytes of a remembered verdict

	// maxCompiled bounds a file that a child makes of a module: machine code of
	// the largest is some 30 MB.
	maxCompiled = 256 << 20
)

func (t *Trial) check(cacheDir string) error {
	switch {
	case len(t.Command) == 0 && !t.InProcess:
		return errors.New("plugins: there is neither a command to try modules with nor leave to try them in this process")
	case len(t.Command) > 0 && cacheDir == "":
		return errors.New("plugins: trying modules in a child process needs a cache folder")
	}
	if err := t.limits("").Check(); err != nil {
		return fmt.Errorf("plugins: limits of a trial: %w", err)
	}
	return nil
}

// limits are those of a child that works in a folder.
func (t *Trial) limits(dir string) child.Limits {
	return child.Limits{MemoryBytes: t.MemoryBytes, CPU: t.CPU, Wall: t.Wall, AnswerBytes: maxTrialAnswer, Dir: dir, FileBytes: maxCompiled}
}

// apart reports whether modules are tried in a child process.
func (t *Trial) apart() bool { return len(t.Command) > 0 }

// verdict is what a trial found, as it is remembered.
type verdict struct {
	OK    bool     `json:"ok"`
	Error string   `json:"error,omitempty"`
	Is    []string `json:"is,omitempty"` // names of the sentinels that the error wraps
	// Files that the server needs to load the module without compiling it,
	// relative to the cache folder.
	Files []string `json:"files,omitempty"`
	// Passing is of a child's answer alone: another may not find that error.
	Passing bool `json:"passing,omitempty"`
}

// sentinels go through a child's answer by name.
var sentinels = map[string]error{
	"fuel": ErrFuel, "stack": ErrStack, "trap": ErrTrap, "answer": ErrAnswer, "engines": ErrEngines,
	"module": wasmbin.ErrModule, "meter": meter.ErrMeter, "trial": ErrTrial, noMemory: syscall.ENOMEM,
}

// noMemory is the name of the one that says a system call was refused memory.
const noMemory = "memory"

// foundError is an error that a trial found, maybe long ago.
type foundError struct {
	text string
	is   []error
}

func (e *foundError) Error() string   { return e.text }
func (e *foundError) Unwrap() []error { return e.is }

func (v *verdict) err() error {
	if v.OK {
		return nil
	}
	e := &foundError{text: v.Error}
	for _, name := range v.Is {
		if s := sentinels[name]; s != nil {
			e.is = append(e.is, s)
		}
	}
	return e
}

func verdictOf(err error) verdict {
	if err == nil {
		return verdict{OK: true}
	}
	v := verdict{Error: strings.ToValidUTF8(err.Error(), "?"), Passing: isPassing(err) || bySystem(err)}
	if len(v.Error) > maxTrialAnswer/4 {
		v.Error = strings.ToValidUTF8(v.Error[:maxTrialAnswer/4], "") + "..."
	}
	for name, s := range sentinels {
		if errors.Is(err, s) {
			v.Is = append(v.Is, name)
		}
	}
	return v
}

// trialKey names a trial: the module, what its manifest and the configuration
// say about running it, and the versions of what runs it. Names, descriptions,
// digests, signatures and rollouts change without another trial.
func (h *Host) trialKey(file []byte, m Manifest) string {
	m.Name, m.Version, m.Description, m.SHA256, m.Signature, m.Rollout = "", "", "", "", nil, nil
	t := h.cfg.Trial
	d := sha256.New()
	fmt.Fprintf(d, "parley trial 3\n%s %d %d %v %s\n", h.prepareKey(file, m.Limits), h.cfg.InputBytes, h.cfg.OutputBytes, h.cfg.limits(m.Limits, true), runtime.GOARCH)
	fmt.Fprintf(d, "%v %d %v %v %t\n", h.cfg.limits(m.Limits, false), t.MemoryBytes, t.CPU, t.Wall, t.apart())
	d.Write(m.JSON())
	return hex.EncodeToString(d.Sum(nil))
}

// tried returns nil if the module passed its trial, now or before, and why not
// otherwise. Afterwards the cache folder holds what loading it needs. fresh
// ignores what is remembered.
func (h *Host) tried(ctx context.Context, name string, file []byte, m Manifest, fresh bool) error {
	key := h.trialKey(file, m)
	if v, ok := h.recall(key); ok && !fresh {
		return v.err()
	}
	started := time.Now()
	v, err := h.try(ctx, name, file, m)
	if err != nil {
		return err
	}
	h.log.Info("plugin tried", "plugin", name, "passed", v.OK, "took", time.Since(started).Round(time.Millisecond))
	h.remember(key, v)
	return v.err()
}

// known reports whether the module can be loaded, or refused, without a trial.
func (h *Host) known(file []byte, m Manifest) bool {
	if !h.cfg.Trial.apart() {
		return true
	}
	_, ok := h.recall(h.trialKey(file, m))
	return ok
}

// recall reads a remembered verdict. One that is damaged, or whose files are
// gone, does not count.
func (h *Host) recall(key string) (verdict, bool) {
	var v verdict
	b, err := readBounded(filepath.Join(h.cfg.cache(cacheTrials), key), maxVerdict)
	if err != nil || len(b) < sha256.Size {
		return v, false
	}
	sum := sha256.Sum256(b[sha256.Size:])
	if !bytes.Equal(sum[:], b[:sha256.Size]) || json.Unmarshal(b[sha256.Size:], &v) != nil {
		return v, false
	}
	now := time.Now()
	for _, f := range append([]string{filepath.Join(cacheTrials, key)}, v.Files...) {
		f = filepath.Join(h.cfg.CacheDir, f)
		if _, err := os.Stat(f); err != nil {
			return v, false
		}
		_ = os.Chtimes(f, now, now) // or prune takes it for unused
	}
	return v, true
}

func (h *Host) remember(key string, v verdict) {
	b, err := json.Marshal(v)
	if err == nil {
		sum := sha256.Sum256(b)
		err = atomicfile.Write(filepath.Join(h.cfg.cache(cacheTrials), key), append(sum[:], b...), 0o600)
	}
	if err != nil {
		h.log.Warn("trial not remembered, the next start repeats it", "dir", h.cfg.CacheDir, "err", err)
	}
}

// try runs one child. The verdict is final: another child would find the same.
// The error is ctx's, or one that another may not find again.
func (h *Host) try(ctx context.Context, name string, file []byte, m Manifest) (v verdict, err error) {
	scratch, err := os.MkdirTemp(h.cfg.cache(cacheOngoing), "")
	if err != nil {
		return v, passing(fmt.Errorf("make a folder for its trial: %w", err))
	}
	defer os.RemoveAll(scratch) // what stays is swept at the next start
	request, err := h.trialRequest(scratch, name, file, m)
	if err != nil {
		return v, err
	}
	limits := h.cfg.Trial.limits(scratch)
	answer, err := child.Run(ctx, h.cfg.Trial.Command, limits, request)
	switch {
	case errors.Is(err, child.ErrDied):
		return ended(err)
	case ctx.Err() != nil:
		return v, err
	case err != nil:
		return v, passing(fmt.Errorf("begin its trial: %w", err))
	case json.Unmarshal(answer, &v) != nil || !v.OK && v.Error == "":
		return v, passing(fmt.Errorf("%w: the child gave no proper answer", ErrTrial))
	}
	switch {
	case v.Passing:
		return v, passing(v.err())
	case slices.Contains(v.Is, noMemory):
		return ended(limits.OutOfMemory())
	case v.OK:
		if v.Files, err = h.adopt(scratch, h.prepareKey(file, m.Limits)); err != nil {
			return v, passing(fmt.Errorf("take over what its trial compiled: %w", err))
		}
	}
	return v, nil
}

// ended is what became of a module whose child died.
func ended(err error) (verdict, error) {
	wrapped := fmt.Errorf("%w: %w", ErrTrial, err)
	if child.Passing(err) {
		return verdict{}, passing(wrapped)
	}
	return verdictOf(wrapped), nil
}

// adopt moves what a child made into the cache and returns the names: the
// prepared module, in place of one that may be there, and the machine code,
// unless it is there. Nothing else of what a child may have written counts.
func (h *Host) adopt(scratch, prepared string) ([]string, error) {
	rel := filepath.Join(cachePrepared, prepared)
	if err := h.move(scratch, rel); err != nil {
		return nil, err
	}
	out := []string{rel}
	err := filepath.WalkDir(filepath.Join(scratch, cacheCompiled), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if rel, err = filepath.Rel(scratch, path); err != nil {
			return err
		}
		if len(out) == 2 {
			return fmt.Errorf("one file too many: %s", rel)
		}
		out = append(out, rel)
		if _, err := os.Stat(filepath.Join(h.cfg.CacheDir, rel)); err == nil {
			return nil
		}
		return h.move(scratch, rel)
	})
	if err == nil && len(out) != 2 {
		err = errors.New("it compiled nothing")
	}
	return out, err
}

// move moves a regular file from a scratch folder to its place in the cache.
func (h *Host) move(scratch, rel string) error {
	from, to := filepath.Join(scratch, rel), filepath.Join(h.cfg.CacheDir, rel)
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", rel)
	}
	if info.Size() > maxCompiled {
		return fmt.Errorf("%s has %d bytes, more than %d: make the module smaller", rel, info.Size(), maxCompiled)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// passingError is an error that another try may not find again. It says nothing
// about a module.
type passingError struct{ err error }

func (e *passingError) Error() string { return e.err.Error() }
func (e *passingError) Unwrap() error { return e.err }

func passing(err error) error { return &passingError{err} }

func isPassing(err error) bool {
	var p *passingError
	return errors.As(err, &p)
}

// bySystem reports whether a system call failed for another reason than memory,
// of which a child has a limited amount by design.
func bySystem(err error) bool {
	var no syscall.Errno
	return errors.As(err, &no) && no != syscall.ENOMEM
}
