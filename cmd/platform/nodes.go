package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func nodesCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "nodes",
		Short: "Say which nodes there are, what they run and how much they have to do",
		Long: "Ask one running server which nodes share its Redis, what policy and plugins each has, and how much it has to do. Any\n" +
			"node can be asked: each sees all. MSG/S, CPU (processors in use) and MEMORY are as of the node's last renewal.",
		Args: cobra.NoArgs,
	}
	var admin adminFlags
	admin.add(c)
	asJSON := c.Flags().Bool("json", false, "print the server's own answer")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var raw json.RawMessage
		if err := admin.ask(c.Context(), http.MethodGet, "/v1/nodes", nil, &raw); err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), raw)
		}
		var answer struct{ Nodes []nodeRow }
		if err := json.Unmarshal(raw, &answer); err != nil || answer.Nodes == nil {
			return errors.New("the answer is not that of a Parley server; is --admin the admin listener?")
		}
		return showNodes(c.OutOrStdout(), answer.Nodes, time.Now())
	}
	return c
}

// showNodes prints the table, and below it what is too long for a column.
func showNodes(out io.Writer, rows []nodeRow, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tID\tVERSION\tUP\tPOLICY\tFOR\tPLUGINS\tCONNS\tROOMS\tMSG/S\tCPU\tMEMORY\tLEASE")
	var below []string
	for i := range rows {
		r := &rows[i]
		lease := "-"
		if r.LeaseMS > 0 {
			lease = (time.Duration(r.LeaseMS) * time.Millisecond).Round(time.Second).String()
		}
		mark := map[bool]string{true: "*"}[r.Self]
		policy, age := shortRevision(r.Policy.Revision), since(now, r.Policy.LoadedAt)
		if !r.Policy.OnHead {
			policy += " !"
		}
		plugins := "-"
		if n := len(r.Plugins.Plugins); n > 0 {
			plugins = fmt.Sprintf("%s (%d)", plain(r.Plugins.Set), n)
		}
		fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%.1f\t%.2f\t%s\t%s\n",
			plain(r.Name), mark, plain(strings.TrimPrefix(string(r.ID), r.Name+"-")), plain(r.Version), since(now, r.Started), policy, age,
			plugins, r.Load.Connections, r.Load.Rooms, r.Load.PerSecond, r.Load.CPU, size(int64(r.Load.MemoryBytes)), lease)
		if t := r.Policy.Refused; t != nil {
			below = append(below, fmt.Sprintf("%s cannot converge: it refuses %s: %s", r.ID, shortRevision(t.Revision), t.Why))
		}
		if r.Policy.Error != "" {
			below = append(below, fmt.Sprintf("%s: %s", r.ID, r.Policy.Error))
		}
		for _, p := range r.Problems {
			below = append(below, fmt.Sprintf("%s: %s", r.ID, p))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, line := range below {
		if _, err := fmt.Fprintln(out, printable(line)); err != nil {
			return err
		}
	}
	return nil
}

// shortRevision is a revision as a column holds it: git:0123456789ab.
func shortRevision(revision string) string {
	if kind, hash, ok := strings.Cut(revision, ":"); ok && len(hash) > shortDigest {
		revision = kind + ":" + hash[:shortDigest]
	}
	return plain(revision)
}

// since is how long ago t was, for people.
func since(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "-"
	case d < 0:
		return "0s" // another machine's clock
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}
