package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"parley/policy/source"
)

func policyPinCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "pin REVISION",
		Short: "Make one commit of the repository decide, wherever the ref points",
		Long: "Make one commit of policy.git.url decide until `platform policy unpin`, also after a restart: to go back to an older\n" +
			"one, to stay where the server is, or to take one that does not descend from the commit in use. It is checked like any\n" +
			"other, signature included. REVISION is the whole name of a commit or of an annotated tag, with or without git:.",
		Args: cobra.ExactArgs(1),
	}
	var admin adminFlags
	admin.add(c)
	reason := c.Flags().String("reason", "", "why, for the log and the status")
	c.RunE = func(c *cobra.Command, args []string) error {
		var st source.Status
		if err := admin.ask(c.Context(), http.MethodPost, "/v1/policy/pin", map[string]string{"revision": args[0], "reason": *reason}, &st); err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), "%s decides until platform policy unpin\n", st.Revision)
		return err
	}
	return c
}

func policyUnpinCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "unpin",
		Short: "Follow the ref again",
		Long:  "Follow policy.git.ref again. Its commit is taken if it descends from the pinned one or from the one before the pin.",
		Args:  cobra.NoArgs,
	}
	var admin adminFlags
	admin.add(c)
	reason := c.Flags().String("reason", "", "why, for the log")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var st source.Status
		if err := admin.ask(c.Context(), http.MethodPost, "/v1/policy/unpin", map[string]string{"reason": *reason}, &st); err != nil {
			return err
		}
		if st.Git == nil {
			return fmt.Errorf("the server follows no repository any more")
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), "%s is followed again; %s decides now\n", st.Git.Ref, st.Revision)
		return err
	}
	return c
}
