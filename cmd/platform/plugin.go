package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"parley/plugins"
)

// pluginCommand is the author's and the operator's side of plugins.
func pluginCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "plugin",
		Short: "Write, test, install and roll out moderation plugins",
		Long: "Write, test, install and roll out moderation plugins. From nothing to a live verdict:\n\n" +
			"  platform plugin new --lang go hashtags\n" +
			"  platform plugin build hashtags\n" +
			"  platform plugin install hashtags/hashtags.wasm --data-dir data",
	}
	c.AddCommand(
		pluginNewCommand(), pluginBuildCommand(),
		pluginTestCommand(), pluginRunCommand(), pluginBenchCommand(), pluginInspectCommand(),
		pluginKeygenCommand(), pluginSignCommand(), pluginInstallCommand(),
		pluginListCommand(), pluginRolloutCommand(), pluginBacktestCommand(),
	)
	return c
}

// hostFlags are those of commands that run a module in the server's own host.
type hostFlags struct {
	cache   string
	verbose bool
}

func (f *hostFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.cache, "cache", defaultCache(), "folder for compiled modules; empty: compile each time")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "print what the host logs")
	_ = c.MarkFlagDirname("cache")
}

// defaultCache is where compiled modules are kept from one command to the
// next: a Go guest takes half a second to compile.
func defaultCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "" // no home: compile each time
	}
	return filepath.Join(dir, "parley", "plugins")
}

// config is the host's, with the server's default limits. What the command
// runs is tried in a process of its own first, as a server does.
func (f *hostFlags) config() plugins.Config {
	cfg := plugins.Defaults()
	trial(&cfg)
	cfg.StderrEvery = 0
	cfg.FaultLimit = 0 // no quarantine: each message is judged, however many fail
	cfg.CacheDir = f.cache
	return cfg
}

// loaded is a module in a host of the command's own.
type loaded struct {
	*plugins.Plugin
	plugins.File // as read; what was loaded is what it holds
	host         *plugins.Host
	done         func() error // takes a cache of the moment away
}

// Name returns the plugin's name.
func (l *loaded) Name() string { return l.File.Name }

func (l *loaded) close() error { return errors.Join(l.host.Close(), l.done()) }

// load runs the whole pipeline on one module file, as a server does. What the
// guest prints goes to the command's standard error.
func (f *hostFlags) load(c *cobra.Command, path string) (*loaded, error) {
	return f.loadAs(c, path, func(m plugins.Manifest) plugins.Manifest { return m })
}

// loadUntested is load for commands with which an author finds out why a
// vector fails: the vectors are not run, and a signature that the last build
// made wrong does not matter.
func (f *hostFlags) loadUntested(c *cobra.Command, path string) (*loaded, error) {
	return f.loadAs(c, path, func(m plugins.Manifest) plugins.Manifest {
		m.Vectors, m.Signature, m.SHA256 = nil, nil, ""
		return m
	})
}

// loadBuilt is load for a module that was built a moment ago: a digest or
// signature in its manifest is of an older one.
func (f *hostFlags) loadBuilt(c *cobra.Command, path string) (*loaded, error) {
	return f.loadAs(c, path, func(m plugins.Manifest) plugins.Manifest {
		m.Signature, m.SHA256 = nil, ""
		return m
	})
}

func (f *hostFlags) loadAs(c *cobra.Command, path string, as func(plugins.Manifest) plugins.Manifest) (*loaded, error) {
	path, err := module(path)
	if err != nil {
		return nil, err
	}
	cfg := f.config()
	file, err := plugins.ReadFile(path, cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	done := func() error { return nil }
	if cfg.CacheDir == "" { // what a trial in a process of its own compiles comes back through one
		if cfg.CacheDir, err = os.MkdirTemp("", "parley-plugins-"); err != nil {
			return nil, fmt.Errorf("make a cache for the moment: %w", err)
		}
		done = func() error { return os.RemoveAll(cfg.CacheDir) }
	}
	host, err := plugins.NewHost(cfg, f.logger(c.ErrOrStderr()))
	if err != nil {
		return nil, errors.Join(err, done())
	}
	p, err := host.Load(c.Context(), file.Name, file.Wasm, as(file.Manifest))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), host.Close(), done())
	}
	return &loaded{p, file, host, done}, nil
}

func (f *hostFlags) logger(out io.Writer) *slog.Logger {
	level := slog.LevelError + 1 // failures are in the commands' own output
	if f.verbose {
		level = slog.LevelDebug
	}
	return slog.New(guestLines{slog.NewTextHandler(out, &slog.HandlerOptions{Level: level}), out})
}

// guestLines is a handler that always prints what guests write to their
// standard error, bare: for an author that is half of the debugger.
type guestLines struct {
	slog.Handler
	out io.Writer
}

func (h guestLines) Enabled(ctx context.Context, l slog.Level) bool {
	return l == slog.LevelWarn || h.Handler.Enabled(ctx, l)
}

func (h guestLines) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == plugins.LogStderr {
		var err error
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "text" {
				_, err = fmt.Fprintf(h.out, "plugin says: %s\n", plain(a.Value.String()))
			}
			return err == nil
		})
		return err
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h guestLines) WithAttrs(as []slog.Attr) slog.Handler {
	return guestLines{h.Handler.WithAttrs(as), h.out}
}

func (h guestLines) WithGroup(name string) slog.Handler {
	return guestLines{h.Handler.WithGroup(name), h.out}
}

// module makes sure that a path names a module, and says so where somebody
// named the project instead.
func module(path string) (string, error) {
	if strings.HasSuffix(path, ".wasm") {
		return path, nil
	}
	return "", fmt.Errorf("%s is no module: want NAME.wasm, which `platform plugin build` makes", path)
}

// modules completes an argument with module files.
func modules(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"wasm"}, cobra.ShellCompDirectiveFilterFileExt
}

// printJSON is for programs.
func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
