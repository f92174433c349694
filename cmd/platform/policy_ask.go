package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/policy/decisionlog"
	"parley/policy/source"
)

// fileMask is what an operator's file is made with: decisions name people.
const fileMask = 0o600

// decisionFlags select decisions.
type decisionFlags struct {
	id, user, room, message, reason, action, revision, since string
	denied, events                                           bool
	limit                                                    int
}

func (f *decisionFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.id, "id", "", "the decision of that id")
	c.Flags().StringVar(&f.user, "user", "", "decisions about that user")
	c.Flags().StringVar(&f.room, "room", "", "decisions in that room")
	c.Flags().StringVar(&f.message, "message", "", "the decision about that message")
	c.Flags().StringVar(&f.reason, "reason", "", "refusals with that code, or events of that name")
	c.Flags().StringVar(&f.action, "action", "", "decisions about that action, such as message.send")
	c.Flags().StringVar(&f.revision, "revision", "", "decisions of that revision")
	c.Flags().StringVar(&f.since, "since", "", "how far back: 24h, or a time such as 2026-01-31T08:00:00Z")
	c.Flags().BoolVar(&f.denied, "denied", false, "refusals alone")
	c.Flags().BoolVar(&f.events, "events", false, "events alone: revisions that went live, were refused or accepted")
	c.Flags().IntVar(&f.limit, "limit", 100, "how many of the newest")
}

func (f *decisionFlags) values(now time.Time) (url.Values, error) {
	v := url.Values{}
	for name, value := range map[string]string{"id": f.id, "user": f.user, "room": f.room, "message": f.message, "reason": f.reason, "action": f.action, "revision": f.revision} {
		if value != "" {
			v.Set(name, value)
		}
	}
	for name, set := range map[string]bool{"denied": f.denied, "events": f.events} {
		if set {
			v.Set(name, "1")
		}
	}
	at, err := moment(f.since, now)
	if err != nil {
		return nil, fmt.Errorf("--since: %w", err)
	}
	if !at.IsZero() {
		v.Set("since", strconv.FormatInt(at.UnixMilli(), 10))
	}
	return v, nil
}

// moment reads "24h" as so long ago, or a time.
func moment(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, form := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02"} {
		if at, err := time.ParseInLocation(form, s, time.Local); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither a duration such as 24h nor a time such as 2026-01-31T08:00:00Z", s)
}

func policyLogCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "log",
		Short: "Show what the policy of a running server decided: every refusal, and a sample of the rest",
		Args:  cobra.NoArgs,
	}
	var admin adminFlags
	admin.add(c)
	var sel decisionFlags
	sel.add(c)
	follow := c.Flags().BoolP("follow", "f", false, "go on with what is decided from now on, until you interrupt it")
	asJSON := c.Flags().Bool("json", false, "print one record a line, as policy diff --replay takes them")
	file := c.Flags().StringP("out", "o", "", "write to a file that nobody else may read")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		v, err := sel.values(time.Now())
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		if *file != "" {
			f, err := os.OpenFile(*file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMask)
			if err != nil {
				return fmt.Errorf("write the decisions: %w", err)
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			out = f
		}
		show := func(r *decisionlog.Record, line []byte) error { return showDecision(out, r) }
		if *asJSON {
			show = func(_ *decisionlog.Record, line []byte) error { return writeLine(out, line) }
		}
		if *follow {
			return admin.followDecisions(c.Context(), v, c.ErrOrStderr(), show)
		}
		return admin.decisions(c.Context(), v, sel.limit, show)
	}
	return c
}

func writeLine(out io.Writer, line []byte) error {
	var b bytes.Buffer
	if err := json.Compact(&b, line); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err := out.Write(b.Bytes())
	return err
}

// decisions asks for up to limit records and shows them, the oldest first.
func (f *adminFlags) decisions(ctx context.Context, v url.Values, limit int, show func(*decisionlog.Record, []byte) error) error {
	var lines []json.RawMessage // the newest first
	for limit > len(lines) {
		v.Set("limit", strconv.Itoa(min(limit-len(lines), decisionlog.MaxPage)))
		var page struct {
			Records []json.RawMessage
			Next    string
		}
		if err := f.ask(ctx, http.MethodGet, "/v1/policy/decisions?"+v.Encode(), nil, &page); err != nil {
			return err
		}
		slices.Reverse(page.Records)
		lines = append(lines, page.Records...)
		if page.Next == "" {
			break
		}
		v.Set("before", page.Next)
	}
	for _, line := range slices.Backward(lines) {
		r, err := decisionlog.Decode(line)
		if err != nil {
			return err
		}
		if err := show(r, line); err != nil {
			return err
		}
	}
	return nil
}

