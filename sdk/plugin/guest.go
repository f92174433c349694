package plugin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"parley/sdk/abi"
)

// guest runs one judge over encoded inputs. It reuses its memory: a decision
// allocates nothing here.
type guest struct {
	msg Message
	out [abi.ResultHeaderSize + abi.MaxReason + abi.MaxSpans*abi.SpanSize]byte
}

// decide judges one input and returns the verdict and the encoded result,
// which is valid until the next call; nil with Allow and Error.
func (g *guest) decide(j Judge, input []byte) (abi.Verdict, []byte) {
	if j == nil || !g.msg.decode(input) {
		return abi.Error, nil
	}
	r := j.Decide(&g.msg)
	switch r.Verdict {
	case abi.Flag, abi.Hold, abi.Deny:
		r.Spans = nil
	case abi.Redact:
		if r.Spans = tidy(r.Spans); len(r.Spans) == 0 {
			return abi.Allow, nil // all of them empty
		}
	case abi.Allow:
		return abi.Allow, nil
	default:
		return abi.Error, nil
	}
	return r.Verdict, abi.AppendResult(g.out[:0], &abi.Result{
		Code: r.Code, Score: min(r.Score, maxScore), Reason: cut(r.Reason), Spans: r.Spans,
	})
}

// decode fills m with slices of input and reports whether input is well formed.
// It does what abi.FieldBytes does for each field, in one small loop: the host
// charges Go guests by the size of their functions, and seven calls of that one
// cost 43,000 fuel, half of what an otherwise empty decision did.
func (m *Message) decode(input []byte) bool {
	le := binary.LittleEndian
	if len(input) < abi.InputHeaderSize || le.Uint32(input) != abi.Version {
		return false
	}
	n := le.Uint32(input[4:])
	if n > uint32(len(input)-abi.InputHeaderSize)/abi.FieldEntrySize {
		return false
	}
	*m = Message{TimeMS: int64(le.Uint64(input[8:]))}
	var signals []byte
	fields := [abi.NumFields]*[]byte{
		abi.FieldText: &m.Text, abi.FieldNormalized: &m.Normalized, abi.FieldUser: &m.User,
		abi.FieldRoom: &m.Room, abi.FieldRoles: &m.Roles, abi.FieldKind: &m.Kind, abi.FieldSignals: &signals,
	}
	table := input[abi.InputHeaderSize:]
	for _, field := range fields[:min(int(n), abi.NumFields)] {
		start, size := uint64(le.Uint32(table)), uint64(le.Uint32(table[4:]))
		if start+size > uint64(len(input)) {
			return false
		}
		*field = input[start : start+size : start+size]
		table = table[abi.FieldEntrySize:]
	}
	if len(signals) >= abi.SignalsSize {
		m.Signals = abi.Signals{
			RecentPerMinute: le.Uint32(signals), Repeats: le.Uint32(signals[4:]), AccountAgeHours: le.Uint32(signals[8:]),
		}
	}
	return true
}

// tidy sorts spans by field and start, joins those that overlap and, while
// there are too many, joins neighbours: rather a few characters too many
// masked than one too few.
func tidy(spans []Span) []Span {
	slices.SortFunc(spans, func(a, b Span) int {
		if a.Field != b.Field {
			return int(a.Field) - int(b.Field)
		}
		return int(int64(a.Start) - int64(b.Start))
	})
	spans = join(spans, func(p, s Span, _ int) bool { return s.Start <= p.Start+p.Length })
	for len(spans) > abi.MaxSpans {
		spans = join(spans, func(_, _ Span, i int) bool { return i%2 == 1 })
	}
	return spans
}

// join unites each span i with the one before it, p, where both lie in one
// field and wanted says so.
func join(spans []Span, wanted func(p, s Span, i int) bool) []Span {
	out := spans[:0]
	for i, s := range spans {
		if s.Length == 0 {
			continue
		}
		if n := len(out); n > 0 && out[n-1].Field == s.Field && wanted(out[n-1], s, i) {
			p := &out[n-1]
			p.Length = max(p.Start+p.Length, s.Start+s.Length) - p.Start
			continue
		}
		out = append(out, s)
	}
	return out
}

// cut shortens a reason to abi.MaxReason bytes, between runes. A reason that
// quotes half a character would make the whole result malformed.
func cut(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), abi.MaxReason+utf8.UTFMax)], "\ufffd") // not all of a message that is quoted
	if len(s) <= abi.MaxReason {
		return s
	}
	end := abi.MaxReason
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// Try judges m with j as the host would: through the ABI's encoding and the
// checks the host applies to a result. It is for an author's tests. Where
// m.Normalized is nil it is Text in lower case, which is what the host makes
// of plain ASCII.
func Try(j Judge, m *Message) (Result, error) {
	normalized := m.Normalized
	if normalized == nil {
		normalized = slices.Clone(m.Text)
		for i, c := range normalized {
			if 'A' <= c && c <= 'Z' {
				normalized[i] = c + 'a' - 'A'
			}
		}
	}
	input := abi.AppendInput(nil, &abi.Input{
		TimeMS: m.TimeMS, Text: m.Text, Normalized: normalized,
		User: string(m.User), Room: string(m.Room), Roles: string(m.Roles), Kind: string(m.Kind), Signals: m.Signals,
	})
	if len(input) > abi.MaxInput {
		return Result{}, fmt.Errorf("plugin: input of %d bytes, the host gives at most %d", len(input), abi.MaxInput)
	}
	v, b := new(guest).decide(j, input)
	switch v {
	case abi.Error:
		return Result{}, errors.New("plugin: the judge is nil, or gave no verdict the ABI knows")
	case abi.Allow:
		return Allow(), nil
	}
	r, err := abi.DecodeResult(v, b, m.Text, normalized)
	return Result{Verdict: v, Code: r.Code, Score: r.Score, Reason: r.Reason, Spans: r.Spans}, err
}
