package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/core/bench"
	"parley/core/bench/experiments"
	"parley/core/bench/report"
)

// experimentsFlags are the flags of `platform experiments`.
type experimentsFlags struct {
	bench.Config
	docs  string
	only  []string
	scale float64
	runs  int
}

// experimentsCommands are what `platform` has on Linux alone: the experiments
// need its namespaces and its sockets.
func experimentsCommands() []*cobra.Command {
	f := &experimentsFlags{}
	c := &cobra.Command{
		Use:   "experiments",
		Short: "Repeat the experiments of docs/experiments.md on this machine",
		Long: "Repeat the experiments of docs/experiments.md on this machine. All of them take hours, and those with a network to\n" +
			"break need root. `make experiments` writes the page.",
		Args: cobra.NoArgs,
	}
	fl := c.Flags()
	fl.StringVar(&f.Plugins, "plugins", defaultPlugins(), "folder of plugins; empty: none")
	fl.StringVar(&f.docs, "docs", "", "folder for experiments.md and its plots; empty: results are printed only")
	fl.StringSliceVar(&f.only, "only", nil, "names of experiments: "+names()+"; empty: all")
	fl.Float64Var(&f.scale, "scale", 1, "below 1: fewer connections for a shorter time, to test the experiments and not to learn from")
	fl.IntVar(&f.runs, "runs", 3, "how often each setting is measured; the page has the median")
	c.RunE = func(c *cobra.Command, _ []string) error { return f.run(c.Context(), c.OutOrStdout()) }
	c.AddCommand(&cobra.Command{
		Use: experiments.ChildCommand, Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			child, ok := experiments.Children()[args[0]]
			if !ok {
				return fmt.Errorf("there is no child %q", args[0])
			}
			return child(c.Context(), c.InOrStdin(), c.OutOrStdout())
		},
	})
	return []*cobra.Command{c}
}

// names lists the experiments in the order of the page.
func names() string {
	var all []string
	for _, e := range experiments.All() {
		all = append(all, e.Name)
	}
	return strings.Join(all, ", ")
}

func (f *experimentsFlags) run(ctx context.Context, out io.Writer) (err error) {
	if f.scale <= 0 || f.scale > 1 {
		return fmt.Errorf("--scale %v is not within 0 and 1", f.scale)
	}
	if f.runs < 1 || f.runs > 99 {
		return fmt.Errorf("--runs %d is not within 1 and 99", f.runs)
	}
	chosen, err := experiments.Find(f.only)
	if err != nil {
		return err
	}
	if f.Exe, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if isTerminal(os.Stderr) {
		f.Progress = os.Stderr
	}
	lab := &experiments.Lab{Bench: bench.New(f.Config), Scale: f.scale, Runs: f.runs}
	var failed error
	for _, e := range chosen {
		if err := f.one(ctx, lab, e, out); err != nil { // the others may go well
			failed = errors.Join(failed, fmt.Errorf("%s: %w", e.Name, err))
		}
	}
	if f.docs != "" {
		failed = errors.Join(failed, experiments.Page(f.docs))
	}
	return failed
}

// one runs an experiment, prints what came out, and keeps it for the page.
func (f *experimentsFlags) one(ctx context.Context, lab *experiments.Lab, e experiments.Experiment, out io.Writer) error {
	began := time.Now()
	fmt.Fprintf(out, "# %s: %s\n", e.Name, e.Doc)
	sections, err := e.Run(ctx, lab)
	if err != nil {
		return err
	}
	if err := report.Text(out, sections); err != nil {
		return err
	}
	fmt.Fprintf(out, "(%v)\n\n", time.Since(began).Round(time.Second))
	if f.docs == "" {
		return nil
	}
	return experiments.Keep(f.docs, e, bench.Machine(), sections)
}
