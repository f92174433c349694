package release

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// metrics is what the nodes of one release show: each scrape adds to it.
type metrics struct {
	failing atomic.Bool // one command in ten
	slow    atomic.Bool // every send takes two seconds
	quiet   atomic.Bool // no commands
	scrapes atomic.Int64
}

func (m *metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	n := m.scrapes.Add(1) * 1000
	if m.quiet.Load() {
		n = 0
	}
	failed, fast := int64(0), n
	if m.failing.Load() {
		failed = n / 10
	}
	if m.slow.Load() {
		fast = 0
	}
	fmt.Fprintf(w, "parley_commands_total{type=\"send\"} %d\n", n)
	fmt.Fprintf(w, "parley_errors_total{code=\"unavailable\"} %d\nparley_errors_total{code=\"denied\"} %d\n", failed, n/2)
	fmt.Fprintf(w, "parley_send_seconds_bucket{le=\"0.1\"} %d\nparley_send_seconds_bucket{le=\"2\"} %d\nparley_send_seconds_bucket{le=\"+Inf\"} %d\n", fast, n, n)
	fmt.Fprintf(w, "process_start_time_seconds 1\n")
}

// startPrometheus scrapes a canary and a stable release five times a second.
func startPrometheus(t *testing.T, canary, stable http.Handler) string {
	t.Helper()
	a, b := httptest.NewServer(canary), httptest.NewServer(stable)
	t.Cleanup(b.Close)
	t.Cleanup(a.Close)
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 200ms, scrape_timeout: 200ms}\nscrape_configs:\n- job_name: parley\n  static_configs:\n"+
		"  - {targets: [%q], labels: {release: canary}}\n  - {targets: [%q], labels: {release: stable}}\n", a.Listener.Addr(), b.Listener.Addr())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 5 { // a port that was free may be somebody else's by the time it starts
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := ln.Addr().String()
		ln.Close()
		cmd := exec.Command("prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr, "--log.level=error")
		if err := cmd.Start(); err != nil {
			t.Fatalf("start Prometheus (make setup installs it): %v", err)
		}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = cmd.Wait() }()
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			<-ended
		})
		if awaitScrapes(t, "http://"+addr, ended) {
			return "http://" + addr
		}
	}
	t.Fatal("prometheus ended at each start")
	return ""
}

// awaitScrapes returns true when Prometheus has scraped each node some times, so
// that a trial that begins now has something to look at, and false when it has
// ended.
func awaitScrapes(t *testing.T, at string, ended <-chan struct{}) bool {
	t.Helper()
	w, err := New(quick(at), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := w.number(ctx, `min(count_over_time(process_start_time_seconds[1m]))`)
		select {
		case <-ended:
			return false
		default:
		}
		if n >= 8 {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("prometheus has scraped too little: %v, %v", n, err)
		}
	}
}

// quick is a trial that a test can wait for.
func quick(prometheus string) Config {
	c := Defaults()
	c.Prometheus = prometheus
	c.Window, c.Every, c.For, c.Breaches = 2*time.Second, 300*time.Millisecond, 6*time.Second, 2
	return c
}

func watch(t *testing.T, c Config) (Verdict, string) {
	t.Helper()
	w, err := New(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	v, why, err := w.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v, why
}

// TestVerdicts lets a real Prometheus scrape two releases, and watches the one
// on trial.
func TestVerdicts(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(canary, stable *metrics)
		want Verdict
		why  string
	}{
		{"good", func(_, _ *metrics) {}, Good, "0.00 %"},
		{"errors", func(c, _ *metrics) { c.failing.Store(true) }, Bad, "of its commands failed"},
		{"errors everywhere", func(c, s *metrics) { c.failing.Store(true); s.failing.Store(true) }, Good, "commands failed"},
		{"slow", func(c, _ *metrics) { c.slow.Store(true) }, Bad, "at p99"},
		{"nobody comes", func(c, _ *metrics) { c.quiet.Store(true) }, Unknown, "fewer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var canary, stable metrics
			tt.set(&canary, &stable)
			c := quick(startPrometheus(t, &canary, &stable))
			if tt.want == Bad { // which ends the trial, however long a busy machine takes for the looks that it needs
				c.For = 2 * time.Minute
			}
			v, why := watch(t, c)
			if v != tt.want || v != Unknown && !strings.Contains(why, tt.why) {
				t.Errorf("got %v: %s; want %v: %s", v, why, tt.want, tt.why)
			}
		})
	}
}

