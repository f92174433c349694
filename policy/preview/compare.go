package preview

import (
	"cmp"
	"context"
	"slices"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/policy"
	"parley/policy/decisionlog"
)

// Kind says how an answer changed.
type Kind string

// The kinds, the gravest first.
const (
	AllowToDeny Kind = "allow_to_deny"
	DenyToAllow Kind = "deny_to_allow"
	Obligations Kind = "obligations" // allowed by both, under other conditions
	Reasons     Kind = "reasons"     // refused by both, in other words; not counted as a change of the answer
)

var kinds = []Kind{AllowToDeny, DenyToAllow, Obligations, Reasons}

// Words are the kind in a sentence.
func (k Kind) Words() string {
	switch k {
	case AllowToDeny:
		return "allowed before, refused now"
	case DenyToAllow:
		return "refused before, allowed now"
	case Obligations:
		return "allowed under other conditions"
	}
	return "refused with other reasons"
}

// Report is what a new revision would have answered otherwise.
type Report struct {
	Old string    `json:"old"` // revisions
	New string    `json:"new"`
	At  time.Time `json:"at"`
	// Replayed is how many recorded decisions were asked again.
	Replayed int `json:"replayed"`
	// Changed is how many of them get another answer: the sum of Changes, but
	// for those of kind Reasons.
	Changed int `json:"changed"`
	// Unreplayable records lack a field that one of the two reads; Late ones
	// did not get their turn in time. The answer to Unsure ones hangs on an
	// address or an age that is not recorded, see policy.Replay.
	Unreplayable int `json:"unreplayable,omitempty"`
	Late         int `json:"late,omitempty"`
	Unsure       int `json:"unsure,omitempty"`
	// Recorded counts the records that the old revision itself made, and
	// Unequal those of them to which it gives another answer now. That cannot
	// be, unless a cache or a node went wrong.
	Recorded int `json:"recorded"`
	Unequal  int `json:"unequal"`
	// UnequalExample is the newest of them.
	UnequalExample *Example `json:"unequal_example,omitempty"`

	Changes []Change `json:"changes"`
	TookMS  int64    `json:"took_ms"`
}

// Change is decisions that changed alike: the same kind, action and rule.
type Change struct {
	Kind   Kind   `json:"kind"`
	Action string `json:"action"`
	// Rule is the rule behind the new answer; where it was a refusal that is
	// gone, the rule that refused.
	Rule    *policy.Rule `json:"rule,omitempty"`
	Count   int          `json:"count"`
	Example Example      `json:"example"` // the newest
}

// Example is one recorded question and both answers.
type Example struct {
	ID    string     `json:"id"` // of the decision in the log
	Time  time.Time  `json:"time"`
	Input gate.Input `json:"input"`
	Old   Answer     `json:"old"`
	New   Answer     `json:"new"`
}

// Answer is a decision in a report.
type Answer struct {
	Allow       bool             `json:"allow"`
	Failed      bool             `json:"failed,omitempty"`
	Reasons     []chat.Reason    `json:"reasons,omitempty"`
	Obligations gate.Obligations `json:"obligations"`
}

// AnswerOf is the part of d that is in a report.
func AnswerOf(d *gate.Decision) Answer {
	return Answer{Allow: d.Allow, Failed: d.Failed, Reasons: d.Reasons, Obligations: d.Obligations}
}

// maxChanges bounds the changes that a report tells apart; those above it are
// counted with the last.
const maxChanges = 64

// Compare asks both engines what the records asked, the newest first, until
// they or the time are used up. It stops early only when ctx ends.
func Compare(ctx context.Context, old, fresh *policy.Engine, records []*decisionlog.Record, limit time.Duration) Report {
	begin := time.Now()
	r := Report{Old: old.Revision(), New: fresh.Revision(), At: begin.UTC(), Changes: []Change{}}
	reads := slices.Concat(old.Reads(), fresh.Reads())
	groups := map[group]int{}
	for i := len(records) - 1; i >= 0; i-- {
		rec := records[i]
		switch {
		case !rec.IsDecision() || rec.Input == nil:
			continue
		case rec.NotReplayable || rec.Hides(reads):
			r.Unreplayable++
			continue
		case ctx.Err() != nil || time.Since(begin) >= limit:
			r.Late++
			continue
		}
		r.replay(ctx, old, fresh, rec, groups)
	}
	slices.SortStableFunc(r.Changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)), cmp.Compare(b.Count, a.Count))
	})
	r.TookMS = time.Since(begin).Milliseconds()
	return r
}

// group is what changes have in common that are told as one.
type group struct {
	kind   Kind
	action string
	file   string
	line   int
}

func (r *Report) replay(ctx context.Context, old, fresh *policy.Engine, rec *decisionlog.Record, groups map[group]int) {
	q := policy.Recorded{Input: rec.Input, At: rec.Time, Revision: rec.Revision, Named: rec.Named}
	first, second := old.Replay(ctx, q, fresh), fresh.Replay(ctx, q, old)
	switch {
	case ctx.Err() != nil:
		r.Late++ // what was cut short is no answer
		return
	case !first.Sure || !second.Sure:
		r.Unsure++
		return
	}
	was, now := first.Decision, second.Decision
	r.Replayed++
	example := Example{ID: rec.ID, Time: rec.Time, Input: *rec.Input, Old: AnswerOf(&was), New: AnswerOf(&now)}
	if recorded := rec.Decision(); rec.Revision == old.Revision() && !rec.Failed && !was.Failed {
		r.Recorded++
		if !policy.Same(&recorded, &was) {
			r.Unequal++
			if r.UnequalExample == nil {
				r.UnequalExample = &Example{ID: rec.ID, Time: rec.Time, Input: *rec.Input, Old: AnswerOf(&recorded), New: AnswerOf(&was)}
			}
		}
	}
	kind, changed := difference(&was, &now)
	if !changed {
		return
	}
	if kind != Reasons {
		r.Changed++
	}
	key := group{kind: kind, action: rec.Input.Action.Name}
	var rule *policy.Rule
	if kind != DenyToAllow {
		rule = blame(ctx, fresh, second.Input)
	}
	if rule == nil {
		rule = blame(ctx, old, first.Input)
	}
	if rule == nil {
		rule = blame(ctx, fresh, second.Input)
	}
	if rule != nil {
		key.file, key.line = rule.File, rule.Line
	}
	at, known := groups[key]
	switch {
	case known:
		r.Changes[at].Count++
	case len(r.Changes) == maxChanges:
		r.Changes[maxChanges-1].Count++
	default:
		groups[key] = len(r.Changes)
		r.Changes = append(r.Changes, Change{Kind: kind, Action: key.action, Rule: rule, Count: 1, Example: example})
	}
}

func blame(ctx context.Context, e *policy.Engine, in *gate.Input) *policy.Rule {
	if _, rule, ok := e.Blame(ctx, in); ok {
		return &rule
	}
	return nil
}

// difference says how now differs from was.
func difference(was, now *gate.Decision) (Kind, bool) {
	switch {
	case policy.Same(was, now):
		return "", false
	case was.Allow && !now.Allow:
		return AllowToDeny, true
	case !was.Allow && now.Allow:
		return DenyToAllow, true
	case now.Allow && !policy.SameObligations(&was.Obligations, &now.Obligations):
		return Obligations, true
	case now.Allow:
		return "", false // reasons of what is allowed are shown to nobody
	}
	return Reasons, true
}

// Share is the changed part of what was replayed, 0 to 1.
func (r *Report) Share() float64 {
	if r.Replayed == 0 {
		return 0
	}
	return float64(r.Changed) / float64(r.Replayed)
}
