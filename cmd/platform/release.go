package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"parley/core/release"
)

// Exit codes of `platform release watch`.
const (
	exitBad     exitCode = 3
	exitUnknown exitCode = 4
)

func releaseCommand() *cobra.Command {
	c := &cobra.Command{Use: "release", Short: "Watch a new release of this server on trial"}
	c.AddCommand(releaseWatchCommand())
	return c
}

func releaseWatchCommand() *cobra.Command {
	cfg := release.Defaults()
	var patcher release.Patcher
	var patches []string
	c := &cobra.Command{
		Use:   "watch",
		Short: "Watch a canary's errors and times in Prometheus, and take it back when they are too bad",
		Long: "Watch a few nodes of a new release (the canary) beside those in force: the share of failed commands and the p99 of\n" +
			"sends, as Prometheus has them. Beyond the bounds, and worse than the nodes in force, the canary is taken back with\n" +
			"the requests of --patch, in their order.\n\n" +
			"The exit code is 0 when the trial ended well, 3 when the canary was taken back, 4 when too little was seen to decide.\n" +
			"The chart in deploy/helm runs this beside a canary.",
		Args: cobra.NoArgs,
		Example: "  platform release watch --prometheus http://prometheus:9090 --for 30m \\\n" +
			"    --patch https://kubernetes.default.svc/apis/networking.istio.io/v1/namespaces/chat/virtualservices/parley=rollback.json",
	}
	fl := c.Flags()
	fl.StringVar(&cfg.Prometheus, "prometheus", "", "URL of the Prometheus that scrapes the nodes")
	fl.StringVar(&cfg.Canary, "canary", cfg.Canary, "label matcher of the nodes on trial")
	fl.StringVar(&cfg.Stable, "stable", cfg.Stable, "label matcher of the nodes in force")
	fl.Float64Var(&cfg.ErrorRate, "error-rate", cfg.ErrorRate, "share of commands that may fail")
	fl.Float64Var(&cfg.ErrorFactor, "error-factor", cfg.ErrorFactor, "a higher share is kept while it is not so many times that of the nodes in force; 0: never")
	fl.DurationVar(&cfg.P99, "p99", cfg.P99, "time a send may take at p99")
	fl.Float64Var(&cfg.P99Factor, "p99-factor", cfg.P99Factor, "a longer time is kept while it is not so many times that of the nodes in force; 0: never")
	fl.IntVar(&cfg.Restarts, "restarts", cfg.Restarts, "starts of the canary's processes within a window beyond which it is taken back")
	fl.DurationVar(&cfg.Window, "window", cfg.Window, "time looked at")
	fl.DurationVar(&cfg.Every, "every", cfg.Every, "time between two looks")
	fl.IntVar(&cfg.Breaches, "breaches", cfg.Breaches, "looks beyond a bound, without a good one between them, after which the canary is taken back")
	fl.Float64Var(&cfg.Least, "least", cfg.Least, "commands in a window below which it decides nothing")
	fl.DurationVar(&cfg.For, "for", cfg.For, "how long the trial takes")
	fl.StringArrayVar(&patches, "patch", nil, "URL=FILE: a JSON merge patch that takes the canary back; may be repeated")
	fl.StringVar(&patcher.TokenFile, "token-file", "", "file with the bearer token for --patch")
	fl.StringVar(&patcher.CAFile, "ca-file", "", "file with the certificates that --patch trusts")
	c.RunE = func(c *cobra.Command, _ []string) error {
		back, err := readPatches(patches)
		if err != nil {
			return err
		}
		w, err := release.New(cfg, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		if err != nil {
			return err
		}
		verdict, why, err := w.Run(c.Context())
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		switch verdict {
		case release.Good:
			fmt.Fprintln(out, "the canary is good:", why)
			return nil
		case release.Unknown:
			fmt.Fprintln(out, "nothing is known of the canary:", why)
			return exitUnknown
		}
		fmt.Fprintln(out, "the canary is bad:", why)
		if err := patcher.Apply(c.Context(), back); err != nil {
			return fmt.Errorf("take the canary back: %w", err)
		}
		fmt.Fprintf(out, "taken back with %d patches\n", len(back))
		return exitBad
	}
	return c
}

// readPatches reads the files of URL=FILE, before the trial and not when they
// are needed.
func readPatches(all []string) (patches []release.Patch, err error) {
	for _, text := range all {
		at := strings.LastIndexByte(text, '=')
		if at <= 0 || at == len(text)-1 {
			return nil, fmt.Errorf("--patch %s: URL=FILE is expected", text)
		}
		body, err := os.ReadFile(text[at+1:])
		if err != nil {
			return nil, fmt.Errorf("--patch %s: %w", text, err)
		}
		patches = append(patches, release.Patch{URL: text[:at], Body: body})
	}
	return patches, nil
}
