// Command trial is a child that tries one policy, for tests: built without the
// race detector, which leaves no room for RLIMIT_AS.
package main

import (
	"os"

	"parley/policy"
)

func main() { os.Exit(policy.TrialMain(os.Stdin, os.Stdout)) }
