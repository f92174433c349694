// Command trial is the child of a trial and nothing else. Tests build it
// without the race detector, which leaves no room for RLIMIT_AS.
package main

import (
	"os"

	"parley/plugins"
)

func main() { os.Exit(plugins.TrialMain(os.Stdin, os.Stdout)) }
