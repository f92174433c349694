package plugins

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/sdk/abi"
)

// Vector is one test vector of a manifest: a message and the verdict it must
// get. A module is loaded only if it passes all of its manifest's.
type Vector struct {
	Name    string      // unique within the manifest
	Text    string      // as the author wrote it
	User    string      // default "ann"
	Room    string      // default "lobby"
	Roles   []string    // default none
	Kind    string      // default "message"
	Time    time.Time   // to the millisecond; default 2025-01-01
	Signals abi.Signals // default one message in the last minute, an account of 1,000 hours
	Want    abi.Verdict // Allow, Flag, Redact, Hold or Deny
	Code    *uint16     // nil: any
	Masked  *string     // the text as people see it afterwards; nil: any
	Spans   []abi.Span  // exactly these; nil: any
}

// VectorResult is what a plugin made of one vector.
type VectorResult struct {
	Vector  Vector
	Verdict abi.Verdict // the plugin's own; abi.Error if it failed
	Result  abi.Result
	Masked  string // the text as people see it
	Fuel    uint64
	Time    time.Duration
	Err     error // why the plugin failed, nil if it did not
	// Problem says how the result differs from what the vector wants, "" if it
	// does not.
	Problem string
}

const maxVectorText = 16 << 10

// newVector has the defaults, and no verdict.
func newVector() Vector {
	return Vector{Want: abi.Error, User: neutral.User, Room: neutral.Room, Kind: neutral.Kind,
		Time: time.UnixMilli(neutral.TimeMS).UTC(), Signals: neutral.Signals}
}

func (d *manifestDecoder) vectors(into *[]Vector) error {
	seen := make(map[string]bool)
	return d.items(maxManifestItems, func(i int) error {
		v := newVector()
		at := fmt.Sprintf("vectors[%d].", i)
		err := d.object(at, map[string]func() error{
			"name":    func() error { return d.text(&v.Name) },
			"text":    func() error { return d.longText(&v.Text, maxVectorText) },
			"user":    func() error { return d.text(&v.User) },
			"room":    func() error { return d.text(&v.Room) },
			"roles":   func() error { return d.list(&v.Roles, func(string) string { return "" }) },
			"kind":    func() error { return d.word(&v.Kind, kinds...) },
			"time":    func() error { return d.time(&v.Time) },
			"signals": func() error { return d.signals(at, &v.Signals) },
			"want":    func() error { return d.verdict(&v.Want) },
			"code":    func() error { return d.code(&v.Code) },
			"masked":  func() error { v.Masked = new(string); return d.longText(v.Masked, maxVectorText) },
			"spans":   func() error { return d.spans(at, &v.Spans) },
		})
		switch {
		case err != nil:
			return err
		case v.Name == "":
			return d.errorf("%q: want a name", at+"name")
		case seen[v.Name]:
			return d.errorf("%q: %q is repeated", at+"name", v.Name)
		case v.Text == "":
			return d.errorf("%q: want a text", at+"text")
		case v.Want == abi.Error:
			return d.errorf("%q: want a verdict", at+"want")
		}
		seen[v.Name] = true
		*into = append(*into, v)
		return nil
	})
}

func (d *manifestDecoder) signals(at string, s *abi.Signals) error {
	u32 := func(into *uint32) func() error {
		return func() error {
			v := uint64(0)
			err := d.whole(&v, 0, 1<<32-1)
			*into = uint32(v)
			return err
		}
	}
	return d.object(at+"signals.", map[string]func() error{
		"recent_per_minute": u32(&s.RecentPerMinute),
		"repeats":           u32(&s.Repeats),
		"account_age_hours": u32(&s.AccountAgeHours),
	})
}

func (d *manifestDecoder) time(into *time.Time) error {
	var s string
	if err := d.text(&s); err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Year() < 1970 || t.Year() > 9999 {
		return d.errorf("%q, want a time such as \"2025-01-01T00:00:00Z\"", s)
	}
	*into = t.UTC().Truncate(time.Millisecond)
	return nil
}

