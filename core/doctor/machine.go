package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"parley/core/redis"
	"parley/core/tuning"
)

// throttledPercent of the periods standing still is felt as latency.
const throttledPercent = 5

// cpus reports quota and topology.
func (c Config) cpus() Check {
	const name = "CPUs"
	top, err := tuning.ReadTopology(c.Root)
	if err != nil {
		return unknown(name, err)
	}
	q, err := tuning.CPUQuota(c.Root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unknown(name, err)
	}
	b := tuning.ProcsBound(top, q, true)
	check := Check{Name: name, State: OK, Found: fmt.Sprintf("CPUs %v, %d cores, %d NUMA nodes; GOMAXPROCS at most %d: %s", top.Allowed, len(top.Cores), len(top.Nodes), b.Procs, b.Reason)}
	change := top.Advice()
	if whole := float64(int(q.CPUs)); q.CPUs > whole && b.Procs <= max(1, int(q.CPUs)) {
		change = append(change, fmt.Sprintf("the quota of %.2f CPUs is rounded to GOMAXPROCS %d; a whole number wastes nothing", q.CPUs, b.Procs))
	}
	if q.File != "" {
		stat := path.Join(path.Dir(q.File), "cpu.stat")
		periods, _ := c.counter(stat, "nr_periods")
		throttled, _ := c.counter(stat, "nr_throttled")
		if periods > 0 {
			check.Found += fmt.Sprintf("; stood still in %d of %d periods", throttled, periods)
		}
		if throttled*100 > periods*throttledPercent {
			check.State = Warn
			change = append(change, "the quota stops the whole process again and again, which every client feels: raise it, or lower the load")
		}
	}
	if q.CPUs > 0 && q.CPUs < 1 {
		check.State = Warn
		change = append(change, "less than one CPU stands still in most periods under any load: at least 1")
	}
	check.Change = strings.Join(change, ". ")
	return check
}

// leastMemory is below what a server with plugins and policy needs to itself.
const leastMemory = 256 << 20

// memory reports the cgroup's memory limit and whether it was ever hit.
func (c Config) memory() Check {
	const name = "memory limit"
	l, err := tuning.MemoryLimit(c.Root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unknown(name, err)
	}
	if l.Bytes == 0 {
		check := Check{Name: name, State: OK, Found: "the cgroup has none"}
		if total, ok := c.counter("/proc/meminfo", "MemTotal:"); ok {
			check.Found += fmt.Sprintf("; the machine has %d MiB", total>>10) // meminfo counts KiB
		}
		return check
	}
	check := Check{Name: name, State: OK, Found: fmt.Sprintf("%d MiB (%s)", l.Bytes>>20, l.File)}
	if l.Bytes < leastMemory {
		check.State = Warn
		check.Change = fmt.Sprintf("at least %d MiB: plugins and policy need room of their own besides connections", leastMemory>>20)
	}
	for _, file := range []string{"memory.events", "memory.oom_control"} { // version 2, version 1
		if n, ok := c.counter(path.Join(path.Dir(l.File), file), "oom_kill"); ok && n > 0 {
			check.State = Warn
			check.Found += fmt.Sprintf("; %d processes were killed for it", n)
			check.Change = "a higher limit: something in this cgroup was killed for lack of memory"
		}
	}
	return check
}

// slowClocks take a system call or a device access for every reading.
var slowClocks = map[string]bool{"hpet": true, "acpi_pm": true, "jiffies": true, "pit": true}

// clockSource finds a clock that is slow to read; a server reads it several
// times a message.
func (c Config) clockSource() Check {
	const name = "clock source"
	source, err := c.text("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	if err != nil {
		return unknown(name, err)
	}
	check := Check{Name: name, State: OK, Found: source}
	if slowClocks[source] {
		check.State = Warn
		check.Change = "a clock that is read without leaving the program (tsc, kvm-clock, arch_sys_counter); every heartbeat and message reads it"
		check.Command = "cat /sys/devices/system/clocksource/clocksource0/available_clocksource"
	}
	return check
}

// redis reports what an acknowledged message is worth on the shared store.
func (c Config) redis(ctx context.Context) Check {
	const name = "redis persistence"
	p, err := c.Redis.Persistence(ctx)
	if err != nil {
		return Check{Name: name, State: Bad, Found: err.Error(), Change: "a Redis that answers: without it nobody can post"}
	}
	check := Check{Name: name, State: OK, Found: servers(p) + fmt.Sprintf("version %s, appendonly %s, appendfsync %s, maxmemory-policy %s",
		told(p.Version), told(p.AppendOnly), told(p.AppendFsync), told(p.MaxMemoryPolicy))}
	if advice := p.Advice(); len(advice) > 0 {
		check.State = Warn
		if p.AppendOnly == "no" || p.MaxMemoryPolicy != "" && p.MaxMemoryPolicy != "noeviction" {
			check.State = Bad // acknowledged messages get lost without an accident
		}
		check.Change = strings.Join(advice, ". ")
		check.Command = "redis-cli config set appendonly yes && redis-cli config set appendfsync always && redis-cli config set maxmemory-policy noeviction"
		if p.Mode != redis.Single && p.Replicas > 0 && p.MinReplicas == "0" {
			check.Command += " && redis-cli config set min-replicas-to-write 1"
		}
		check.Command += " && redis-cli config rewrite"
	} else if p.AppendFsync == "" || p.AppendOnly == "" {
		check.State = Unknown
	}
	return check
}

// servers says how Redis is reached, where that is not one address.
func servers(p redis.Persistence) string {
	switch p.Mode {
	case redis.Sentinel:
		return fmt.Sprintf("by sentinels, %d replicas, ", p.Replicas)
	case redis.Cluster:
		return fmt.Sprintf("cluster of %d primaries with %d replicas or more, ", p.Primaries, p.Replicas)
	}
	return ""
}

func told(s string) string {
	if s == "" {
		return "not told"
	}
	return s
}
