package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/policy/source"
)

func policyStatusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Say what decides on a running server: revision, age, what was refused and what the last change changed",
		Args:  cobra.NoArgs,
	}
	var admin adminFlags
	admin.add(c)
	asJSON := c.Flags().Bool("json", false, "print the server's own answer")
	wait := c.Flags().String("wait", "", "wait until every node decides by this revision, or by the commit that begins so, and print how long that took")
	patience := c.Flags().Duration("wait-timeout", time.Minute, "how long --wait waits")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *wait != "" {
			return waitLive(c.Context(), c.OutOrStdout(), &admin, *wait, *patience)
		}
		var raw json.RawMessage
		if err := admin.ask(c.Context(), http.MethodGet, "/v1/policy/status", nil, &raw); err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), raw)
		}
		var st source.Status
		if err := json.Unmarshal(raw, &st); err != nil {
			return errors.New("the answer is not that of a Parley server; is --admin the admin listener?")
		}
		return showPolicy(c.OutOrStdout(), &st)
	}
	return c
}

func showPolicy(out io.Writer, st *source.Status) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	line("revision", "%s, live for %s", st.Revision, time.Since(st.LoadedAt).Round(time.Second))
	line("from", "%s: %d files, %d tests passed", st.Source, st.Files, st.Tests)
	line("decisions", "%d cached, %d evaluated, %d failed", st.Stats.Hits, st.Stats.Evals, st.Stats.Failures)
	if st.CacheOff {
		line("CACHE OFF", "it gave an answer that the rules do not give")
	}
	line("checked", "%d cached answers, %d wrong; %d recorded decisions replayed, %d not equal", st.Stats.CacheAudits, st.Stats.CacheWrong, st.Replayed, st.Unequal)
	if g := st.Git; g != nil {
		line("git", "%s, %s", g.URL, g.Ref)
		if g.PolledAt != nil {
			line("", "answered %s ago", time.Since(*g.PolledAt).Round(time.Second))
		}
		if g.Error != "" {
			line("", "CANNOT BE READ: %s", g.Error)
		}
	}
	if l := st.Log; l != nil {
		line("log", "%d recorded, %d dropped, %d files of %s", l.Added, l.Dropped, l.Files, size(l.Bytes))
	}
	if f := st.Failure; f != nil {
		line("failure", "%s ago %s by %s: %s", time.Since(f.At).Round(time.Second), f.Action, f.Subject, f.Cause)
	}
	for i := range st.Nodes {
		n := &st.Nodes[i]
		word := map[bool]string{true: "on head", false: "NOT ON HEAD"}[n.OnHead]
		line(map[bool]string{true: "nodes"}[i == 0], "%s: %s, %s", n.Node, shortRevision(n.Revision), word)
		if n.Refused != nil {
			line("", "  cannot converge: it refuses %s: %s", n.Refused.Revision, n.Refused.Why)
		}
		if n.Error != "" {
			line("", "  %s", n.Error)
		}
		if l := n.Live; l != nil {
			line("", "  brought in %s: live on %d/%d in %d ms", shortRevision(l.Revision), l.Nodes, l.Nodes, l.TookMS)
		}
	}
	if p := st.Preview; p != nil {
		line("preview", "%s: %s", p.New, p.Summary())
	}
	if r := st.Refused; r != nil {
		line("REFUSED", "%s, %s ago:", r.Revision, time.Since(r.At).Round(time.Second))
		for _, p := range r.Problems {
			line("", "%s", p)
		}
		if r.Overridable {
			line("", "platform policy accept %s --by NAME lets it pass", r.Revision)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func policyAcceptCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "accept REV",
		Short: "Let a revision that policy.guard refused go live, in your name",
		Long: "Let the revision that policy.guard has refused go live all the same, in your name, which is recorded with it in the\n" +
			"decision log. REV is the revision as the status shows it, or the beginning of its commit. Each node has a guard of its\n" +
			"own; nodes that share a Redis tell each other.",
		Args: cobra.ExactArgs(1),
	}
	var admin adminFlags
	admin.add(c)
	by := c.Flags().String("by", "", "your name")
	_ = c.MarkFlagRequired("by")
	c.RunE = func(c *cobra.Command, args []string) error {
		var said struct{ Revision, By string }
		body := map[string]string{"revision": args[0], "by": *by}
		if err := admin.ask(c.Context(), http.MethodPost, "/v1/policy/accept", body, &said); err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), "%s is accepted by %s and goes live in a moment\n", plain(said.Revision), plain(said.By))
		return err
	}
	return c
}
