//go:build linux

// Command experiments repeats the experiments of core/bench/experiments and
// writes docs/experiments.md. `make experiments` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"parley/core/bench"
	"parley/core/bench/experiments"
	"parley/core/bench/report"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "experiments:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) == 2 && args[0] == "child" {
		child, ok := experiments.Children()[args[1]]
		if !ok {
			return fmt.Errorf("there is no child %q", args[1])
		}
		return child(ctx, in, out)
	}
	fl := flag.NewFlagSet("experiments", flag.ContinueOnError)
	platform := fl.String("platform", "bin/platform", "the server's `binary`")
	plugins := fl.String("plugins", "bin/plugins", "`folder` of plugins; empty: none")
	docs := fl.String("docs", "", "`folder` for experiments.md and its plots; empty: results are printed only")
	only := fl.String("only", "", "`names` of experiments, separated by commas; empty: all")
	scale := fl.Float64("scale", 1, "below 1: fewer connections for a shorter time, to test the experiments and not to learn from")
	if err := fl.Parse(args); err != nil {
		return err
	}
	if *scale <= 0 || *scale > 1 {
		return fmt.Errorf("--scale %v is not within 0 and 1", *scale)
	}
	chosen, err := experiments.Find(strings.FieldsFunc(*only, func(r rune) bool { return r == ',' || r == ' ' }))
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	lab := &experiments.Lab{Exe: self, Bench: bench.New(bench.Config{Exe: *platform, Plugins: *plugins, Progress: terminal()}), Scale: *scale}
	var failed error
	for _, e := range chosen {
		began := time.Now()
		fmt.Fprintf(out, "# %s: %s\n", e.Name, e.Doc)
		sections, err := e.Run(ctx, lab)
		if err != nil { // the others may go well
			failed = errors.Join(failed, fmt.Errorf("%s: %w", e.Name, err))
			continue
		}
		if err := report.Text(out, sections); err != nil {
			return err
		}
		fmt.Fprintf(out, "(%v)\n\n", time.Since(began).Round(time.Second))
		if *docs != "" {
			if err := experiments.Keep(*docs, e, bench.Machine(), sections); err != nil {
				return err
			}
		}
	}
	if *docs != "" {
		failed = errors.Join(failed, experiments.Page(*docs))
	}
	return failed
}

// terminal is where progress is drawn, nil when nobody looks.
func terminal() io.Writer {
	st, err := os.Stderr.Stat()
	if err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return os.Stderr
}
