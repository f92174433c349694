package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"parley/core/bench"
	"parley/core/bench/failover"
	"parley/core/bench/report"
)

// failoverCommand is `platform bench failover`.
func failoverCommand() *cobra.Command {
	cfg := failover.Config{Cluster: bench.Cluster{Nodes: 3, Redis: "redis-server", Fsync: "always"}}
	var inJSON bool
	c := &cobra.Command{
		Use:   "failover",
		Short: "Measure what clients notice when nodes are killed: lost and duplicated messages, silence",
		Long: "People talk through several nodes while nodes are killed with kill -9 and started again. Every client keeps a log of\n" +
			"what it sent and saw; all logs are checked against the room's history at the end. Exit code 1 says that a message was\n" +
			"lost, duplicated or out of order. With --target the nodes are yours, and so is breaking them.",
		Args: cobra.NoArgs,
	}
	fl := c.Flags()
	fl.StringSliceVar(&cfg.Targets, "target", nil, "URLs of nodes that run, such as ws://127.0.0.1:8080/v1/ws or tcp://127.0.0.1:7070, with commas between them")
	fl.IntVar(&cfg.Cluster.Nodes, "nodes", cfg.Cluster.Nodes, "nodes of the benchmark's own, on a Redis of its own")
	fl.StringVar(&cfg.Cluster.Redis, "redis", cfg.Cluster.Redis, "program of that Redis")
	fl.StringVar(&cfg.Cluster.Fsync, "appendfsync", cfg.Cluster.Fsync, "how that Redis keeps what it has answered: always, everysec or no")
	fl.StringVar(&cfg.Settings.Plugins, "plugins", defaultPlugins(), "folder of plugins for nodes of the benchmark's own; empty: none")
	fl.StringVar(&cfg.Settings.Data, "data", "", "folder on the disk that takes the nodes' data; empty: the system's for temporary files")
	fl.IntVar(&cfg.Clients, "clients", 30, "connections, spread over the nodes")
	fl.IntVar(&cfg.Talkers, "talkers", 12, "of them, how many send")
	fl.Float64Var(&cfg.Rate, "rate", 120, "messages a second of all talkers together")
	fl.IntVar(&cfg.Kills, "kills", 3, "nodes of the benchmark's own that are killed, one after the other")
	fl.DurationVar(&cfg.Down, "down", 2*time.Second, "how long a killed node is away")
	fl.DurationVar(&cfg.Duration, "duration", 2*time.Second, "talk before the first kill and after each restart; with --target all of the talk (30s by default)")
	fl.BoolVar(&inJSON, "json", false, "print the result as JSON")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		if len(cfg.Targets) > 0 {
			for _, flag := range []string{"nodes", "redis", "appendfsync", "plugins", "data", "kills", "down"} {
				if c.Flags().Changed(flag) {
					return fmt.Errorf("--%s describes nodes of the benchmark's own; there can be no --target", flag)
				}
			}
			if !c.Flags().Changed("duration") {
				cfg.Duration = 30 * time.Second
			}
		}
		if cfg.Settings.Exe, err = os.Executable(); err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		cfg.Say = func(format string, args ...any) { fmt.Fprintf(c.ErrOrStderr(), format+"\n", args...) }
		sections, err := failover.Run(c.Context(), cfg)
		write := report.Text
		if inJSON {
			write = report.JSON
		}
		return errors.Join(write(c.OutOrStdout(), sections), err)
	}
	return c
}
