package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"parley/core/admin"
	"parley/core/moderation"
	"parley/sdk/abi"
)

func explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain MESSAGE_ID",
		Short: "Say why plugins judged a message as they did, and whether they would again",
		Long: "Ask a running server for the evidence it keeps of a judged message (see evidence.keep), and judge the same\n" +
			"bytes again with the plugins in force. The id is that of a message or a review, or one from /v1/evidence.",
		Args: cobra.ExactArgs(1),
	}
	load := configured(c)
	tokenFile := c.Flags().String("token-file", "", "file with the admin token; data_dir/admin.token where it is not given")
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		file := *tokenFile
		if file == "" {
			file = filepath.Join(cfg.DataDir, "admin.token")
		}
		e, err := fetchExplanation(c.Context(), cfg.Admin.Listen, file, args[0])
		if err != nil {
			return err
		}
		return printExplanation(c.OutOrStdout(), e)
	}
	return c
}

// fetchExplanation asks the admin listener.
func fetchExplanation(ctx context.Context, addr, tokenFile, id string) (e admin.Explanation, err error) {
	err = ask(ctx, addr, tokenFile, http.MethodGet, "/v1/explain/"+url.PathEscape(id), nil, &e)
	return e, err
}

// printExplanation prints it for people.
func printExplanation(out io.Writer, e admin.Explanation) error {
	r := &e.Record
	text, err := abi.FieldBytes(r.Input, abi.FieldText)
	if err != nil {
		return fmt.Errorf("the recorded input: %w", err)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"message", string(r.ID)},
		{"written by", fmt.Sprintf("%s in %s at %s", r.User, r.Room, time.UnixMilli(r.Time).UTC().Format(time.RFC3339Nano))},
		{"text", fmt.Sprintf("%q", text)}, // what it holds must not reach the terminal
		{"policy", r.Policy},
		{"record", e.Digest},
		{"verdict", r.Verdict},
	} {
		fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
	}
	for _, reason := range r.Reasons {
		fmt.Fprintf(w, "reason\t%s: %q (%s)\n", reason.Code, reason.Text, reason.Source)
	}
	fmt.Fprintln(w, "\nPLUGIN\tVERSION\tMODULE\tVERDICT\tRULE\tSCORE\tFUEL\tTIME\tNOW")
	now := map[string]moderation.Vote{}
	for _, v := range e.Replayed.Plugins {
		now[v.Name] = v
	}
	for _, v := range r.Plugins {
		again := "not loaded any more"
		if n, ok := now[v.Name]; ok {
			again = n.Verdict
		}
		fmt.Fprintf(w, "%s\t%s\t%.12s\t%s\t%d\t%d\t%d\t%v\t%s\n", v.Name, orDash(v.Version), v.Digest, v.Verdict, v.Code, v.Score, v.Fuel, time.Duration(v.TimeNS), again)
	}
	fmt.Fprintln(w)
	switch {
	case e.Replayed.Equal:
		fmt.Fprintln(w, "Judged again with the same bytes: the same in every part.")
	case len(e.Replayed.Missing) > 0:
		fmt.Fprintf(w, "Judged again in part: %s cannot be asked, no module and configuration like it is loaded any more.\n", strings.Join(e.Replayed.Missing, ", "))
	default:
		fmt.Fprintln(w, "Judged again with the same bytes: not the same.")
	}
	for _, d := range e.Replayed.Differences {
		fmt.Fprintf(w, "  %s\n", d)
	}
	return w.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
