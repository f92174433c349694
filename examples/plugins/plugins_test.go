// Package examples_test builds every example plugin from source, loads it with
// the sidecar it ships with into the real host, and holds it
// against the vectors of its manifest, ordinary chat and random texts. It needs
// the compilers that .ci/setup installs.
package examples_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/plugins"
	"parley/sdk/abi"
)

// build makes dir/NAME.wasm with its own build script, or the Go SDK's, and
// copies NAME.json beside it. A compiler that is missing is a failure.
func build(t testing.TB, dir, name string) {
	t.Helper()
	out := filepath.Join(dir, name+".wasm")
	args := []string{filepath.Join(name, "build.sh"), out}
	if _, err := os.Stat(filepath.Join(name, "main.go")); err == nil {
		args = []string{"../../sdk/plugin/build.sh", name, out}
	}
	track(t, name, "../../sdk")
	if b, err := exec.Command("sh", args...).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, b)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), file(t, name, name+".json"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// track reads the sources that a build script is about to read, so that go test
// does not take the result of other ones from its cache.
func track(t testing.TB, folders ...string) {
	t.Helper()
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case e.IsDir() && (e.Name() == "node_modules" || e.Name() == "target"):
				return filepath.SkipDir
			case !e.Type().IsRegular():
				return nil
			}
			_, err = os.ReadFile(path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func file(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// all builds every example, once for all tests.
var all = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "examples-") })

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := all(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// cacheDir is where all tests keep what they compile.
func cacheDir(t testing.TB) string {
	t.Helper()
	dir, err := all()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, ".cache")
}

// built returns a folder with every example in it.
func built(t testing.TB) string {
	t.Helper()
	dir, err := all()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range examples {
		if _, err := os.Stat(filepath.Join(dir, name+".json")); err != nil {
			build(t, dir, name)
		}
	}
	return dir
}

// open loads the plugins of dir into a stage.
func open(t testing.TB, dir string) (*plugins.Catalog, *moderation.Stage) {
	t.Helper()
	cfg := plugins.Defaults()
	cfg.Dir, cfg.CacheDir = dir, cacheDir(t)
	cfg.Trial.InProcess = true // they are ours
	c, err := plugins.New(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close the catalog: %v", err)
		}
	})
	if err := c.Load(t.Context()); err != nil {
		t.Fatalf("load: %v", err)
	}
	s, err := moderation.New(moderation.Defaults(), c)
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

// judge has the named plugins decide on text; nil means all.
func judge(t testing.TB, s *moderation.Stage, text string, only ...string) moderation.Result {
	t.Helper()
	clean, err := moderation.Clean(text, 4096)
	if err != nil {
		t.Fatalf("clean %+q: %v", text, err)
	}
	r, err := s.Judge(context.Background(), &moderation.Message{
		Room: "lobby", User: "ann", Kind: "message", Text: clean, TimeMS: 1_735_689_600_000,
	}, only)
	if err != nil {
		t.Fatalf("judge %+q: %v", clean, err)
	}
	for _, rec := range r.Records {
		if rec.Err != nil {
			t.Errorf("plugin %s failed on %d bytes: %v", rec.Plugin, len(clean), rec.Err)
		}
	}
	return r
}

var examples = []string{"flood", "links", "pii", "shout", "wordlist"} // sorted

func TestExamples(t *testing.T) {
	dir := built(t)
	c, s := open(t, dir) // a plugin that does not pass its manifest's vectors is refused here
	if got := names(c.Judges()); !slices.Equal(got, examples) {
		for _, st := range c.Status() {
			t.Errorf("%s: %s", st.Name, st.Error)
		}
		t.Fatalf("loaded %q, want %q", got, examples)
	}
	t.Run("together", func(t *testing.T) { testTogether(t, s) })
	t.Run("fuel", func(t *testing.T) { testFuel(t, s) })
	t.Run("ordinary chat", func(t *testing.T) { testOrdinary(t, s) })
}

// TestVectors runs the vectors of each manifest, which name what a plugin
// catches and what it must leave alone.
func TestVectors(t *testing.T) {
	for _, name := range examples {
		t.Run(name, func(t *testing.T) {
			p, m := load(t, built(t), name, "")
			results, err := plugins.RunVectors(t.Context(), p, m)
			if err != nil || len(results) < 10 {
				t.Fatalf("%d vectors, %v, want 10 at least", len(results), err)
			}
			for _, r := range results {
				if r.Problem != "" {
					t.Errorf("%s: %+q: %s", r.Vector.Name, r.Vector.Text, r.Problem)
				}
			}
		})
	}
}

// load loads one example into a host, with the config of its manifest or
// another one.
func load(t testing.TB, dir, name, config string) (*plugins.Plugin, plugins.Manifest) {
	t.Helper()
	p, m, err := tryLoad(t, dir, name, config)
	if err != nil {
		t.Fatal(err)
	}
	return p, m
}

