package session

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/core/wire"
	"parley/sdk/abi"
)

// askPlugins has the plugins rehearse the text.
func (q *inquiry) askPlugins(ctx context.Context, text string, only []string) error {
	select {
	case q.srv.rehearsals <- struct{}{}:
		defer func() { <-q.srv.rehearsals }()
	case <-ctx.Done():
		return lateError(ctx.Err())
	}
	m := spoken(q.room, q.who.user, q.who.roles, text, q.now.UnixMilli())
	m.Signals = q.srv.d.Signals.Peek(m.Room, m.User, text, q.now)
	res, err := q.srv.d.Stage.Rehearse(ctx, &m, only)
	if ctx.Err() != nil {
		return lateError(ctx.Err())
	}
	var e *chat.Error
	if errors.As(err, &e) {
		q.refuse(wire.ByText, e, "Shorten the message, or split it.")
		return nil
	}
	if err != nil {
		return err
	}
	q.ev.Outcome = map[abi.Verdict]chat.Outcome{abi.Redact: chat.Redacted, abi.Hold: chat.Held}[res.Verdict]
	switch res.Verdict {
	case abi.Deny:
		q.ev.May = false
	case abi.Redact, abi.Hold:
	default: // what was merely flagged is posted, and its author is not told
		q.ev.Outcome = chat.Accepted
		return nil
	}
	for _, reason := range res.Reasons {
		q.ev.Blocks = append(q.ev.Blocks, q.minds(&res, reason))
	}
	if res.Verdict == abi.Hold {
		return q.checkQueue(ctx)
	}
	return nil
}

// changesOfText are what changes a plugin's verdict.
var changesOfText = map[abi.Verdict]string{
	abi.Redact: "Write it differently, or parts of it will be hidden.",
	abi.Hold:   "Write it differently, or send it and wait: a moderator will look at it.",
	abi.Deny:   "Write it differently, or send it and appeal: a moderator will look at it.",
}

// minds is a plugin's reason.
func (q *inquiry) minds(res *moderation.Result, reason chat.Reason) wire.WhyBlock {
	b := wire.WhyBlock{By: wire.ByPlugin, Code: reason.Code, Text: reason.Text, Source: reason.Source, Change: changesOfText[res.Verdict]}
	if reason.Code == moderation.ReasonPluginError {
		b.Change = "An operator has to look at this plugin; try again later."
	}
	if !q.full {
		return b
	}
	for i := range res.Records {
		r := &res.Records[i]
		if "plugin:"+r.Plugin != reason.Source || r.Part == moderation.Canary && r.Err != nil {
			continue
		}
		b.Plugin = &wire.WhyPlugin{Name: r.Plugin, Version: r.Version, Digest: r.Digest, Part: r.Part.String(), Verdict: r.Verdict.String(), Code: int(r.Code)}
		if r.Err != nil {
			b.Plugin.Error = clipped(r.Err.Error())
		}
	}
	return b
}

// maxWhyError bounds what a moderator is told of a plugin's failure, in bytes.
const maxWhyError = 300

func clipped(s string) string {
	if len(s) > maxWhyError {
		s = s[:maxWhyError]
	}
	return strings.ToValidUTF8(s, "")
}

// checkQueue looks for a place among the messages that wait for a moderator.
func (q *inquiry) checkQueue(ctx context.Context) error {
	open, _, err := q.srv.d.Journal.Reviews(ctx, q.room.ID())
	if err != nil {
		return storeError(fmt.Errorf("read the reviews of room %s: %w", q.room.ID(), err))
	}
	own := 0
	for i := range open {
		if open[i].Entry.From == q.who.user {
			own++
		}
	}
	if full := queueFull(own, len(open)); full != nil {
		full.Retry = 0 // nobody knows when
		q.refuse(wire.ByRoom, full, "A moderator has to decide about some of them first.")
	}
	return nil
}
