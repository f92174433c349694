package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// built is what TestMain builds once for all tests.
var built struct {
	dir      string
	platform string // the server's binary
	wordlist string // wordlist.wasm
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "parley-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built.dir = dir
	built.platform = filepath.Join(dir, "platform")
	built.wordlist = filepath.Join(dir, "wordlist.wasm")
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
	}
	return code
}

// build makes the binary and the plugin the way the Makefile does. The binary
// is a plain one: a data race in the server is the business of its packages'
// tests, and the race detector would slow the load tests down tenfold.
func build() error {
	if err := goBuild([]string{"CGO_ENABLED=0"}, "-trimpath", "-o", built.platform, "parley/cmd/platform"); err != nil {
		return err
	}
	return goBuild([]string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"},
		"-trimpath", "-ldflags=-s -w", "-buildmode=c-shared", "-o", built.wordlist, "parley/examples/plugins/wordlist")
}

func goBuild(env []string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute) // a cold build cache on a slow machine
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append([]string{"build"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %v: %w\n%s", args, err, out)
	}
	return nil
}
