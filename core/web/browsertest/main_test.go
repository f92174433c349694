// Package browsertest drives the chat client in a real Chromium against the
// real server: the binary and the wordlist plugin are built from source, the
// server is a process of its own, and a proxy between both takes the network
// away. It needs chromium, go and a few seconds; make check leaves it out,
// make test runs it.
package browsertest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

// shots writes the pictures of TestScreenshots into a folder, and the one the
// README shows into docs.
var shots = flag.String("shots", "", "folder for screenshots; also rewrites docs/screenshot.png")

// built is made once, by TestMain.
var built struct {
	platform string
	plugins  string          // folder with wordlist.wasm and wordlist.json
	browser  context.Context // one Chromium; each tab is a context of its own
}

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "browsertest:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "parley-browser")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := build(dir); err != nil {
		return 1, err
	}
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		return 1, fmt.Errorf("these tests need a browser: %w", err)
	}
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(chromium), chromedp.UserDataDir(filepath.Join(dir, "profile")), chromedp.WindowSize(1280, 800)}
	for _, f := range []string{"headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
		"disable-component-update", "disable-sync", "hide-scrollbars", "mute-audio", "disable-dev-shm-usage"} {
		options = append(options, chromedp.Flag(f, true))
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop() // kills the browser and waits for it
	browser, cancel := chromedp.NewContext(alloc)
	defer cancel()
	if err := chromedp.Do(browser); err != nil {
		return 1, fmt.Errorf("start %s: %w", chromium, err)
	}
	built.browser = browser
	return m.Run(), nil
}

func build(dir string) error {
	built.platform = filepath.Join(dir, "platform")
	built.plugins = filepath.Join(dir, "plugins")
	if err := os.Mkdir(built.plugins, 0o700); err != nil {
		return err
	}
	if err := goBuild([]string{"CGO_ENABLED=0"}, "-trimpath", "-o", built.platform, "parley/cmd/platform"); err != nil {
		return err
	}
	guest := []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}
	if err := goBuild(guest, "-trimpath", "-ldflags=-s -w", "-buildmode=c-shared", "-o", filepath.Join(built.plugins, "wordlist.wasm"), "parley/examples/plugins/wordlist"); err != nil {
		return err
	}
	b, err := os.ReadFile("../../../examples/plugins/wordlist/wordlist.json")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(built.plugins, "wordlist.json"), b, 0o600)
}

func goBuild(env []string, args ...string) error {
	c := exec.Command("go", append([]string{"build"}, args...)...)
	c.Env = append(os.Environ(), env...)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %v: %w\n%s", args, err, out)
	}
	return nil
}
