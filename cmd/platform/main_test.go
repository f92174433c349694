package main

import (
	"os"
	"testing"

	"parley/plugins"
	"parley/policy"
)

// TestMain lets the test binary be the child that tries a plugin, since
// commands under test start their own program for that.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 {
		switch os.Args[1] {
		case trialName:
			os.Exit(plugins.TrialMain(os.Stdin, os.Stdout))
		case policyTrialName:
			os.Exit(policy.TrialMain(os.Stdin, os.Stdout))
		}
	}
	os.Exit(m.Run())
}
