package moderation

import (
	"testing"

	"parley/sdk/abi"
)

// TestMaskSpans holds it against the stage for the same verdict, and feeds it
// what a stage would have refused.
func TestMaskSpans(t *testing.T) {
	span := func(f abi.Field, start, length uint32) abi.Span {
		return abi.Span{Field: f, Start: start, Length: length}
	}
	for _, tt := range []struct {
		name, text string
		spans      []abi.Span
	}{
		{"text", "hello world", []abi.Span{span(abi.FieldText, 6, 5)}},
		{"normalized, with a character that grew", "ﬁne words", []abi.Span{span(abi.FieldNormalized, 0, 2)}},
		{"both", "НЕСК no", []abi.Span{span(abi.FieldText, 9, 2), span(abi.FieldNormalized, 0, 4)}},
	} {
		want := judge(t, stage(t, verdict("v", abi.Redact, 1, tt.spans...)), tt.text, nil).Text
		if got := MaskSpans(tt.text, tt.spans); got != want || got == tt.text {
			t.Errorf("%s: got %q, want %q", tt.name, got, want)
		}
	}
	for _, s := range []abi.Span{span(abi.FieldText, 90, 3), span(abi.FieldNormalized, 4, 4_000_000_000)} {
		got := MaskSpans("hello", []abi.Span{s})
		if want := map[uint32]string{90: "hello", 4: "hell*"}[s.Start]; got != want {
			t.Errorf("%+v: got %q, want %q", s, got, want)
		}
	}
}
