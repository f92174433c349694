package plugin

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"parley/sdk/abi"
)

func TestTry(t *testing.T) {
	many := func(n int, f func(i int) Span) []Span {
		spans := make([]Span, n)
		for i := range spans {
			spans[i] = f(i)
		}
		return spans
	}
	long := strings.Repeat("ab", 1000)
	tests := []struct {
		name, text string
		give       Result
		want       Result
	}{
		{"allow", "hi", Allow(), Result{}},
		{"flag", "hi", Flag(7, "look"), Result{Verdict: abi.Flag, Code: 7, Score: 1000, Reason: "look"}},
		{"hold", "hi", Hold(8, ""), Result{Verdict: abi.Hold, Code: 8, Score: 1000}},
		{"deny", "hi", Deny(9, "no").Scored(300), Result{Verdict: abi.Deny, Code: 9, Score: 300, Reason: "no"}},
		{"redact without spans is allow", "hi", Result{Verdict: abi.Redact, Spans: []Span{InText(1, 1)}}, Result{}},
		{"redact nothing is allow", "hi", Redact(1, "x"), Result{}},
		{
			"redact", "hello", Redact(1, "x", InText(0, 2)),
			Result{Verdict: abi.Redact, Code: 1, Score: 1000, Reason: "x", Spans: []Span{{Field: 0, Start: 0, Length: 2}}},
		},
		{
			"spans in disorder", "hello", Redact(1, "", InNormalized(1, 2), InText(3, 4), InText(0, 2), InText(1, 3), InText(5, 5)),
			Result{Verdict: abi.Redact, Code: 1, Score: 1000, Spans: []Span{InText(0, 4), InNormalized(1, 2)}},
		},
		{
			"more spans than the ABI has", long, Redact(1, "", many(400, func(i int) Span { return InText(i*3, i*3+1) })...),
			Result{Verdict: abi.Redact, Code: 1, Score: 1000, Spans: many(200, func(i int) Span { return InText(i*6, i*6+4) })},
		},
		{
			"spans do not go with deny", "hi", Result{Verdict: abi.Deny, Spans: []Span{InText(0, 1)}},
			Result{Verdict: abi.Deny},
		},
		{"score is bounded", "hi", Result{Verdict: abi.Flag, Score: 5000}, Result{Verdict: abi.Flag, Score: 1000}},
		{"reason is cut", "hi", Deny(1, strings.Repeat("é", 200)), Result{Verdict: abi.Deny, Code: 1, Score: 1000, Reason: strings.Repeat("é", 128)}},
		{"reason is cut between runes", "hi", Deny(1, "x"+strings.Repeat("é", 200)), Result{Verdict: abi.Deny, Code: 1, Score: 1000, Reason: "x" + strings.Repeat("é", 127)}},
		{"reason is made UTF-8", "hi", Deny(1, "a\xff"), Result{Verdict: abi.Deny, Code: 1, Score: 1000, Reason: "a\ufffd"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Try(Func(func(*Message) Result { return tt.give }), &Message{Text: []byte(tt.text)})
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func TestTryReportsFaults(t *testing.T) {
	tests := []struct {
		name string
		give Result
		text string
	}{
		{"unknown verdict", Result{Verdict: 9}, "hi"},
		{"it says so itself", Fail(), "hi"},
		{"span outside", Redact(1, "", InText(0, 3)), "hi"},
		{"span cuts a rune", Redact(1, "", InText(0, 1)), "é"},
		{"span in another field", Redact(1, "", Span{Field: abi.FieldUser, Length: 1}), "hi"},
		{"text longer than any input", Allow(), strings.Repeat("a", abi.MaxInput)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := Try(Func(func(*Message) Result { return tt.give }), &Message{Text: []byte(tt.text)}); err == nil {
				t.Errorf("got %+v, want an error", got)
			}
		})
	}
	if _, err := Try(nil, &Message{Text: []byte("hi")}); err == nil {
		t.Error("no judge at all: want an error")
	}
}

func TestJudgeSeesTheMessage(t *testing.T) {
	want := Message{
		Text: []byte("Hi"), Normalized: []byte("hi"), User: []byte("ann"), Room: []byte("lobby"), Roles: []byte("a\nb"),
		Kind: []byte("edit"), TimeMS: 99, Signals: abi.Signals{RecentPerMinute: 1, Repeats: 2, AccountAgeHours: 3},
	}
	given := want
	given.Normalized = nil // Try lowers the case
	_, err := Try(Func(func(m *Message) Result {
		if !reflect.DeepEqual(*m, want) {
			t.Errorf("got %+v, want %+v", *m, want)
		}
		return Allow()
	}), &given)
	if err != nil {
		t.Fatal(err)
	}
}

func TestHasRole(t *testing.T) {
	for _, tt := range []struct {
		roles, role string
		want        bool
	}{
		{"", "admin", false}, {"", "", false}, {"admin", "admin", true}, {"admin\nowner", "owner", true},
		{"admin\nowner", "admin", true}, {"admins", "admin", false}, {"admin", "admins", false},
	} {
		if got := (&Message{Roles: []byte(tt.roles)}).HasRole(tt.role); got != tt.want {
			t.Errorf("%q has %q: got %v, want %v", tt.roles, tt.role, got, tt.want)
		}
	}
}

func TestReadConfig(t *testing.T) {
	for _, tt := range []struct{ config, want string }{
		{`{"most":3}`, ""},
		{` {} `, ""},
		{`{"mots":3}`, `"mots"`},
		{`{"most":"3"}`, `"most" is a string, want int`},
		{`{"most":3} {}`, "follows"},
		{`{"most":3`, "EOF"},
	} {
		var c struct {
			Most int `json:"most"`
		}
		err := ReadConfig([]byte(tt.config), &c)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.config, err, tt.want)
		}
	}
}

func TestDecodeOfOtherInputs(t *testing.T) {
	full := abi.AppendInput(nil, &abi.Input{Text: []byte("hi"), Kind: "message", Signals: abi.Signals{Repeats: 5}})
	more := append([]byte(nil), full...) // as if a later host sent a field more: its entry would lie where the bytes begin
	fewer := append([]byte(nil), full...)
	binary.LittleEndian.PutUint32(fewer[4:], 2)
	cut := append([]byte(nil), full...)
	binary.LittleEndian.PutUint32(cut[abi.InputHeaderSize+int(abi.FieldSignals)*abi.FieldEntrySize+4:], 1<<20)
	tests := []struct {
		name  string
		input []byte
		ok    bool
		check func(m *Message) bool
	}{
		{"full", more, true, func(m *Message) bool { return m.Signals.Repeats == 5 && string(m.Kind) == "message" }},
		{"an older host's two fields", fewer, true, func(m *Message) bool { return string(m.Text) == "hi" && m.Kind == nil && m.Signals.Repeats == 0 }},
		{"signals outside", cut, false, nil},
		{"empty", nil, false, nil},
		{"another version", []byte(strings.Repeat("\x02", 100)), false, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := Message{Signals: abi.Signals{Repeats: 77}}
			if ok := m.decode(tt.input); ok != tt.ok || ok && !tt.check(&m) {
				t.Errorf("decode = %v, %+v", ok, m)
			}
		})
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	input := abi.AppendInput(nil, &abi.Input{Text: []byte("hello"), Normalized: []byte("hello"), User: "ann"})
	var spans [2]Span
	j := Func(func(*Message) Result {
		spans = [2]Span{InText(2, 3), InText(0, 1)}
		return Redact(1, "a reason", spans[:]...)
	})
	g := new(guest)
	if n := testing.AllocsPerRun(100, func() { g.decide(j, input) }); n != 0 {
		t.Errorf("%v allocations a decision, want 0", n)
	}
}

func TestRegisterTwicePanics(t *testing.T) {
	t.Cleanup(func() { registered = nil })
	Register(Func(func(*Message) Result { return Allow() }))
	defer func() {
		if recover() == nil {
			t.Error("the second Register did not panic")
		}
	}()
	Register(Func(func(*Message) Result { return Allow() }))
}

func FuzzGuest(f *testing.F) {
	f.Add(abi.AppendInput(nil, &abi.Input{Text: []byte("hello"), Normalized: []byte("hello"), User: "ann"}), []byte("\x00\x01\x02\x01\x00\x03"))
	f.Add([]byte{}, []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, input, script []byte) {
		j := Func(func(m *Message) Result { // masks what the script says, inside the text
			var spans []Span
			for ; len(script) >= 3 && len(m.Text) > 0; script = script[3:] {
				start := int(script[1]) % len(m.Text)
				s := InText(start, start+int(script[2])%(len(m.Text)-start)+1)
				if script[0]%2 == 1 {
					s.Field = abi.FieldNormalized
				}
				spans = append(spans, s)
			}
			return Redact(1, string(script), spans...)
		})
		v, out := new(guest).decide(j, input)
		if v != abi.Redact {
			return
		}
		// As many bytes as the text, one rune each: only the order and the
		// bounds of spans are the SDK's to keep.
		text, _ := abi.FieldBytes(input, abi.FieldText)
		ascii := []byte(strings.Repeat("a", len(text)))
		if _, err := abi.DecodeResult(v, out, ascii, ascii); err != nil {
			t.Fatalf("the host would refuse %x: %v", out, err)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	input := abi.AppendInput(nil, &abi.Input{Text: make([]byte, 120), Normalized: make([]byte, 120), User: "ann"})
	j := Func(func(*Message) Result { return Allow() })
	g := new(guest)
	b.ReportAllocs()
	for b.Loop() {
		g.decide(j, input)
	}
}
