package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"parley/core/config"
	"parley/core/spelling"
)

// helpful makes a command and those below it say what was meant where the
// command line is wrong: the nearest flag, the nearest command, the usage.
func helpful(c *cobra.Command) {
	c.SetFlagErrorFunc(nearestFlag)
	for _, sub := range c.Commands() {
		helpful(sub)
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return fmt.Errorf("%w; usage: %s", err, c.UseLine())
			}
			return nil
		}
	}
	if c.HasParent() && c.HasSubCommands() && !c.Runnable() {
		c.DisableFlagsInUseLine = true
		c.RunE = named
	}
}

// named runs a command that only holds others: cobra takes a word that is none
// of them for an argument.
func named(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	if near := spelling.Nearest(args[0], names); near != "" {
		return fmt.Errorf("there is no command %q in %s; did you mean %s?", args[0], c.CommandPath(), near)
	}
	return fmt.Errorf("there is no command %q in %s; there are %s", args[0], c.CommandPath(), strings.Join(names, ", "))
}

// nearestFlag adds the flag that was most likely meant.
func nearestFlag(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	name := unknown.GetSpecifiedName()
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	near := spelling.Nearest(name, names)
	if near == "" { // a key may be meant by its last part
		if near = config.NearestKey(name); c.Flags().Lookup(near) == nil {
			return err
		}
	}
	return fmt.Errorf("%w; did you mean --%s?", err, near)
}
