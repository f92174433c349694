package moderation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"parley/core/chat"
	"parley/sdk/abi"
)

// fake is a judge in process.
type fake struct {
	name    string
	onError abi.Verdict
	kinds   string // kinds it wants, "" = all
	decide  func(input, text, normalized []byte) (abi.Verdict, abi.Result, error)
}

func (f *fake) Name() string         { return f.name }
func (f *fake) Digest() string       { return "d1ge57" }
func (f *fake) OnError() abi.Verdict { return f.onError }
func (f *fake) Version() string      { return "1.2" }
func (f *fake) ConfigDigest() string { return "config-of-" + f.name }
func (f *fake) Wants(_ chat.RoomID, kind string) bool {
	return f.kinds == "" || strings.Contains(f.kinds, kind)
}

func (f *fake) Decide(input, text, normalized []byte) (abi.Verdict, abi.Result, uint64, error) {
	v, r, err := f.decide(input, text, normalized)
	return v, r, 7, err
}

type list []Judge

func (l list) Judges() []Judge { return l }

// verdict is a judge that always says the same.
func verdict(name string, v abi.Verdict, code uint16, spans ...abi.Span) *fake {
	return &fake{name: name, decide: func(_, _, _ []byte) (abi.Verdict, abi.Result, error) {
		return v, abi.Result{Code: code, Score: 10, Reason: "because of " + name, Spans: spans}, nil
	}}
}

// failing is a judge that fails.
func failing(name string, onError abi.Verdict) *fake {
	return &fake{name: name, onError: onError, decide: func(_, _, _ []byte) (abi.Verdict, abi.Result, error) {
		return abi.Allow, abi.Result{}, errors.New("out of fuel")
	}}
}

// masking is a judge that masks every occurrence of word in the normalised text.
func masking(name, word string) *fake {
	return &fake{name: name, decide: func(_, _, normalized []byte) (abi.Verdict, abi.Result, error) {
		var spans []abi.Span
		for at := 0; ; {
			i := strings.Index(string(normalized[at:]), word)
			if i < 0 {
				break
			}
			spans = append(spans, abi.Span{Field: abi.FieldNormalized, Start: uint32(at + i), Length: uint32(len(word))})
			at += i + len(word)
		}
		if spans == nil {
			return abi.Allow, abi.Result{}, nil
		}
		return abi.Redact, abi.Result{Reason: "no " + word, Spans: spans}, nil
	}}
}

func stage(t testing.TB, judges ...Judge) *Stage {
	t.Helper()
	s, err := New(Defaults(), list(judges))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func judge(t testing.TB, s *Stage, text string, only []string) Result {
	t.Helper()
	r, err := s.Judge(context.Background(), &Message{Room: "lobby", User: "ann", Kind: "message", Text: text}, only)
	if err != nil {
		t.Fatalf("judge %+q: %v", text, err)
	}
	return r
}

func sources(rs []chat.Reason) string {
	var s []string
	for _, r := range rs {
		s = append(s, r.Source+"="+r.Code)
	}
	return strings.Join(s, " ")
}

func TestJudgeMerges(t *testing.T) {
	allow, flag := verdict("allow", abi.Allow, 0), verdict("flag", abi.Flag, 1)
	redact := verdict("redact", abi.Redact, 2, abi.Span{Field: abi.FieldText, Start: 0, Length: 5})
	hold, deny, deny2 := verdict("hold", abi.Hold, 3), verdict("deny", abi.Deny, 4), verdict("adeny", abi.Deny, 5)
	tests := []struct {
		name    string
		judges  []Judge
		want    abi.Verdict
		text    string
		reasons string
		failed  bool
	}{
		{"nobody", nil, abi.Allow, "hello world", "", false},
		{"allow", []Judge{allow}, abi.Allow, "hello world", "", false},
		{"flag beats allow", []Judge{flag, allow}, abi.Flag, "hello world", "plugin:flag=rule_1", false},
		{"redact beats flag", []Judge{flag, redact}, abi.Redact, "***** world", "plugin:redact=rule_2", false},
		{"hold beats redact", []Judge{redact, hold}, abi.Hold, "hello world", "plugin:hold=rule_3", false},
		{"deny beats hold", []Judge{hold, deny, redact}, abi.Deny, "hello world", "plugin:deny=rule_4", false},
		{"ties by name", []Judge{deny, deny2}, abi.Deny, "hello world", "plugin:adeny=rule_5 plugin:deny=rule_4", false},
		{"failing open", []Judge{failing("f", abi.Allow), flag}, abi.Flag, "hello world", "plugin:flag=rule_1", false},
		{"failing closed", []Judge{failing("f", abi.Deny), flag}, abi.Deny, "hello world", "plugin:f=plugin_error", true},
		{"failing to review", []Judge{failing("f", abi.Hold)}, abi.Hold, "hello world", "plugin:f=plugin_error", true},
		{"unknown on_error is closed", []Judge{failing("f", 77)}, abi.Deny, "hello world", "plugin:f=plugin_error", true},
		{"failing and denied", []Judge{failing("f", abi.Deny), deny}, abi.Deny, "hello world", "plugin:deny=rule_4 plugin:f=plugin_error", false},
		{"held by failure, denied by judgement", []Judge{failing("f", abi.Hold), deny}, abi.Deny, "hello world", "plugin:deny=rule_4", false},
		{"not wanted", []Judge{&fake{name: "nick", kinds: "nick", decide: deny.decide}}, abi.Allow, "hello world", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := judge(t, stage(t, tt.judges...), "hello world", nil)
			if r.Verdict != tt.want || r.Text != tt.text || sources(r.Reasons) != tt.reasons || r.Failed != tt.failed {
				t.Errorf("got %s %q [%s] failed=%v, want %s %q [%s] failed=%v",
					r.Verdict, r.Text, sources(r.Reasons), r.Failed, tt.want, tt.text, tt.reasons, tt.failed)
			}
		})
	}
}