var verdictNames = map[string]abi.Verdict{
	"allow": abi.Allow, "flag": abi.Flag, "redact": abi.Redact, "hold": abi.Hold, "deny": abi.Deny,
}

func (d *manifestDecoder) verdict(into *abi.Verdict) error {
	var s string
	if err := d.word(&s, "allow", "flag", "redact", "hold", "deny"); err != nil {
		return err
	}
	*into = verdictNames[s]
	return nil
}

func (d *manifestDecoder) code(into **uint16) error {
	v := uint64(0)
	err := d.whole(&v, 0, 1<<16-1)
	code := uint16(v)
	*into = &code
	return err
}

// spanFields are the fields that spans may name.
var spanFields = map[string]abi.Field{"text": abi.FieldText, "normalized": abi.FieldNormalized}

func (d *manifestDecoder) spans(at string, into *[]abi.Span) error {
	*into = []abi.Span{}
	return d.items(abi.MaxSpans, func(i int) error {
		field, start, length := "text", uint64(0), uint64(0)
		err := d.object(fmt.Sprintf("%sspans[%d].", at, i), map[string]func() error{
			"field":  func() error { return d.word(&field, "text", "normalized") },
			"start":  func() error { return d.whole(&start, 0, maxInputBytes) },
			"length": func() error { return d.whole(&length, 1, maxInputBytes) },
		})
		*into = append(*into, abi.Span{Field: spanFields[field], Start: uint32(start), Length: uint32(length)})
		return err
	})
}

// The types of Manifest.JSON, with their keys in alphabetical order.
type (
	vectorJSON struct {
		Code    *uint16     `json:"code,omitempty"`
		Kind    string      `json:"kind"`
		Masked  *string     `json:"masked,omitempty"`
		Name    string      `json:"name"`
		Roles   []string    `json:"roles,omitempty"`
		Room    string      `json:"room"`
		Signals signalsJSON `json:"signals"`
		Spans   *[]spanJSON `json:"spans,omitempty"`
		Text    string      `json:"text"`
		Time    string      `json:"time"`
		User    string      `json:"user"`
		Want    string      `json:"want"`
	}
	signalsJSON struct {
		AccountAgeHours uint32 `json:"account_age_hours"`
		RecentPerMinute uint32 `json:"recent_per_minute"`
		Repeats         uint32 `json:"repeats"`
	}
	spanJSON struct {
		Field  string `json:"field"`
		Length uint32 `json:"length"`
		Start  uint32 `json:"start"`
	}
)

func (v *Vector) json() vectorJSON {
	out := vectorJSON{
		Code: v.Code, Kind: v.Kind, Masked: v.Masked, Name: v.Name, Roles: v.Roles, Room: v.Room,
		Signals: signalsJSON{v.Signals.AccountAgeHours, v.Signals.RecentPerMinute, v.Signals.Repeats},
		Text:    v.Text, Time: v.Time.UTC().Format(time.RFC3339Nano), User: v.User, Want: v.Want.String(),
	}
	if v.Spans != nil {
		spans := make([]spanJSON, len(v.Spans))
		for i, s := range v.Spans {
			name := "text"
			if s.Field == abi.FieldNormalized {
				name = "normalized"
			}
			spans[i] = spanJSON{name, s.Length, s.Start}
		}
		out.Spans = &spans
	}
	return out
}

