//go:build !linux

package main

import "github.com/spf13/cobra"

// experimentsCommands is empty here: the experiments need Linux.
func experimentsCommands() []*cobra.Command { return nil }
