package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"parley/core/moderation"
	"parley/sdk/abi"
	"parley/sdk/plugin"
)

func configured(t testing.TB, config string) *judge {
	t.Helper()
	j := new(judge)
	if err := j.Configure([]byte(config)); err != nil {
		t.Fatalf("configure %s: %v", config, err)
	}
	return j
}

// normalized is the form of text the host hands to plugins.
func normalized(t testing.TB, text string) []byte {
	t.Helper()
	f, err := moderation.Normalize(text, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f.Bytes()
}

// decide judges text as the host would and returns the verdict and the parts
// of the normalised text that it marks.
func decide(t testing.TB, j *judge, text string) (abi.Verdict, []string) {
	t.Helper()
	n := normalized(t, text)
	r, err := plugin.Try(j, &plugin.Message{Text: []byte(text), Normalized: n})
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	var marked []string
	for _, s := range r.Spans {
		marked = append(marked, string(n[s.Start:s.Start+s.Length]))
	}
	return r.Verdict, marked
}

// TestVectors runs the vectors of the sidecar with its configuration. The same
// vectors run in the real host; there the masked text is compared as well.
func TestVectors(t *testing.T) {
	var manifest struct {
		Config  json.RawMessage `json:"config"`
		Vectors []struct{ Name, Text, Want string }
	}
	load(t, "wordlist.json", &manifest)
	j := configured(t, string(manifest.Config))
	for _, v := range manifest.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			if got, marked := decide(t, j, v.Text); got.String() != v.Want {
				t.Errorf("%q (normalised %q): got %s %q, want %s", v.Text, normalized(t, v.Text), got, marked, v.Want)
			}
		})
	}
}

func load(t *testing.T, file string, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func TestMarks(t *testing.T) {
	const config = `{"words":["ass","Bad","all","hello","Café","ill","bad","badly"]}`
	tests := []struct {
		name, text string
		want       []string
	}{
		{"scunthorpe", "a class of assassins assesses the passage in Scunthorpe", nil},
		{"the word itself", "an ass", []string{"ass"}},
		{"double letters are needed", "as bright as day, a hel lo", nil},
		{"more of them", "asssss helllloooo", []string{"asssss", "helllloooo"}},
		{"spelled-out class", "c l a s s", nil},
		{"spelled-out word after a number", "gate 1, b a d 2 day", []string{"b a d"}},
		{"digits in a spelled-out word", "c 1 a s s", nil},
		{"spelled-out word", "you a s s hole", []string{"a s s"}},
		{"partly spaced is two words", "b ad, ba d", nil},
		{"letters far apart", "b     a     d", nil},
		{"signs between letters", "b*a*d b~ad", []string{"b*a*d", "b~ad"}},
		{"new lines between letters", "b\na\nd", []string{"b\na\nd"}},
		{"gap after the word", "bad      day", []string{"bad"}},
		{"word of one kind of stand-in", "111 i11 |||", []string{"111", "i11", "|||"}},
		{"sign before and after", "!bad! $bad$ (bad)", []string{"bad", "bad", "bad"}},
		{"digits beside make another word", "bad1 2bad", nil},
		{"accented word in the list", "cafe CAFÉ", []string{"cafe", "café"}},
		{"marks on letters", "b\u0335a\u0335d\u0335", []string{"b\u0335a\u0335d\u0335"}},
		{"end of the text", "not ba", nil},
		{"longest", "badly bad", []string{"badly", "bad"}},
		{"nothing", "", nil},
		{"truncated runes", "bad\xc3 \xc3", []string{"bad"}},
	}
	j := configured(t, config)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, got := decide(t, j, tt.text)
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tt.want) {
				t.Errorf("%q: marked %q, want %q", tt.text, got, tt.want)
			}
		})
	}
}

func TestModes(t *testing.T) {
	tests := []struct {
		config string
		want   abi.Verdict
		reason string
	}{
		{`{"words":["bad"]}`, abi.Redact, "A word that is not welcome here was masked."},
		{`{"words":["bad"],"mode":"deny"}`, abi.Deny, "It contains a word that is not welcome here; say it without."},
		{`{"words":["bad"],"mode":"flag","reason":"look"}`, abi.Flag, "look"},
	}
	for _, tt := range tests {
		t.Run(tt.config, func(t *testing.T) {
			r, err := plugin.Try(configured(t, tt.config), &plugin.Message{Text: []byte("too bad")})
			if err != nil || r.Verdict != tt.want || r.Reason != tt.reason || r.Code != codeWord || r.Score != 1000 {
				t.Errorf("got %+v, %v, want %s %q", r, err, tt.want, tt.reason)
			}
		})
	}
}

func TestConfigureRefuses(t *testing.T) {
	tests := []struct{ name, config, want string }{
		{"not JSON", `{`, "EOF"},
		{"unknown key", `{"word":["bad"]}`, `"word"`},
		{"no words", `{}`, "0 words"},
		{"unknown mode", `{"words":["bad"],"mode":"shout"}`, `mode "shout"`},
		{"two words", `{"words":["go away"]}`, `"go away"`},
		{"one letter", `{"words":["a"]}`, `"a"`},
		{"stand-ins", `{"words":["b1d"]}`, `"b1d"`},
		{"another alphabet", `{"words":["да"]}`, `"да"`},
		{"too long", `{"words":["` + strings.Repeat("ab", 40) + `"]}`, "80 letters"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := new(judge).Configure([]byte(tt.config))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestMoreWordsThanSpans(t *testing.T) {
	j := configured(t, `{"words":["bad"]}`)
	_, got := decide(t, j, strings.Repeat("bad ", abi.MaxSpans+50))
	if n := len(got); n != abi.MaxSpans || len(got[n-1]) < 50*4 {
		t.Errorf("%d spans, the last of %d bytes", n, len(got[n-1]))
	}
}

func TestUnconfiguredAllows(t *testing.T) {
	if got, _ := decide(t, new(judge), "heck"); got != abi.Allow {
		t.Errorf("got %s, want allow", got)
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	j := configured(t, `{"words":["bad","worse"]}`)
	text := []byte("a bad b4d b a d day")
	m := &plugin.Message{Text: text, Normalized: text}
	if n := testing.AllocsPerRun(100, func() { j.Decide(m) }); n != 0 {
		t.Errorf("%v allocations a decision, want 0", n)
	}
}

func FuzzDecide(f *testing.F) {
	for _, s := range []string{"bad", "b a d", "b4d!", "\u200bb\u200ba\u200bd", "", "ｂａｄ", "a s s", "i11 111"} {
		f.Add(s)
	}
	j := configured(f, `{"words":["bad","ass","ill","hello"]}`)
	f.Fuzz(func(t *testing.T, s string) {
		clean, err := moderation.Clean(s, 2000)
		if err != nil {
			return
		}
		decide(t, j, clean) // fails on a span the host would refuse
	})
}

func BenchmarkDecide(b *testing.B) {
	words := make([]string, 200)
	for i := range words {
		words[i] = fmt.Sprintf("%c%c%cord%c", 'a'+i%26, 'a'+i*7%26, 'a'+i/26, 'a'+i%7)
	}
	list, err := json.Marshal(map[string]any{"words": words})
	if err != nil {
		b.Fatal(err)
	}
	j := configured(b, string(list))
	text := normalized(b, "The quick brown fox jumps over the lazy dog while 42 students in class assess the passage, and nobody minds at all, OK?")
	m := &plugin.Message{Text: text, Normalized: text}
	b.ReportAllocs()
	for b.Loop() {
		j.Decide(m)
	}
}
