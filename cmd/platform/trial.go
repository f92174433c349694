package main

import (
	"github.com/spf13/cobra"

	"parley/core/child"
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

// trial completes the plugins' configuration with how strangers are tried.
func trial(c *plugins.Config) {
	c.Trial.Command = child.Command(trialName)
	// Where the system does not tell which program runs.
	c.Trial.InProcess = len(c.Trial.Command) == 0
}
