package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/bench/load"
	"parley/core/bench/report"
)

// folder holds the binary once it is built; TestMain removes it.
var folder string

// platform is the path of the binary, built by the first test that needs it
// (the workers of a fuzz test do not): a plain one, because the race detector
// would measure itself.
var platform = sync.OnceValue(func() string {
	var err error
	if folder, err = os.MkdirTemp("", "parley-bench-test-"); err != nil {
		panic(err)
	}
	path := filepath.Join(folder, "platform")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "parley/cmd/platform")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build the server: %v\n%s", err, out))
	}
	return path
})

func TestMain(m *testing.M) {
	code := m.Run()
	if folder != "" {
		_ = os.RemoveAll(folder)
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// tiny is a load that any machine carries.
func tiny() Load {
	return Load{Members: 12, RoomSize: 4, Publishers: 2, Rate: 60, TextBytes: 100, Parallel: 4, Warmup: 200 * time.Millisecond, Duration: 2 * time.Second}
}

func config(l Load) Config {
	var drawn bytes.Buffer
	return Config{Exe: platform(), Load: l, Progress: &drawn}
}

func runMode(t *testing.T, name string, cfg Config) []report.Section {
	t.Helper()
	mode, err := Find(name)
	if err != nil {
		t.Fatal(err)
	}
	sections, err := New(cfg).Run(within(t), mode)
	if err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	if err := report.HTML(&page, name, time.Now(), sections); err != nil {
		t.Errorf("the report cannot be drawn: %v", err)
	}
	return sections
}

// figure returns a figure of a section.
func figure(t *testing.T, s report.Section, name string) float64 {
	t.Helper()
	for _, f := range s.Figures {
		if f.Name == name {
			return f.Value
		}
	}
	t.Errorf("there is no figure %q in %+v", name, s.Figures)
	return 0
}

func TestFanout(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"rooms":        func(*Config) {},
		"one room":     func(c *Config) { c.Load.RoomSize = c.Load.Members },
		"stalled":      func(c *Config) { c.Load.RoomSize, c.Load.Stalled = c.Load.Members, 8 },
		"closed loop":  func(c *Config) { c.Load.Rate, c.Load.InFlight = 0, 2 },
		"by arrivals":  func(c *Config) { c.Load.Rate, c.Load.InFlight, c.Load.ByArrival, c.Load.Stalled = 0, 2, true, 4 },
		"TLS":          func(c *Config) { c.TLS = true },
		"TCP":          func(c *Config) { c.TCP = true },
		"TCP with TLS": func(c *Config) { c.TCP, c.TLS = true, true },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(tiny())
			change(&cfg)
			s := runMode(t, "fanout", cfg)[0]
			for _, bad := range []string{"lost", "duplicate", "late", "holes in seq"} {
				if v := figure(t, s, bad); v != 0 {
					t.Errorf("got %v %s, want none", v, bad)
				}
			}
			messages, deliveries := figure(t, s, "messages"), figure(t, s, "deliveries")
			if messages <= 0 || deliveries <= 0 {
				t.Errorf("got %v messages and %v deliveries, want some", messages, deliveries)
			}
			for _, name := range []string{"server CPU", "server RSS", "latency p99", "ack p99", "objects per message"} {
				if v := figure(t, s, name); v <= 0 {
					t.Errorf("got %v as %s, want more than nothing", v, name)
				}
			}
		})
	}
}

func TestIdle(t *testing.T) {
	l := tiny()
	l.Publishers, l.Members, l.RoomSize, l.Duration = 0, 300, 50, 200*time.Millisecond
	s := runMode(t, "idle", config(l))[0]
	if got := figure(t, s, "connections"); got != 300 {
		t.Errorf("got %v connections, want 300", got)
	}
	if got := figure(t, s, "RSS per connection"); got <= 0 || got > 1000 {
		t.Errorf("got %v KiB a connection, want a plausible figure", got)
	}
	whole := figure(t, s, "RSS per connection, collected")
	for _, name := range []string{"- heap in use", "- heap free, kept", "- stacks", "- runtime", "- the rest"} {
		whole -= figure(t, s, name)
	}
	if whole < -0.01 || whole > 0.01 {
		t.Errorf("got parts that leave %v KiB unexplained, want none", whole)
	}
	if live, all := figure(t, s, "- of it objects"), figure(t, s, "- stacks"); live <= 0 || all <= 0 {
		t.Errorf("got %v KiB of live heap and %v of stacks, want some of each", live, all)
	}
	if got := figure(t, s, "goroutines"); got <= 0 {
		t.Errorf("got %v goroutines, want some", got)
	}
}

