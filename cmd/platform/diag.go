package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"parley/core/session"
)

func diagCommand() *cobra.Command {
	c := &cobra.Command{Use: "diag", Short: "Ask a running server about its connections"}
	c.AddCommand(diagTCPCommand())
	return c
}

func diagTCPCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "tcp",
		Short: "Print the ten connections with the worst network paths, as the server's kernel knows them",
		Long: "Print the ten connections with the worst network paths, as the server's kernel knows them. On the server's own\n" +
			"machine this needs no token.",
		Args: cobra.NoArgs,
	}
	var admin adminFlags
	admin.add(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		var paths session.Paths
		if err := admin.ask(c.Context(), http.MethodGet, "/v1/diag/tcp", nil, &paths); err != nil {
			return err
		}
		return printPaths(c.OutOrStdout(), paths)
	}
	return c
}

// printPaths writes the table. What clients chose is quoted where it could
// play with the terminal.
func printPaths(out io.Writer, p session.Paths) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "user\tdevice\ttransport\tnetwork\tloss\tresent\trtt\tunacked\tqueued\tlast ack\tsession")
	for _, c := range p.Worst {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.1f%%\t%d\t%.1f±%.1f ms\t%d\t%d B\t%.1f s\t%s\n", c.User, plain(c.Device), c.Transport, c.Network,
			c.LossPercent, c.Retransmits, c.RTTMS, c.RTTVarMS, c.Unacked, c.QueuedBytes, float64(c.LastAckMS)/1000, c.Session)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d connections looked at, %s\n", p.Looked, p.At.Format(time.RFC3339))
	return err
}

// plain shows a text that somebody chose: as it is, or quoted where something in
// it is not to be printed.
func plain(s string) string {
	if s == "" {
		return "-"
	}
	if s[0] != '"' && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return s
	}
	return strconv.Quote(s)
}
