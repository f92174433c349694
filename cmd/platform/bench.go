package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/core/bench"
	"parley/core/bench/load"
	"parley/core/bench/report"
	"parley/policy/rego"
)

// benchFlags are the flags of `platform bench MODE`.
type benchFlags struct {
	bench.Config
	keys       []string
	redis      string
	onRedis    bool
	tokenFile  string
	closed     bool
	closedBy   string
	json       bool
	report     string
	rooms      int
	rate       float64
	members    int
	stalled    int
	publishers int
	inFlight   int
	textBytes  int
	warmup     time.Duration
	duration   time.Duration
	parallel   int
	perSecond  int
	storm      bool
	arrivals   int
	merges     int
	tunings    []string
}

func benchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Put load on a server and measure what it costs",
		Long: "Put load on a server and measure what it costs. Without --target the command starts a server of its own on free\n" +
			"ports, with its data in a temporary folder, the limits on a single address open and the plugins of --plugins.\n" +
			"The clients are processes of their own; they check that nothing is lost, duplicated or out of order.",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			_, err := bench.Find(args[0])
			return fmt.Errorf("%w, and failover", err)
		},
	}
	for _, m := range bench.Modes() {
		c.AddCommand(benchMode(m))
	}
	c.AddCommand(failoverCommand())
	c.AddCommand(&cobra.Command{
		Use: "client", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			runtime.GOMAXPROCS(2) // the loop, and its reader of orders
			return load.Serve(c.Context(), os.Stdin, os.Stdout)
		},
	})
	return c
}

func benchMode(m bench.Mode) *cobra.Command {
	f := &benchFlags{}
	c := &cobra.Command{Use: m.Name, Short: "Measure " + m.Doc, Args: cobra.NoArgs}
	fl := c.Flags()
	fl.StringVar(&f.Target, "target", "", "URL of a running server, such as ws://127.0.0.1:8080/v1/ws or tls://127.0.0.1:7070")
	fl.BoolVar(&f.TLS, "tls", false, "a server of the benchmark's own speaks TLS")
	fl.BoolVar(&f.TCP, "tcp", false, "clients of a server of the benchmark's own come over TCP instead of WebSocket")
	fl.StringVar(&f.Admin, "admin", "", "admin API of --target's server, such as http://127.0.0.1:9090")
	fl.StringVar(&f.tokenFile, "admin-token-file", "", "file with the admin token of --target's server, which is data_dir/admin.token")
	fl.IntSliceVar(&f.PIDs, "pid", nil, "process of --target's server, whose CPU and memory are measured; may be repeated")
	fl.StringVar(&f.Plugins, "plugins", defaultPlugins(), "folder of plugins for a server of the benchmark's own; empty: none")
	fl.StringArrayVar(&f.keys, "set", nil, "KEY=VALUE of the configuration of a server of the benchmark's own; may be repeated")
	fl.IntVar(&f.Cluster.Nodes, "nodes", 1, "nodes of a server of the benchmark's own; 2 and more share a Redis of its own")
	fl.StringVar(&f.redis, "redis", "redis-server", "program of that Redis")
	fl.StringVar(&f.Cluster.Fsync, "appendfsync", "always", "how that Redis keeps what it has answered: always, everysec or no")
	fl.BoolVar(&f.onRedis, "on-redis", false, "one node too has a Redis instead of the embedded store")
	fl.BoolVar(&f.Cluster.Spread, "spread", false, "members are on every node, and not only on those without publishers")
	fl.StringVar(&f.Data, "data", "", "folder on the disk that takes the server's data; empty: the system's for temporary files")
	fl.StringVar(&f.report, "report", "", "folder for a report: one HTML page with plots that needs nothing else")
	fl.BoolVar(&f.json, "json", false, "print the result as JSON")
	fl.IntVar(&f.members, "members", m.Load.RoomSize, "members of one room")
	fl.IntVar(&f.rooms, "rooms", m.Load.Members/m.Load.RoomSize, "rooms")
	fl.IntVar(&f.stalled, "stalled", 0, "connections more in the first room that stop reading once they have joined")
	fl.IntVar(&f.publishers, "publishers", m.Load.Publishers, "connections that send; they join nothing")
	fl.Float64Var(&f.rate, "rate", m.Load.Rate, "messages a second of all publishers together (open loop)")
	fl.BoolVar(&f.closed, "closed", false, "closed loop: a publisher sends its next message when one before is acknowledged; short for --closed-by acks")
	fl.StringVar(&f.closedBy, "closed-by", "", "closed loop: what lets a publisher send its next message: acks, or arrivals: one before was read by every member of its room, on whichever node")
	fl.IntVar(&f.inFlight, "in-flight", 4, "closed loop: messages each publisher has sent that are not acknowledged, or with --closed-by arrivals not read by every member")
	fl.IntVar(&f.textBytes, "text", m.Load.TextBytes, "bytes of a message's text")
	fl.DurationVar(&f.warmup, "warmup", m.Load.Warmup, "time of sending before measuring")
	fl.DurationVar(&f.duration, "duration", m.Load.Duration, "time measured")
	fl.IntVar(&f.parallel, "parallel", m.Load.Parallel, "connections being opened at once, by each client process")
	fl.IntVar(&f.perSecond, "connect-rate", 0, "connections opened in a second; 0: as fast as it goes")
	fl.BoolVar(&f.storm, "storm", false, "open all connections at the same moment")
	fl.IntVar(&f.arrivals, "arrivals", m.Load.Arrivals, "storm: connections that arrive at the same moment")
	fl.IntVar(&f.merges, "merges", m.Load.Merges, "policy: changes of the rules that are merged, first with a webhook, then without")
	fl.StringArrayVar(&f.tunings, "tuning", nil, `gc, gc-loop, gomaxprocs: a setting to measure, such as "GOGC=off GOMEMLIMIT=1GiB"; may be repeated; in other modes one that the server is started with`)
	_ = c.RegisterFlagCompletionFunc("closed-by", cobra.FixedCompletions([]string{byAcks, byArrivals}, cobra.ShellCompDirectiveNoFileComp))
	c.RunE = func(c *cobra.Command, _ []string) error { return f.run(c, m) }
	return c
}

