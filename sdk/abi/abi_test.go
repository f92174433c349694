package abi_test

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"parley/sdk/abi"
)

var sample = abi.Input{
	TimeMS: 1_735_689_600_123, Text: []byte("Héllo!"), Normalized: []byte("hello!"),
	User: "ann", Room: "lobby", Roles: "member\nmoderator", Kind: "message",
	Signals: abi.Signals{RecentPerMinute: 3, Repeats: 2, AccountAgeHours: 70_000},
}

func TestInputRoundTrip(t *testing.T) {
	b := abi.AppendInput([]byte("kept"), &sample)
	if !bytes.HasPrefix(b, []byte("kept")) {
		t.Fatal("what dst held is gone")
	}
	b = b[4:]
	if len(b) != abi.InputSize(&sample) {
		t.Errorf("got %d bytes, InputSize says %d", len(b), abi.InputSize(&sample))
	}
	if got := abi.InputTime(b); got != sample.TimeMS {
		t.Errorf("got time %d, want %d", got, sample.TimeMS)
	}
	for f, want := range map[abi.Field]string{
		abi.FieldText: "Héllo!", abi.FieldNormalized: "hello!", abi.FieldUser: "ann", abi.FieldRoom: "lobby",
		abi.FieldRoles: "member\nmoderator", abi.FieldKind: "message",
		abi.FieldSignals:     "\x03\x00\x00\x00\x02\x00\x00\x00\x70\x11\x01\x00",
		abi.FieldSignals + 1: "", 1 << 31: "",
	} {
		if got, err := abi.FieldBytes(b, f); err != nil || string(got) != want {
			t.Errorf("field %d: got %q, %v, want %q", f, got, err, want)
		}
	}
}

func TestFieldBytesRefuses(t *testing.T) {
	good := abi.AppendInput(nil, &sample)
	edit := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return b
	}
	for _, c := range []struct {
		name  string
		input []byte
		want  string
	}{
		{"empty", nil, "0 bytes"},
		{"half a header", good[:15], "15 bytes"},
		{"version", edit(0, 2), "version 2, want 1"},
		{"table cut", good[:20], "field table cut short"},
		{"offset", edit(abi.InputHeaderSize+3, 0xff), "outside the input"},
		{"length", edit(abi.InputHeaderSize+7, 0xff), "outside the input"},
	} {
		if _, err := abi.FieldBytes(c.input, abi.FieldText); !errors.Is(err, abi.ErrInput) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	if got := abi.InputTime(good[:15]); got != 0 {
		t.Errorf("got time %d of half a header, want 0", got)
	}
}

func TestPack(t *testing.T) {
	for _, c := range []struct {
		v        abi.Verdict
		ptr, len uint32
	}{
		{abi.Allow, 0, 0}, {abi.Deny, 0xffffffff, 0xffffff}, {abi.Error, 1, 2}, {abi.Redact, 1 << 31, 1 << 23},
	} {
		if v, ptr, n := abi.Unpack(abi.Pack(c.v, c.ptr, c.len)); v != c.v || ptr != c.ptr || n != c.len {
			t.Errorf("got %v %d %d, want %v", v, ptr, n, c)
		}
	}
	if abi.Pack(abi.Allow, 0, 0) != 0 {
		t.Error("allow is not plain 0")
	}
}

