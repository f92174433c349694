package main

import (
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"parley/policy/starter"
)

func policyNewCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "new DIR",
		Short: "Begin a repository of rules: the default policy, your own rules beside it, tests, data and CI",
		Long: "Begin a repository of rules in DIR: the rules a server comes with, a file for your own with its test and its data, a\n" +
			"README and the checks of a pull request for GitHub and GitLab. It is a Git repository already where there is a git.",
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(c *cobra.Command, args []string) error {
			dir := filepath.Clean(args[0])
			names, err := starter.New(dir)
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			fmt.Fprintf(out, "%s: %d files; your rules are in %s\n\nNext:\n", shown(dir), len(names), shown(filepath.Join(dir, "house.rego")))
			begin := fmt.Sprintf("git init --initial-branch main %s && ", shown(dir))
			if exec.CommandContext(c.Context(), "git", "init", "--quiet", "--initial-branch=main", dir).Run() == nil {
				begin = ""
			}
			fmt.Fprintf(out, "  platform policy check %s\n", shown(dir))
			fmt.Fprintf(out, "  %sgit -C %s add . && git -C %[2]s commit -m \"our rules\"\n", begin, shown(dir))
			_, err = fmt.Fprintf(out, "  platform run --policy.git.url %s\n", plain(absolute(dir)))
			return err
		},
	}
}

// absolute is where dir is, or dir where that cannot be said.
func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}
