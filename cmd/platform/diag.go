package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"parley/core/config"
	"parley/core/session"
)

func diagCommand() *cobra.Command {
	c := &cobra.Command{Use: "diag", Short: "Ask a running server about its connections"}
	c.AddCommand(diagTCPCommand())
	return c
}

func diagTCPCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "tcp [--admin ADDR]",
		Short: "Print the ten connections with the worst network paths, as the server's kernel knows them",
		Args:  cobra.NoArgs,
	}
	addr := c.Flags().String("admin", config.Defaults().Admin.Listen, "address of the server's admin listener")
	tokenFile := c.Flags().String("token-file", "", "file with the admin token (data_dir/admin.token); not needed on the machine itself")
	c.RunE = func(c *cobra.Command, _ []string) error {
		paths, err := fetchPaths(c.Context(), *addr, *tokenFile)
		if err != nil {
			return err
		}
		return printPaths(c.OutOrStdout(), paths)
	}
	return c
}

// fetchPaths asks the admin listener.
func fetchPaths(ctx context.Context, addr, tokenFile string) (p session.Paths, err error) {
	err = ask(ctx, addr, tokenFile, http.MethodGet, "/v1/diag/tcp", nil, &p)
	return p, err
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