// RunVectors has p judge every vector of m, through the same stage as a
// message on its way into a room. The error is ctx's; how each vector went is
// in the results.
func RunVectors(ctx context.Context, p *Plugin, m Manifest) ([]VectorResult, error) {
	rec := &recordingJudge{Judge: p}
	cfg := moderation.Defaults()
	cfg.InputBytes = max(cfg.InputBytes, min(p.limits.InputBytes, maxInputBytes))
	if len(m.Vectors) == 0 {
		return nil, nil
	}
	stage, err := moderation.New(cfg, rec)
	if err != nil {
		return nil, err
	}
	out := make([]VectorResult, 0, len(m.Vectors))
	for _, v := range m.Vectors {
		r := rec.run(ctx, stage, v)
		if err := ctx.Err(); err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

// passVectors fails with the first vector that a new plugin does not pass.
func (p *Plugin) passVectors(ctx context.Context) error {
	results, err := RunVectors(ctx, p, p.manifest)
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Problem != "" {
			return fmt.Errorf("test vector %q: %s", r.Vector.Name, r.Problem)
		}
	}
	return nil
}

// recordingJudge keeps what its judge answered last. It is a Source of itself.
type recordingJudge struct {
	moderation.Judge
	asked   bool
	verdict abi.Verdict
	result  abi.Result
	fuel    uint64
	err     error
}

func (j *recordingJudge) Judges() []moderation.Judge { return []moderation.Judge{j} }

// Decide implements moderation.Judge.
func (j *recordingJudge) Decide(input, text, normalized []byte) (abi.Verdict, abi.Result, uint64, error) {
	v, r, fuel, err := j.Judge.Decide(input, text, normalized)
	j.asked, j.verdict, j.result, j.fuel, j.err = true, v, r, fuel, err
	return v, r, fuel, err
}

func (j *recordingJudge) run(ctx context.Context, stage *moderation.Stage, v Vector) VectorResult {
	out := VectorResult{Vector: v, Masked: v.Text}
	text, err := moderation.Clean(v.Text, 0)
	if err != nil {
		out.Verdict, out.Err = abi.Error, fmt.Errorf("the server would not take its text: %w", err)
		out.Problem = out.Err.Error()
		return out
	}
	j.asked, j.verdict, j.result, j.fuel, j.err = false, abi.Allow, abi.Result{}, 0, nil
	start := time.Now()
	res, err := stage.Judge(ctx, &moderation.Message{
		Room: chat.RoomID(v.Room), User: chat.UserID(v.User), Roles: v.Roles, Kind: v.Kind,
		Text: text, TimeMS: v.Time.UnixMilli(), Signals: v.Signals,
	}, nil)
	out.Time = time.Since(start)
	out.Verdict, out.Result, out.Fuel, out.Err, out.Masked = j.verdict, j.result, j.fuel, j.err, res.Text
	if err != nil {
		out.Verdict, out.Err = abi.Error, err
	}
	out.Problem = v.problem(&out)
	return out
}

// problem says how got differs from what v wants.
func (v *Vector) problem(got *VectorResult) string {
	switch {
	case got.Err != nil:
		return got.Err.Error()
	case got.Verdict != v.Want:
		return fmt.Sprintf("got %s%s, want %s", got.Verdict, because(&got.Result), v.Want)
	case v.Code != nil && got.Result.Code != *v.Code:
		return fmt.Sprintf("got code %d, want %d", got.Result.Code, *v.Code)
	case v.Masked != nil && got.Masked != *v.Masked:
		return fmt.Sprintf("got the text %q, want %q", got.Masked, *v.Masked)
	case v.Spans != nil && !slices.Equal(got.Result.Spans, v.Spans):
		return fmt.Sprintf("got spans %s, want %s", spanText(got.Result.Spans), spanText(v.Spans))
	}
	return ""
}

func because(r *abi.Result) string {
	if r.Reason == "" {
		return ""
	}
	return fmt.Sprintf(" (%q)", r.Reason)
}

func spanText(spans []abi.Span) string {
	out := make([]string, len(spans))
	for i, s := range spans {
		out[i] = fmt.Sprintf("%d:[%d,%d)", s.Field, s.Start, uint64(s.Start)+uint64(s.Length))
	}
	return "[" + strings.Join(out, " ") + "]"
}
