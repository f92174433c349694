package failover

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/bench"
	"parley/core/bench/report"
)

var platform string // built by TestMain

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "parley-failover-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	platform = filepath.Join(dir, "platform")
	cmd := exec.Command("go", "build", "-trimpath", "-o", platform, "parley/cmd/platform")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the server: %v\n%s", err, text)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// small is a run that any machine carries.
func small(t *testing.T) Config {
	return Config{
		Clients: 8, Talkers: 4, Rate: 80, Kills: 2, Down: 300 * time.Millisecond, Duration: 500 * time.Millisecond,
		Cluster:  bench.Cluster{Nodes: 2, Redis: "redis-server", Fsync: "always"},
		Settings: bench.Settings{Exe: platform}, Say: t.Logf,
	}
}

func figures(t *testing.T, sections []report.Section) map[string]float64 {
	t.Helper()
	if len(sections) != 1 {
		t.Fatalf("got %d sections, want 1", len(sections))
	}
	got := map[string]float64{}
	for _, f := range sections[0].Figures {
		got[f.Name] = f.Value
	}
	return got
}

// TestNodesAreKilled kills each of two nodes: nobody misses a message.
func TestNodesAreKilled(t *testing.T) {
	sections, err := Run(within(t), small(t))
	if err != nil {
		t.Fatal(err)
	}
	got := figures(t, sections)
	if got["messages"] == 0 || got["acknowledged"] != got["messages"] || got["deliveries"] != 8*got["messages"] {
		t.Errorf("got %v, want all messages acknowledged and delivered to 8 clients", got)
	}
	if got["connections lost"] < 8 || got["longest silence, node died"] == 0 {
		t.Errorf("got %v: two kills of two nodes end at least 8 connections", got)
	}
	if got["lost"]+got["duplicated"]+got["otherwise wrong"]+got["resets"] != 0 {
		t.Errorf("got %v, want nothing lost, duplicated, wrong or reset", got)
	}
}

// TestNodesThatShareNothing takes two nodes without a common Redis: what is said
// at one never reaches the other, and the run must say so.
func TestNodesThatShareNothing(t *testing.T) {
	cfg := small(t)
	cfg.Patience = 5 * time.Second
	for range 2 {
		s, err := bench.StartServer(within(t), cfg.Settings)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Stop() })
		cfg.Targets = append(cfg.Targets, s.URL())
	}
	sections, err := Run(within(t), cfg)
	if err == nil || !strings.Contains(err.Error(), "the delivery contract was broken") {
		t.Fatalf("got error %v, want one that says what was broken", err)
	}
	if got := figures(t, sections); got["lost"] == 0 {
		t.Errorf("got %v, want lost messages", got)
	}
}

// TestRefuses names runs that would say nothing.
func TestRefuses(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"at least 2 are needed":   func(c *Config) { c.Cluster.Nodes = 1 },
		"at least one must send":  func(c *Config) { c.Talkers = 0 },
		"8 clients of which 9":    func(c *Config) { c.Talkers = 9 },
		"messages a second":       func(c *Config) { c.Rate = 0 },
		"none may be negative":    func(c *Config) { c.Kills = -1 },
		`appendfsync "sometimes"`: func(c *Config) { c.Cluster.Fsync = "sometimes" },
		"install redis-server":    func(c *Config) { c.Cluster.Redis = "/nowhere/redis-server" },
		"connection refused":      func(c *Config) { c.Targets, c.Patience = []string{"ws://127.0.0.1:1/v1/ws"}, 200*time.Millisecond },
		"try the node ftp://":     func(c *Config) { c.Targets, c.Patience = []string{"ftp://127.0.0.1"}, 200*time.Millisecond },
	} {
		cfg := small(t)
		change(&cfg)
		if _, err := Run(within(t), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
