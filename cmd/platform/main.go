// Command platform is Parley: the chat server and the tools around it. This
// package only wires the others together.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"parley/core/config"
	"parley/core/tuning"
)

// version is set by the Makefile.
var version = "dev"

// errTold says that the command has printed what is wrong.
var errTold = errors.New("told")

// exitCode ends the process with that code; the command has printed why.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func main() {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		tuning.QuietMonitor() // the first time, this is where the process begins anew
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2) // both may come before the first is looked at
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go heed(signals, cancel)
	if err := root().ExecuteContext(ctx); err != nil {
		var code exitCode
		if errors.As(err, &code) {
			os.Exit(int(code))
		}
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			err = context.Cause(ctx) // the signal, which says more
		}
		if !errors.Is(err, errTold) {
			fmt.Fprintln(os.Stderr, "platform:", err)
		}
		os.Exit(1)
	}
}

// heed asks for an end at the first signal and lets the second have its default
// effect: the end, at once. It runs as long as the process does.
func heed(signals chan os.Signal, cancel context.CancelCauseFunc) {
	cancel(fmt.Errorf("%v signal received", <-signals))
	second := <-signals
	signal.Reset()
	if self, err := os.FindProcess(os.Getpid()); err == nil && self.Signal(second) == nil {
		select {} // it arrives any moment
	}
	os.Exit(1) // a system where nobody can signal himself
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "platform",
		Short: "Parley: a self-hosted chat server, moderated by WebAssembly, governed by Rego",
		Long: "Parley: a self-hosted chat server, moderated by WebAssembly, governed by Rego.\n\n" +
			"`platform run` starts a server, `platform doctor` says what the machine lacks for it, and\n" +
			"`platform completion bash` prints what lets the shell complete commands and flags.",
		Version:       versionText(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.AddCommand(runCommand(), checkCommand(), doctorCommand(), tokenCommand(), benchCommand(), versionCommand(), diagCommand(), nodesCommand(), pluginCommand(), trialCommand(), explainCommand(), whyCommand(), eraseCommand(), backupCommand(), restoreCommand(), migrateCommand(), policyCommand(), policyTrialCommand(), releaseCommand(), readyCommand())
	c.AddCommand(mirrorCommand(), workerCommand())
	c.AddCommand(experimentsCommands()...)
	c.SetVersionTemplate("{{.Version}}\n")
	helpful(c)
	return c
}

// configured adds --config and a flag for every key, and returns how to load
// the configuration when the command runs. The help shows the keys that begin
// with one of shown, all of them without any; a flag is taken all the same.
func configured(c *cobra.Command, shown ...string) func() (config.Config, error) {
	file := c.Flags().String("config", "", "configuration file (YAML); see docs/configuration.md")
	_ = c.MarkFlagFilename("config", "yaml", "yml")
	values := make(map[string]*string)
	for _, k := range config.Keys() {
		doc := k.Doc
		if k.Allowed != "" {
			doc += " (" + k.Allowed + ")"
		}
		values[k.Name] = c.Flags().String(k.Name, k.Default, doc)
		begins := func(part string) bool { return strings.HasPrefix(k.Name, part) }
		c.Flags().Lookup(k.Name).Hidden = len(shown) > 0 && !slices.ContainsFunc(shown, begins)
	}
	return func() (config.Config, error) {
		given := make(map[string]string)
		for name, v := range values {
			if c.Flags().Changed(name) {
				given[name] = *v
			}
		}
		path := *file
		if path == "" {
			path = os.Getenv(config.EnvFile)
		}
		return config.Load(path, os.Environ(), given)
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), versionText())
			return err
		},
	}
}
