package tuning_test

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"testing"

	"parley/core/tuning"
)

// The trees below testdata are the files of four machines.
func TestMachines(t *testing.T) {
	tests := []struct {
		name          string
		allowed       string
		cores, nodes  int
		quota         float64
		bound, noSMT  int // with SMT siblings counted, and without
		reason        string
		advice        []string // part of each, in order
		mentionsNoSMT string
	}{
		{"one-node", "0-3", 4, 1, 0, 4, 4, "4 CPUs may be used", nil, "4 CPUs may be used"},
		{"two-nodes-smt", "0-15", 8, 2, 0, 16, 8, "16 CPUs may be used",
			[]string{"16 CPUs are 8 cores", "numactl --cpunodebind=0 --membind=0"}, "8 cores and runtime.smt is off"},
		{"cpuset-0-3", "0-3", 4, 1, 8, 4, 4, "leaves 4 of 16 CPUs (0-3)",
			[]string{"leaves CPUs 0-3 of 0-15", "every access is remote"}, "leaves 4 of 16 CPUs"},
		{"fractional-quota", "0-7", 8, 1, 2.5, 2, 2, "/sys/fs/cgroup/app.slice/cpu.max allows 2.50 CPUs, rounded down", nil, "allows 2.50 CPUs"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := "testdata/" + tt.name
			top, err := tuning.ReadTopology(root)
			if err != nil {
				t.Fatal(err)
			}
			q, err := tuning.CPUQuota(root)
			if err != nil {
				t.Fatal(err)
			}
			if top.Allowed.String() != tt.allowed || len(top.Cores) != tt.cores || len(top.Nodes) != tt.nodes || q.CPUs != tt.quota {
				t.Errorf("got %+v, quota %+v, want CPUs %s, %d cores, %d nodes, quota %v", top, q, tt.allowed, tt.cores, tt.nodes, tt.quota)
			}
			if b := tuning.ProcsBound(top, q, true); b.Procs != tt.bound || !strings.Contains(b.Reason, tt.reason) {
				t.Errorf("got %+v, want %d, %q", b, tt.bound, tt.reason)
			}
			if b := tuning.ProcsBound(top, q, false); b.Procs != tt.noSMT || !strings.Contains(b.Reason, tt.mentionsNoSMT) {
				t.Errorf("without SMT: got %+v, want %d, %q", b, tt.noSMT, tt.mentionsNoSMT)
			}
			got := top.Advice()
			if len(got) != len(tt.advice) {
				t.Fatalf("got advice %q, want %d sentences", got, len(tt.advice))
			}
			for i, want := range tt.advice {
				if !strings.Contains(got[i], want) {
					t.Errorf("got advice %q, want it to say %q", got[i], want)
				}
			}
		})
	}
}

func TestProcsBoundIsAtLeastOne(t *testing.T) {
	for name, tt := range map[string]struct {
		top  tuning.Topology
		q    tuning.Quota
		want string
	}{
		"nothing known": {want: "1 CPUs may be used"},
		"half a CPU":    {top: tuning.Topology{Allowed: tuning.CPUSet{0, 1}}, q: tuning.Quota{CPUs: 0.5, File: "/f"}, want: "/f allows 0.50 CPUs, and 1 is the least"},
		"absurd quota":  {q: tuning.Quota{CPUs: 1e300}, want: "1 CPUs may be used"},
	} {
		if b := tuning.ProcsBound(tt.top, tt.q, true); b.Procs != 1 || b.Reason != tt.want {
			t.Errorf("%s: got %+v, want 1, %q", name, b, tt.want)
		}
	}
}

func TestReadTopologyHere(t *testing.T) {
	top, err := tuning.ReadTopology("/")
	if errors.Is(err, fs.ErrNotExist) {
		return // no Linux
	}
	if err != nil || len(top.Allowed) == 0 || len(top.Cores) == 0 || len(top.Nodes) == 0 {
		t.Errorf("got %+v, %v, want this machine's CPUs", top, err)
	}
}