func TestVerdictNames(t *testing.T) {
	for v, want := range map[abi.Verdict]string{
		abi.Allow: "allow", abi.Flag: "flag", abi.Redact: "redact", abi.Hold: "hold", abi.Deny: "deny", abi.Error: "error", 9: "verdict(9)",
	} {
		if got := v.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

const text, normalized = "aé!", "ae!" // é takes two bytes

func span(f abi.Field, start, length uint32) abi.Span {
	return abi.Span{Field: f, Start: start, Length: length}
}

func TestResultRoundTrip(t *testing.T) {
	for _, c := range []struct {
		v abi.Verdict
		r abi.Result
	}{
		{abi.Flag, abi.Result{Code: 65535, Score: 1000, Reason: "schön"}},
		{abi.Deny, abi.Result{}},
		{abi.Hold, abi.Result{Reason: strings.Repeat("x", abi.MaxReason)}},
		{abi.Redact, abi.Result{Code: 1, Reason: "no", Spans: []abi.Span{span(0, 0, 1), span(0, 1, 2), span(1, 0, 3)}}},
	} {
		b := abi.AppendResult(nil, &c.r)
		got, err := abi.DecodeResult(c.v, b, []byte(text), []byte(normalized))
		if err != nil || !reflect.DeepEqual(got, c.r) {
			t.Errorf("got %+v, %v, want %+v", got, err, c.r)
		}
		clear(b) // nothing may be shared
		if !reflect.DeepEqual(got, c.r) {
			t.Errorf("the result shares the guest's bytes: %+v", got)
		}
	}
}

func TestDecodeResultRefuses(t *testing.T) {
	spans := func(s ...abi.Span) abi.Result { return abi.Result{Spans: s} }
	for _, c := range []struct {
		name string
		v    abi.Verdict
		r    abi.Result
		want string
	}{
		{"score", abi.Deny, abi.Result{Score: 1001}, "score 1001"},
		{"reason", abi.Deny, abi.Result{Reason: strings.Repeat("x", 257)}, "257 bytes, at most 256"},
		{"reason not UTF-8", abi.Deny, abi.Result{Reason: "\xc3"}, "not UTF-8"},
		{"too many spans", abi.Redact, spans(make([]abi.Span, 257)...), "257 spans"},
		{"spans with flag", abi.Flag, spans(span(0, 0, 1)), "spans with verdict flag"},
		{"redact without spans", abi.Redact, abi.Result{}, "without spans"},
		{"other field", abi.Redact, spans(span(2, 0, 1)), "names field 2"},
		{"empty span", abi.Redact, spans(span(0, 1, 0)), "outside its field"},
		{"span too long", abi.Redact, spans(span(1, 0, 4)), "outside its field of 3 bytes"},
		{"span that wraps", abi.Redact, spans(span(0, 1<<32-1, 1<<32-1)), "outside its field"},
		{"begins inside a rune", abi.Redact, spans(span(0, 2, 1)), "cuts a rune"},
		{"ends inside a rune", abi.Redact, spans(span(0, 0, 2)), "cuts a rune"},
		{"overlap", abi.Redact, spans(span(1, 0, 2), span(1, 1, 1)), "overlaps"},
		{"out of order", abi.Redact, spans(span(1, 0, 1), span(0, 0, 1)), "overlaps or precedes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := abi.DecodeResult(c.v, abi.AppendResult(nil, &c.r), []byte(text), []byte(normalized))
			if !errors.Is(err, abi.ErrResult) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	good := abi.AppendResult(nil, &abi.Result{Reason: "x"})
	for _, b := range [][]byte{nil, good[:7], good[:8], append(good, 0)} {
		if _, err := abi.DecodeResult(abi.Deny, b, nil, nil); !errors.Is(err, abi.ErrResult) {
			t.Errorf("got %v for %x, want ErrResult", err, b)
		}
	}
}

func FuzzFieldBytes(f *testing.F) {
	f.Add(abi.AppendInput(nil, &sample), uint32(0))
	f.Add(abi.AppendInput(nil, &abi.Input{}), uint32(abi.FieldSignals))
	f.Add([]byte{1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0}, uint32(1<<29))
	f.Fuzz(func(t *testing.T, input []byte, field uint32) {
		got, err := abi.FieldBytes(input, abi.Field(field))
		if err == nil && len(got) > 0 && !bytes.Contains(input, got) {
			t.Fatalf("field %d is not part of the input", field)
		}
		abi.InputTime(input)
	})
}

func FuzzDecodeResult(f *testing.F) {
	f.Add(byte(abi.Redact), abi.AppendResult(nil, &abi.Result{Reason: "no", Spans: []abi.Span{span(0, 0, 1), span(1, 0, 3)}}), text, normalized)
	f.Add(byte(abi.Deny), abi.AppendResult(nil, &abi.Result{Code: 1, Score: 1000, Reason: "é"}), "", "")
	f.Fuzz(func(t *testing.T, v byte, b []byte, text, normalized string) {
		r, err := abi.DecodeResult(abi.Verdict(v), b, []byte(text), []byte(normalized))
		if err != nil {
			if !errors.Is(err, abi.ErrResult) {
				t.Fatalf("error %v does not wrap ErrResult", err)
			}
			return
		}
		if again := abi.AppendResult(nil, &r); !bytes.Equal(again, b) {
			t.Fatalf("got %x encoded again, want %x", again, b)
		}
		for _, s := range r.Spans { // must be safe to slice with
			field := text
			if s.Field == abi.FieldNormalized {
				field = normalized
			}
			_ = field[s.Start : s.Start+s.Length]
		}
	})
}

func BenchmarkAppendInput(b *testing.B) {
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = abi.AppendInput(buf[:0], &sample)
	}
}

func BenchmarkDecodeResult(b *testing.B) {
	enc := abi.AppendResult(nil, &abi.Result{Code: 1, Reason: "no", Spans: []abi.Span{span(0, 0, 1), span(1, 0, 3)}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := abi.DecodeResult(abi.Redact, enc, []byte(text), []byte(normalized)); err != nil {
			b.Fatal(err)
		}
	}
}
