package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/sdk/abi"
)

// maxLine bounds one line of text to judge, in bytes: more than any server
// takes (limits.text_bytes).
const maxLine = 1 << 20

// one is a source of one plugin.
type one struct{ moderation.Judge }

func (o one) Judges() []moderation.Judge { return []moderation.Judge{o} }

// judged is what became of one text, as --json prints it.
type judged struct {
	Text    string `json:"text"`
	Verdict string `json:"verdict"` // "not asked" where the manifest's kinds or rooms leave it out
	Code    uint16 `json:"code,omitempty"`
	Score   uint16 `json:"score,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Masked  string `json:"masked,omitempty"` // with redact: what people see
	Fuel    uint64 `json:"fuel"`
	NS      int64  `json:"ns"`
	Error   string `json:"error,omitempty"` // why it failed
}

// judge runs one text through the stage, as a message on its way into a room.
func judge(ctx context.Context, s *moderation.Stage, m moderation.Message) (judged, error) {
	out := judged{Text: m.Text}
	clean, err := moderation.Clean(m.Text, 0)
	if err == nil {
		m.Text = clean
		var r moderation.Result
		if r, err = s.Judge(ctx, &m, nil); err == nil {
			return out.of(r), nil
		}
	}
	var said *chat.Error
	if !errors.As(err, &said) {
		return out, err
	}
	out.Verdict, out.Error = "not asked", "the server would not take it: "+said.Text
	return out, nil
}

func (j judged) of(r moderation.Result) judged {
	if len(r.Records) == 0 {
		j.Verdict = "not asked"
		return j
	}
	rec := r.Records[0]
	j.Verdict, j.Code, j.Score, j.Fuel, j.NS = rec.Verdict.String(), rec.Code, rec.Score, rec.Fuel, rec.Time.Nanoseconds()
	if rec.Err != nil {
		j.Error = rec.Err.Error()
		return j
	}
	if len(r.Reasons) > 0 {
		j.Reason = r.Reasons[0].Text
	}
	if rec.Verdict == abi.Redact {
		j.Masked = r.Text
	}
	return j
}

func pluginRunCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run NAME.wasm",
		Short: "Judge each line of standard input: verdict, rule, fuel, time",
		Long: "Judge each line of standard input in the server's own host, with the manifest beside the module, and print the\n" +
			"verdict, the rule, the fuel and time it took, and what people would see.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: modules,
	}
	var host hostFlags
	host.add(c)
	user := c.Flags().String("user", "ann", "author of the lines")
	room := c.Flags().String("room", "lobby", "room they are written in")
	roles := c.Flags().StringSlice("role", nil, "role of the author; may be repeated")
	kind := c.Flags().String("kind", "message", "message, edit, nick or topic")
	var signals abi.Signals
	c.Flags().Uint32Var(&signals.RecentPerMinute, "recent", 1, "signal: messages of the author in the last minute")
	c.Flags().Uint32Var(&signals.Repeats, "repeats", 0, "signal: how many of the last 8 had the same text")
	c.Flags().Uint32Var(&signals.AccountAgeHours, "account-age", 1000, "signal: age of the account in hours, 0: unknown")
	asJSON := c.Flags().Bool("json", false, "print one JSON object for each line")
	kinds := []string{"message", "edit", "nick", "topic"}
	_ = c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(kinds, cobra.ShellCompDirectiveNoFileComp))
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if !slices.Contains(kinds, *kind) {
			return fmt.Errorf("--kind %q, want message, edit, nick or topic", *kind)
		}
		l, err := host.loadUntested(c, args[0])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.close()) }()
		stage, err := moderation.New(moderation.Defaults(), one{l})
		if err != nil {
			return err
		}
		show := showLine
		if *asJSON {
			show = func(out io.Writer, j judged) error { return json.NewEncoder(out).Encode(j) }
		}
		return eachLine(c.Context(), c.InOrStdin(), func(line string) error {
			j, err := judge(c.Context(), stage, moderation.Message{
				Room: chat.RoomID(*room), User: chat.UserID(*user), Roles: *roles, Kind: *kind,
				Text: line, TimeMS: time.Now().UnixMilli(), Signals: signals,
			})
			if err != nil {
				return err
			}
			return show(c.OutOrStdout(), j)
		})
	}
	return c
}

// eachLine calls f for each line that is not empty, until the input or ctx
// ends.
func eachLine(ctx context.Context, in io.Reader, f func(line string) error) error {
	s := bufio.NewScanner(in)
	s.Buffer(nil, maxLine)
	for n := 1; s.Scan(); n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if strings.TrimSpace(s.Text()) == "" {
			continue
		}
		if err := f(s.Text()); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("a line has more than %d bytes, which no server takes", maxLine)
	}
	return s.Err()
}

// showLine is for people: columns first, then what may be long.
func showLine(out io.Writer, j judged) error {
	rule, text := "-", j.Text
	switch {
	case j.Error != "":
		text = "! " + j.Error
	case j.Verdict == "redact":
		text = j.Masked
	}
	if j.Code != 0 {
		rule = fmt.Sprintf("rule_%d", j.Code)
	}
	if j.Reason != "" {
		text += "   (" + j.Reason + ")"
	}
	_, err := fmt.Fprintf(out, "%-9s %-8s %9d fuel %9s  %s\n", j.Verdict, rule, j.Fuel, time.Duration(j.NS), plain(text))
	return err
}
