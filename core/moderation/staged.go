package moderation

import (
	"errors"
	"slices"

	"parley/core/chat"
	"parley/sdk/abi"
)

// Part is what a judge has to do with one message.
type Part uint8

// Parts.
const (
	// None: it is not asked.
	None Part = iota
	// Enforce: its verdict counts.
	Enforce
	// Canary: its verdict counts, as that of a version on trial. If it fails,
	// the judge of the same name whose part is Shadow is asked in its place,
	// and nobody where there is none: a version on trial that breaks never
	// decides about a message.
	Canary
	// Shadow: it is asked after the verdict is made, and its own is only
	// recorded.
	Shadow
)

// String returns "none", "enforce", "canary" or "shadow".
func (p Part) String() string {
	switch p {
	case Enforce:
		return "enforce"
	case Canary:
		return "canary"
	case Shadow:
		return "shadow"
	}
	return "none"
}

// Staged is a Judge that is one of the versions of a plugin in a rollout. A
// Source may list two judges of one name if both are Staged: the version on
// trial first, then the one in force. For each message at most one of them
// counts.
type Staged interface {
	Judge
	// Part says what the judge does with a message that Wants is true for. It
	// is a function of its arguments as long as the judge lives, so that a
	// message is judged by one version even when the rollout moves on.
	Part(room chat.RoomID, user chat.UserID) Part
	// Observe is told what the judge did with a message, once its verdict is
	// made. other is what the judge of the same name did with it, nil if it
	// was not asked or if one of the two failed; agree says that both would
	// have let people see the same. Both records belong to the caller.
	Observe(rec, other *Record, agree bool)
}

// ErrQuarantined is wrapped by the error of a judge that failed so often that
// it is not asked for the time being.
var ErrQuarantined = errors.New("it is in quarantine")

// partOf says what j does with m.
func partOf(j Judge, m *Message, only []string) Part {
	if only != nil && !slices.Contains(only, j.Name()) || !j.Wants(m.Room, m.Kind) {
		return None
	}
	if s, ok := j.(Staged); ok {
		return s.Part(m.Room, m.User)
	}
	return Enforce
}

// observe tells the staged judges what became of their decisions. asked names
// the judge of each record, -1 where there was none.
func (mg *merger) observe(judges []Judge, asked []int) {
	recs := mg.res.Records
	for i, at := range asked {
		if at < 0 {
			continue
		}
		s, ok := judges[at].(Staged)
		if !ok {
			continue
		}
		var other *Record
		agree := false
		for k := range asked {
			if k != i && asked[k] >= 0 && recs[k].Plugin == recs[i].Plugin && recs[k].Err == nil && recs[i].Err == nil {
				other = &recs[k]
				agree = mg.agree(&recs[i], other)
			}
		}
		s.Observe(&recs[i], other, agree)
	}
}

// agree reports whether two verdicts mean the same for people: the same
// verdict, and the same characters masked. Codes, scores and wording may
// differ.
func (mg *merger) agree(a, b *Record) bool {
	if a.Verdict != b.Verdict || a.Verdict != abi.Redact {
		return a.Verdict == b.Verdict
	}
	x := unite(mg.intervals(nil, a.spans))
	y := unite(mg.intervals(nil, b.spans))
	return slices.Equal(x, y)
}