// defaultPlugins is the folder that `make plugins` fills.
func defaultPlugins() string {
	const dir = "bin/plugins"
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

// check refuses loads that measure nothing, before a server is started for them.
func (f *benchFlags) check() error {
	for _, v := range []struct {
		flag           string
		n, least, most int
	}{
		{"members", f.members, 1, 1_000_000},
		{"rooms", f.rooms, 1, 1_000_000},
		{"publishers", f.publishers, 0, 100_000},
		{"stalled", f.stalled, 0, 1_000_000},
		{"parallel", f.parallel, 1, 1_000_000},
		{"in-flight", f.inFlight, 1, 1_000_000},
		{"merges", f.merges, 0, 100_000},
	} {
		if v.n < v.least || v.n > v.most {
			return fmt.Errorf("--%s %d: %d to %d are possible", v.flag, v.n, v.least, v.most)
		}
	}
	switch {
	case f.duration < 0 || f.warmup < 0:
		return fmt.Errorf("--duration %v --warmup %v: a time cannot be negative", f.duration, f.warmup)
	case f.Target == "" && (len(f.PIDs) > 0 || f.Admin != "" || f.tokenFile != ""):
		return errors.New("--pid, --admin and --admin-token-file describe the server of --target, which is not set")
	case f.Target != "" && (f.Cluster.Nodes != 1 || f.onRedis):
		return errors.New("--nodes and --on-redis describe a server of the benchmark's own; there can be no --target")
	case f.closedBy != "" && f.closedBy != byAcks && f.closedBy != byArrivals:
		return fmt.Errorf("--closed-by %s: %s or %s is possible", f.closedBy, byAcks, byArrivals)
	case f.closedBy == byArrivals && (f.Cluster.Nodes > 2 || f.Cluster.Nodes == 2 && f.Cluster.Spread):
		return fmt.Errorf("--closed-by %s: all members must be on one node, which they are with --nodes 1 and, without --spread, with --nodes 2", byArrivals)
	case f.closedBy == byArrivals && f.members*f.rooms+f.publishers > load.MaxConnections:
		return fmt.Errorf("--closed-by %s: %d members in %d rooms are more than one client process holds with the publishers: %d connections", byArrivals, f.members*f.rooms, f.rooms, load.MaxConnections)
	case f.Cluster.Nodes < 1:
		return fmt.Errorf("--nodes %d: at least 1 is possible", f.Cluster.Nodes)
	}
	return nil
}

func (f *benchFlags) run(c *cobra.Command, m bench.Mode) (err error) {
	if f.Exe, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := f.check(); err != nil {
		return err
	}
	f.Keys = map[string]string{}
	for _, kv := range f.keys {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return fmt.Errorf("--set %s: KEY=VALUE is expected", kv)
		}
		f.Keys[k] = v
	}
	if f.tokenFile != "" {
		token, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return fmt.Errorf("read the admin token: %w", err)
		}
		f.Token = strings.TrimSpace(string(token))
	}
	f.Load = bench.Load{
		Members: f.members * f.rooms, RoomSize: f.members, Stalled: f.stalled, Publishers: f.publishers, Rate: f.rate, TextBytes: f.textBytes,
		Warmup: f.warmup, Duration: f.duration, Parallel: f.parallel, PerSecond: f.perSecond, Arrivals: f.arrivals, Merges: f.merges,
	}
	f.Rules = rego.Files()
	if f.Cluster.Nodes > 1 || f.onRedis {
		f.Cluster.Redis = f.redis
	}
	if f.closed || f.closedBy != "" {
		f.Load.Rate, f.Load.InFlight, f.Load.ByArrival = 0, f.inFlight, f.closedBy == byArrivals
		if !c.Flags().Changed("publishers") {
			f.Load.Publishers = closedPublishers
		}
	}
	if f.storm {
		f.Load.Parallel = f.Load.Members
	}
	for _, text := range f.tunings {
		t, err := bench.ParseTuning(text)
		if err != nil {
			return fmt.Errorf("--tuning %s: %w", text, err)
		}
		f.Tunings = append(f.Tunings, t)
	}
	if isTerminal(os.Stderr) {
		f.Progress = os.Stderr
	}
	sections, err := bench.New(f.Config).Run(c.Context(), m)
	write := report.Text
	if f.json {
		write = report.JSON
	}
	err = errors.Join(write(c.OutOrStdout(), sections), err)
	if f.report != "" && len(sections) > 0 {
		err = errors.Join(err, f.writeReport(m.Name, sections))
	}
	return err
}

// writeReport writes the page into the folder, under a name of its own.
func (f *benchFlags) writeReport(mode string, sections []report.Section) error {
	if err := os.MkdirAll(f.report, 0o755); err != nil {
		return fmt.Errorf("make the report's folder: %w", err)
	}
	now := time.Now()
	path := filepath.Join(f.report, fmt.Sprintf("bench-%s-%s.html", mode, now.UTC().Format("20060102-150405")))
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make the report: %w", err)
	}
	err = report.HTML(file, "platform bench "+mode, now, sections)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write the report %s: %w", path, err)
	}
	fmt.Fprintln(os.Stderr, "report in", path)
	return nil
}

// What closes a loop.
const (
	byAcks     = "acks"
	byArrivals = "arrivals"
)

// closedPublishers is how many publishers a closed loop has: a connection's
// commands are carried out one after the other, so that it takes several to
// keep the store's group commit filled.
const closedPublishers = 16

// isTerminal reports whether f is a character device, as terminals are.
func isTerminal(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
