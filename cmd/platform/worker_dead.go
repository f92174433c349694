package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	redisabsent "parley/core/absent/redis"
)

// workerDeadCommand looks after messages that could not be delivered.
func workerDeadCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "dead",
		Short: "Look at messages that could not be delivered, and try them again",
	}
	c.AddCommand(deadListCommand(), deadRetryCommand())
	return c
}

// pageLetters is how many dead letters are read at a time.
const pageLetters = 500

func deadListCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List dead letters, the oldest first",
		Args:  cobra.NoArgs,
	}
	open := queueOf(c)
	limit := c.Flags().Int("limit", 100, "how many")
	asJSON := c.Flags().Bool("json", false, "print JSON, with everything that is known of each")
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, q, err := open(nil)
		if err != nil {
			return err
		}
		defer client.Close()
		var letters []redisabsent.Letter
		for after := ""; len(letters) < *limit; {
			page, err := q.Dead(c.Context(), after, min(pageLetters, *limit-len(letters)))
			if err != nil {
				return err
			}
			if len(page) == 0 {
				break
			}
			letters = append(letters, page...)
			after = page[len(page)-1].ID
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), letters)
		}
		return showLetters(c.OutOrStdout(), letters, time.Now())
	}
	return c
}

func showLetters(out io.Writer, letters []redisabsent.Letter, now time.Time) error {
	if len(letters) == 0 {
		_, err := fmt.Fprintln(out, "there are no dead letters")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LETTER\tDIED\tFOR\tKIND\tROOM\tFROM\tTRIES\tREASON")
	for i := range letters {
		l := &letters[i]
		reason := l.Reason
		if l.Bad != "" {
			reason += "; it cannot be read: " + l.Bad
		}
		fmt.Fprintf(w, "%s\t%s ago\t%s\t%s\t%s\t%s\t%d\t%s\n", plain(l.ID), since(now, l.Died), plain(string(l.Entry.User)), plain(string(l.Entry.Kind)),
			plain(string(l.Entry.Room)), plain(string(l.Entry.From)), l.Tries, plain(reason))
	}
	return w.Flush()
}

func deadRetryCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "retry [LETTER...]",
		Short: "Put dead letters back to be delivered, the named or with --all every one",
	}
	open := queueOf(c)
	all := c.Flags().Bool("all", false, "every dead letter there is now")
	c.RunE = func(c *cobra.Command, ids []string) error {
		if *all == (len(ids) > 0) {
			return errors.New("name the letters to retry (platform worker dead list shows them), or give --all")
		}
		client, q, err := open(slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer client.Close()
		if *all {
			for after := ""; ; {
				page, err := q.Dead(c.Context(), after, pageLetters)
				if err != nil {
					return err
				}
				if len(page) == 0 {
					break
				}
				for i := range page {
					ids = append(ids, page[i].ID)
				}
				after = page[len(page)-1].ID
			}
		}
		n, err := q.Revive(c.Context(), ids)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%d put back to be delivered\n", n)
		return err
	}
	return c
}
