package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"parley/core/bench/load"
	"parley/core/bench/report"
)

// Config is what a run needs besides its mode.
type Config struct {
	Exe     string            // the platform binary: it runs the server and the clients
	Plugins string            // plugins of a server of our own; empty: none
	Keys    map[string]string // configuration keys for a server of our own
	Data    string            // folder for a server's data; empty: the system's for temporary files

	TLS bool // a server of our own speaks TLS, with a certificate of the moment
	TCP bool // clients of a server of our own come over TCP, a line a command, instead of WebSocket

	Target string // URL of a running server: ws://, wss://, tcp:// or tls://; empty: a server of our own
	Admin  string // its admin API
	Token  string // its admin token
	PIDs   []int  // its processes, for CPU and memory

	Rules map[string][]byte // mode policy: the files of the policy that is changed

	Cluster Cluster  // nodes of a server of our own
	Load    Load     // what clients do
	Tunings []Tuning // settings to compare, in the modes that do; nil: the mode's own; one for the server in others

	Progress io.Writer // a terminal to draw on; nil: nothing is drawn
}

// Bench runs modes.
type Bench struct {
	Config
	Start load.Start // how a client process begins
}

// New returns a Bench whose clients are processes of cfg.Exe.
func New(cfg Config) *Bench {
	b := &Bench{Config: cfg}
	b.Start = func(context.Context) (load.Pipe, error) { return StartClient(cfg.Exe, nil) }
	return b
}

// StartClient runs `platform bench client`, which calls load.Serve, at a place;
// nil is here.
func StartClient(exe string, at *Place) (load.Pipe, error) {
	cmd := exec.Command(exe, "bench", "client")
	cmd.Env = cleanEnv(nil)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = childAttr()
	in, err := cmd.StdinPipe()
	if err != nil {
		return load.Pipe{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return load.Pipe{}, err
	}
	if err := begin(cmd, at); err != nil {
		return load.Pipe{}, err
	}
	return load.Pipe{Orders: in, Reports: out, Wait: cmd.Wait, PID: cmd.Process.Pid}, nil
}

// Mode is one kind of run.
type Mode struct {
	Name string
	Doc  string // one line
	Load Load   // what is done where the caller says nothing
	run  func(*Bench, context.Context, Load) ([]report.Section, error)
	many bool // the server may be several nodes
}

// chatting is the load of the modes that compare settings: many rooms, and
// more messages than an idle collector would notice.
func chatting() Load {
	return Load{Members: 2000, RoomSize: 10, Publishers: 16, Rate: 1000, TextBytes: 120, Warmup: 3 * time.Second, Duration: 15 * time.Second, Parallel: 64}
}

// Modes lists them in the order they are shown.
func Modes() []Mode {
	return []Mode{
		{Name: "idle", Doc: "memory of idle connections", run: (*Bench).idle,
			Load: Load{Members: 10_000, RoomSize: 50, Parallel: 64, Duration: 10 * time.Second}},
		{Name: "fanout", Doc: "one room with many members, open or closed loop", run: (*Bench).fanout, many: true,
			Load: Load{Members: 1000, RoomSize: 1000, Publishers: 4, Rate: 50, TextBytes: 120, Warmup: 2 * time.Second, Duration: 10 * time.Second, Parallel: 64}},
		{Name: "rooms", Doc: "many small rooms", run: (*Bench).fanout, many: true,
			Load: Load{Members: 5000, RoomSize: 10, Publishers: 16, Rate: 3000, TextBytes: 120, Warmup: 2 * time.Second, Duration: 10 * time.Second, Parallel: 64}},
		{Name: "connect", Doc: "connects a second and what one costs", run: (*Bench).connectMode,
			Load: Load{Members: 10_000, RoomSize: 50, Parallel: 64}},
		{Name: "storm", Doc: "how a room fares while thousands connect at once, with and without a limit on new connections", run: (*Bench).storm,
			Load: Load{Members: 200, RoomSize: 200, Publishers: 4, Rate: 20, TextBytes: 120, Warmup: 2 * time.Second, Duration: 15 * time.Second, Parallel: 64, Arrivals: 5000}},
		{Name: "liveness", Doc: "the heartbeats of idle connections", run: (*Bench).liveness,
			Load: Load{Members: 15_000, RoomSize: 50, Parallel: 64, Warmup: 5 * time.Second, Duration: time.Minute}},
		{Name: "policy", Doc: "how long a merged change of the rules takes until it decides, and how often the decision cache has the answer", run: (*Bench).policy,
			Load: Load{Members: 1000, RoomSize: 10, Rate: 1000, TextBytes: 120, Warmup: 5 * time.Second, Duration: 20 * time.Second, Parallel: 64, Merges: 100}},
		{Name: "gc", Doc: "the same load under several settings of the garbage collector", run: (*Bench).collector, Load: chatting()},
		{Name: "gc-loop", Doc: "the collector's rate and pauses, find who allocates, try a better setting, measure again", run: (*Bench).loop, Load: chatting()},
		{Name: "gomaxprocs", Doc: "the same load under several GOMAXPROCS", run: (*Bench).processors, Load: chatting()},
	}
}

// Find returns the mode of a name.
func Find(name string) (Mode, error) {
	all := Modes()
	i := slices.IndexFunc(all, func(m Mode) bool { return m.Name == name })
	if i < 0 {
		var names []string
		for _, m := range all {
			names = append(names, m.Name)
		}
		return Mode{}, fmt.Errorf("there is no mode %q; there are %s", name, strings.Join(names, ", "))
	}
	return all[i], nil
}

// Run runs a mode with the load of the configuration.
func (b *Bench) Run(ctx context.Context, mode Mode) ([]report.Section, error) {
	if b.Cluster.Redis != "" {
		if !mode.many {
			return nil, fmt.Errorf("mode %s measures one node; fanout and rooms take several", mode.Name)
		}
	}
	return mode.run(b, ctx, b.Load)
}

// server takes the configured server or starts one.
func (b *Bench) server(ctx context.Context, keys, env map[string]string) (*Server, error) {
	if b.Target != "" {
		return Take(ctx, b.Target, b.Admin, b.Token, b.PIDs)
	}
	if env == nil && len(b.Tunings) > 0 { // a mode that compares none
		if len(b.Tunings) > 1 {
			return nil, errors.New("this mode compares no settings; it takes one for its server")
		}
		env = b.Tunings[0].Env
	}
	set := Settings{Exe: b.Exe, Plugins: b.Plugins, Keys: map[string]string{}, Env: env, Data: b.Data, TLS: b.TLS, TCP: b.TCP}
	for _, m := range []map[string]string{b.Keys, keys} {
		for k, v := range m {
			set.Keys[k] = v
		}
	}
	if b.Cluster.Redis != "" {
		return StartCluster(ctx, b.Cluster, set)
	}
	return StartServer(ctx, set)
}

// Machine describes where a figure was measured.
func Machine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d CPUs (%s), %s, %s", runtime.NumCPU(), model, runtime.GOOS, runtime.Version())
}

// lower is text as a room's name may hold it.
func lower(s string) string { return strings.ToLower(s) }

func (s *Server) loopback() bool { return strings.HasPrefix(s.Addr, "127.") }
