package moderation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/sdk/abi"
)

// staged is a fake with a part, the same for everybody.
type staged struct {
	*fake
	part   Part
	digest string // "": the fake's
	told   []string
}

func (s *staged) Digest() string { return cmp.Or(s.digest, s.fake.Digest()) }

func (s *staged) Part(chat.RoomID, chat.UserID) Part { return s.part }

func (s *staged) Observe(rec, other *Record, agree bool) {
	line := fmt.Sprintf("%s %s", rec.Part, rec.Verdict)
	if other != nil {
		line += fmt.Sprintf(" against %s %s agree=%v", other.Part, other.Verdict, agree)
	}
	s.told = append(s.told, line)
}

func as(part Part, f *fake) *staged { return &staged{fake: f, part: part} }

func parts(rs []Record) string {
	var s []string
	for _, r := range rs {
		s = append(s, fmt.Sprintf("%s:%s:%s", r.Plugin, r.Part, r.Verdict))
	}
	return strings.Join(s, " ")
}

func TestStagedJudges(t *testing.T) {
	red := func(name string, start, n uint32) *fake {
		return verdict(name, abi.Redact, 1, abi.Span{Field: abi.FieldText, Start: start, Length: n})
	}
	tests := []struct {
		name    string
		judges  []Judge // the version on trial first
		want    abi.Verdict
		records string
		told    []string // each judge's, joined by "; "
	}{
		{"shadow of another version", []Judge{as(Shadow, verdict("p", abi.Deny, 2)), as(Enforce, verdict("p", abi.Flag, 1))},
			abi.Flag, "p:enforce:flag p:shadow:deny", []string{"shadow deny against enforce flag agree=false", "enforce flag against shadow deny agree=false"}},
		{"shadow alone", []Judge{as(Shadow, verdict("p", abi.Deny, 2))}, abi.Allow, "p:shadow:deny", []string{"shadow deny"}},
		{"shadow fails", []Judge{as(Shadow, failing("p", abi.Deny)), as(Enforce, verdict("p", abi.Allow, 1))},
			abi.Allow, "p:enforce:allow p:shadow:error", []string{"shadow error", "enforce allow"}},
		{"canary", []Judge{as(Canary, verdict("p", abi.Flag, 2)), as(Shadow, verdict("p", abi.Deny, 1))},
			abi.Flag, "p:canary:flag p:shadow:deny", []string{"canary flag against shadow deny agree=false", "shadow deny against canary flag agree=false"}},
		{"canary fails, the old one counts", []Judge{as(Canary, failing("p", abi.Deny)), as(Shadow, verdict("p", abi.Hold, 1))},
			abi.Hold, "p:canary:error p:enforce:hold", []string{"canary error", "enforce hold"}},
		{"both fail, the old one's on_error counts", []Judge{as(Canary, failing("p", abi.Allow)), as(Shadow, failing("p", abi.Hold))},
			abi.Hold, "p:canary:error p:enforce:error", []string{"canary error", "enforce error"}},
		{"canary fails alone", []Judge{as(Canary, failing("p", abi.Deny))}, abi.Allow, "p:canary:error", []string{"canary error"}},
		{"not asked", []Judge{as(None, verdict("p", abi.Deny, 2)), as(Enforce, verdict("p", abi.Allow, 1))}, abi.Allow, "p:enforce:allow", []string{"", "enforce allow"}},
		{"others go on", []Judge{verdict("a", abi.Flag, 1), as(Shadow, verdict("p", abi.Deny, 2)), verdict("z", abi.Allow, 1)},
			abi.Flag, "a:enforce:flag z:enforce:allow p:shadow:deny", []string{"", "shadow deny", ""}},
		{"same spans", []Judge{as(Shadow, red("p", 0, 4)), as(Enforce, red("p", 0, 4))}, abi.Redact, "p:enforce:redact p:shadow:redact",
			[]string{"shadow redact against enforce redact agree=true", "enforce redact against shadow redact agree=true"}},
		{"same characters by other spans", []Judge{as(Shadow, verdict("p", abi.Redact, 9, abi.Span{Start: 2, Length: 2}, abi.Span{Field: abi.FieldNormalized, Start: 0, Length: 2})), as(Enforce, red("p", 0, 4))},
			abi.Redact, "p:enforce:redact p:shadow:redact", []string{"shadow redact against enforce redact agree=true", "enforce redact against shadow redact agree=true"}},
		{"other spans", []Judge{as(Shadow, red("p", 0, 5)), as(Enforce, red("p", 0, 4))}, abi.Redact, "p:enforce:redact p:shadow:redact",
			[]string{"shadow redact against enforce redact agree=false", "enforce redact against shadow redact agree=false"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := judge(t, stage(t, tt.judges...), "hello world", nil)
			if r.Verdict != tt.want || parts(r.Records) != tt.records {
				t.Errorf("got %s [%s], want %s [%s]", r.Verdict, parts(r.Records), tt.want, tt.records)
			}
			for i, j := range tt.judges {
				if s, ok := j.(*staged); ok && strings.Join(s.told, "; ") != tt.told[i] {
					t.Errorf("judge %d was told %q, want %q", i, s.told, tt.told[i])
				}
			}
		})
	}
}

