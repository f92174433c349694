package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"parley/plugins"
)

// judges reports whether the server runs with those files: in force, or on trial.
func judges(p plugins.Status, source string) bool {
	return p.Source == source || p.Candidate != nil && p.Candidate.Source == source
}

// plugins asks a running server.
func (f *adminFlags) plugins(ctx context.Context) ([]plugins.Status, error) {
	var answer struct{ Plugins []plugins.Status }
	err := f.ask(ctx, http.MethodGet, "/v1/plugins", nil, &answer)
	return answer.Plugins, err
}

// names completes an argument with the plugins of the running server.
func (f *adminFlags) names(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	all, err := f.plugins(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, p := range all {
		names = append(names, p.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func pluginListCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List the plugins of a running server: what judges, what is on trial, what was refused and why",
		Args:  cobra.NoArgs,
	}
	var admin adminFlags
	admin.add(c)
	asJSON := c.Flags().Bool("json", false, "print the server's own answer")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *asJSON {
			var answer struct {
				Plugins json.RawMessage `json:"plugins"`
			}
			if err := admin.ask(c.Context(), http.MethodGet, "/v1/plugins", nil, &answer); err != nil {
				return err
			}
			return printJSON(c.OutOrStdout(), answer)
		}
		all, err := admin.plugins(c.Context())
		if err != nil {
			return err
		}
		return showPlugins(c.OutOrStdout(), all)
	}
	return c
}

// showPlugins prints the table, and below it what is too long for a column.
func showPlugins(out io.Writer, all []plugins.Status) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "no plugins: put NAME.wasm into the server's plugins.dir, or use platform plugin install")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "plugin\tstate\tversion\tdigest\tdecisions\tfaults\tfuel each\ton trial")
	var notes []string
	for _, p := range all {
		trial := "-"
		if k := p.Candidate; k != nil {
			trial = fmt.Sprintf("%s %s", k.Stage, short(k.Digest))
			if k.Stage == plugins.StageCanary {
				trial = fmt.Sprintf("%s %d%% %s", k.Stage, k.Percent, short(k.Digest))
			}
			notes = append(notes, fmt.Sprintf("%s: on trial since %s: %d decisions, %d failed, %d denied, %d of %d unlike the version in force",
				p.Name, k.Since.Format(time.RFC3339), k.Decisions, k.Faults, k.Denied, k.Disagreed, k.Compared))
		}
		each := "-"
		if p.Decisions > 0 {
			each = fmt.Sprint(p.Fuel / p.Decisions)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", p.Name, p.State, plain(p.Version), short(p.Digest), p.Decisions, p.Faults, each, trial)
		if p.State == plugins.StateAbsent {
			notes = append(notes, fmt.Sprintf("%s: it must judge and is not loaded: until it is, messages for it are %s (on_error %s)", p.Name, treated[p.OnError], p.OnError))
		}
		if p.Error != "" {
			notes = append(notes, note(p))
		}
		if q := p.Quarantine; q != nil {
			notes = append(notes, fmt.Sprintf("%s: in quarantine since %s, %d of %d good probes: %s", p.Name, q.Since.Format(time.RFC3339), q.GoodProbes, q.Needed, plain(q.Why)))
		}
		if p.LastFault != "" {
			notes = append(notes, fmt.Sprintf("%s: last fault: %s", p.Name, plain(p.LastFault)))
		}
		if r := p.LastRollback; r != nil {
			by := plain(r.By)
			if r.Node != "" {
				by += " on node " + plain(r.Node)
			}
			notes = append(notes, fmt.Sprintf("%s: rolled back from %s at %s by %s: %s", p.Name, plain(r.Stage), r.At.Format(time.RFC3339), by, plain(r.Reason)))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range notes {
		if _, err := fmt.Fprintln(out, n); err != nil {
			return err
		}
	}
	return nil
}

// treated says what becomes of messages by on_error.
var treated = map[string]string{"closed": "refused", "hold": "held for a moderator"}

// note says why a plugin's files are not in force.
func note(p plugins.Status) string {
	if p.RetryAt.IsZero() {
		return fmt.Sprintf("%s: its file was refused: %s", p.Name, plain(p.Error))
	}
	if p.Tries == 0 {
		return fmt.Sprintf("%s: its file waits: %s", p.Name, plain(p.Error))
	}
	return fmt.Sprintf("%s: its file could not be tried (%d times so far) and will be tried again at %s: %s", p.Name, p.Tries, p.RetryAt.Format(time.RFC3339), plain(p.Error))
}

// short is the beginning of a digest.
func short(digest string) string {
	if digest == "" {
		return "-"
	}
	return digest[:min(12, len(digest))]
}

// rolloutOrder is the body of POST /v1/plugins/NAME/rollout.
type rolloutOrder struct {
	Action  string `json:"action"`
	Stage   string `json:"stage,omitempty"`
	Percent int    `json:"percent,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// orders are the words of the command line.
var orders = []string{"promote", "rollback", "retry", "shadow", "canary", "enforce"}

// order turns a word into an order.
func order(word string, percent int, reason string) (rolloutOrder, error) {
	o := rolloutOrder{Action: word, Reason: reason}
	switch {
	case !slices.Contains(orders, word):
		return o, fmt.Errorf("%q is no order: there are %s", word, strings.Join(orders, ", "))
	case word == "shadow" || word == "canary" || word == "enforce":
		o.Action, o.Stage, o.Percent = "set", word, percent
	case percent != 0:
		return o, fmt.Errorf("--percent is for canary, not for %s", word)
	}
	if percent < 0 || percent > 100 || percent != 0 && word != "canary" {
		return o, fmt.Errorf("--percent %d with %s: it is for canary, 1 to 100", percent, word)
	}
	return o, nil
}

func pluginRolloutCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rollout NAME [promote|rollback|retry|shadow|canary|enforce]",
		Short: "Show or move the rollout of a plugin's new version on a running server",
		Long: "Show how a plugin's new version does on its way into force, or move it: promote takes it to the next stage (shadow,\n" +
			"canary, enforce), rollback takes it out, retry tries again what was rolled back or ends a quarantine, and a stage's\n" +
			"name takes it there, canary with --percent of people.",
		Args: cobra.RangeArgs(1, 2),
	}
	var admin adminFlags
	admin.add(c)
	percent := c.Flags().Int("percent", 0, "canary: of people it decides about, 1 to 100; 0: as it was")
	reason := c.Flags().String("reason", "", "why, for the server's log")
	asJSON := c.Flags().Bool("json", false, "print the plugin's state as JSON")
	c.ValidArgsFunction = func(c *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return orders, cobra.ShellCompDirectiveNoFileComp
		}
		return admin.names(c, args, part)
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		name := args[0]
		if len(args) == 2 {
			o, err := order(args[1], *percent, *reason)
			if err != nil {
				return err
			}
			if err := admin.ask(c.Context(), http.MethodPost, "/v1/plugins/"+url.PathEscape(name)+"/rollout", o, nil); err != nil {
				return err
			}
		}
		all, err := admin.plugins(c.Context())
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(p plugins.Status) bool { return p.Name == name })
		if i < 0 {
			return fmt.Errorf("the server has no plugin %q; platform plugin list shows those it has", name)
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), all[i])
		}
		return showPlugins(c.OutOrStdout(), all[i:i+1])
	}
	return c
}
