// Package examples_test builds every example plugin from source, loads it with
// the sidecar it ships with into the real host, and compares what the
// moderation stage makes of its vectors: the verdict, and for a redaction the
// masked text. It needs go, clang and wasm-ld.
package examples_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/plugins"
	"parley/sdk/abi"
)

// build makes dir/NAME.wasm and copies NAME.json beside it.
func build(t testing.TB, dir, name string) {
	t.Helper()
	out := filepath.Join(dir, name+".wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, ".")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if _, err := os.Stat(filepath.Join(name, "build.sh")); err == nil {
		cmd = exec.Command("./build.sh", out)
	}
	cmd.Dir = name
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s (needs go, clang and wasm-ld): %v\n%s", name, err, b)
	}
	manifest, err := os.ReadFile(filepath.Join(name, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), manifest, 0o600); err != nil {
		t.Fatal(err)
	}
}

// open loads the plugins of dir into a stage.
func open(t testing.TB, dir string) (*plugins.Catalog, *moderation.Stage) {
	t.Helper()
	cfg := plugins.Defaults()
	cfg.Dir = dir
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

var examples = []string{"shout", "wordlist"} // sorted

func TestExamples(t *testing.T) {
	dir := t.TempDir()
	for _, name := range examples {
		build(t, dir, name)
	}
	c, s := open(t, dir)
	if got := names(c.Judges()); !slices.Equal(got, examples) {
		t.Fatalf("loaded %q, want %q", got, examples)
	}
	for _, name := range examples {
		t.Run(name, func(t *testing.T) { testVectors(t, s, name) })
	}
	t.Run("together", func(t *testing.T) { testTogether(t, s) })
	t.Run("fuel", func(t *testing.T) { testFuel(t, s) })
}

func testVectors(t *testing.T, s *moderation.Stage, name string) {
	var vectors []struct{ Name, Text, Verdict, Masked string }
	b, err := os.ReadFile(filepath.Join(name, "testdata", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			r := judge(t, s, v.Text, name)
			if r.Verdict.String() != v.Verdict {
				t.Fatalf("%+q: got %s %v, want %s", v.Text, r.Verdict, r.Reasons, v.Verdict)
			}
			if r.Verdict == abi.Redact && r.Text != v.Masked {
				t.Errorf("%+q: masked as %+q, want %+q", v.Text, r.Text, v.Masked)
			}
			if again := judge(t, s, v.Text, name); again.Records[0].Fuel != r.Records[0].Fuel {
				t.Errorf("%+q: fuel %d, then %d", v.Text, r.Records[0].Fuel, again.Records[0].Fuel)
			}
		})
	}
}

// testTogether runs all plugins on one message: the stronger verdict prevails,
// and the author is told by which plugin and why.
func testTogether(t *testing.T, s *moderation.Stage) {
	r := judge(t, s, "WHAT THE HECK IS GOING ON HERE")
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
// length a default server takes, the most tedious ones for a word list among
// them.
func testFuel(t *testing.T, s *moderation.Stage) {
	d := plugins.Defaults()
	budget := map[string]uint64{"wordlist": d.GoFuel, "shout": d.Fuel}
	for _, tt := range []struct{ name, text string }{
		{"short", "hello there"},
		{"prose", strings.Repeat("The quick brown fox jumps over the lazy dog. ", 90)},
		{"all words", strings.Repeat("heck darn ", 400)},
		{"near misses", strings.Repeat("hec dar dan fri h e c ", 180)},
		{"stand-ins", strings.Repeat("1!|", 1300)},
		{"capitals", strings.Repeat("A", 4000)},
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
	for _, name := range []string{"wordlist", "shout"} {
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