func TestJudgeOnly(t *testing.T) {
	s := stage(t, verdict("a", abi.Flag, 1), verdict("b", abi.Deny, 2))
	tests := []struct {
		name   string
		only   []string
		want   abi.Verdict
		failed bool
	}{
		{"nil is all", nil, abi.Deny, false},
		{"empty is none", []string{}, abi.Allow, false},
		{"one", []string{"a"}, abi.Flag, false},
		{"unknown is closed", []string{"a", "zed", "zed"}, abi.Deny, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := judge(t, s, "hello", tt.only)
			if r.Verdict != tt.want || r.Failed != tt.failed {
				t.Errorf("got %s failed=%v, want %s failed=%v", r.Verdict, r.Failed, tt.want, tt.failed)
			}
		})
	}
}

func TestJudgeMasks(t *testing.T) {
	tests := []struct {
		name, in, want string
		judges         []Judge
	}{
		{"one word", "a bad word", "a *** word", []Judge{masking("m", "bad")}},
		{"union", "abcdef", "*****f", []Judge{masking("m", "abc"), masking("n", "cde")}},
		{"evasion", "x b\u200bа\u0301d y", "x b\u200bа\u0301d y", []Judge{masking("m", "bad")}}, // á is not a
		{"attached to the last letter", "x b\u200bаd\u200b\u0301 y", "x *** y", []Judge{masking("m", "bad")}},
		{"look-alikes", "x b\u200bаd\u200b y", "x *** y", []Judge{masking("m", "bad")}},
		{"marks of the last letter", "bad\u0323\u0301!", "**\u0064\u0323\u0301!", []Judge{masking("m", "ba")}},
		{"space stays", "b a\nd", "* *\n*", []Judge{masking("m", "b a\nd")}},
		{"ligature", "ﬁne", "*ne", []Judge{masking("m", "f")}},
		{"emoji", "👋🏽 x", "** x", []Judge{verdict("t", abi.Redact, 0, abi.Span{Length: 8})}},
		{"text span inside a cluster", "e\u0323\u0301\u0302x", "*x", []Judge{verdict("t", abi.Redact, 0, abi.Span{Start: 1, Length: 2})}},
		{"both fields", "bad dab", "*** ***", []Judge{masking("m", "bad"), verdict("t", abi.Redact, 0, abi.Span{Start: 4, Length: 3})}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := judge(t, stage(t, tt.judges...), tt.in, nil)
			if r.Text != tt.want {
				t.Errorf("got %+q, want %+q", r.Text, tt.want)
			}
		})
	}
}