func TestReadTopologyErrors(t *testing.T) {
	const status = "Cpus_allowed_list:\t0-1\nMems_allowed_list:\t0\n"
	for name, tt := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no /proc":       {nil, "no such file"},
		"no line":        {map[string]string{"proc/self/status": "Name:\tx\n"}, "has no Cpus_allowed_list"},
		"no memory line": {map[string]string{"proc/self/status": "Cpus_allowed_list:\t0\n"}, "has no Mems_allowed_list"},
		"bad list":       {map[string]string{"proc/self/status": "Cpus_allowed_list:\t3-1\n"}, `"3-1" is neither`},
		"bad online":     {map[string]string{"proc/self/status": status, "sys/devices/system/cpu/online": "x"}, "cpu/online"},
		"bad siblings":   {map[string]string{"proc/self/status": status, "sys/devices/system/cpu/cpu1/topology/thread_siblings_list": "1,,2"}, "cpu1"},
		"bad nodes":      {map[string]string{"proc/self/status": status, "sys/devices/system/node/online": "99999"}, "node/online"},
		"bad node":       {map[string]string{"proc/self/status": status, "sys/devices/system/node/online": "0", "sys/devices/system/node/node0/cpulist": "-"}, "node0/cpulist"},
		"online is a folder": {map[string]string{"proc/self/status": status,
			"sys/devices/system/cpu/online/x": ""}, "is a directory"},
	} {
		if got, err := tuning.ReadTopology(tree(t, tt.files)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %+v, %v, want an error with %q", name, got, err, tt.want)
		}
	}
}

func TestCPUQuota(t *testing.T) {
	v1 := "31 23 0:28 / /cg rw - cgroup cgroup rw,cpu,cpuacct\n"
	tests := []struct {
		name  string
		files map[string]string
		want  tuning.Quota
		err   string
	}{
		{"v1", map[string]string{"proc/self/cgroup": "3:cpu,cpuacct:/a\n", "proc/self/mountinfo": v1,
			"cg/a/cpu.cfs_quota_us": "150000\n", "cg/a/cpu.cfs_period_us": "100000\n"}, tuning.Quota{CPUs: 1.5, File: "/cg/a/cpu.cfs_quota_us"}, ""},
		{"v1 without", map[string]string{"proc/self/cgroup": "3:cpu:/\n", "proc/self/mountinfo": v1,
			"cg/cpu.cfs_quota_us": "-1\n", "cg/cpu.cfs_period_us": "100000\n"}, tuning.Quota{}, ""},
		{"v1 without period", map[string]string{"proc/self/cgroup": "3:cpu:/\n", "proc/self/mountinfo": v1,
			"cg/cpu.cfs_quota_us": "5\n"}, tuning.Quota{}, "cpu.cfs_period_us"},
		{"v2, the parent is tighter", map[string]string{"proc/self/cgroup": "0::/p/c\n", "proc/self/mountinfo": mountV2,
			"sys/fs/cgroup/p/c/cpu.max": "400000 100000\n", "sys/fs/cgroup/p/cpu.max": "100000 100000\n"}, tuning.Quota{CPUs: 1, File: "/sys/fs/cgroup/p/cpu.max"}, ""},
		{"v2 without", map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/cpu.max": "max 100000\n"}, tuning.Quota{}, ""},
		{"one number", map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/cpu.max": "5\n"}, tuning.Quota{}, "a quota and a period"},
		{"no period", map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/cpu.max": "5 0\n"}, tuning.Quota{}, "two numbers above 0"},
		{"a folder", map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/cpu.max/x": ""}, tuning.Quota{}, "is a directory"},
		{"no cgroups", nil, tuning.Quota{}, "no such file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tuning.CPUQuota(tree(t, tt.files))
			if got != tt.want || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %+v, %v, want %+v, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestCPUSet(t *testing.T) {
	for text, want := range map[string]tuning.CPUSet{
		"": nil, "0": {0}, "0-3,8\n": {0, 1, 2, 3, 8}, "5,1,3-4,3": {1, 3, 4, 5}, "8191": {8191},
	} {
		if got, err := tuning.ParseCPUSet(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, bad := range []string{",", "a", "1-", "-1", "3-1", "8192", "0-99999999999", "1 2"} {
		if got, err := tuning.ParseCPUSet(bad); err == nil {
			t.Errorf("%q: got %v, want an error", bad, got)
		}
	}
	if got, _ := (tuning.CPUSet{0, 1, 2, 7, 9, 10}).MarshalText(); string(got) != "0-2,7,9-10" {
		t.Errorf("got %s, want 0-2,7,9-10", got)
	}
}

// FuzzParseCPUSet: what parses is ascending, in range and reads back the same.
func FuzzParseCPUSet(f *testing.F) {
	for _, s := range []string{"0-3,8", "0", "", "7-7", "1,1,1", "0-8191", "3-1", "1--2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		set, err := tuning.ParseCPUSet(text)
		if err != nil {
			return
		}
		again, err := tuning.ParseCPUSet(set.String())
		if err != nil || fmt.Sprint(again) != fmt.Sprint(set) {
			t.Fatalf("%q: got %v, then %v, %v", text, set, again, err)
		}
		for i := 1; i < len(set); i++ {
			if set[i] <= set[i-1] {
				t.Fatalf("%q: got %v, want ascending", text, set)
			}
		}
	})
}