// TestNoPrometheus decides nothing where nobody answers.
func TestNoPrometheus(t *testing.T) {
	c := quick("http://127.0.0.1:1")
	c.For = time.Second
	if v, why := watch(t, c); v != Unknown {
		t.Errorf("got %v: %s", v, why)
	}
}

// TestJudge compares what was seen with bounds.
func TestJudge(t *testing.T) {
	c := Defaults()
	ms := time.Millisecond
	for _, tt := range []struct {
		name           string
		canary, stable Seen
		want           Verdict
	}{
		{"as good", Seen{Commands: 1000, P99: 20 * ms}, Seen{Commands: 9000, P99: 20 * ms}, Good},
		{"too few", Seen{Commands: 99, Failed: 99}, Seen{Commands: 9000}, Unknown},
		{"errors at the bound", Seen{Commands: 1000, Failed: 10}, Seen{Commands: 9000}, Good},
		{"errors beyond it", Seen{Commands: 1000, Failed: 11}, Seen{Commands: 9000}, Bad},
		{"no worse than three times", Seen{Commands: 1000, Failed: 30}, Seen{Commands: 9000, Failed: 90}, Good},
		{"worse than three times", Seen{Commands: 1000, Failed: 31}, Seen{Commands: 9000, Failed: 90}, Bad},
		{"nothing to compare with", Seen{Commands: 1000, Failed: 30}, Seen{Commands: 9, Failed: 9}, Bad},
		{"slow", Seen{Commands: 1000, P99: 501 * ms}, Seen{Commands: 9000, P99: 20 * ms}, Bad},
		{"slow as the others", Seen{Commands: 1000, P99: 900 * ms}, Seen{Commands: 9000, P99: 450 * ms}, Good},
		{"starts again and again", Seen{Restarts: 4}, Seen{Commands: 9000}, Bad},
		{"started with the deployment", Seen{Commands: 1000, Restarts: 3}, Seen{Commands: 9000}, Good},
	} {
		if got, why := c.judge(tt.canary, tt.stable); got != tt.want || why == "" {
			t.Errorf("%s: got %v: %s, want %v", tt.name, got, why, tt.want)
		}
	}
}

// TestBadConfig names each mistake.
func TestBadConfig(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"is empty":         func(c *Config) { c.Prometheus = "" },
		"no address":       func(c *Config) { c.Prometheus = "prometheus:9090" },
		"label matcher":    func(c *Config) { c.Canary = "" },
		"without braces":   func(c *Config) { c.Stable = `{release="stable"}` },
		"error rate":       func(c *Config) { c.ErrorRate = 1.1 },
		"p99":              func(c *Config) { c.P99 = 0 },
		"below 0":          func(c *Config) { c.Least = -1 },
		"at least one loo": func(c *Config) { c.For = time.Second },
		"breaches":         func(c *Config) { c.Breaches = 0 },
	} {
		c := Defaults()
		c.Prometheus = "http://127.0.0.1:9090"
		change(&c)
		if _, err := New(c, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// FuzzDecodeNumber feeds it what a stranger at Prometheus's address may answer.
func FuzzDecodeNumber(f *testing.F) {
	for _, s := range []string{
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1.5,"12.5"]}]}}`,
		`{"status":"success","data":{"resultType":"vector","result":[]}}`,
		`{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"NaN"]}]}}`,
		`{"status":"error","errorType":"bad_data","error":"parse error"}`,
		`{"status":"success","data":{"resultType":"matrix","result":[]}}`,
		`{"status":"success","data":{"resultType":"vector","result":[{"value":[1,2]}]}}`, `<html>`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := decodeNumber(b); v != v || v != 0 && err != nil {
			t.Errorf("got %v, %v", v, err)
		}
	})
}
