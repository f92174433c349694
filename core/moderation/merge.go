package moderation

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"parley/core/chat"
	"parley/sdk/abi"
)

// Codes of the reasons this package gives.
const (
	// ReasonPluginError: a plugin failed, and its on_error refuses or holds.
	ReasonPluginError = "plugin_error"
)

// pluginRetry is when a message refused for a plugin's failure may be tried
// again: a swapped or reset plugin is back well within it.
const pluginRetry = 5 * time.Second

// rank orders the verdicts by strength; it happens to be their number, which
// nothing else should rely on.
func rank(v abi.Verdict) int {
	switch v {
	case abi.Flag:
		return 1
	case abi.Redact:
		return 2
	case abi.Hold:
		return 3
	case abi.Deny:
		return 4
	}
	return 0 // Allow
}

// deeds say what a plugin did that gave no reason of its own.
var deeds = map[abi.Verdict]string{
	abi.Flag: "flagged", abi.Redact: "masked parts of", abi.Hold: "wants a moderator to see", abi.Deny: "refused",
}

// merger unites verdicts. Plugins are added in order of their names, so the
// result is the same for every order they are listed in.
type merger struct {
	form  *Form
	marks []interval
	res   Result
	judge bool // a plugin itself, not its failure, gave res.Verdict
}

// add takes one plugin's record; onError is what its failure means.
func (mg *merger) add(rec Record, onError abi.Verdict, r *abi.Result) {
	mg.res.Records = append(mg.res.Records, rec)
	v := rec.Verdict
	if rec.Err != nil {
		if v = onError; v != abi.Allow && v != abi.Hold {
			v = abi.Deny
		}
	}
	if v == abi.Allow {
		return
	}
	if v == abi.Redact {
		mg.marks = mg.intervals(mg.marks, r.Spans)
	}
	switch {
	case rank(v) < rank(mg.res.Verdict):
		return
	case rank(v) > rank(mg.res.Verdict):
		mg.res.Verdict, mg.res.Reasons, mg.judge = v, nil, false
	}
	mg.judge = mg.judge || rec.Err == nil
	mg.res.Reasons = append(mg.res.Reasons, explain(&rec, v, r))
}

// explain returns the reason for verdict v of a plugin, or of its failure.
func explain(rec *Record, v abi.Verdict, r *abi.Result) chat.Reason {
	reason := chat.Reason{Code: ReasonPluginError, Source: "plugin:" + rec.Plugin}
	switch {
	case errors.Is(rec.Err, errMissing):
		reason.Text = "The policy wants the plugin " + rec.Plugin + " to judge this message, but no version of it does. Tell an operator."
	case errors.Is(rec.Err, ErrQuarantined):
		reason.Text = "The plugin " + rec.Plugin + " is in quarantine because it failed repeatedly, and messages do not pass without it. Try again later."
	case rec.Err != nil:
		reason.Text = "The plugin " + rec.Plugin + " failed to judge this message, and messages do not pass without it. Try again later."
	default:
		reason.Code = fmt.Sprintf("rule_%d", r.Code)
		if reason.Text = sanitize(r.Reason); reason.Text == "" {
			reason.Text = "The plugin " + rec.Plugin + " " + deeds[v] + " this message."
		}
	}
	return reason
}

// note takes the record of a plugin that does not count.
func (mg *merger) note(rec Record) { mg.res.Records = append(mg.res.Records, rec) }

// intervals appends what spans mark of the original text.
func (mg *merger) intervals(to []interval, spans []abi.Span) []interval {
	for _, sp := range spans {
		start, end := int(sp.Start), int(sp.Start+sp.Length)
		if sp.Field == abi.FieldNormalized {
			start, end = mg.form.Original(start, end)
		} else {
			start, end = mg.form.Expand(start, end)
		}
		to = append(to, interval{start, end})
	}
	return to
}

func (mg *merger) result(text string) Result {
	mg.res.Text = text
	mg.res.Failed = rank(mg.res.Verdict) >= rank(abi.Hold) && !mg.judge
	if mg.res.Verdict == abi.Redact {
		mg.res.Text = mask(text, unite(mg.marks))
	}
	return mg.res
}

// sanitize makes a plugin's words fit to be shown: one line of at most
// abi.MaxReason bytes without control, direction or stacked characters.
func sanitize(s string) string {
	if plain(s) && len(s) <= abi.MaxReason {
		return s
	}
	s, err := Clean(strings.ToValidUTF8(s, "\ufffd"), 0)
	if err != nil {
		return "" // it says nothing
	}
	s = strings.NewReplacer("\n", " ", "\t", " ").Replace(s)
	if len(s) > abi.MaxReason {
		end := abi.MaxReason
		for !utf8.RuneStart(s[end]) {
			end--
		}
		s = strings.TrimSpace(s[:end])
	}
	return s
}

// Refusal returns the error a sender is told when the message was not let
// through: code denied, or plugin_error where only a failure stands behind it.
// It is nil after Allow, Flag and Redact, and after Hold: where a held message
// waits is for the caller to know.
func (r *Result) Refusal() *chat.Error {
	e := &chat.Error{Code: chat.CodeDenied, Reasons: r.Reasons}
	switch {
	case r.Verdict != abi.Deny:
		return nil
	case r.Failed:
		e.Code = chat.CodePluginError
		e.Text = "A plugin that must judge this message failed, so it was not sent. Try again later."
		e.Retry = pluginRetry
	default:
		e.Text = "A plugin refused this message, so it was not sent; the reasons say why."
	}
	return e
}
