package preview

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/spelling"
	"parley/policy"
)

// Guard refuses a revision that changes too much. An operator can let it pass
// by name.
type Guard struct {
	// MaxChanged is how many replayed decisions may change; 0 is no bound.
	MaxChanged int
	// MaxShare is which part of them may, in percent; 0 is no bound. It counts
	// from MinReplayed on: half of two says nothing.
	MaxShare int
	// Keep are operators who must not be locked out.
	Keep []Keep
}

// MinReplayed is how many decisions make a share worth speaking of.
const MinReplayed = 20

// Keep is somebody who may do something, and still must under a new revision.
type Keep struct {
	text  string
	input gate.Input
}

// String is the text that ParseKeep read.
func (k Keep) String() string { return k.text }

// ParseKeep reads "role:admin moderate.review" or "user:olga moderate.review
// kitchen": who, the action, and the room, lobby where none is named.
func ParseKeep(text string) (Keep, error) {
	const form = "role:NAME ACTION [ROOM] or user:NAME ACTION [ROOM], such as role:admin moderate.review"
	words := strings.Fields(text)
	if len(words) < 2 || len(words) > 3 {
		return Keep{}, fmt.Errorf("policy.guard.keep: %.80q is not %s", text, form)
	}
	k := Keep{text: strings.Join(words, " ")}
	what, name, _ := strings.Cut(words[0], ":")
	k.input = *gate.Sample(words[1])
	who := &k.input.Subject
	who.Type, who.ID = string(chat.ClassUser), "operator"
	switch {
	case what == "role" && name != "":
		who.Roles = []string{name}
	case what == "user" && name != "":
		who.ID = name
	default:
		return Keep{}, fmt.Errorf("policy.guard.keep: %.80q is not %s", text, form)
	}
	if !slices.Contains(gate.Actions(), words[1]) {
		err := fmt.Sprintf("policy.guard.keep: %.80q names no action", text)
		if near := spelling.Nearest(words[1], gate.Actions()); near != "" {
			err += fmt.Sprintf("; did you mean %s?", near)
		}
		return Keep{}, errors.New(err)
	}
	if len(words) == 3 {
		if k.input.Resource.Type != "room" || !chat.ValidRoom(chat.RoomID(words[2])) {
			return Keep{}, fmt.Errorf("policy.guard.keep: %.80q names no room that %s is about", text, words[1])
		}
		k.input.Resource.ID = words[2]
	}
	return k, nil
}

// Exceeded is why a Guard refuses. It is Problems, as every refusal is.
type Exceeded struct{ policy.Problems }

// Unwrap makes it Problems for errors.As.
func (e *Exceeded) Unwrap() error { return e.Problems }

// Overridable says that a person may let the revision pass all the same.
func (e *Exceeded) Overridable() bool { return true }

// Check returns *Exceeded where the revision of the report changes too much.
func (g Guard) Check(ctx context.Context, r *Report, old, fresh *policy.Engine) error {
	var found policy.Problems
	if g.MaxChanged > 0 && r.Changed > g.MaxChanged {
		found = append(found, policy.Problem{Reason: fmt.Sprintf(
			"policy.guard: it changes %d of %d replayed decisions, policy.guard.max_changed allows %d", r.Changed, r.Replayed, g.MaxChanged)})
	}
	if g.MaxShare > 0 && r.Replayed >= MinReplayed && r.Share()*100 > float64(g.MaxShare) {
		found = append(found, policy.Problem{Reason: fmt.Sprintf(
			"policy.guard: it changes %.1f %% of %d replayed decisions, policy.guard.max_share allows %d %%", r.Share()*100, r.Replayed, g.MaxShare)})
	}
	for _, k := range g.Keep {
		in := k.input
		was, _ := old.Evaluate(ctx, &in)
		if !was.Allow {
			continue // nothing to keep
		}
		now, rule, ok := fresh.Blame(ctx, &in)
		if now.Allow {
			continue
		}
		p := policy.Problem{Reason: fmt.Sprintf("policy.guard: it locks out an operator: %q is allowed now and would not be", k.text)}
		if ok {
			p.File, p.Line = rule.File, rule.Line
		}
		if len(now.Reasons) > 0 {
			p.Reason += fmt.Sprintf(" (%s: %s)", now.Reasons[0].Code, now.Reasons[0].Text)
		}
		found = append(found, p)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("judge what the policy changes: %w", err)
	}
	if len(found) == 0 {
		return nil
	}
	return &Exceeded{found}
}

// Missing returns those of Keep that the engine does not allow, so that the
// guard would guard nothing.
func (g Guard) Missing(ctx context.Context, e *policy.Engine) (out []string) {
	for _, k := range g.Keep {
		in := k.input
		if d, _ := e.Evaluate(ctx, &in); !d.Allow {
			out = append(out, k.text)
		}
	}
	return out
}
