package plugins_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/plugins"
	"parley/plugins/internal/asm"
	"parley/plugins/wasmbin"
	"parley/sdk/abi"
)

// inChild has the test binary try modules; see TestMain.
func inChild(dir string) func(*plugins.Config) {
	return func(c *plugins.Config) {
		c.CacheDir = dir
		c.Trial.InProcess, c.Trial.Command = false, []string{os.Args[0], "plugin-trial"}
	}
}

// trialDir holds what buildTrial builds; TestMain removes it.
var trialDir string

var builtTrial = sync.OnceValues(func() (string, error) {
	var err error
	if trialDir, err = os.MkdirTemp("", "parley-trial-"); err != nil {
		return "", err
	}
	out := filepath.Join(trialDir, "trial")
	cmd := exec.Command("go", "build", "-o", out, "./testdata/trial")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as the server is built
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the child: %w\n%s", err, msg)
	}
	return out, nil
})

// buildTrial returns a child without the race detector, which leaves no room
// for RLIMIT_AS and takes a second to start.
func buildTrial(t testing.TB) string {
	t.Helper()
	path, err := builtTrial()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// files lists the regular files below dir.
func files(t testing.TB, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTrialInARelativeFolder: data_dir is relative as a rule, and the child
// has another working directory.
func TestTrialInARelativeFolder(t *testing.T) {
	t.Chdir(t.TempDir())
	mustLoad(t, newHost(t, inChild("cache")), masker(), "{}")
	if got := len(files(t, filepath.Join("cache", "trials"))); got != 1 {
		t.Errorf("got %d verdicts in the folder, want 1", got)
	}
}

func TestTrialInChild(t *testing.T) {
	dir := t.TempDir()
	h := newHost(t, inChild(dir))
	p := mustLoad(t, h, masker(), "{}")
	if v, _, _, err := ask(p, "hey!"); v != abi.Redact || err != nil {
		t.Errorf("got %v, %v, want redact", v, err)
	}
	for _, kind := range []string{"prepared", "compiled", "trials"} {
		if got := len(files(t, filepath.Join(dir, kind))); got != 1 {
			t.Errorf("got %d files in %s, want 1", got, kind)
		}
	}
	if left, err := os.ReadDir(filepath.Join(dir, "trying")); err != nil || len(left) != 0 {
		t.Errorf("got %v, %v left of the trial, want nothing", left, err)
	}
	// What was tried is not tried again, whatever its manifest says to people.
	broken := newHost(t, inChild(dir), func(c *plugins.Config) { c.Trial.Command = []string{"/nonexistent"} })
	mustLoad(t, broken, masker(), `{"version":"2","rollout":{}}`)
	if _, err := load(t, broken, masker(), `{"limits":{"fuel":5}}`); err == nil || !strings.Contains(err.Error(), "begin its trial: start a child process") {
		t.Errorf("got %v, want other limits tried anew, and no child to do it", err)
	}
}

// What a child refuses comes back with its sentinel, and is remembered.
func TestTrialRefusals(t *testing.T) {
	dir := t.TempDir()
	h := newHost(t, inChild(dir))
	broken := newHost(t, inChild(dir), func(c *plugins.Config) { c.Trial.Command = []string{"/nonexistent"} })
	for _, c := range []struct {
		name     string
		wasm     []byte
		manifest string
		is       error
		want     string
	}{
		{"4e9 locals", body(1, asm.U(4_000_000_000), asm.I64, asm.Const64(0), asm.End), "{}", wasmbin.ErrModule, "4000000000 locals"},
		{"decide that loops", guest(asm.Cat(forever, asm.Const64(0)), nil), "{}", plugins.ErrFuel, "self-test with a neutral message: it ran out of fuel"},
		{"invalid code", guest(asm.Cat(asm.I32Add, asm.Const64(0)), nil), "{}", nil, "not a valid module"},
		{"vector", masker(), `{"vectors":[{"name":"v","text":"hi!","want":"allow"}]}`, nil, `test vector "v": got redact`},
		{"config", allower(), `{"config_schema":{"required":["a"]}}`, nil, "missing property 'a'"},
		{"schema that explodes", allower(), bomb(40), plugins.ErrTrial, "more than 2s of processor time (RLIMIT_CPU)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := h
			broken := broken
			if c.is == plugins.ErrTrial {
				short := func(c *plugins.Config) { c.Trial.CPU = 2 * time.Second }
				h = newHost(t, inChild(dir), short)
				broken = newHost(t, inChild(dir), short, func(c *plugins.Config) { c.Trial.Command = []string{"/nonexistent"} })
			}
			for _, h := range []*plugins.Host{h, broken} {
				_, err := load(t, h, c.wasm, c.manifest)
				if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
					t.Fatalf("got %v, want an error with %q", err, c.want)
				}
			}
		})
	}
}

// bomb is a manifest whose schema asks itself the same twice, n times over.
func bomb(n int) string {
	var defs []string
	for i := range n {
		next := fmt.Sprintf(`{"$ref":"#/$defs/d%d"}`, i+1)
		defs = append(defs, fmt.Sprintf(`"d%d":{"allOf":[%s,%s]}`, i, next, next))
	}
	defs = append(defs, fmt.Sprintf(`"d%d":{}`, n))
	return `{"config_schema":{"$ref":"#/$defs/d0","$defs":{` + strings.Join(defs, ",") + `}}}`
}