func TestConnect(t *testing.T) {
	l := tiny()
	l.Publishers, l.Parallel = 0, l.Members
	s := runMode(t, "connect", config(l))[0]
	if got := figure(t, s, "connections"); got != 12 {
		t.Errorf("got %v connections, want 12", got)
	}
	for _, name := range []string{"connects", "server CPU per connect", "connect p99"} {
		if v := figure(t, s, name); v <= 0 {
			t.Errorf("got %v as %s, want more than nothing", v, name)
		}
	}
}

func TestStorm(t *testing.T) {
	l := tiny()
	l.RoomSize, l.Arrivals = l.Members, 30
	for name, keys := range map[string]map[string]string{"both": nil, "one limit": {acceptKey: "20"}} {
		t.Run(name, func(t *testing.T) {
			cfg := config(l)
			cfg.Keys = keys
			s := runMode(t, "storm", cfg)[0]
			turns := []string{"rest", "storm elsewhere", "storm"}
			want := 2 * len(turns)
			if keys != nil {
				want = len(turns)
			}
			if len(s.Table.Rows) != want {
				t.Fatalf("got rows %v, want %d: %v for each limit", s.Table.Rows, want, turns)
			}
			for i, row := range s.Table.Rows {
				if len(row) != len(s.Table.Columns) || row[1] != turns[i%len(turns)] {
					t.Errorf("got row %q below %q, want %v in turns", row, s.Table.Columns, turns)
				}
			}
			if last := s.Table.Rows[want-1]; last[7] == "0" || last[9] == "" {
				t.Errorf("got %q, want some who joined, and how many were told to come back", last)
			}
		})
	}
}

func TestLiveness(t *testing.T) {
	l := tiny()
	l.Publishers, l.Members, l.RoomSize, l.Duration = 0, 300, 50, 2500*time.Millisecond
	cfg := config(l)
	// Of 300 within 20 s some are asked in 2.5 s, and nobody is lost for 30 s, as
	// those would be who have no processor on a busy machine for 2 s.
	cfg.Keys = map[string]string{"liveness.ping": "20s", "liveness.pong": "15s"}
	s := runMode(t, "liveness", cfg)[0]
	if got := figure(t, s, "pings"); got <= 0 {
		t.Errorf("got %v pings, want some", got)
	}
	if got := figure(t, s, "connections lost"); got != 0 {
		t.Errorf("got %v connections lost, want none", got)
	}
}

func TestSweeps(t *testing.T) {
	for mode, texts := range map[string][]string{"gc": {"GOGC=10", "GOGC=off GOMEMLIMIT=256MiB"}, "gomaxprocs": {"GOMAXPROCS=1"}} {
		t.Run(mode, func(t *testing.T) {
			cfg := config(tiny())
			cfg.Tunings = Tunings(texts...)
			s := runMode(t, mode, cfg)[0]
			if len(s.Table.Rows) != len(texts) {
				t.Fatalf("got rows %v, want one for each of %v", s.Table.Rows, texts)
			}
			for i, row := range s.Table.Rows {
				if row[0] != texts[i] || len(row) != len(s.Table.Columns) {
					t.Errorf("got row %v, want one of %s", row, texts[i])
				}
			}
		})
	}
}

