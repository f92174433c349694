package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"parley/core/child"
	"parley/policy"
	"parley/policy/folder"
	"parley/policy/rego"
)

// policyCommand is the side of policies for those who write and operate them.
func policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Write, test, preview and operate the rules that decide who may do what",
		Long: "Write, test, preview and operate the rules that decide who may do what. From nothing to a live rule:\n\n" +
			"  platform policy new my-policy\n" +
			"  platform policy check my-policy\n" +
			"  platform run --policy.git.url my-policy",
	}
	c.AddCommand(
		policyNewCommand(), policyCheckCommand(), policyTestCommand(), policyFmtCommand(),
		policyDiffCommand(), policyExplainCommand(),
		policyStatusCommand(), policyLogCommand(), policyAuditCommand(), policyAcceptCommand(), policyPinCommand(), policyUnpinCommand(),
	)
	return c
}

// policyTrialName is the command that tries one policy in a process of its
// own. The server starts it; nobody else should.
const policyTrialName = "policy-trial"

func policyTrialCommand() *cobra.Command {
	return &cobra.Command{
		Use:    policyTrialName,
		Short:  "Try one policy under resource limits (the server starts this itself)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if code := policy.TrialMain(c.InOrStdin(), c.OutOrStdout()); code != 0 {
				return errTold
			}
			return nil
		},
	}
}

// policyTrial is how a server tries policies, for commands that do the same.
func policyTrial() policy.Trial {
	t := policy.DefaultTrial()
	t.Command = child.Command(policyTrialName)
	return t
}

// folders completes an argument with folders.
func folders(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

func policyCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check [DIR]",
		Short: "Say whether the server would take the rules in a folder",
		Long: "Do with the rules in a folder what the server does with a commit: bounds, strict parse, pure builtins alone, their own\n" +
			"tests and a plain question per action, in a child process with little memory and time. Exit code 1 where it refuses.",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: folders,
		RunE: func(c *cobra.Command, args []string) error {
			files, err := folder.Read(argument(args, "."))
			if err != nil {
				return err
			}
			v, err := policyTrial().Try(c.Context(), policy.Defaults(), files, nil)
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			for _, p := range v.Problems {
				fmt.Fprintln(out, p)
			}
			if len(v.Problems) > 0 {
				return errTold
			}
			for _, w := range v.Warnings {
				fmt.Fprintf(out, "warning: %s\n", w)
			}
			_, err = fmt.Fprintf(out, "ok: %d files, %d tests passed; the rules read %d input fields\n", len(files), v.Tests, len(v.Reads))
			return err
		},
	}
}

func policyTestCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "test [DIR]",
		Short:             "Run the tests of the rules in a folder and name each",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: folders,
	}
	verbose := c.Flags().BoolP("verbose", "v", false, "name the tests that passed as well, and show what they print")
	c.RunE = func(c *cobra.Command, args []string) error {
		files, err := folder.Read(argument(args, "."))
		if err != nil {
			return err
		}
		results, err := policy.Test(c.Context(), policy.Defaults(), files)
		if err != nil {
			return told(c.OutOrStdout(), err)
		}
		out, failed := c.OutOrStdout(), 0
		for _, r := range results {
			if r.Failure != "" {
				failed++
				fmt.Fprintf(out, "FAIL %s:%d %s: %s\n", r.File, r.Line, r.Name, r.Failure)
			} else if *verbose {
				fmt.Fprintf(out, "ok   %s:%d %s (%.1f ms)\n", r.File, r.Line, r.Name, float64(r.Took.Microseconds())/1000)
			}
			if r.Printed != "" && (*verbose || r.Failure != "") {
				fmt.Fprintf(out, "     it printed: %s\n", plain(r.Printed))
			}
		}
		fmt.Fprintf(out, "%d of %d tests passed\n", len(results)-failed, len(results))
		if failed > 0 {
			return errTold
		}
		return nil
	}
	return c
}

func policyFmtCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "fmt [DIR]",
		Short:             "Write the rules in a folder in the usual form, that of opa fmt",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: folders,
	}
	list := c.Flags().BoolP("list", "l", false, "change nothing: list the files that would change, exit code 1 if there are any")
	c.RunE = func(c *cobra.Command, args []string) error {
		dir := argument(args, ".")
		files, err := folder.Read(dir)
		if err != nil {
			return err
		}
		changed, err := policy.Format(files)
		if err != nil {
			return told(c.OutOrStdout(), err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return fmt.Errorf("write the rules: %w", err)
		}
		defer root.Close()
		for _, p := range changed.Paths() {
			fmt.Fprintln(c.OutOrStdout(), p)
			if *list {
				continue
			}
			if err := root.WriteFile(p, changed[p], 0o644); err != nil {
				return fmt.Errorf("write the rules: %w", err)
			}
		}
		if *list && len(changed) > 0 {
			return errTold
		}
		return nil
	}
	return c
}

// told prints what is wrong with a policy, where it is that.
func told(out io.Writer, err error) error {
	var problems policy.Problems
	if !errors.As(err, &problems) {
		return err
	}
	for _, p := range problems {
		fmt.Fprintln(out, p)
	}
	return errTold
}

// builtIn is the word for the policy in this binary.
const builtIn = "default"

// buildPolicy compiles what name says: the built-in policy, a folder, or a
// revision of the Git repository in repo; path is the folder of the policy in it.
func buildPolicy(ctx context.Context, name, repo, path string) (*policy.Engine, error) {
	var files policy.Files
	revision := name
	info, err := os.Stat(name)
	switch {
	case err == nil && info.IsDir():
		if files, err = folder.Read(name); err != nil {
			return nil, err
		}
	case name == builtIn:
		files = rego.Files()
	default:
		if files, err = readRevision(ctx, repo, name, path); err != nil {
			return nil, err
		}
	}
	e, err := policyTrial().Build(ctx, policy.Defaults(), files, revision, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return e, nil
}