func tryLoad(t testing.TB, dir, name, config string) (*plugins.Plugin, plugins.Manifest, error) {
	t.Helper()
	cfg := plugins.Defaults()
	cfg.CacheDir = cacheDir(t)
	cfg.Trial.InProcess = true
	h, err := plugins.NewHost(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	m, err := plugins.ParseManifest(file(t, dir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	loaded := m
	loaded.Vectors = nil // a test runs them one by one
	if config != "" {
		loaded.Config = json.RawMessage(config)
		loaded.ConfigSchema = nil // the plugin's own checks are at trial
	}
	p, err := h.Load(t.Context(), name, file(t, dir, name+".wasm"), loaded)
	return p, m, err
}

// testTogether runs all plugins on one message: the stronger verdict prevails,
// and the author is told by which plugin and why.
func testTogether(t *testing.T, s *moderation.Stage) {
	r := judge(t, s, "WHAT THE HECK IS GOING ON HERE", "shout", "wordlist")
	refusal := r.Refusal()
	if r.Verdict != abi.Deny || refusal == nil || refusal.Code != chat.CodeDenied {
		t.Fatalf("got %s, %v, want deny", r.Verdict, refusal)
	}
	if got := refusal.Reasons[0]; got.Source != "plugin:shout" || got.Code != "rule_1" || !strings.Contains(got.Text, "capitals") {
		t.Errorf("got reason %+v", got)
	}
	r = judge(t, s, "what the HECK")
	if r.Verdict != abi.Redact || r.Text != "what the ****" || r.Reasons[0].Source != "plugin:wordlist" {
		t.Errorf("got %s %q %v", r.Verdict, r.Text, r.Reasons)
	}
}

func names(js []moderation.Judge) []string {
	var out []string
	for _, j := range js {
		out = append(out, j.Name())
	}
	return out
}

// testFuel keeps the examples far from their budgets: texts of about the
// length a default server takes, the most tedious ones for each among them.
func testFuel(t *testing.T, s *moderation.Stage) {
	d := plugins.Defaults()
	budget := map[string]uint64{"wordlist": d.GoFuel, "shout": d.Fuel}
	for _, name := range []string{"flood", "links", "pii"} {
		m, err := plugins.ParseManifest(file(t, name, name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		budget[name] = m.Limits.Fuel
	}
	for _, tt := range []struct{ name, text string }{
		{"short", "hello there"},
		{"prose", strings.Repeat("The quick brown fox jumps over the lazy dog. ", 90)},
		{"all words", strings.Repeat("heck darn ", 400)},
		{"near misses", strings.Repeat("hec dar dan fri h e c ", 180)},
		{"stand-ins", strings.Repeat("1!|", 1300)},
		{"capitals", strings.Repeat("A", 4000)},
		{"links", strings.Repeat("https://bad.example/bad.example ", 125)},
		{"dots", strings.Repeat("a.", 2000)},
		{"short labels under com", strings.Repeat(strings.Repeat("a.", 120)+"com ", 16)},
		{"a long path", "https://example.org/" + strings.Repeat("a.b/", 990)},
		{"punycode", strings.Repeat("xn--"+strings.Repeat("9a", 28)+".com ", 61)},
		{"punycode that decodes", strings.Repeat("xn--80ak6aa92e.", 266)},
		{"look-alikes", strings.Repeat("https://pаypal.com ", 200)},
		{"schemes", strings.Repeat("a://", 1000)},
		{"at signs in a link", "https://" + strings.Repeat("a@", 1990)},
		{"digits", strings.Repeat("4", 4000)},
		{"single digits", strings.Repeat("0 ", 2000)},
		{"nearly phones", strings.Repeat("0123 45 6-", 400)},
		{"plus signs", strings.Repeat("+1 2", 1000)},
		{"nearly cards", strings.Repeat("4111 1111 1111 1112 ", 200)},
		{"nearly IBANs", strings.Repeat("mt31 aaaa ", 400)},
		{"at signs", strings.Repeat("a@", 2000)},
		{"dotted at signs", strings.Repeat("a@b.c.d.", 500)},
		{"long local parts", strings.Repeat(strings.Repeat("a", 63)+"@", 62)},
		{"mentions", strings.Repeat("@a ", 1333)},
		{"beyond ASCII", strings.Repeat("éж界😀", 330)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, rec := range judge(t, s, tt.text).Records {
				t.Logf("%s: %d fuel for %d bytes", rec.Plugin, rec.Fuel, len(tt.text))
				if most := budget[rec.Plugin] * 3 / 4; rec.Fuel > most {
					t.Errorf("%s: %d fuel for %d bytes, want at most %d", rec.Plugin, rec.Fuel, len(tt.text), most)
				}
			}
		})
	}
}

func BenchmarkJudge(b *testing.B) {
	const text = "The quick brown fox jumps over the lazy dog while 42 students in class assess the passage, and nobody minds at all, OK?"
	for _, name := range examples {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			build(b, dir, name)
			_, s := open(b, dir)
			m := &moderation.Message{Room: "lobby", User: "ann", Kind: "message", Text: text}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Judge(b.Context(), m, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
