package tuning

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// isolate restores the runtime after a test and takes the variables away that
// would win over a Config.
func isolate(t *testing.T) {
	t.Helper()
	procs := runtime.GOMAXPROCS(0)
	gogc := debug.SetGCPercent(100)
	limit := debug.SetMemoryLimit(-1)
	t.Cleanup(func() {
		runtime.GOMAXPROCS(procs)
		debug.SetGCPercent(gogc)
		debug.SetMemoryLimit(limit)
	})
	for _, name := range []string{"GOMAXPROCS", "GOGC", "GOMEMLIMIT"} {
		t.Setenv(name, "") // so that it is restored
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
}

// machine makes a root with a memory limit.
func machine(t *testing.T, limit string) (root string, set func(limit string)) {
	t.Helper()
	root = t.TempDir()
	put := func(name, content string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("proc/self/cgroup", "0::/\n")
	put("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
	set = func(limit string) { t.Helper(); put("sys/fs/cgroup/memory.max", limit) }
	set(limit)
	return root, set
}

func newTuner(t *testing.T, cfg Config) (*Tuner, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	tuner, err := New(cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return tuner, &log
}

func TestApply(t *testing.T) {
	isolate(t)
	root, _ := machine(t, "1000000000\n")
	tuner, log := newTuner(t, Config{GOGC: 200, MemoryLimit: Auto, AutoMaxProcs: true, Root: root})
	tuner.Apply()
	s := tuner.Status()
	if s.GOGC != 200 || s.GOGCReason != "runtime.gogc" {
		t.Errorf("GOGC: got %d, %q, want 200 as configured", s.GOGC, s.GOGCReason)
	}
	if s.MemoryLimit != 900_000_000 || s.MemoryReason != "90 % of /sys/fs/cgroup/memory.max" || s.CgroupLimit != 1_000_000_000 {
		t.Errorf("memory: got %d of %d, %q, want 90 %% of 1000000000", s.MemoryLimit, s.CgroupLimit, s.MemoryReason)
	}
	if s.MaxProcs != runtime.GOMAXPROCS(0) || s.MaxProcs < 1 || s.MaxProcs > s.CPUs || s.MaxProcsReason == "" {
		t.Errorf("GOMAXPROCS: got %d of %d CPUs, %q", s.MaxProcs, s.CPUs, s.MaxProcsReason)
	}
	if n := strings.Count(log.String(), "\n"); n != 3 {
		t.Errorf("got %d lines of log, want 3:\n%s", n, log)
	}
	log.Reset()
	tuner.Apply()
	if log.Len() != 0 {
		t.Errorf("nothing changed, got log %q", log)
	}
}

func TestConfiguredValues(t *testing.T) {
	tests := []struct {
		name  string
		cfg   Config
		env   map[string]string
		limit string
		want  Status // GOGC and memory only
	}{
		{"explicit limit", Config{GOGC: 50, MemoryLimit: 1 << 30}, nil, "max",
			Status{GOGC: 50, GOGCReason: "runtime.gogc", MemoryLimit: 1 << 30, MemoryReason: "runtime.memory_limit"}},
		{"no limit", Config{}, nil, "1000000000",
			Status{GOGC: 100, GOGCReason: "Go's own default", MemoryReason: "runtime.memory_limit"}},
		{"auto without a cgroup limit", Config{MemoryLimit: Auto}, nil, "max",
			Status{GOGC: 100, GOGCReason: "Go's own default", MemoryReason: "the cgroup has no memory limit"}},
		{"the environment wins", Config{GOGC: 300, MemoryLimit: 1 << 30}, map[string]string{"GOGC": "100", "GOMEMLIMIT": "off"}, "max",
			Status{GOGC: 100, GOGCReason: "GOGC in the environment", MemoryReason: "GOMEMLIMIT in the environment"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			isolate(t)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			tt.cfg.Root, _ = machine(t, tt.limit)
			tuner, _ := newTuner(t, tt.cfg)
			tuner.Apply()
			s := tuner.Status()
			got := Status{GOGC: s.GOGC, GOGCReason: s.GOGCReason, MemoryLimit: s.MemoryLimit, MemoryReason: s.MemoryReason}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if s.MaxProcsReason != "runtime.automaxprocs is off" {
				t.Errorf("got %q, want automaxprocs off", s.MaxProcsReason)
			}
		})
	}
}

func TestGOGCOff(t *testing.T) {
	isolate(t)
	debug.SetGCPercent(-1)
	root, _ := machine(t, "max")
	tuner, _ := newTuner(t, Config{Root: root})
	tuner.Apply()
	if got := tuner.Status().GOGC; got != -1 {
		t.Errorf("got %d, want -1 for a collector that is off", got)
	}
}

func TestRunFollowsTheMachine(t *testing.T) {
	isolate(t)
	root, set := machine(t, "1000000000\n")
	synctest.Test(t, func(t *testing.T) {
		tuner, log := newTuner(t, Config{MemoryLimit: Auto, Root: root})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- tuner.Run(ctx) }()
		synctest.Wait()
		if got := tuner.Status().MemoryLimit; got != 900_000_000 {
			t.Errorf("at start: got %d, want 900000000", got)
		}
		set("500000000")
		time.Sleep(defaultInterval)
		synctest.Wait()
		if got := tuner.Status().MemoryLimit; got != 450_000_000 {
			t.Errorf("a minute later: got %d, want 450000000", got)
		}
		set("broken")
		time.Sleep(3 * defaultInterval)
		synctest.Wait()
		if got := tuner.Status().MemoryLimit; got != 450_000_000 {
			t.Errorf("with a broken file: got %d, want the old 450000000", got)
		}
		if s := tuner.Status(); s.CgroupLimitError == "" || strings.Count(log.String(), "cannot be read") != 1 {
			t.Errorf("got error %q, want one line of log about it:\n%s", s.CgroupLimitError, log)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	})
}

// The machine's own quota cannot change in a test, so a function that does and
// says what automaxprocs does stands in for it.
func TestMaxProcsFollowsTheQuota(t *testing.T) {
	isolate(t)
	root, _ := machine(t, "max")
	tuner, log := newTuner(t, Config{AutoMaxProcs: true, Root: root})
	runtime.SetDefaultGOMAXPROCS() // whatever the test itself was started with
	cpus := runtime.GOMAXPROCS(0)
	steps := []struct {
		name     string
		quota    int // 0 = none
		fail     error
		procs    int
		reason   string
		failures int // lines of log
	}{
		{"quota", 1, nil, 1, "Updating GOMAXPROCS=1: determined from CPU quota", 0},
		{"unreadable", 0, errors.New("no such cgroup"), 1, "the CPU quota cannot be read: no such cgroup", 1},
		{"still unreadable", 0, errors.New("no such cgroup"), 1, "the CPU quota cannot be read: no such cgroup", 0},
		{"quota again", 1, nil, 1, "Updating GOMAXPROCS=1: determined from CPU quota", 0},
		{"lifted", 0, nil, cpus, "the CPU quota was lifted", 0},
		{"still none", 0, nil, cpus, "Leaving GOMAXPROCS: CPU quota undefined", 0},
	}
	for _, step := range steps {
		tuner.setProcs = func(printf func(string, ...any), round func(float64) int) error {
			switch {
			case step.fail != nil:
				return step.fail
			case step.quota == 0:
				printf("maxprocs: Leaving GOMAXPROCS: CPU quota undefined")
			default:
				runtime.GOMAXPROCS(round(float64(step.quota)))
				printf("maxprocs: Updating GOMAXPROCS=%v: determined from CPU quota", step.quota)
			}
			return nil
		}
		log.Reset()
		tuner.Apply()
		if s := tuner.Status(); s.MaxProcs != step.procs || s.MaxProcsReason != step.reason {
			t.Errorf("%s: got %d, %q, want %d, %q", step.name, s.MaxProcs, s.MaxProcsReason, step.procs, step.reason)
		}
		if n := strings.Count(log.String(), "CPU quota cannot be read"); n != step.failures {
			t.Errorf("%s: got %d lines about a failure, want %d:\n%s", step.name, n, step.failures, log)
		}
	}
}

func TestGOMAXPROCSInTheEnvironmentWins(t *testing.T) {
	isolate(t)
	t.Setenv("GOMAXPROCS", "1")
	root, _ := machine(t, "max")
	tuner, _ := newTuner(t, Config{AutoMaxProcs: true, Root: root})
	tuner.Apply()
	if got := tuner.Status().MaxProcsReason; got != `Honoring GOMAXPROCS="1" as set in environment` {
		t.Errorf("got %q, want the environment named", got)
	}
}

func TestBadConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"gogc": {GOGC: -1}, "limit": {MemoryLimit: -2}, "profile": {GovernProcs: "fast", AutoMaxProcs: true, GovernEvery: 1},
		"no interval": {GovernGC: true}, "no bound": {GovernProcs: Web, GovernEvery: 1},
	} {
		if _, err := New(cfg, slog.Default()); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if tuner, err := New(Config{}, slog.Default()); err != nil || tuner.cfg.Root != "/" {
		t.Errorf("got root %q, %v, want /", tuner.cfg.Root, err)
	}
}
