package main

import (
	"os"

	"github.com/spf13/cobra"

	"parley/plugins"
)

// trialName is the command that tries one module in a process of its own. The
// server starts it; nobody else should.
const trialName = "plugin-trial"

func trialCommand() *cobra.Command {
	return &cobra.Command{
		Use:    trialName,
		Short:  "Try one plugin under resource limits (the server starts this itself)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if code := plugins.TrialMain(c.InOrStdin(), c.OutOrStdout()); code != 0 {
				return errTold
			}
			return nil
		},
	}
}

// trialArgv starts this very program, even when its file has been replaced
// since. It is empty, and modules are then tried in this process, only where
// the system does not tell which program runs.
func trialArgv() []string {
	const self = "/proc/self/exe" // of the child, which is still this program when it looks
	if _, err := os.Stat(self); err == nil {
		return []string{self, trialName}
	}
	path, err := os.Executable()
	if err != nil {
		return nil
	}
	return []string{path, trialName}
}

// trial completes the plugins' configuration with how strangers are tried.
func trial(c *plugins.Config) {
	c.Trial.Command = trialArgv()
	c.Trial.InProcess = len(c.Trial.Command) == 0
}
