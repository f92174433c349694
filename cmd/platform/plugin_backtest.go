package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"parley/core/bench"
	"parley/plugins"
	"parley/plugins/backtest"
)

// exitChanged is the exit code of --exit-code when a verdict changed.
const exitChanged exitCode = 3

// evidencePage is how many records are asked for at a time.
const evidencePage = 500

// backtestFlags are those of `plugin backtest`.
type backtestFlags struct {
	hostFlags
	adminFlags
	against, room, from, dir string
	since                    time.Duration
	limit                    int
	exitCode, json           bool
}

func pluginBacktestCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "backtest NEW.wasm --against OLD.wasm|NAME",
		Short: "Judge recorded messages with two versions and show every verdict that changes",
		Long: "Fetch the messages that a running server judged (its evidence store), judge each with two versions of a plugin in\n" +
			"the server's own host, and show every verdict that changes, what fuel they use and how fast they are. Messages are\n" +
			"judged as they were recorded, byte for byte; nothing is stored or sent. --against takes a module, or the name of a\n" +
			"plugin in --dir or --data-dir. With --from the records come from a file of JSON lines.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: modules,
	}
	f := &backtestFlags{}
	f.hostFlags.add(c)
	f.adminFlags.add(c)
	fl := c.Flags()
	fl.StringVar(&f.against, "against", "", "the version to compare with: OLD.wasm, or a plugin's name")
	fl.StringVar(&f.dir, "dir", "", "the server's plugin folder, for --against NAME")
	fl.StringVar(&f.room, "room", "", "only messages of this room; empty: all")
	fl.DurationVar(&f.since, "since", 24*time.Hour, "only messages of that time until now")
	fl.StringVar(&f.from, "from", "", "read the records from this file, one JSON object a line, instead of a server; - is standard input")
	fl.IntVar(&f.limit, "limit", backtest.Defaults().Limit, "changes to show; the others are counted")
	fl.BoolVar(&f.exitCode, "exit-code", false, "exit with code 3 when a verdict changed")
	fl.BoolVar(&f.json, "json", false, "print the report as JSON")
	_ = c.MarkFlagRequired("against")
	_ = c.MarkFlagDirname("dir")
	_ = c.RegisterFlagCompletionFunc("against", func(c *cobra.Command, _ []string, part string) ([]string, cobra.ShellCompDirective) {
		return []string{"wasm"}, cobra.ShellCompDirectiveFilterFileExt
	})
	c.RunE = f.run
	return c
}

// oldModule finds what --against means.
func (f *backtestFlags) oldModule() (string, error) {
	dir := f.dir
	switch {
	case strings.HasSuffix(f.against, ".wasm"):
		return f.against, nil
	case !plugins.ValidName(f.against):
		return "", fmt.Errorf("--against %q is neither a module (NAME.wasm) nor a plugin's name", f.against)
	case dir == "" && f.dataDir == "":
		return "", fmt.Errorf("--against %s names a plugin: say with --dir or --data-dir where the server has it, or name its module", f.against)
	case dir == "":
		dir = filepath.Join(f.dataDir, "plugins")
	}
	return filepath.Join(dir, f.against+".wasm"), nil
}

func (f *backtestFlags) run(c *cobra.Command, args []string) (err error) {
	if f.limit < 0 || f.since <= 0 {
		return fmt.Errorf("--limit %d --since %v: neither can be negative, and no time holds no messages", f.limit, f.since)
	}
	path, err := f.oldModule()
	if err != nil {
		return err
	}
	before, err := f.loadUntested(c, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, before.close()) }()
	after, err := f.loadUntested(c, args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, after.close()) }()
	now := time.Now()
	source, closeSource, err := f.source(c, now)
	if err != nil {
		return err
	}
	defer closeSource()

	r, err := f.judge(c, before, after, source, now)
	if err != nil {
		return fmt.Errorf("backtest, after %d records: %w", r.Records, err)
	}
	if f.json {
		err = printJSON(c.OutOrStdout(), backtestJSON(r, before, after))
	} else {
		err = showBacktest(c.OutOrStdout(), r, before, after)
	}
	if err == nil && f.exitCode && r.Changed > 0 {
		return exitChanged
	}
	return err
}

// judge runs the backtest with a bar on a terminal. How much there will be is
// not known beforehand, but the records come in order of time.
func (f *backtestFlags) judge(c *cobra.Command, before, after *loaded, source backtest.Source, now time.Time) (backtest.Report, error) {
	cfg := backtest.Defaults()
	cfg.Limit = f.limit
	var records, changed, at atomic.Int64
	if isTerminal(os.Stderr) {
		began := now.Add(-f.since).UnixMilli()
		stop := bench.Progress(os.Stderr, "backtest", func() (float64, string) {
			part := float64(at.Load()-began) / float64(now.UnixMilli()-began)
			return part, fmt.Sprintf("%d messages, %d changed", records.Load(), changed.Load())
		})
		defer stop()
	}
	return backtest.Run(c.Context(), cfg, before, after, source, func(p backtest.Progress) {
		records.Store(int64(p.Records))
		changed.Store(int64(p.Changed))
		at.Store(p.Time)
	})
}

// source is where the records come from.
func (f *backtestFlags) source(c *cobra.Command, now time.Time) (s backtest.Source, done func() error, err error) {
	since := now.Add(-f.since).UnixMilli()
	switch f.from {
	case "":
		return &evidencePages{admin: &f.adminFlags, room: f.room, since: since}, func() error { return nil }, nil
	case "-":
		return backtest.Filtered(backtest.Lines(c.InOrStdin()), f.room, since), func() error { return nil }, nil
	}
	file, err := os.Open(f.from)
	if err != nil {
		return nil, nil, fmt.Errorf("read the records: %w", err)
	}
	if !c.Flags().Changed("since") { // a file says itself how much it holds
		since = 0
	}
	return backtest.Filtered(backtest.Lines(file), f.room, since), file.Close, nil
}

// evidencePages is a running server's store, page by page.
type evidencePages struct {
	admin *adminFlags
	room  string
	since int64 // Unix ms
	after string
	ended bool
}

// Next implements backtest.Source.
func (e *evidencePages) Next(ctx context.Context) ([]backtest.Record, error) {
	if e.ended {
		return nil, io.EOF
	}
	q := url.Values{"since": {strconv.FormatInt(e.since, 10)}, "limit": {strconv.Itoa(evidencePage)}}
	if e.room != "" {
		q.Set("room", e.room)
	}
	if e.after != "" {
		q.Set("after", e.after)
	}
	var page struct {
		Records []backtest.Record
		Next    string
	}
	if err := e.admin.ask(ctx, http.MethodGet, "/v1/evidence?"+q.Encode(), nil, &page); err != nil {
		return nil, err
	}
	if page.Next != "" && page.Next == e.after {
		return nil, errors.New("the server gives the same page again and again")
	}
	e.after, e.ended = page.Next, page.Next == ""
	return page.Records, nil
}