func TestJudgeSeesTheInput(t *testing.T) {
	var got abi.Input
	j := &fake{name: "see", decide: func(input, text, normalized []byte) (abi.Verdict, abi.Result, error) {
		field := func(f abi.Field) string {
			b, err := abi.FieldBytes(input, f)
			if err != nil {
				t.Errorf("field %d: %v", f, err)
			}
			return string(b)
		}
		got = abi.Input{TimeMS: abi.InputTime(input), Text: []byte(field(abi.FieldText)), Normalized: []byte(field(abi.FieldNormalized)),
			User: field(abi.FieldUser), Room: field(abi.FieldRoom), Roles: field(abi.FieldRoles), Kind: field(abi.FieldKind)}
		if string(text) != string(got.Text) || string(normalized) != string(got.Normalized) {
			t.Errorf("arguments %q, %q differ from the fields %q, %q", text, normalized, got.Text, got.Normalized)
		}
		return abi.Allow, abi.Result{}, nil
	}}
	m := &Message{Room: "lobby", User: "ann", Roles: []string{"owner", "admin", "owner"}, Kind: "edit", Text: "Hé", TimeMS: 99}
	if _, err := stage(t, j).Judge(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	want := abi.Input{TimeMS: 99, Text: []byte("Hé"), Normalized: []byte("hé"), User: "ann", Room: "lobby", Roles: "admin\nowner", Kind: "edit"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if m.Roles[0] != "owner" {
		t.Errorf("the caller's roles were sorted in place: %v", m.Roles)
	}
}

func TestJudgeRefusesBrokenResults(t *testing.T) {
	span := func(f abi.Field, start, n uint32) *fake {
		return verdict("f", abi.Redact, 0, abi.Span{Field: f, Start: start, Length: n})
	}
	many := make([]abi.Span, abi.MaxSpans+1)
	tests := []struct {
		name string
		j    *fake
	}{
		{"verdict error", verdict("f", abi.Error, 0)},
		{"unknown verdict", verdict("f", 9, 0)},
		{"redact without spans", verdict("f", abi.Redact, 0)},
		{"too many spans", verdict("f", abi.Redact, 0, many...)},
		{"empty span", span(abi.FieldText, 0, 0)},
		{"span past the end", span(abi.FieldNormalized, 3, 3)},
		{"span that overflows", span(abi.FieldText, 1<<32-1, 2)},
		{"span in another field", span(abi.FieldUser, 0, 1)},
		{"panic", &fake{name: "f", decide: func(_, _, _ []byte) (abi.Verdict, abi.Result, error) { panic("boom") }}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.j.onError = abi.Deny
			r := judge(t, stage(t, tt.j), "hello", nil)
			if r.Verdict != abi.Deny || !r.Failed || r.Records[0].Err == nil || r.Records[0].Verdict != abi.Error {
				t.Errorf("got %+v, want a failure", r)
			}
		})
	}
}

func TestJudgeErrors(t *testing.T) {
	s := stage(t, verdict("a", abi.Allow, 0))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name string
		ctx  context.Context
		text string
		want chat.Code // "" = the context's error
	}{
		{"not UTF-8", t.Context(), "\xff", chat.CodeBadRequest},
		{"too long", t.Context(), strings.Repeat("a", abi.MaxInput), chat.CodeTextTooLong},
		{"too long with its form", t.Context(), strings.Repeat("a", abi.MaxInput*2/3), chat.CodeTextTooLong},
		{"too long once written out", t.Context(), strings.Repeat("\ufdfa", 1000), chat.CodeTextTooLong},
		{"context ended", ended, "hi", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.Judge(tt.ctx, &Message{Text: tt.text}, nil)
			var ce *chat.Error
			switch {
			case tt.want == "" && !errors.Is(err, context.Canceled):
				t.Errorf("got %v, want %v", err, context.Canceled)
			case tt.want != "" && (!errors.As(err, &ce) || ce.Code != tt.want):
				t.Errorf("got %v, want code %s", err, tt.want)
			}
		})
	}
	for _, n := range []int{0, 1 << 30} {
		if _, err := New(Config{InputBytes: n}, list(nil)); err == nil {
			t.Errorf("New took %d input bytes", n)
		}
	}
}

func TestRefusal(t *testing.T) {
	tests := []struct {
		name  string
		j     *fake
		code  chat.Code
		first string // code of the first reason
	}{
		{"allowed", verdict("a", abi.Allow, 0), "", ""},
		{"flagged", verdict("a", abi.Flag, 0), "", ""},
		{"denied", verdict("a", abi.Deny, 3), chat.CodeDenied, "rule_3"},
		{"held", verdict("a", abi.Hold, 3), "", ""},
		{"failed", failing("a", abi.Deny), chat.CodePluginError, ReasonPluginError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := judge(t, stage(t, tt.j), "hi", nil)
			e := r.Refusal()
			if e == nil {
				if tt.code != "" {
					t.Fatalf("no refusal, want %s", tt.code)
				}
				return
			}
			if e.Code != tt.code || e.Text == "" || e.Reasons[0].Code != tt.first {
				t.Errorf("got %+v, want %s because of %s", e, tt.code, tt.first)
			}
		})
	}
}

