package plugins_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"parley/sdk/abi"
)

// buildC compiles one of testdata/cguest as plugin authors do.
func buildC(t testing.TB, name string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), name+".wasm")
	cmd := exec.Command("clang", "--target=wasm32", "-std=c11", "-O2", "-mbulk-memory", "-ffreestanding", "-nostdlib",
		"-Wall", "-Wextra", "-Werror", "-I../sdk/c", "-Wl,--no-entry", "-Wl,--strip-all", "-Wl,-z,stack-size=8192",
		"-o", out, "testdata/cguest/"+name+".c")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s (needs clang and wasm-ld): %v\n%s", name, err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// words200 is the manifest of testdata/cguest/words.c with 200 words.
func words200() string {
	words := make([]string, 200)
	for i := range words {
		words[i] = fmt.Sprintf(`"bad%cword%d"`, 'a'+i%26, i)
	}
	return `{"config":{"words":[` + strings.Join(words, ",") + `]}}`
}

func TestCGuest(t *testing.T) {
	p := mustLoad(t, newHost(t), buildC(t, "words"), words200())
	for _, c := range []struct {
		text string
		want string // spans
	}{
		{text120, "[]"},
		{"well badaword0, and badbword1!", "[{1 5 9} {1 20 9}]"},
		{"badaword0x xbadbword1 badbword2", "[]"},
		{"", "[]"},
	} {
		v, r, _, err := ask(p, c.text)
		if err != nil || (v == abi.Redact) != (c.want != "[]") || fmt.Sprint(r.Spans) != c.want {
			t.Errorf("%q: got %v, %v, %v, want %s", c.text, v, r.Spans, err, c.want)
		}
	}
	if _, err := load(t, newHost(t), buildC(t, "words"), `{"config":{"words":[""]}}`); err == nil || !strings.Contains(err.Error(), "configure returned 1") {
		t.Errorf("got %v, want the config refused", err)
	}
}
