// Package rig starts real nodes and crowds of clients for the tests that see
// Parley from outside: core/e2e and core/chaos. The nodes are processes of the
// real binary, each with a configuration file, a data folder and ports of its
// own; the clients resend and resume as docs/delivery.md tells them to, and
// keep the logs that core/checker judges.
//
// Methods belong to the test's goroutine, except where they say otherwise.
// They end the test when what must happen does not.
package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/auth"
	"parley/core/chat"
)

// Patience bounds every wait for something that must happen. It is far above
// what a loaded machine needs, so that reaching it means that it never will.
const Patience = 60 * time.Second

// built is what Main has built.
var built struct {
	platform string // the server's binary
}

// Suite is a package's tests.
type Suite struct {
	Build func(dir string) error // builds more than the binary into a folder; nil: nothing
	Leaks []goleak.Option        // goroutines that may outlive the tests
}

// Main builds the binary into a folder of its own, runs the tests and demands
// that no goroutine outlives them. It returns the exit code.
func (s Suite) Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "parley-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built.platform = filepath.Join(dir, "platform")
	// A plain binary: a data race in the server is the business of its
	// packages' tests, and the race detector would slow the load tests down
	// tenfold.
	err = GoBuild([]string{"CGO_ENABLED=0"}, "-trimpath", "-o", built.platform, "parley/cmd/platform")
	if err == nil && s.Build != nil {
		err = s.Build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(s.Leaks...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// Platform is the path of the binary that Main has built.
func Platform() string { return built.platform }

// GoBuild runs `go build` the way the Makefile does.
func GoBuild(env []string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute) // a cold build cache on a slow machine
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append([]string{"build"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %v: %w\n%s", args, err, out)
	}
	return nil
}

// Await polls until cond is true and fails the test when Patience ends. It is
// for what can be observed only by asking; everything else is waited for on a
// channel.
func Await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %v and it did not come true: %s", Patience, what)
		}
	}
}

// Within returns a context that ends when Patience does.
func Within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	return ctx
}

// Token signs a development token with a node's own key, which is made when
// it does not exist.
func Token(t *testing.T, keyFile string, user chat.UserID, roles ...string) string {
	t.Helper()
	key, err := auth.LoadOrCreateKey(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	text, err := auth.Sign(key, auth.Claims{User: user, Roles: roles, TTL: 4 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Unlimited lets a few clients make the load of many.
func Unlimited(extra Settings) Settings {
	s := Settings{"limits.commands_per_second": 0, "limits.accepts_per_second": 0}
	for k, v := range extra {
		s[k] = v
	}
	return s
}
