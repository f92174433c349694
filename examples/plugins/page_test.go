package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"parley/sdk/abi"
)

// TestPage builds the two examples of docs/plugin-abi.md as they stand there
// and loads the one in C into the real host. The one in Go is only built:
// compiling a Go guest takes the host long under the race detector, and
// wordlist has it done once.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/plugin-abi.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(language string) string {
		_, after, ok := strings.Cut(string(page), "```"+language+"\n")
		if !ok {
			t.Fatalf("docs/plugin-abi.md has no block in %s", language)
		}
		text, _, _ := strings.Cut(after, "```")
		return text
	}
	src, dir := t.TempDir(), t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(src, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(env []string, name string, args ...string) {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), env...)
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, b)
		}
	}
	run(nil, "clang", "--target=wasm32", "-O2", "-mbulk-memory", "-ffreestanding", "-nostdlib", "-Wall", "-Wextra", "-Werror",
		"-I../../sdk/c", "-Wl,--no-entry", "-Wl,--strip-all",
		"-o", filepath.Join(dir, "page-c.wasm"), write("hashtags.c", block("c")))
	run([]string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}, "go", "build", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w",
		"-o", filepath.Join(src, "page-go.wasm"), write("hashtags.go", block("go")))

	_, s := open(t, dir)
	if r := judge(t, s, "hello"); r.Verdict != abi.Allow || len(r.Records) != 1 {
		t.Errorf("hello: got %s by %d plugins, want allow by 1", r.Verdict, len(r.Records))
	}
	if r := judge(t, s, "a #tag"); r.Verdict != abi.Deny {
		t.Errorf("a #tag: got %s, want deny", r.Verdict)
	}
}
