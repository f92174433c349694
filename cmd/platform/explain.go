package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
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
		Long: "Ask a running server for the record of a judged message (see evidence.decisions), and judge the same bytes\n" +
			"again with the versions of the plugins that did so then. The bytes are those it keeps (see evidence.keep), or are\n" +
			"made from the text in the room's history. The id is that of a message or a review, or one from /v1/evidence.",
		Args: cobra.ExactArgs(1),
	}
	var at adminFlags
	at.add(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		var e admin.Explanation
		if err := at.ask(c.Context(), http.MethodGet, "/v1/explain/"+url.PathEscape(args[0]), nil, &e); err != nil {
			return err
		}
		return printExplanation(c.OutOrStdout(), e)
	}
	return c
}

// printExplanation prints it for people. What others wrote, in a message or a
// manifest, is quoted where it holds more than plain characters.
func printExplanation(out io.Writer, e admin.Explanation) error {
	r := &e.Record
	text := "not kept"
	if e.From != "" {
		b, err := abi.FieldBytes(r.Input, abi.FieldText)
		if err != nil {
			return fmt.Errorf("the recorded input: %w", err)
		}
		text = fmt.Sprintf("%q", b)
		if e.From == "history" {
			text += " (from the room's history, its hash is that on record)"
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"message", plain(string(r.ID))},
		{"written by", fmt.Sprintf("%s in %s at %s", plain(string(r.User)), plain(string(r.Room)), time.UnixMilli(r.Time).UTC().Format(time.RFC3339Nano))},
		{"text", text},
		{"sha256", plain(r.Text)},
		{"policy", plain(r.Policy)},
		{"record", e.Digest},
		{"verdict", plain(r.Verdict)},
	} {
		fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
	}
	for _, reason := range r.Reasons {
		fmt.Fprintf(w, "reason\t%s: %q (%s)\n", plain(reason.Code), reason.Text, plain(reason.Source))
	}
	if e.NotJudged != "" {
		fmt.Fprintf(w, "\nNot judged: %s.\n", plain(e.NotJudged))
		return w.Flush()
	}
	fmt.Fprintln(w, "\nPLUGIN\tVERSION\tPART\tMODULE\tCONFIG\tVERDICT\tRULE\tSCORE\tFUEL\tTIME\tNOW")
	now := map[versionKey]moderation.Vote{}
	for _, v := range e.Replayed.Plugins {
		now[keyOf(&v)] = v
	}
	for _, v := range r.Plugins {
		again := "-"
		if n, ok := now[keyOf(&v)]; ok {
			again = n.Verdict
		}
		part := v.Part
		if part == "" {
			part = moderation.Enforce.String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%v\t%s\n", plain(v.Name), plain(v.Version), plain(part), plain(short(v.Digest)), plain(short(v.Config)), plain(v.Verdict),
			v.Code, v.Score, v.Fuel, time.Duration(v.TimeNS), plain(again))
	}
	fmt.Fprintln(w)
	switch {
	case e.NotReplayed != "":
		fmt.Fprintf(w, "Not judged again: %s.\n", plain(e.NotReplayed))
	case e.Replayed.Equal:
		fmt.Fprintln(w, "Judged again with the same bytes: the same in every part.")
	case len(e.Replayed.Missing) > 0:
		fmt.Fprintln(w, "Judged again in part. These cannot be asked:")
		for _, m := range e.Replayed.Missing {
			fmt.Fprintf(w, "  %s\n", plain(m))
		}
	default:
		fmt.Fprintln(w, "Judged again with the same bytes: not the same.")
	}
	for _, d := range e.Replayed.Differences {
		fmt.Fprintf(w, "  %s\n", plain(d))
	}
	return w.Flush()
}

// versionKey names the version of a plugin: in a rollout two versions of one
// name judge the same message.
type versionKey struct{ name, module, config string }

func keyOf(v *moderation.Vote) versionKey { return versionKey{v.Name, v.Digest, v.Config} }