func TestReasonsAreSanitized(t *testing.T) {
	tests := []struct {
		name, in, want string
	}{
		{"plain", "no shouting", "no shouting"},
		{"controls and direction", "a\x1b[1m\u202eb\nc", "a[1mb c"},
		{"not UTF-8", "a\xffb", "a\ufffdb"},
		{"nothing", " \u200b", "The plugin p refused this message."},
		{"long", strings.Repeat("é", 200), strings.Repeat("é", 128)},
		{"long, a rune across the bound", "x" + strings.Repeat("é", 200), "x" + strings.Repeat("é", 127)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := &fake{name: "p", decide: func(_, _, _ []byte) (abi.Verdict, abi.Result, error) {
				return abi.Deny, abi.Result{Reason: tt.in}, nil
			}}
			if got := judge(t, stage(t, j), "hi", nil).Reasons[0].Text; got != tt.want {
				t.Errorf("got %+q, want %+q", got, tt.want)
			}
		})
	}
}

// TestJudgeIsOrderFree permutes random plugins: everything but timing must stay.
func TestJudgeIsOrderFree(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		judges := randomJudges(rng)
		var want Result
		for i := range 4 {
			rng.Shuffle(len(judges), func(a, b int) { judges[a], judges[b] = judges[b], judges[a] })
			got := judge(t, stage(t, judges...), mixed120, nil)
			for i := range got.Records {
				got.Records[i].Time, got.Records[i].Err = 0, nil
			}
			if i == 0 {
				want = got
			} else if !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, in another order %+v", got, want)
			}
		}
	}
}

func randomJudges(rng *rand.Rand) []Judge {
	verdicts := []abi.Verdict{abi.Allow, abi.Flag, abi.Redact, abi.Redact, abi.Redact, abi.Hold, abi.Deny}
	n := 1 + rng.IntN(5)
	judges := make([]Judge, n)
	for i := range judges {
		name := fmt.Sprintf("p%d", i)
		if rng.IntN(6) == 0 {
			judges[i] = failing(name, []abi.Verdict{abi.Allow, abi.Hold, abi.Deny}[rng.IntN(3)])
			continue
		}
		v := verdicts[rng.IntN(len(verdicts)-rng.IntN(2)*2)]
		start := rng.Uint32N(60)
		judges[i] = verdict(name, v, uint16(i), abi.Span{Field: abi.Field(rng.IntN(2)), Start: start, Length: 1 + rng.Uint32N(20)})
	}
	return judges
}

func FuzzMask(f *testing.F) {
	for _, s := range seeds {
		f.Add(s, uint16(0), uint16(3), uint16(1), uint16(4))
	}
	f.Fuzz(func(t *testing.T, in string, at, n, at2, n2 uint16) {
		if in == "" || !utf8.ValidString(in) || len(in) > 2000 {
			return
		}
		form := normalize(t, in)
		judges := []Judge{verdict("a", abi.Redact, 0, spanIn(abi.FieldText, len(in), at, n))}
		if len(form.Bytes()) > 0 {
			judges = append(judges, verdict("b", abi.Redact, 0, spanIn(abi.FieldNormalized, len(form.Bytes()), at2, n2)))
		}
		r, err := stage(t, judges...).Judge(t.Context(), &Message{Text: in}, nil)
		if err != nil {
			return // too long once written out
		}
		if r.Verdict != abi.Redact || !utf8.ValidString(r.Text) || len(r.Text) > len(in) {
			t.Fatalf("mask %+q: %s %+q", in, r.Verdict, r.Text)
		}
		swapped := judge(t, stage(t, judges[len(judges)-1], judges[0]), in, nil)
		if swapped.Text != r.Text && len(judges) == 2 {
			t.Fatalf("order changes the masked text: %+q, %+q", r.Text, swapped.Text)
		}
	})
}

func spanIn(f abi.Field, size int, at, n uint16) abi.Span {
	start := int(at) % size
	return abi.Span{Field: f, Start: uint32(start), Length: uint32(1 + int(n)%(size-start))}
}

func BenchmarkJudge1(b *testing.B) { benchmarkJudge(b, 1) }
func BenchmarkJudge8(b *testing.B) { benchmarkJudge(b, 8) }

func benchmarkJudge(b *testing.B, n int) {
	judges := make([]Judge, n)
	for i := range judges {
		judges[i] = verdict(fmt.Sprintf("p%d", i), abi.Allow, 0)
		judges[i].(*fake).decide = func(_, _, _ []byte) (abi.Verdict, abi.Result, error) { return abi.Allow, abi.Result{}, nil }
	}
	s := stage(b, judges...)
	m := &Message{Room: "lobby", User: "ann", Roles: []string{"member"}, Kind: "message", Text: ascii120}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Judge(b.Context(), m, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJudgeRedact(b *testing.B) {
	s := stage(b, masking("m", "dog"))
	m := &Message{Room: "lobby", User: "ann", Kind: "message", Text: ascii120}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Judge(b.Context(), m, nil); err != nil {
			b.Fatal(err)
		}
	}
}