func TestLoop(t *testing.T) {
	l := tiny()
	l.Rate = 400
	cfg := config(l)
	cfg.Tunings = Tunings("GOGC=10")
	sections := runMode(t, "gc-loop", cfg)
	if len(sections) != 3 {
		t.Fatalf("got %d sections, want the loop, the allocators and the CPU", len(sections))
	}
	for _, s := range sections[1:] {
		if len(s.Table.Rows) == 0 {
			t.Errorf("got no rows in %q", s.Title)
		}
	}
	if text := sections[0].Text; !strings.Contains(text, "collections a second") {
		t.Errorf("got %q, want what was seen", text)
	}
}

// TestTarget measures a server that somebody else has started.
func TestTarget(t *testing.T) {
	s, err := StartServer(within(t), Settings{Exe: platform()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	cfg := config(tiny())
	cfg.Target, cfg.Admin, cfg.Token, cfg.PIDs = "ws://"+s.Addr+"/v1/ws", s.Admin, s.Token, s.PIDs
	if got := figure(t, runMode(t, "fanout", cfg)[0], "lost"); got != 0 {
		t.Errorf("got %v lost, want none", got)
	}
	cfg.Admin, cfg.PIDs = "", nil // what is not known is left out
	sections := runMode(t, "fanout", cfg)
	for _, f := range sections[0].Figures {
		if f.Name == "server CPU" || f.Name == "collections" {
			t.Errorf("got %+v for a server of which nothing is known", f)
		}
	}
	for _, mode := range []string{"idle", "liveness", "gc"} {
		m, err := Find(mode)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(cfg).Run(within(t), m); err == nil {
			t.Errorf("%s: got no error without a process to measure", mode)
		}
	}
}

// TestRefusedConnections holds a run to saying why it cannot begin.
func TestRefusedConnections(t *testing.T) {
	cfg := config(tiny())
	cfg.Keys = map[string]string{"limits.connections": "5"}
	m, err := Find("fanout")
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(cfg).Run(within(t), m)
	if err == nil || !strings.Contains(err.Error(), "of 14 connections came about") {
		t.Errorf("got %v, want how many connections came about", err)
	}
}

func TestServerThatDoesNotStart(t *testing.T) {
	_, err := StartServer(within(t), Settings{Exe: platform(), Keys: map[string]string{"limits.connections": "many"}})
	if err == nil || !strings.Contains(err.Error(), "limits.connections") {
		t.Errorf("got %v, want what the server said", err)
	}
	if _, err := StartServer(within(t), Settings{Exe: "/does/not/exist"}); err == nil {
		t.Error("got no error for a program that does not exist")
	}
	if _, err := StartServer(within(t), Settings{Exe: platform(), Data: "/does/not/exist"}); err == nil {
		t.Error("got no error for a folder that does not exist")
	}
}

func TestTakeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		target string
		pid    int
	}{
		"no URL":          {target: "::"},
		"not WebSocket":   {target: "http://127.0.0.1:1/"},
		"no such host":    {target: "ws://host.invalid/"},
		"no such process": {target: "ws://127.0.0.1:1/", pid: 1 << 30},
	} {
		var pids []int
		if c.pid > 0 {
			pids = []int{c.pid}
		}
		if s, err := Take(within(t), c.target, "", "", pids); err == nil {
			t.Errorf("%s: got %+v, want an error", name, s)
		}
	}
	for target, want := range map[string]Server{
		"ws://127.0.0.1":      {Addr: "127.0.0.1:80"},
		"wss://127.0.0.1":     {Addr: "127.0.0.1:443", TLS: true},
		"tcp://127.0.0.1":     {Addr: "127.0.0.1:7070", TCP: true},
		"tls://127.0.0.1:717": {Addr: "127.0.0.1:717", TCP: true, TLS: true},
	} {
		s, err := Take(within(t), target, "", "", nil)
		if err != nil || s.Addr != want.Addr || s.TLS != want.TLS || s.TCP != want.TCP || s.Path != "/v1/ws" {
			t.Errorf("%s: got %+v, %v, want the defaults", target, s, err)
		}
	}
}

