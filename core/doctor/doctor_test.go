package doctor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/core/doctor"
	"parley/core/liveness"
	"parley/core/redis"
	"parley/core/redis/redistest"
)

var update = flag.Bool("update", false, "write deploy/sysctl.d/60-parley.conf")

const sysctlFile = "../../deploy/sysctl.d/60-parley.conf"

var sound = liveness.Config{Ping: 15 * time.Second, KeepAliveIdle: time.Minute, KeepAliveInterval: 10 * time.Second, KeepAliveCount: 3, UserTimeout: 45 * time.Second}

// healthy is a machine with nothing to complain of: what its files say.
func healthy() map[string]string {
	return map[string]string{
		"proc/self/limits":                        "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 1048576              files     \n",
		"proc/self/status":                        "Cpus_allowed_list:\t0-3\nMems_allowed_list:\t0\n",
		"proc/self/cgroup":                        "0::/app\n",
		"proc/self/mountinfo":                     "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
		"proc/meminfo":                            "MemTotal:        8388608 kB\n",
		"proc/sys/net/core/somaxconn":             "4096\n",
		"proc/sys/net/ipv4/tcp_max_syn_backlog":   "4096\n",
		"proc/sys/net/ipv4/tcp_syncookies":        "1\n",
		"proc/sys/fs/file-max":                    "9223372036854775807\n",
		"proc/sys/fs/nr_open":                     "1048576\n",
		"proc/sys/net/ipv4/ip_local_port_range":   "10240\t65535\n",
		"proc/sys/net/ipv4/tcp_mem":               "189000 252000 378000\n",
		"proc/sys/net/netfilter/nf_conntrack_max": "262144\n",
		"proc/sys/net/ipv4/tcp_keepalive_time":    "60\n",
		"proc/sys/net/ipv4/tcp_keepalive_intvl":   "10\n",
		"proc/sys/net/ipv4/tcp_keepalive_probes":  "3\n",
		"sys/devices/system/cpu/online":           "0-3\n",
		"sys/fs/cgroup/app/memory.max":            "1073741824\n",
		"sys/fs/cgroup/app/memory.events":         "oom 0\noom_kill 0\n",
		"sys/fs/cgroup/app/cpu.max":               "200000 100000\n",
		"sys/fs/cgroup/app/cpu.stat":              "nr_periods 1000\nnr_throttled 3\n",
		clockSource:                               "tsc\n",
	}
}

const clockSource = "sys/devices/system/clocksource/clocksource0/current_clocksource"

