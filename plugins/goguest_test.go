package plugins_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"parley/plugins"
	"parley/sdk/abi"
)

// buildGoGuest compiles testdata/goguest as plugin authors do.
func buildGoGuest(t testing.TB) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "goguest.wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, "./testdata/goguest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the guest: %v\n%s", err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A guest of the standard Go toolchain: what it asks of the world is answered,
// the same to everyone, and it remembers nothing.
func TestGoGuest(t *testing.T) {
	var log bytes.Buffer
	cfg := plugins.Defaults()
	cfg.CacheDir = t.TempDir()
	h, err := plugins.NewHost(cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	wasm := buildGoGuest(t)
	p := mustLoad(t, h, wasm, "{}")
	other := mustLoad(t, h, wasm, "{}")

	var first struct{ random, order string }
	for round := range 2 {
		for _, c := range []struct{ text, want string }{
			{"hello", ""},
			{"time", "1970-01-01T00:00:00Z"}, // ask's input is of the first millisecond
			{"file", "Not implemented on wasip1"},
			{"env", "0 0"},
			{"remember", "1"},
			{"allocate", ""},
			{"stderr", ""},
		} {
			v, r, fuel, err := ask(p, c.text)
			if err != nil || !strings.Contains(r.Reason, c.want) || (v == abi.Allow) != (c.want == "") {
				t.Errorf("%s: got %v, %q, %v, want %q", c.text, v, r.Reason, err, c.want)
			}
			if _, _, again, err := ask(other, c.text); again != fuel || err != nil {
				t.Errorf("%s: got %d fuel, another plugin used %d, %v", c.text, fuel, again, err)
			}
		}
		_, random, _, _ := ask(p, "random")
		_, order, _, _ := ask(p, "map")
		if round == 0 {
			first.random, first.order = random.Reason, order.Reason
		}
		if random.Reason != first.random || order.Reason != first.order || random.Reason == "" || order.Reason == "" {
			t.Errorf("got %q, %q, want %q, %q as before", random.Reason, order.Reason, first.random, first.order)
		}
		for _, c := range []struct {
			text string
			is   error
			want string
		}{
			{"panic", plugins.ErrTrap, "unreachable"},
			{"exit", plugins.ErrTrap, "exited"},
			{"sleep", nil, ""}, // time stands still: out of fuel or deadlock, never an hour
			{"hoard", nil, ""}, // out of memory
		} {
			v, _, _, err := ask(p, c.text)
			if v != abi.Error || err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, %v, want an error with %q", c.text, v, err, c.want)
			}
		}
	}
	if n := strings.Count(log.String(), `text="something went [31m wrong"`); n == 0 || n > 20 {
		t.Errorf("got %d lines of 400 on stderr, want a few:\n%s", n, log.String())
	}
	if strings.Contains(log.String(), "\x1b") {
		t.Error("an escape sequence reached the log")
	}
}

func BenchmarkGoGuest(b *testing.B) {
	p := mustLoad(b, newHost(b), buildGoGuest(b), "{}")
	for _, text := range []string{"hello", "allocate"} {
		b.Run(text, func(b *testing.B) {
			input, in := encoded(text)
			b.ReportAllocs()
			for b.Loop() {
				p.Run(input, in.Text, in.Normalized)
			}
		})
	}
}