// The child's limits: 1 GiB of memory lets a Go guest pass, 64 MiB does not, and
// the error says so.
func TestTrialMemoryLimit(t *testing.T) {
	child, wasm := buildTrial(t), buildGoGuest(t)
	with := func(memory uint64) *plugins.Host {
		return newHost(t, inChild(t.TempDir()), func(c *plugins.Config) {
			c.Trial.Command, c.Trial.MemoryBytes = []string{child}, memory
		})
	}
	if _, err := load(t, with(1<<30), wasm, "{}"); err != nil {
		t.Errorf("1 GiB: got %v, want it loaded", err)
	}
	_, err := load(t, with(64<<20), wasm, "{}")
	if plugins.IsPassing(err) {
		t.Error("the module's own limit passes for the machine's trouble")
	}
	if !errors.Is(err, plugins.ErrTrial) || !strings.Contains(err.Error(), "more than 64 MiB of memory (RLIMIT_AS)") {
		t.Errorf("64 MiB: got %v, want the limit named", err)
	}
}

func TestTrialWithoutProperChild(t *testing.T) {
	script := func(text string) func(*plugins.Config) {
		return func(c *plugins.Config) { c.Trial.Command = []string{"/bin/sh", "-c", text} }
	}
	for _, c := range []struct{ name, script, want string }{
		{"silent", "exit 0", "gave no proper answer"},
		{"other answer", "echo '{}'", "gave no proper answer"},
		{"killed", "kill -9 $$", "ended with signal: killed"},
		{"talks too much", "head -c 100000 /dev/zero | tr '\\0' ' '; echo '{\"ok\":true}'", "answered with more than 65536 bytes"},
		{"fails", "echo oh dear >&2; exit 3", "exit status 3; if the kernel killed it for want of memory, give the machine more: oh dear"},
		{"lies about files", "mkdir prepared compiled; ln -s /etc/passwd compiled/x; echo '{\"ok\":true}'", "take over what its trial compiled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, inChild(t.TempDir()), script(c.script))
			if _, err := load(t, h, allower(), "{}"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	t.Run("environment", func(t *testing.T) {
		t.Setenv("PARLEY_SECRET", "x")
		h := newHost(t, inChild(t.TempDir()), script("env >&2; exit 3"))
		if _, err := load(t, h, allower(), "{}"); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Fatalf("got %v, want no environment", err)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		h := newHost(t, inChild(t.TempDir()), script("exec cat /dev/zero >/dev/null"), func(c *plugins.Config) { c.Trial.Wall = time.Second })
		if _, err := load(t, h, allower(), "{}"); !errors.Is(err, plugins.ErrTrial) || !strings.Contains(err.Error(), "longer than 1s") {
			t.Fatalf("got %v, want the time named", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		h := newHost(t, inChild(t.TempDir()), script("exec cat /dev/zero >/dev/null"))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := h.Load(ctx, "test", allower(), manifest(t, "{}")); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want context.Canceled", err)
		}
	})
}

// A child's input that is not one does not bring it to try anything.
func TestTrialMainRefuses(t *testing.T) {
	for _, in := range []string{"", "\x02\x00\x00\x00{}", strings.Repeat("\xff", 40)} {
		var out bytes.Buffer
		if code := plugins.TrialMain(strings.NewReader(in), &out); code == 0 || out.Len() > 0 {
			t.Errorf("%q: got %d, %q, want a failure without an answer", in, code, out.String())
		}
	}
	for _, in := range []string{"", "\xff\xff\xff\xff", "\x03\x00\x00\x00{}x", "\x05\x00\x00\x00{}"} {
		if answer := plugins.ServeTrial([]byte(in)); answer != nil {
			t.Errorf("%q: got %q, want no answer", in, answer)
		}
	}
}

// Damaged leftovers of a trial lead to another one, never to compiling here.
func TestTrialDamage(t *testing.T) {
	for _, kind := range []string{"prepared", "compiled", "trials"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			mustLoad(t, newHost(t, inChild(dir)), masker(), "{}")
			for _, f := range files(t, filepath.Join(dir, kind)) {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				b[len(b)-1] ^= 0xff
				b[0] ^= 0xff
				if err := os.WriteFile(f, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var log bytes.Buffer
			cfg := plugins.Defaults()
			inChild(dir)(&cfg)
			h, err := plugins.NewHost(cfg, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			p := mustLoad(t, h, masker(), "{}")
			if v, _, _, err := ask(p, "hey!"); v != abi.Redact || err != nil {
				t.Errorf("got %v, %v, want redact", v, err)
			}
			if !strings.Contains(log.String(), "plugin tried") {
				t.Errorf("got no second trial:\n%s", log.String())
			}
		})
	}
}

func TestTrialConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*plugins.Config)
		want string
	}{
		{"no way to try", func(c *plugins.Config) { c.Trial.InProcess = false }, "neither a command to try modules with"},
		{"no cache", func(c *plugins.Config) { c.Trial.Command = []string{"x"} }, "needs a cache folder"},
		{"no memory", func(c *plugins.Config) { c.Trial.MemoryBytes = 0 }, "less than 64 MiB"},
	} {
		cfg := plugins.Defaults()
		c.edit(&cfg)
		if _, err := plugins.NewHost(cfg, quietLog); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// What is used stays in the cache, which counts from its last use.
func TestCacheCountsFromLastUse(t *testing.T) {
	dir := t.TempDir()
	mustLoad(t, newHost(t, inChild(dir)), masker(), "{}")
	old := time.Now().Add(-time.Hour)
	for _, f := range files(t, dir) {
		if err := os.Chtimes(f, old, old); err != nil {
			t.Fatal(err)
		}
	}
	mustLoad(t, newHost(t, inChild(dir)), masker(), "{}")
	for _, f := range files(t, dir) {
		if info, err := os.Stat(f); err != nil || time.Since(info.ModTime()) > time.Minute {
			t.Errorf("%s counts as unused: %v, %v", f, info.ModTime(), err)
		}
	}
}
