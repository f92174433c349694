package plugintest_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"parley/plugins/plugintest"
)

// TestSDKs builds the conformance guest of every SDK from source and holds it
// against the kit. A compiler that is missing is a failure: .ci/setup installs
// them.
func TestSDKs(t *testing.T) {
	for _, sdk := range []struct{ name, build, source string }{
		{"c", "sdk/c/build.sh", "sdk/c/conformance/conformance.c"},
		{"go", "sdk/plugin/build.sh", "sdk/plugin/conformance"},
		{"rust", "sdk/rust/build.sh", "sdk/rust/conformance/src/lib.rs"},
		{"assemblyscript", "sdk/assemblyscript/build.sh", "sdk/assemblyscript/conformance/conformance.ts"},
	} {
		t.Run(sdk.name, func(t *testing.T) {
			track(t, filepath.Join("../..", filepath.Dir(sdk.build)))
			plugintest.Run(t, build(t, sdk.build, sdk.source))
		})
	}
}

// TestRustUnits runs the Rust SDK's own tests, without cargo.
func TestRustUnits(t *testing.T) {
	track(t, "../../sdk/rust")
	rustc, err := exec.Command("sh", "../../sdk/rust/build.sh", "--find").Output()
	if err != nil {
		t.Fatalf("find rustc: %v", err)
	}
	out := filepath.Join(t.TempDir(), "units")
	for _, cmd := range []*exec.Cmd{
		exec.Command(strings.TrimSpace(string(rustc)), "--edition", "2021", "--test", "-D", "warnings", "-o", out, "../../sdk/rust/src/lib.rs"),
		exec.Command(out),
	} {
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, b)
		}
	}
}

// TestKitFindsWhatIsBroken breaks the C SDK in one place after the other: the
// kit must name the rule, or it would prove nothing about the others.
func TestKitFindsWhatIsBroken(t *testing.T) {
	header, source := read(t, "../../sdk/c/parley.h"), read(t, "../../sdk/c/conformance/conformance.c")
	for _, tt := range []struct{ name, old, new, rule string }{
		{"score is not bounded", "score < PARLEY_MAX_SCORE ? score : PARLEY_MAX_SCORE", "score", "score above 1000 is 1000"},
		{"reason is cut anywhere", "n + whole > PARLEY_MAX_REASON", "n == PARLEY_MAX_REASON", "reason of 256 bytes is whole, a longer one is cut between characters"},
		{"spans are left in disorder", "? 121 : gap", "? 0 : gap", "spans are sorted by field and start"},
		{"spans beyond the last are dropped", "s->n = parley_tidy(s->at, s->n, 1);", "return;", "of more than 256 spans none is lost"},
		{"fields that are not there are read", "f < nfields && f < PARLEY_FIELDS", "f < PARLEY_FIELDS", "fields the host does not send are empty"},
		{"a field may run past the end", "off > len || n > len - off", "off > len", "a malformed input is not judged"},
		{"longer signals are not understood", "len >= 12", "len == 12", "fields and signals of later hosts are ignored"},
		{"unknown keys are passed over", "else\n\t\t\tparley_config_refuse(c);", "else\n\t\t\tparley_config_number(c, -1000, 1000);", "what the configuration may not say is refused"},
		{"text is not unescaped", `out[0] = (uint8_t)to[i];`, `out[0] = (uint8_t)(to[i] ^ 1);`, "escapes in texts are decoded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			broken := strings.NewReplacer(tt.old, tt.new)
			h, c := broken.Replace(header), broken.Replace(source)
			if h == header && c == source {
				t.Fatalf("the SDK holds no %q any more", tt.old)
			}
			dir := t.TempDir()
			for name, text := range map[string]string{"parley.h": h, "guest.c": c, "build.sh": read(t, "../../sdk/c/build.sh")} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := plugintest.Check(t.Context(), build(t, filepath.Join(dir, "build.sh"), filepath.Join(dir, "guest.c")))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(got, func(b plugintest.Broken) bool { return b.Rule == tt.rule }) {
				t.Errorf("found broken: %v, want %q among them", got, tt.rule)
			}
		})
	}
}

// TestKitNeedsAGuest: what is no plugin at all is no list of broken rules.
func TestKitNeedsAGuest(t *testing.T) {
	if got, err := plugintest.Check(t.Context(), []byte("\x00asm\x01\x00\x00\x00")); err == nil || !strings.Contains(err.Error(), "load the guest") {
		t.Errorf("got %v, %v, want an error", got, err)
	}
}

// track reads an SDK's sources, so that go test does not take the result of
// other ones from its cache.
func track(t *testing.T, folder string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == "node_modules" || e.Name() == "target"):
			return filepath.SkipDir
		case e.Type().IsRegular():
			read(t, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// build runs one of the SDKs' build scripts.
func build(t *testing.T, script, source string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.Command("sh", script, source, out)
	cmd.Dir = "../.."
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sh %s %s: %v\n%s", script, source, err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