// followDecisions shows what is decided from now on until ctx or the server
// ends.
func (f *adminFlags) followDecisions(ctx context.Context, v url.Values, warn io.Writer, show func(*decisionlog.Record, []byte) error) error {
	v.Set("follow", "1")
	resp, err := f.send(ctx, http.MethodGet, "/v1/policy/decisions?"+v.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, decisionlog.MaxRecordBytes+1)
	for in.Scan() {
		var note struct{ Skipped uint64 }
		if json.Unmarshal(in.Bytes(), &note) == nil && note.Skipped > 0 {
			fmt.Fprintf(warn, "%d records passed over: they came faster than they were read\n", note.Skipped)
			continue
		}
		r, err := decisionlog.Decode(in.Bytes())
		if err != nil {
			return err
		}
		if err := show(r, in.Bytes()); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil // interrupted, as meant
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("follow the decisions: %w", err)
	}
	return errors.New("the server has ended the stream")
}

// showDecision prints one record in a line.
func showDecision(out io.Writer, r *decisionlog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s ", r.Time.Local().Format("2006-01-02 15:04:05.000"), r.ID)
	switch {
	case !r.IsDecision():
		fmt.Fprintf(&b, "%s %s", strings.ToUpper(string(r.Event)), r.Revision)
		if r.By != "" {
			fmt.Fprintf(&b, " by %s", r.By)
		}
		if r.Detail != "" {
			fmt.Fprintf(&b, ": %s", r.Detail)
		}
	default:
		word := "refuse"
		if r.Allow {
			word = "allow "
		}
		fmt.Fprintf(&b, "%s %s %s", word, r.Input.Action.Name, cmp.Or(r.Input.Subject.ID, "-"))
		if r.Input.Resource.ID != "" {
			fmt.Fprintf(&b, " in %s", r.Input.Resource.ID)
		}
		for _, reason := range r.Reasons {
			fmt.Fprintf(&b, " [%s] %s", reason.Code, reason.Text)
		}
		if o := r.Obligations; o != nil {
			if text, err := json.Marshal(o); err == nil {
				fmt.Fprintf(&b, " with %s", text)
			}
		}
		how := "evaluated in"
		if r.Cached {
			how = "cached,"
		}
		fmt.Fprintf(&b, " (%s, %s %s)", r.Revision, how, time.Duration(r.NS).Round(time.Microsecond))
	}
	_, err := io.WriteString(out, printable(strings.ReplaceAll(b.String(), "\n", "; "))+"\n")
	return err
}

func policyAuditCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "audit",
		Short: "Sum up what a server's policy did, and ask whether it would again",
		Long: "Sum up what was recorded since a moment: which revisions went live, were refused or accepted and by whom, how many were\n" +
			"refused for what, and whether the policy in use gives its own recorded answers again. Exit code 2 where it does not.",
		Args: cobra.NoArgs,
	}
	var admin adminFlags
	admin.add(c)
	since := c.Flags().String("since", "24h", "how far back: 24h, or a time such as 2026-01-31T08:00:00Z")
	asJSON := c.Flags().Bool("json", false, "print the server's own answer")
	c.RunE = func(c *cobra.Command, _ []string) error {
		at, err := moment(*since, time.Now())
		if err != nil {
			return fmt.Errorf("--since: %w", err)
		}
		var a source.Audit
		if err := admin.ask(c.Context(), http.MethodGet, "/v1/policy/audit?since="+strconv.FormatInt(max(0, at.UnixMilli()), 10), nil, &a); err != nil {
			return err
		}
		if *asJSON {
			err = printJSON(c.OutOrStdout(), a)
		} else {
			err = showAudit(c.OutOrStdout(), &a)
		}
		if err == nil && a.Equal != a.Replayed {
			return codeChanged
		}
		return err
	}
	return c
}

func showAudit(out io.Writer, a *source.Audit) error {
	var b strings.Builder
	fmt.Fprintf(&b, "since %s, %s in use\n\nWhat happened:\n", a.Since.Local().Format("2006-01-02 15:04:05"), plain(a.Revision))
	for _, r := range a.Events {
		b.WriteString("  ")
		if err := showDecision(&b, r); err != nil {
			return err
		}
	}
	if len(a.Events) == 0 {
		b.WriteString("  nothing\n")
	}
	b.WriteString("\nRecorded decisions:\n")
	for _, rev := range sortedKeys(a.Recorded) {
		fmt.Fprintf(&b, "  %s: %d, %d of them refused\n", plain(rev), a.Recorded[rev], a.Denied[rev])
	}
	for _, code := range sortedKeys(a.Blocked) {
		fmt.Fprintf(&b, "  refused as %s: %d\n", plain(code), a.Blocked[code])
	}
	fmt.Fprintf(&b, "\nAsked again: %d, with the same answer: %d\n", a.Replayed, a.Equal)
	if len(a.Unequal) > 0 {
		fmt.Fprintf(&b, "  not the same: %s\n", strings.Join(a.Unequal, " "))
	}
	if !a.Complete {
		b.WriteString("There is more than one audit looks at; ask for a shorter time.\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func sortedKeys(m map[string]int) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