// tree writes files below a new root; "" takes one away.
func tree(t *testing.T, changes map[string]string) string {
	t.Helper()
	files := healthy()
	maps.Copy(files, changes)
	root := t.TempDir()
	for name, content := range files {
		if content == "" {
			continue
		}
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// find returns the check with the name.
func find(t *testing.T, checks []doctor.Check, name string) doctor.Check {
	t.Helper()
	for _, c := range checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no check %q among %+v", name, checks)
	return doctor.Check{}
}

func TestHealthyMachine(t *testing.T) {
	for _, c := range doctor.Run(t.Context(), doctor.Config{Root: tree(t, nil), DataDir: t.TempDir(), Connections: 20_000, Liveness: sound}) {
		switch c.Name {
		case "clock", "disk sync", "disk space": // of the machine that the test runs on
		default:
			if c.State != doctor.OK || c.Found == "" || c.Change != "" || c.Command != "" {
				t.Errorf("got %+v, want ok and nothing to change", c)
			}
		}
	}
}

func TestWhatIsWrongIsFound(t *testing.T) {
	tests := []struct {
		name        string
		files       map[string]string
		connections int
		check       string
		state       doctor.State
		says        []string // in found, change or command
	}{
		{"few files for the limit", map[string]string{"proc/self/limits": "Max open files 1024 4096 files\n"}, 20_000, "open files", doctor.Bad, []string{"hard 4096", "at least 20512", "LimitNOFILE=20512", "ulimit -Hn 20512"}},
		{"few files, no limit", map[string]string{"proc/self/limits": "Max open files 1024 4096 files\n"}, 0, "open files", doctor.Warn, []string{"10000 connections (limits.connections is not set)"}},
		{"unlimited files", map[string]string{"proc/self/limits": "Max open files 1024 unlimited files\n"}, 20_000, "open files", doctor.OK, nil},
		{"odd limits", map[string]string{"proc/self/limits": "Max open files x y files\n"}, 0, "open files", doctor.Unknown, []string{`"y"`}},
		{"no line about files", map[string]string{"proc/self/limits": "Max cpu time 1 1\n"}, 0, "open files", doctor.Unknown, []string{"no line"}},
		{"no limits", map[string]string{"proc/self/limits": ""}, 0, "open files", doctor.Unknown, nil},
		{"short accept queue", map[string]string{"proc/sys/net/core/somaxconn": "128\n"}, 0, "net.core.somaxconn", doctor.Warn, []string{`sysctl -w net.core.somaxconn="4096"`}},
		{"no syncookies", map[string]string{"proc/sys/net/ipv4/tcp_syncookies": "0\n"}, 0, "net.ipv4.tcp_syncookies", doctor.Warn, nil},
		{"sysctl that is no number", map[string]string{"proc/sys/fs/nr_open": "many\n"}, 0, "fs.nr_open", doctor.Unknown, []string{"many"}},
		{"fewer numbers than there should be", map[string]string{"proc/sys/net/ipv4/tcp_mem": "1 2\n"}, 0, "net.ipv4.tcp_mem", doctor.Unknown, []string{"want 3 numbers"}},
		{"few ports", map[string]string{"proc/sys/net/ipv4/ip_local_port_range": "50000 60000\n"}, 1000, "net.ipv4.ip_local_port_range", doctor.Warn, []string{"10001 ports", "usual 28232", "10240 65535"}},
		{"fewer ports than connections", nil, 80_000, "net.ipv4.ip_local_port_range", doctor.Warn, []string{"reverse proxy", "limits.connections 80000"}},
		{"little TCP memory", map[string]string{"proc/sys/net/ipv4/tcp_mem": "1000 2000 3000\n"}, 20_000, "net.ipv4.tcp_mem", doctor.Warn, []string{"pressure from 7 MiB", `"30000 40000 60000"`}},
		{"small connection table", map[string]string{"proc/sys/net/netfilter/nf_conntrack_max": "8192\n"}, 20_000, "net.netfilter.nf_conntrack_max", doctor.Warn, []string{"at least 40000"}},
		{"no connection table", map[string]string{"proc/sys/net/netfilter/nf_conntrack_max": ""}, 0, "net.netfilter.nf_conntrack_max", doctor.OK, []string{"not tracked"}},
		{"keepalive sysctls of old", map[string]string{"proc/sys/net/ipv4/tcp_keepalive_time": "7200\n", "proc/sys/net/ipv4/tcp_keepalive_intvl": "75\n", "proc/sys/net/ipv4/tcp_keepalive_probes": "9\n"}, 0,
			"net.ipv4.tcp_keepalive_*", doctor.OK, []string{"2h11m15s", "nothing for Parley", "tcp_keepalive_time=60"}},
		{"no keepalive sysctls", map[string]string{"proc/sys/net/ipv4/tcp_keepalive_time": ""}, 0, "net.ipv4.tcp_keepalive_*", doctor.Unknown, nil},
		{"fractional quota", map[string]string{"sys/fs/cgroup/app/cpu.max": "250000 100000\n"}, 0, "CPUs", doctor.OK, []string{"GOMAXPROCS at most 2", "2.50 CPUs is rounded to GOMAXPROCS 2"}},
		{"throttled", map[string]string{"sys/fs/cgroup/app/cpu.stat": "nr_periods 1000\nnr_throttled 200\n"}, 0, "CPUs", doctor.Warn, []string{"stood still in 200 of 1000 periods"}},
		{"less than a CPU", map[string]string{"sys/fs/cgroup/app/cpu.max": "50000 100000\n"}, 0, "CPUs", doctor.Warn, []string{"less than one CPU"}},
		{"SMT siblings", map[string]string{"sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "0,2\n"}, 0, "CPUs", doctor.OK, []string{"3 cores", "SMT siblings"}},
		{"no topology", map[string]string{"proc/self/status": ""}, 0, "CPUs", doctor.Unknown, nil},
		{"bad quota", map[string]string{"sys/fs/cgroup/app/cpu.max": "x\n"}, 0, "CPUs", doctor.Unknown, nil},
		{"little memory", map[string]string{"sys/fs/cgroup/app/memory.max": "67108864\n"}, 0, "memory limit", doctor.Warn, []string{"at least 256 MiB"}},
		{"killed for memory", map[string]string{"sys/fs/cgroup/app/memory.events": "oom_kill 2\n"}, 0, "memory limit", doctor.Warn, []string{"2 processes were killed"}},
		{"no memory limit", map[string]string{"sys/fs/cgroup/app/memory.max": "max\n"}, 0, "memory limit", doctor.OK, []string{"8192 MiB"}},
		{"bad memory limit", map[string]string{"sys/fs/cgroup/app/memory.max": "x\n"}, 0, "memory limit", doctor.Unknown, nil},
		{"slow clock", map[string]string{clockSource: "hpet\n"}, 0, "clock source", doctor.Warn, []string{"available_clocksource"}},
		{"no clock source", map[string]string{clockSource: ""}, 0, "clock source", doctor.Unknown, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := find(t, doctor.Run(t.Context(), doctor.Config{Root: tree(t, tt.files), DataDir: t.TempDir(), Connections: tt.connections, Liveness: sound}), tt.check)
			if c.State != tt.state {
				t.Errorf("got %+v, want %s", c, tt.state)
			}
			text := c.Found + "\n" + c.Change + "\n" + c.Command
			for _, want := range tt.says {
				if !strings.Contains(text, want) {
					t.Errorf("got %q, want it to say %q", text, want)
				}
			}
			if (c.State == doctor.Warn || c.State == doctor.Bad) && c.Change == "" {
				t.Errorf("got %+v, want it to say what to change", c)
			}
		})
	}
}

func TestKeepAliveIsReadBackFromASocket(t *testing.T) {
	off := sound
	off.KeepAliveIdle = 0
	neither := off
	neither.Ping = 0
	tests := []struct {
		name  string
		cfg   liveness.Config
		state doctor.State
		says  string
	}{
		{"as by default", sound, doctor.OK, "first probe after 1m0s, then every 10s, 3 of them, user timeout 45s (which decides, not the number of probes); the kernel gives a silent peer up 1m10s after"},
		{"heartbeats alone", off, doctor.OK, "KeepAlive off, user timeout 45s; heartbeats find dead peers"},
		{"nothing at all", neither, doctor.Bad, "for ever"},
		{"more than the kernel takes", liveness.Config{Ping: 1, KeepAliveIdle: 90 * time.Second, KeepAliveInterval: 1500 * time.Millisecond, KeepAliveCount: 3}, doctor.Warn, "does not hold"},
		{"refused by the kernel", liveness.Config{KeepAliveIdle: time.Second, KeepAliveInterval: time.Second, KeepAliveCount: 1000}, doctor.Unknown, "invalid argument"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := find(t, doctor.Run(t.Context(), doctor.Config{Root: tree(t, nil), DataDir: t.TempDir(), Liveness: tt.cfg}), "keepalive in force")
			if c.State != tt.state || !strings.Contains(c.Found+c.Change, tt.says) {
				t.Errorf("got %+v, want %s, %q", c, tt.state, tt.says)
			}
		})
	}
}

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := doctor.Run(t.Context(), doctor.Config{DataDir: filepath.Join(dir, "not", "yet")})
	if c := find(t, missing, "disk sync"); !strings.Contains(c.Found, "in "+dir) {
		t.Errorf("a folder to be made: got %+v, want the one above measured", c)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v, want nothing left behind", entries, err)
	}
	if c := find(t, doctor.Run(t.Context(), doctor.Config{DataDir: file}), "disk sync"); c.State != doctor.Unknown || !strings.Contains(c.Found, "not a folder") {
		t.Errorf("a file: got %+v, want unknown", c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c := find(t, doctor.Run(ctx, doctor.Config{DataDir: dir}), "disk sync"); !strings.Contains(c.Found, "median of 1 ") {
		t.Errorf("no time left: got %+v, want one sync", c)
	}
}

// TestHere: on this machine every check comes to something.
func TestHere(t *testing.T) {
	for _, c := range doctor.Run(t.Context(), doctor.Config{DataDir: t.TempDir(), Liveness: sound}) {
		if c.Name == "" || c.Found == "" {
			t.Errorf("got %+v, want a name and a finding", c)
		}
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

type answer struct {
	p   redis.Persistence
	err error
}

func (a answer) Persistence(context.Context) (redis.Persistence, error) { return a.p, a.err }

func TestRedis(t *testing.T) {
	good := redis.Persistence{Version: "7.0.0", AppendOnly: "yes", AppendFsync: "always", MaxMemoryPolicy: "noeviction"}
	with := func(change func(*redis.Persistence)) redis.Persistence { p := good; change(&p); return p }
	tests := []struct {
		name  string
		p     redis.Persistence
		err   error
		state doctor.State
		says  string
	}{
		{"as it should be", good, nil, doctor.OK, "appendfsync always"},
		{"every second", with(func(p *redis.Persistence) { p.AppendFsync = "everysec" }), nil, doctor.Warn, "a power cut loses"},
		{"in memory", with(func(p *redis.Persistence) { p.AppendOnly = "no" }), nil, doctor.Bad, "appendonly is off"},
		{"a cache", with(func(p *redis.Persistence) { p.MaxMemoryPolicy = "allkeys-lru" }), nil, doctor.Bad, "noeviction"},
		{"hosted", with(func(p *redis.Persistence) { p.AppendFsync = "" }), nil, doctor.Unknown, "appendfsync not told"},
		{"a cluster", with(func(p *redis.Persistence) { p.Mode, p.Primaries, p.Replicas, p.MinReplicas = redis.Cluster, 3, 1, "1" }), nil, doctor.OK, "cluster of 3 primaries with 1 replicas"},
		{"a primary cut off", with(func(p *redis.Persistence) { p.Mode, p.Replicas, p.MinReplicas = redis.Sentinel, 2, "0" }), nil, doctor.Warn, "min-replicas-to-write is 0"},
		{"sentinels", with(func(p *redis.Persistence) { p.Mode, p.Replicas, p.MinReplicas = redis.Sentinel, 2, "1" }), nil, doctor.OK, "by sentinels, 2 replicas"},
		{"away", good, errors.New("connection refused"), doctor.Bad, "connection refused"},
	}
	for _, tt := range tests {
		c := find(t, doctor.Run(t.Context(), doctor.Config{Root: tree(t, nil), DataDir: t.TempDir(), Redis: answer{tt.p, tt.err}}), "redis persistence")
		if c.State != tt.state || !strings.Contains(c.Found+c.Change, tt.says) {
			t.Errorf("%s: got %+v, want %s, %q", tt.name, c, tt.state, tt.says)
		}
	}
	server := redistest.Start(t, redistest.Options{AppendOnly: true})
	rc := redis.Defaults()
	rc.URL = server.URL()
	client, err := redis.Open(rc, discard())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if c := find(t, doctor.Run(t.Context(), doctor.Config{DataDir: t.TempDir(), Redis: client}), "redis persistence"); c.State != doctor.OK {
		t.Errorf("a real server: got %+v, want ok", c)
	}
}

func TestPrint(t *testing.T) {
	checks := []doctor.Check{
		{Name: "a", State: doctor.OK, Found: "5"},
		{Name: "long name", State: doctor.Warn, Found: "<6>", Change: "7", Command: "do x"},
		{Name: "c", State: doctor.Unknown, Found: "?"},
	}
	var out bytes.Buffer
	if err := doctor.Print(&out, checks); err != nil {
		t.Fatal(err)
	}
	want := "ok       a          5\nwarn     long name  <6>\n                    -> 7\n                       $ do x\nunknown  c          ?\n\n1 ok, 1 warn, 0 bad, 1 unknown\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	if err := doctor.PrintJSON(&out, checks); err != nil {
		t.Fatal(err)
	}
	var back struct {
		Worst  doctor.State
		Checks []doctor.Check
	}
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Worst != doctor.Warn || len(back.Checks) != 3 || back.Checks[1] != checks[1] {
		t.Errorf("got %+v, %v, want the same again", back, err)
	}
	if w := doctor.Worst(append(checks, doctor.Check{State: doctor.Bad}, doctor.Check{State: doctor.Warn})); w != doctor.Bad {
		t.Errorf("got %s, want bad", w)
	}
	if w := doctor.Worst(nil); w != doctor.OK {
		t.Errorf("got %s, want ok", w)
	}
}

// The shipped file is what the checks recommend: a machine that has it is
// told nothing about sysctls.
func TestSysctlFile(t *testing.T) {
	if *update {
		if err := os.WriteFile(sysctlFile, []byte(doctor.SysctlFile()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(sysctlFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != doctor.SysctlFile() {
		t.Fatal("deploy/sysctl.d/60-parley.conf is out of date; go test ./core/doctor -run Sysctl -update writes it again")
	}
	files := make(map[string]string)
	for line := range strings.Lines(string(got)) {
		if key, value, ok := strings.Cut(line, " = "); ok && line[0] != '#' {
			files["proc/sys/"+strings.ReplaceAll(key, ".", "/")] = value
		}
	}
	if len(files) < 7 {
		t.Fatalf("got %d settings in the file, want at least 7", len(files))
	}
	for _, c := range doctor.Run(t.Context(), doctor.Config{Root: tree(t, files), DataDir: t.TempDir(), Connections: 50_000, Liveness: sound}) {
		if strings.Contains(c.Command, "sysctl -w") && !strings.Contains(c.Name, "tcp_mem") && !strings.Contains(c.Name, "conntrack") { // those two depend on the machine
			t.Errorf("with the file in force: got %+v, want no other value recommended", c)
		}
	}
}
