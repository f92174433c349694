package tuning

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// putTopology gives a root of machine() CPUs 0 to n-1.
func putTopology(t *testing.T, root, cpus string) {
	t.Helper()
	for name, content := range map[string]string{
		"proc/self/status":              "Cpus_allowed_list:\t" + cpus + "\nMems_allowed_list:\t0\n",
		"sys/devices/system/cpu/online": cpus,
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// quota stands in for automaxprocs on a machine with a quota; 0 is none.
func quota(cpus float64) func(func(string, ...any), func(float64) int) error {
	return func(printf func(string, ...any), round func(float64) int) error {
		if cpus == 0 {
			printf("maxprocs: Leaving GOMAXPROCS: CPU quota undefined")
			return nil
		}
		n := max(1, round(cpus))
		printf("maxprocs: Updating GOMAXPROCS=%v: determined from CPU quota", n)
		runtime.GOMAXPROCS(n)
		return nil
	}
}

func TestBoundHoldsWhatAutomaxprocsDoesNotRead(t *testing.T) {
	isolate(t)
	tests := []struct {
		name, cpus string
		quota      float64
		want       int
		reason     string
	}{
		{"cpuset tighter than the quota", "0-1", 8, 2, "2 CPUs may be used"},
		{"quota tighter, rounded down", "0-7", 3.9, 3, "Updating GOMAXPROCS=3: determined from CPU quota"},
		{"less than one", "0-7", 0.5, 1, "Updating GOMAXPROCS=1: determined from CPU quota"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root, _ := machine(t, "max")
			putTopology(t, root, tt.cpus)
			tuner, _ := newTuner(t, Config{AutoMaxProcs: true, SMT: true, Root: root})
			tuner.setProcs = quota(tt.quota)
			tuner.Apply()
			if s := tuner.Status(); s.MaxProcs != tt.want || s.MaxProcsReason != tt.reason {
				t.Errorf("got %d, %q, want %d, %q", s.MaxProcs, s.MaxProcsReason, tt.want, tt.reason)
			}
		})
	}
}

func TestParentsQuotaIsFollowedAndLifted(t *testing.T) {
	isolate(t)
	runtime.SetDefaultGOMAXPROCS()
	free := runtime.GOMAXPROCS(0) // what Go takes by itself
	root, _ := machine(t, "max")
	putTopology(t, root, "0-7")
	max := filepath.Join(root, "sys/fs/cgroup/cpu.max")
	if err := os.WriteFile(max, []byte("150000 100000"), 0o644); err != nil {
		t.Fatal(err)
	}
	tuner, _ := newTuner(t, Config{AutoMaxProcs: true, SMT: true, Root: root})
	tuner.setProcs = quota(0) // as automaxprocs says when only a cgroup above has one
	tuner.Apply()
	if s := tuner.Status(); s.MaxProcs != 1 || !strings.Contains(s.MaxProcsReason, "allows 1.50 CPUs") || s.Quota.CPUs != 1.5 {
		t.Errorf("got %d, %q, want 1 by the quota", s.MaxProcs, s.MaxProcsReason)
	}
	if err := os.Remove(max); err != nil {
		t.Fatal(err)
	}
	tuner.Apply()
	if s := tuner.Status(); s.MaxProcs != free || s.MaxProcsReason != "the CPU quota was lifted" {
		t.Errorf("got %d, %q, want Go's own %d again", s.MaxProcs, s.MaxProcsReason, free)
	}
}

func TestGovernorDecides(t *testing.T) {
	isolate(t)
	root, _ := machine(t, "1000000000\n")
	putTopology(t, root, "0-7")
	runtime.GOMAXPROCS(2)
	synctest.Test(t, func(t *testing.T) {
		tuner, log := newTuner(t, Config{
			GOGC: 200, MemoryLimit: Auto, AutoMaxProcs: true, SMT: true, Root: root,
			GovernProcs: Mixed, GovernGC: true, GovernEvery: 10 * time.Second, Connections: func() int { return 7 },
		})
		tuner.setProcs = quota(4)
		var now atomic.Pointer[load]
		see := func(cpu float64, live int64) {
			now.Store(&load{cpuKnown: true, procs: ProcsSample{Goroutines: 100, CPU: cpu}, gc: GCSample{Live: live}})
		}
		see(0.1, 800_000_000)
		tuner.gov.sample = func() load { return *now.Load() }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- tuner.Run(ctx) }()
		synctest.Wait()
		if s := tuner.Status(); s.MaxProcs != 4 || s.GOGC != 200 || s.MemoryLimit != 900_000_000 {
			t.Errorf("before the first decision: got %d, %d, %d, want the fixed values", s.MaxProcs, s.GOGC, s.MemoryLimit)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		s := tuner.Status()
		if s.MaxProcs != 1 || s.GOGC != 50 || s.MemoryLimit != 950_000_000 {
			t.Errorf("idle and crowded: got %d, %d, %d, want 1, 50 and 95 %% of the cgroup", s.MaxProcs, s.GOGC, s.MemoryLimit)
		}
		var causes []string
		for _, d := range s.Governor.Decisions {
			causes = append(causes, d.Setting+" "+d.Cause)
		}
		if want := []string{"gomaxprocs idle", "memory_limit crowded", "gogc tight"}; !slices.Equal(causes, want) {
			t.Errorf("got decisions %q, want %q", causes, want)
		}
		if n := strings.Count(log.String(), `msg="tuning decision"`); n != 3 || !strings.Contains(log.String(), "7 connections") {
			t.Errorf("got %d lines about decisions, want 3 with their figures:\n%s", n, log)
		}
		time.Sleep(5 * time.Minute) // Apply must leave to the controllers what they have decided
		synctest.Wait()
		if s := tuner.Status(); s.MaxProcs != 1 || s.MaxProcsReason != "runtime.governor.procs" || s.GOGC != 50 || s.MemoryLimit != 950_000_000 {
			t.Errorf("minutes later: got %d (%s), %d, %d, want no change", s.MaxProcs, s.MaxProcsReason, s.GOGC, s.MemoryLimit)
		}
		see(1, 100_000_000)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		s = tuner.Status()
		if s.MaxProcs != 2 || s.GOGC != 400 || s.MemoryLimit != 900_000_000 {
			t.Errorf("busy and eased: got %d, %d, %d, want 2, 400 and 90 %%", s.MaxProcs, s.GOGC, s.MemoryLimit)
		}
		if !slices.ContainsFunc(s.Governor.Counts, func(c DecisionsCount) bool { return c.Setting == "gogc" && c.Cause == "steady" && c.Count > 20 }) {
			t.Errorf("got counts %+v, want decisions that changed nothing counted too", s.Governor.Counts)
		}
		for i := range 3 * keptDecisions { // what is kept is bounded
			see(1, int64(1+i%2*7)*100_000_000)
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		if n := len(tuner.Status().Governor.Decisions); n != keptDecisions {
			t.Errorf("got %d decisions kept, want %d", n, keptDecisions)
		}
		cancel()
		<-done
	})
}

func TestGovernorHonoursTheEnvironment(t *testing.T) {
	isolate(t)
	for name, value := range map[string]string{"GOMAXPROCS": "1", "GOGC": "100", "GOMEMLIMIT": "off"} {
		t.Setenv(name, value)
	}
	root, _ := machine(t, "1000000000\n")
	tuner, _ := newTuner(t, Config{MemoryLimit: Auto, AutoMaxProcs: true, GovernProcs: Web, GovernGC: true, GovernEvery: time.Second, Root: root})
	tuner.Apply()
	before := tuner.Status()
	tuner.govern()
	after := tuner.Status()
	if after.MaxProcs != before.MaxProcs || after.GOGC != before.GOGC || after.MemoryLimit != before.MemoryLimit || len(after.Governor.Counts) != 0 {
		t.Errorf("got %+v, want nothing decided", after.Governor)
	}
}

// The sampler reads the real runtime.
func TestSampler(t *testing.T) {
	sample := newSampler()
	if first := sample(); first.cpuKnown || first.procs.Goroutines < 1 || first.gc.Other <= 0 {
		t.Errorf("got %+v, want goroutines and memory but no CPU use from one reading", first)
	}
	runtime.GC()
	start := time.Now()
	for i := 0; time.Since(start) < time.Millisecond; i++ {
		_ = i
	}
	if s := sample(); !s.cpuKnown || s.procs.CPU <= 0 || s.gc.Live <= 0 {
		t.Errorf("got %+v, want CPU use and live heap", s)
	}
}

func TestQuantile(t *testing.T) {
	bounds := []float64{math.Inf(-1), 1, 2, 4, math.Inf(1)}
	tests := []struct {
		name          string
		before, after []uint64
		want          time.Duration
	}{
		{"nothing", nil, []uint64{0, 0, 0, 0}, 0},
		{"nothing new", []uint64{5, 5, 5, 5}, []uint64{5, 5, 5, 5}, 0},
		{"first reading", nil, []uint64{0, 1, 0, 0}, 2 * time.Second},
		{"99 of 100 below", []uint64{0, 0, 0, 0}, []uint64{99, 0, 1, 0}, time.Second},
		{"98 of 100 below", []uint64{0, 0, 0, 0}, []uint64{98, 0, 2, 0}, 4 * time.Second},
		{"beyond the last edge", []uint64{0, 0, 0, 0}, []uint64{0, 0, 0, 1}, 4 * time.Second},
	}
	for _, tt := range tests {
		if got := quantile(tt.before, tt.after, bounds, 0.99); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}