// A policy that asks for a plugin by name gets it, or the message is refused:
// a version that does not judge this message does not stand for it.
func TestWhatThePolicyAsksForJudges(t *testing.T) {
	elsewhere := verdict("p", abi.Allow, 0)
	elsewhere.kinds = "nick"
	for _, tt := range []struct {
		name   string
		judges []Judge
		want   abi.Verdict
		failed bool
	}{
		{"in force", []Judge{as(Enforce, verdict("p", abi.Flag, 0))}, abi.Flag, false},
		{"not there", []Judge{verdict("q", abi.Flag, 0)}, abi.Deny, true},
		{"shadow", []Judge{as(Shadow, verdict("p", abi.Allow, 0))}, abi.Deny, true},
		{"canary for others", []Judge{as(None, verdict("p", abi.Allow, 0))}, abi.Deny, true},
		{"canary for others beside one in force", []Judge{as(None, verdict("p", abi.Allow, 0)), as(Enforce, verdict("p", abi.Flag, 0))}, abi.Flag, false},
		{"canary", []Judge{as(Canary, verdict("p", abi.Flag, 0))}, abi.Flag, false},
		{"canary that fails, alone", []Judge{as(Canary, failing("p", abi.Allow))}, abi.Deny, true},
		{"canary that fails beside one in force", []Judge{as(Canary, failing("p", abi.Allow)), as(Shadow, verdict("p", abi.Flag, 0))}, abi.Flag, false},
		{"in force and open, fails", []Judge{as(Enforce, failing("p", abi.Allow))}, abi.Allow, false},
		{"of another kind", []Judge{elsewhere}, abi.Deny, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := judge(t, stage(t, tt.judges...), "hello", []string{"p"})
			if r.Verdict != tt.want || r.Failed != tt.failed {
				t.Errorf("got %s failed=%v, want %s failed=%v; %s", r.Verdict, r.Failed, tt.want, tt.failed, parts(r.Records))
			}
		})
	}
}

func TestQuarantineIsNamed(t *testing.T) {
	j := &fake{name: "p", onError: abi.Deny, decide: func(_, _, _ []byte) (abi.Verdict, abi.Result, error) {
		return abi.Error, abi.Result{}, fmt.Errorf("plugin p: %w", ErrQuarantined)
	}}
	r := judge(t, stage(t, j), "hello", nil)
	if e := r.Refusal(); e.Code != chat.CodePluginError || !strings.Contains(e.Reasons[0].Text, "quarantine") {
		t.Errorf("got %+v, want plugin_error that names the quarantine", e)
	}
}

// A text too long for plugins is refused for those who count, not for shadows.
func TestShadowRefusesNoText(t *testing.T) {
	m := &Message{Room: "lobby", User: "ann", Kind: "message", Text: strings.Repeat("\ufdfa", 1000)}
	if r, err := stage(t, as(Shadow, verdict("p", abi.Deny, 0))).Judge(t.Context(), m, nil); err != nil || r.Verdict != abi.Allow || r.Text != m.Text {
		t.Errorf("got %s, %v, want it to pass", r.Verdict, err)
	}
}