func TestDeliveryFaultsFailARun(t *testing.T) {
	for name, m := range map[string]Measured{
		"lost":     {Stats: load.Stats{Faults: load.Faults{Lost: 1}}},
		"closed":   {Stats: load.Stats{Closed: map[string]uint64{"close 4501": 1}}},
		"refused":  {Stats: load.Stats{Errors: map[string]uint64{"overloaded": 1}}},
		"pending":  {Stats: load.Stats{Pending: 1}},
		"redacted": {Stats: load.Stats{Redacted: 1}},
	} {
		if err := m.wrong(); !errors.Is(err, ErrDelivery) {
			t.Errorf("%s: got %v, want ErrDelivery", name, err)
		}
	}
	if err := (&Measured{}).wrong(); err != nil {
		t.Errorf("got %v for a clean run", err)
	}
}

func TestSpecsDivideTheLoad(t *testing.T) {
	s := &Server{Addr: "127.0.0.1:1", Path: "/"}
	for _, c := range []struct {
		load  Load
		procs []int // members of each
	}{
		{load: Load{Members: 10, RoomSize: 5}, procs: []int{10}},
		{load: Load{Members: 20_000, RoomSize: 50}, procs: []int{18_000, 2000}},
		{load: Load{Members: 40_000, RoomSize: 40_000}, procs: []int{18_000, 18_000, 4000}},
		{load: Load{Members: 10, RoomSize: 5, Publishers: 3}, procs: []int{10, 0}},
		{load: Load{Members: 10, RoomSize: 5, Publishers: 3, ByArrival: true}, procs: []int{10}},
		{load: Load{Members: 10, RoomSize: 5, Publishers: 3, ByArrival: true, Rate: 1}, procs: []int{10, 0}},
	} {
		specs := c.load.specs(s, "x")
		var got []int
		next := 0
		for _, s := range specs {
			got = append(got, s.Members)
			if s.Members > 0 && s.First != next {
				t.Errorf("got a process that begins with member %d, want %d", s.First, next)
			}
			next += s.Members
		}
		if fmt.Sprint(got) != fmt.Sprint(c.procs) {
			t.Errorf("%+v: got %v members, want %v", c.load, got, c.procs)
		}
	}
}

func TestFind(t *testing.T) {
	if _, err := Find("sleep"); err == nil || !strings.Contains(err.Error(), "fanout") {
		t.Errorf("got %v, want the modes there are", err)
	}
	for _, m := range Modes() {
		if m.Doc == "" || m.Load.Members == 0 || m.Load.RoomSize == 0 {
			t.Errorf("mode %q is not complete: %+v", m.Name, m)
		}
	}
}

func TestProcessorTunings(t *testing.T) {
	all := processorTunings()
	seen := map[string]bool{}
	for _, x := range all {
		n, err := strconv.Atoi(x.Env["GOMAXPROCS"])
		if err != nil || n < 1 || seen[x.Name] {
			t.Errorf("got %+v, want distinct numbers", all)
		}
		seen[x.Name] = true
	}
	if len(all) < 3 {
		t.Errorf("got %+v, want below and above the CPUs there are", all)
	}
}

// TestCrowd runs two servers side by side.
func TestCrowd(t *testing.T) {
	b := New(config(tiny()))
	all, err := b.Crowd(within(t), 2, tiny(), Tunings("GOGC=50")[0])
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range all {
		if m == nil || m.Delivery.Count() == 0 || !m.Faults.None() {
			t.Errorf("server %d: got %+v, want deliveries without a fault", i, m)
		}
	}
	l := tiny()
	l.Publishers, l.Duration = 0, 100*time.Millisecond
	sections, err := b.IdleCrowd(within(t), 2, l)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sections {
		if got := figure(t, s, "connections"); got != 12 {
			t.Errorf("got %v connections, want 12", got)
		}
	}
	b.Exe = "/does/not/exist"
	if _, err := b.Crowd(within(t), 2, l, Tunings("GOGC=50")[0]); err == nil {
		t.Error("got no error of servers that do not start")
	}
	b.Target = "ws://127.0.0.1:1/"
	if _, err := b.Crowd(within(t), 2, l, Tunings("GOGC=50")[0]); err == nil {
		t.Error("got no error for a target")
	}
}
