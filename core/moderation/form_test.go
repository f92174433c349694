package moderation

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"parley/core/chat"
)

const ascii120 = "The quick brown fox jumps over the lazy dog while 42 students in class assess the passage, and nobody minds at all, OK?"

// mixed120 has what people write (accents, emoji, another alphabet) and what
// evaders write.
const mixed120 = "Schöne Grüße, d\u200ba\u200br\u200bn! Привет всем 👋🏽 ｆｕｌｌ ｗｉｄｔｈ, dаrn (Cyrillic), naïve café."

var seeds = []string{
	"", "a", ascii120, mixed120, "b\u200ba\u200bd", "\u200bbad", "ﬁne", "\ufdfa", "e\u0301\u0323x", "ｄａｒｎ",
	"\u1112\u1161\u11ab\u1100", "한국어", "👨\u200d👩\u200d👧 x", "𝐛𝐚𝐝", "ß İ ı ſ ς Σ", "\u0958\u0344", "Ŀ㎏㍿", "a\u0301\u0301\u0301", "日本語テキスト", "\U000e0041\u0301",
}

func normalize(t testing.TB, s string) *Form {
	t.Helper()
	f, err := Normalize(s, 0)
	if err != nil {
		t.Fatalf("Normalize(%+q): %v", s, err)
	}
	return f
}

func TestNormalize(t *testing.T) {
	tests := []struct {
		name, in, want string
	}{
		{"lower case", "Hello World 42!", "hello world 42!"},
		{"ascii stands for itself", "1 I l | 0 O m rn \"", "1 i l | 0 o m rn \""},
		{"zero width", "b\u200ba\u2060d\ufeff", "bad"},
		{"soft hyphen", "b\u00adad", "bad"},
		{"full width", "ｂａｄ", "bad"},
		{"mathematical", "𝐛𝒂𝓭 𝟏", "bad 1"},
		{"ligature", "ﬁ", "fi"},
		{"cyrillic letters", "ԁаrn НЕСК", "darn heck"},
		{"cyrillic small letters that look like capitals", "тм", "tm"},
		{"capital i of other alphabets", "Іι", "ii"},
		{"greek capitals", "ΒΑΗ", "bah"},
		{"stroke becomes a mark", "đ", "d\u0335"},
		{"accents stay composed", "é", "é"},
		{"composed again", "e\u200b\u0301", "é"},
		{"german umlauts stay", "SCHÖN", "schön"},
		{"both sigmas", "ΣΑΣ", string(appendSkeleton(appendSkeleton(appendSkeleton(nil, 'σ'), 'α'), 'σ'))},
		{"negative letters", "🅱🅐🅳", "bad"},
		{"prototype of m", "\U000118e3", "m"},
		{"spaces of all widths", "a\u00a0b\u3000c\u2003d", "a b c d"},
		{"ideographs", "日本", "日本"},
		{"hangul jamo", "\u1112\u1161\u11ab", "한"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(normalize(t, tt.in).Bytes()); got != tt.want {
				t.Errorf("Normalize(%+q) = %+q, want %+q", tt.in, got, tt.want)
			}
		})
	}
}

func TestOriginal(t *testing.T) {
	tests := []struct {
		name, in, find, want string // find in the normalised text; the original bytes it comes from
	}{
		{"ascii", "a bad word", "bad", "bad"},
		{"zero width inside", "xx b\u200ba\u200bd yy", "bad", "b\u200ba\u200bd"},
		{"zero width after", "bad\u200b yy", "bad", "bad\u200b"},
		{"zero width before", "\u200bbad", "bad", "bad"},
		{"mark after", "bade\u0301\u0323 x", "bad", "bad"},
		{"part of a ligature", "of ﬁne", "f", "f"},
		{"second half of a ligature", "ﬁ", "i", "ﬁ"},
		{"growth", "a\ufdfab", "a", "a"},
		{"shrink", "𝐛𝐚𝐝 x", "bad", "𝐛𝐚𝐝"},
		{"mixed linear and cluster", "héllo wörld", "lo w", "lo w"},
		{"after a cluster", "é bad", "bad", "bad"},
		{"hangul", "\u1112\u1161\u11abx", "한", "\u1112\u1161\u11ab"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := normalize(t, tt.in)
			at := strings.Index(string(f.Bytes()), tt.find)
			if at < 0 {
				t.Fatalf("%+q is not in %+q", tt.find, f.Bytes())
			}
			from, to := f.Original(at, at+len(tt.find))
			if got := tt.in[from:to]; got != tt.want {
				t.Errorf("%+q in %+q comes from %+q, want %+q", tt.find, tt.in, got, tt.want)
			}
		})
	}
	t.Run("every byte of a grown rune", func(t *testing.T) {
		f := normalize(t, "a\ufdfab")
		if n := len(f.Bytes()); n < 2+11 {
			t.Fatalf("U+FDFA became %d bytes", n-2)
		}
		for i := 1; i < len(f.Bytes())-1; i++ {
			if from, to := f.Original(i, i+1); from != 1 || to != 4 {
				t.Fatalf("byte %d comes from [%d,%d), want [1,4)", i, from, to)
			}
		}
	})
}

