package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/plugins"
	"parley/sdk/project"
)

func pluginNewCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "new --lang LANGUAGE NAME",
		Short: "Begin a plugin: a folder that builds and passes its own test, with the SDK inside",
		Long: "Begin a plugin: a folder NAME that builds and passes its own test, with the SDK's source inside, so that it needs\n" +
			"nothing of this repository. NAME may be a path; the plugin's name is its last part. The languages are " +
			strings.Join(project.Languages(), ", ") + ".",
		Args: cobra.ExactArgs(1),
	}
	lang := c.Flags().String("lang", "", "language: "+strings.Join(project.Languages(), ", "))
	_ = c.MarkFlagRequired("lang")
	_ = c.RegisterFlagCompletionFunc("lang", cobra.FixedCompletions(project.Languages(), cobra.ShellCompDirectiveNoFileComp))
	c.RunE = func(c *cobra.Command, args []string) error {
		language, err := project.Parse(*lang)
		if err != nil {
			return fmt.Errorf("--lang: %w", err)
		}
		dir := filepath.Clean(args[0])
		name := filepath.Base(dir)
		if !plugins.ValidName(name) {
			return fmt.Errorf("%q is not a plugin name: want %s", name, plugins.NameRule)
		}
		files, err := project.New(language, name, dir)
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		fmt.Fprintf(out, "%s: %d files; the rule is in %s\n\nNext:\n", dir, len(files), filepath.Join(dir, project.Rule(language)))
		fmt.Fprintf(out, "  platform plugin build %s\n", dir)
		fmt.Fprintf(out, "  platform plugin install %s --data-dir data   # the running server's; it judges a moment later\n", filepath.Join(dir, name+".wasm"))
		_, err = fmt.Fprintf(out, "and to work on it: platform plugin test %s; platform plugin run %s\n", dir, filepath.Join(dir, name+".wasm"))
		return err
	}
	return c
}

func pluginBuildCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Compile a project into NAME.wasm and load it as the server would",
		Args:  cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
	var host hostFlags
	host.add(c)
	to := c.Flags().StringP("out", "o", "", "folder for NAME.wasm and NAME.json; empty: the project's own")
	_ = c.MarkFlagDirname("out")
	c.RunE = func(c *cobra.Command, args []string) error {
		p, err := project.Open(argument(args, "."))
		if err != nil {
			return err
		}
		_, err = host.build(c, p, *to, c.OutOrStdout())
		return err
	}
	return c
}

// argument is the first one, or what stands for it.
func argument(args []string, otherwise string) string {
	if len(args) == 0 {
		return otherwise
	}
	return args[0]
}

// build compiles p and loads the result; a module that the server would refuse
// is an error here already. It returns where the module is. The project's own
// copy is replaced only by a build that worked.
func (f *hostFlags) build(c *cobra.Command, p project.Project, to string, out io.Writer) (string, error) {
	began := time.Now()
	path := p.Wasm()
	if to != "" {
		if err := os.MkdirAll(to, 0o755); err != nil {
			return "", fmt.Errorf("make the folder: %w", err)
		}
		path = filepath.Join(to, p.Name+".wasm")
		if err := copyManifest(p.Manifest(), filepath.Join(to, p.Name+".json")); err != nil {
			return "", err
		}
	}
	if err := p.Build(c.Context(), path, c.ErrOrStderr()); err != nil {
		return "", err
	}
	built := time.Since(began)
	l, err := f.loadBuilt(c, path)
	if err != nil {
		return "", fmt.Errorf("it compiled, but the server would refuse it: %w", err)
	}
	defer l.close()
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(out, "%s: %s from %s in %.1f s, loads in %d ms, %d vectors pass\n", shown(path), size(info.Size()), p.Lang,
		built.Seconds(), (time.Since(began) - built).Milliseconds(), len(l.Manifest.Vectors))
	if digest := plugins.ModuleDigest(l.Wasm); l.Manifest.SHA256 != "" && l.Manifest.SHA256 != hex.EncodeToString(digest[:]) {
		fmt.Fprintln(out, "its manifest holds the digest of the module before: sign it again, or take sha256 and signature out")
	}
	return path, nil
}

// copyManifest copies a project's manifest, if it has one.
func copyManifest(from, to string) error {
	b, err := os.ReadFile(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = os.WriteFile(to, b, 0o644)
	}
	if err != nil {
		return fmt.Errorf("copy the manifest: %w", err)
	}
	return nil
}

// shown is a path as somebody who stands here would type it.
func shown(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(here, abs); err == nil && len(rel) < len(abs) && !strings.HasPrefix(rel, "../../..") {
		return rel
	}
	return path
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