// TestShadowsChangeNothing adds shadows, and canaries that fail beside their
// version in force, to random plugins: what people get must be the same as
// without them.
func TestShadowsChangeNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	texts := []string{mixed120, "hello", strings.Repeat("\ufdfa", 1000), "\xff"}
	for round := range 1000 {
		judges := randomJudges(rng)
		if rng.IntN(4) == 0 {
			judges = nil
		}
		var only []string
		if rng.IntN(3) == 0 {
			only = []string{"p0", "p3", "q1"}
		}
		all := append([]Judge(nil), judges...)
		for _, j := range randomJudges(rng) {
			f, part, at := j.(*fake), Shadow, rng.IntN(len(all)+1)
			old := slices.IndexFunc(all, func(j Judge) bool { return j.Name() == f.name })
			switch {
			case old >= 0 && rng.IntN(2) == 0: // a version on trial, and the one in force stands by
				part, at = Canary, 0
				f.decide = func(_, _, _ []byte) (abi.Verdict, abi.Result, error) { panic("on trial") }
				all[old] = as(Shadow, all[old].(*fake))
			case rng.IntN(2) == 0:
				f.name = strings.Replace(f.name, "p", "q", 1)
			}
			all = slices.Insert(all, at, Judge(as(part, f)))
		}
		m := &Message{Room: "lobby", User: "ann", Kind: "message", Text: texts[rng.IntN(len(texts))]}
		got, gotErr := stage(t, all...).Judge(t.Context(), m, only)
		want, wantErr := stage(t, judges...).Judge(t.Context(), m, only)
		got.Records, want.Records = nil, nil
		if !reflect.DeepEqual(got, want) || fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
			t.Fatalf("round %d, %+q only %v: got %+v, %v with shadows, want %+v, %v", round, m.Text, only, got, gotErr, want, wantErr)
		}
	}
}

// What a shadow does not get done before the context ends is left out.
func TestShadowAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	last := verdict("a", abi.Flag, 1)
	last.decide = func(_, _, _ []byte) (abi.Verdict, abi.Result, error) {
		cancel()
		return abi.Flag, abi.Result{}, nil
	}
	r, err := stage(t, last, as(Shadow, verdict("p", abi.Deny, 0))).Judge(ctx, &Message{Text: "hi"}, nil)
	if err != nil || r.Verdict != abi.Flag || parts(r.Records) != "a:enforce:flag" {
		t.Errorf("got %s [%s], %v, want the verdict that was made", r.Verdict, parts(r.Records), err)
	}
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Error("the context did not end")
	}
}

func TestPartNames(t *testing.T) {
	for p, want := range map[Part]string{None: "none", Enforce: "enforce", Canary: "canary", Shadow: "shadow"} {
		if p.String() != want {
			t.Errorf("got %q, want %q", p, want)
		}
	}
}

func BenchmarkJudgeShadow(b *testing.B) {
	allow := func(name string) *fake {
		return &fake{name: name, decide: func(_, _, _ []byte) (abi.Verdict, abi.Result, error) { return abi.Allow, abi.Result{}, nil }}
	}
	s := stage(b, &quiet{allow("p"), Shadow}, &quiet{allow("p"), Enforce})
	m := &Message{Room: "lobby", User: "ann", Roles: []string{"member"}, Kind: "message", Text: ascii120}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Judge(b.Context(), m, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// quiet keeps nothing of what it is told.
type quiet struct {
	*fake
	part Part
}

func (q *quiet) Part(chat.RoomID, chat.UserID) Part { return q.part }
func (q *quiet) Observe(*Record, *Record, bool)     {}

// A decision in a rollout is replayed with every judge in its part: a shadow
// and a canary that failed do not count then either.
func TestReplayOfATrial(t *testing.T) {
	for _, part := range []Part{Canary, Shadow} {
		trial, old := as(part, failing("p", abi.Deny)), as(Enforce, verdict("p", abi.Flag, 1))
		trial.digest, old.digest = "new", "old"
		if part == Canary {
			old.part = Shadow
		}
		s, err := New(Config{InputBytes: abi.MaxInput, Keep: func(abi.Verdict) bool { return true }}, list{trial, old})
		if err != nil {
			t.Fatal(err)
		}
		m := &Message{Room: "lobby", User: "ann", Kind: "message", Text: "hello"}
		res, err := s.Judge(t.Context(), m, nil)
		if err != nil {
			t.Fatal(err)
		}
		d := NewDecision("id", m, &res, "policy")
		r, err := s.Replay(t.Context(), d, res.Input)
		if err != nil || !r.Equal || r.Verdict != "flag" || len(r.Plugins) != 2 {
			t.Errorf("%s: got %+v, %v, want the same as recorded: %+v", part, r, err, d)
		}
	}
}