func TestExpand(t *testing.T) {
	in := "ab e\u0323\u0301 c\u200bd \u200b"
	f := normalize(t, in)
	tests := []struct {
		name               string
		start, end, ws, we int
	}{
		{"ascii", 0, 1, 0, 1},
		{"base takes its marks", 3, 4, 3, 8},
		{"mark takes its base", 4, 6, 3, 8},
		{"invisible goes with the letter before", 9, 10, 9, 13},
		{"invisible alone", 10, 13, 9, 13},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if s, e := f.Expand(tt.start, tt.end); s != tt.ws || e != tt.we {
				t.Errorf("Expand(%d, %d) = %d, %d, want %d, %d", tt.start, tt.end, s, e, tt.ws, tt.we)
			}
		})
	}
}

func TestNormalizeTooLong(t *testing.T) {
	in := strings.Repeat("\ufdfa", 100) // 300 bytes, eleven times that when written out
	_, err := Normalize(in, 1000)
	var ce *chat.Error
	if !errors.As(err, &ce) || ce.Code != chat.CodeTextTooLong {
		t.Errorf("Normalize of a growing text: %v, want %s", err, chat.CodeTextTooLong)
	}
	if _, err := Normalize("abcd", 4); err != nil {
		t.Errorf("a form of exactly the limit: %v", err)
	}
}

func FuzzForm(f *testing.F) {
	for _, s := range seeds {
		f.Add(s, uint16(0), uint16(1))
	}
	f.Fuzz(func(t *testing.T, in string, at, n uint16) {
		f := normalize(t, in)
		if !utf8.Valid(f.Bytes()) {
			t.Fatalf("Normalize(%+q) = %+q is not UTF-8", in, f.Bytes())
		}
		checkRuns(t, f)
		if len(f.Bytes()) > 0 {
			start := int(at) % len(f.Bytes())
			end := start + 1 + int(n)%(len(f.Bytes())-start)
			from, to := f.Original(start, end)
			aligned(t, in, from, to)
			for i := start; i < end; i++ { // a span covers what its parts cover
				if a, b := f.Original(i, i+1); a < from || b > to {
					t.Fatalf("%+q: byte %d comes from [%d,%d), span [%d,%d) from [%d,%d)", in, i, a, b, start, end, from, to)
				}
			}
		}
		if len(in) > 0 {
			start := int(at) % len(in)
			end := start + 1 + int(n)%(len(in)-start)
			from, to := f.Expand(start, end)
			if from > start || to < end {
				t.Fatalf("%+q: Expand(%d,%d) = %d,%d loses bytes", in, start, end, from, to)
			}
			aligned(t, in, from, to)
			if a, b := f.Expand(from, to); a != from || b != to {
				t.Fatalf("%+q: Expand(%d,%d) widens again to %d,%d", in, from, to, a, b)
			}
		}
	})
}

// aligned fails unless [from,to) holds whole clusters of in.
func aligned(t *testing.T, in string, from, to int) {
	t.Helper()
	if from < 0 || to > len(in) || from >= to {
		t.Fatalf("%+q: [%d,%d) is no range", in, from, to)
	}
	at := 0
	starts := map[int]bool{len(in): true}
	for at < len(in) {
		starts[at] = true
		at = clusterEnd(in, at)
	}
	if !starts[from] || !starts[to] {
		t.Fatalf("%+q: [%d,%d) cuts a cluster", in, from, to)
	}
}

func checkRuns(t *testing.T, f *Form) {
	t.Helper()
	for i, r := range f.runs {
		if i == 0 {
			if r.norm != 0 || r.orig != 0 {
				t.Fatalf("%+q: first run is %+v", f.original, r)
			}
			continue
		}
		p := f.runs[i-1]
		if r.orig <= p.orig || r.norm < p.norm || p.linear && r.orig-p.orig != r.norm-p.norm {
			t.Fatalf("%+q: run %+v follows %+v", f.original, r, p)
		}
	}
}

func BenchmarkNormalizeASCII120(b *testing.B) { benchmarkForm(b, ascii120) }
func BenchmarkNormalizeMixed(b *testing.B)    { benchmarkForm(b, mixed120) }

func benchmarkForm(b *testing.B, text string) {
	var f Form
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if err := f.set(text, 16<<10); err != nil {
			b.Fatal(err)
		}
	}
}
