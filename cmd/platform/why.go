package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/core/wire"
)

func whyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "why --room ROOM --user NAME [--text TEXT]",
		Short: "Say what keeps a person from posting in a room, and what would change it",
		Long: "Ask a running server what stands between a person and a message: rates, slow mode, the rules of the policy and, with\n" +
			"--text, the plugins. Nothing is posted, counted or recorded. What it says of connections and rates is that of the\n" +
			"node that is asked. The command ends with code 1 where the person may not post.",
		Args: cobra.NoArgs,
	}
	var admin adminFlags
	admin.add(c)
	room := c.Flags().String("room", "", "the room")
	user := c.Flags().String("user", "", "the person's name")
	text := c.Flags().String("text", "", "a message; without it plugins are not asked")
	asJSON := c.Flags().Bool("json", false, "print the answer as JSON")
	for _, name := range []string{"room", "user"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is not there
		}
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		q := url.Values{"room": {*room}, "user": {*user}}
		if c.Flags().Changed("text") {
			if *text == "" {
				return errors.New("--text is empty; leave it out to ask about any message")
			}
			q.Set("text", *text)
		}
		var ev wire.WhyEvent
		if err := admin.ask(c.Context(), http.MethodGet, "/v1/why?"+q.Encode(), nil, &ev); err != nil {
			return err
		}
		show := showWhy
		if *asJSON {
			show = func(out io.Writer, ev *wire.WhyEvent) error { return printJSON(out, ev) }
		}
		if err := show(c.OutOrStdout(), &ev); err != nil {
			return err
		}
		if !ev.May {
			return exitCode(1)
		}
		return nil
	}
	return c
}

// showWhy prints the answer for people.
func showWhy(out io.Writer, ev *wire.WhyEvent) error {
	var b strings.Builder
	may := "may post"
	switch {
	case !ev.May:
		may = "may not post"
	case ev.Outcome != "" && ev.Outcome != "accepted":
		may = "may post, and this would be " + plain(string(ev.Outcome))
	}
	fmt.Fprintf(&b, "%s %s in %s (policy %s)\n", plain(string(ev.User)), may, plain(string(ev.Room)), plain(ev.Revision))
	if ev.Note != "" {
		fmt.Fprintf(&b, "note: %s\n", printable(ev.Note))
	}
	for i := range ev.Blocks {
		w := &ev.Blocks[i]
		fmt.Fprintf(&b, "\n%s %s: %s\n", plain(w.By), plain(w.Code), printable(w.Text))
		if r := w.Rule; r != nil {
			fmt.Fprintf(&b, "  rule     %s:%d %s\n", plain(r.File), r.Line, plain(r.Name))
			if r.Words != "" {
				fmt.Fprintf(&b, "           %s\n", printable(r.Words))
			}
		}
		if p := w.Plugin; p != nil {
			fmt.Fprintf(&b, "  plugin   %s %s (module %s, %s) says %s, rule %d\n", plain(p.Name), plain(p.Version), plain(short(p.Digest)), plain(p.Part), plain(p.Verdict), p.Code)
			if p.Error != "" {
				fmt.Fprintf(&b, "           it failed: %s\n", printable(p.Error))
			}
		}
		if w.UntilTS > 0 {
			fmt.Fprintf(&b, "  until    %s\n", time.UnixMilli(w.UntilTS).UTC().Format(time.RFC3339))
		}
		fmt.Fprintf(&b, "  change   %s\n", printable(w.Change))
	}
	_, err := io.WriteString(out, b.String())
	return err
}
