package main

import (
	"os"
	"testing"

	"parley/plugins"
)

// TestMain lets the test binary be the child that tries a plugin, since
// commands under test start their own program for that.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == trialName {
		os.Exit(plugins.TrialMain(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}
