package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"parley/core/auth"
	"parley/core/cluster/objects"
	"parley/core/config"
	"parley/core/redis"
	"parley/core/transport/certs"
	"parley/plugins"
	"parley/policy/source"
)

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Check configuration, plugins and policy without starting",
		Args:  cobra.NoArgs,
	}
	load := configured(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		fmt.Fprintln(out, "config   ok")
		bad := !checkData(cfg, out)
		bad = !checkKey(cfg, out) || bad
		bad = !checkAdminToken(cfg, out) || bad
		bad = !checkTLS(cfg, out) || bad
		bad = !checkRedis(cfg, out) || bad
		bad = checkPlugins(c.Context(), cfg, out) || bad
		bad = !checkPolicy(c.Context(), cfg, out) || bad
		bad = !checkHook(cfg, out) || bad
		if bad {
			return errTold
		}
		return nil
	}
	return c
}

// checkData says whether data_dir is a folder, or could be made.
func checkData(cfg config.Config, out io.Writer) (ok bool) {
	for dir := cfg.DataDir; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil && info.IsDir() {
			return true
		} else if err == nil {
			err = fmt.Errorf("%s is a file", dir)
		} else if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)) && dir != filepath.Dir(dir) {
			continue
		}
		fmt.Fprintf(out, "data     refused: data_dir: %v\n", err)
		return false
	}
}

// checkAdminToken reads the token of the admin API, but where the start would
// make one.
func checkAdminToken(cfg config.Config, out io.Writer) (ok bool) {
	if cfg.Admin.Listen == "" {
		return true
	}
	file := cfg.Admin.TokenFile
	if file == "" {
		file = filepath.Join(cfg.DataDir, "admin.token")
		if _, err := os.Stat(file); err != nil {
			return true // checkData has looked at the folder
		}
	}
	if _, err := auth.LoadAdminToken(file); err != nil {
		fmt.Fprintf(out, "admin    refused: %v\n", err)
		return false
	}
	return true
}

// checkKey reads the key of tokens, but where the start would make one.
func checkKey(cfg config.Config, out io.Writer) (ok bool) {
	keys := authConfig(cfg)
	if _, err := os.Stat(keys.KeyFile); keys.CreateKey && errors.Is(err, fs.ErrNotExist) {
		return true
	}
	keys.CreateKey = false
	if _, err := auth.NewVerifier(keys); err != nil {
		fmt.Fprintf(out, "auth     refused: auth.jwt: %v\n", err)
		return false
	}
	return true
}

// checkTLS reads the certificate, where there is one.
func checkTLS(cfg config.Config, out io.Writer) (ok bool) {
	if !cfg.TLS.On() {
		return true
	}
	k, err := certs.New(certsConfig(cfg), slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Fprintf(out, "tls      refused: %v\n", err)
		return false
	}
	fmt.Fprintf(out, "tls      %s ok until %s\n", cfg.TLS.CertFile, k.NotAfter().UTC().Format(time.RFC3339))
	return true
}

// checkRedis reads the address and the files of the shared store, and asks
// nobody: platform doctor does.
func checkRedis(cfg config.Config, out io.Writer) (ok bool) {
	if cfg.Redis.URL == "" {
		return true
	}
	client, err := redis.Open(redisConfig(cfg), slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Fprintf(out, "redis    refused: %v\n", err)
		return false
	}
	defer client.Close()
	fmt.Fprintf(out, "redis    %s ok\n", client.Mode())
	if file := cfg.Cluster.SecretFile; file != "" {
		if _, err := objects.ReadSecrets(file); err != nil {
			fmt.Fprintf(out, "cluster  refused: cluster.secret_file: %v\n", err)
			return false
		}
		fmt.Fprintln(out, "cluster  sealed")
	}
	return true
}

// checkPlugins runs the whole load of every module and reports whether one
// was refused.
func checkPlugins(ctx context.Context, cfg config.Config, out io.Writer) (bad bool) {
	if cfg.Plugins.Dir == "" {
		fmt.Fprintln(out, "plugins  none: plugins.dir is not set")
		return false
	}
	entries, err := os.ReadDir(cfg.Plugins.Dir)
	if err != nil {
		fmt.Fprintf(out, "plugins  cannot be read: %v\n", err)
		return true
	}
	found := false
	for _, e := range entries {
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".wasm") || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		found = true
		path := filepath.Join(cfg.Plugins.Dir, e.Name())
		if _, err := plugins.Check(ctx, path, pluginConfig(cfg), slog.New(slog.DiscardHandler)); err != nil {
			fmt.Fprintf(out, "plugin   %s refused: %v\n", path, err)
			bad = true
			continue
		}
		fmt.Fprintf(out, "plugin   %s ok\n", path)
	}
	if !found {
		fmt.Fprintf(out, "plugins  none: no .wasm file in %s\n", cfg.Plugins.Dir)
	}
	return bad
}

// checkPolicy judges what the folder or the repository holds now, whatever the
// server has kept of an earlier commit.
func checkPolicy(ctx context.Context, cfg config.Config, out io.Writer) (ok bool) {
	from, err := policyConfig(cfg)
	if err != nil {
		fmt.Fprintf(out, "policy   %v\n", err)
		return false
	}
	if err := decisionConfig(cfg).Validate(); err != nil {
		fmt.Fprintf(out, "policy   %v\n", err)
		return false
	}
	from.Git.StateDir = ""
	src, err := source.Open(ctx, from, slog.New(slog.DiscardHandler))
	if ctx.Err() != nil {
		fmt.Fprintf(out, "policy   not looked at: %v\n", context.Cause(ctx))
		return false
	}
	if err != nil {
		fmt.Fprintf(out, "policy   refused: %v\n", err)
		return false
	}
	st := src.Status()
	if st.Git != nil && st.Git.Error != "" {
		fmt.Fprintf(out, "policy   the repository cannot be read: %s\n", st.Git.Error)
		return false
	}
	if st.Git != nil && st.Refused != nil {
		fmt.Fprintf(out, "policy   refused: %s: %v\n", st.Refused.Revision, st.Refused.Problems)
		return false
	}
	fmt.Fprintf(out, "policy   %s ok (%s)\n", st.Revision, st.Source)
	return true
}
