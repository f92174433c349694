package moderation

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"parley/core/chat"
)

func TestClean(t *testing.T) {
	tests := []struct {
		name, in, want string
	}{
		{"plain", "hello, world", "hello, world"},
		{"spaces at the ends", "  hello \n", "hello"},
		{"spaces inside", "a  b\n\n c\td", "a  b\n\n c\td"},
		{"composed", "e\u0301te\u0301", "\u00e9t\u00e9"},
		{"bidi override", "user\u202egnp.exe", "usergnp.exe"},
		{"bidi isolates and marks", "\u2066a\u2069\u200eb\u061cc\u206a", "abc"},
		{"control characters", "a\x00b\x1b[31mc\x7fd\u0085e", "ab[31mcde"},
		{"line ends", "a\r\nb\rc\u2028d\u2029e", "a\nb\nc\nd\ne"},
		{"stacked marks", "Z" + strings.Repeat("\u0319", 40) + "!", "Z" + strings.Repeat("\u0319", 8) + "!"},
		{"stacked invisibles", "a" + strings.Repeat("\u200b", 40) + "b", "a" + strings.Repeat("\u200b", 8) + "b"},
		{"controls between marks", "e\u200e\u0301", "\u00e9"},
		{"emoji with joiners stays", "👩🏽‍❤️‍💋‍👨🏽 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "👩🏽‍❤️‍💋‍👨🏽 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"},
		{"persian joiner stays", "می\u200cخواهم", "می\u200cخواهم"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Clean(tt.in, 0)
			if err != nil || got != tt.want {
				t.Errorf("Clean(%+q) = %+q, %v, want %+q", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestCleanRefuses(t *testing.T) {
	tests := []struct {
		name, in string
		max      int
		want     chat.Code
	}{
		{"nothing", "", 0, chat.CodeBadRequest},
		{"spaces", " \t\n ", 0, chat.CodeBadRequest},
		{"only invisible", "\u200b\ufeff\u3164", 0, chat.CodeBadRequest},
		{"only controls", "\x00\u202e", 0, chat.CodeBadRequest},
		{"not UTF-8", "a\xff", 0, chat.CodeBadRequest},
		{"surrogate", "\xed\xa0\x80", 0, chat.CodeBadRequest},
		{"too long", "abcde", 4, chat.CodeTextTooLong},
		{"too long once composed", "\u0958", 3, chat.CodeTextTooLong}, // composes to two runes
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Clean(tt.in, tt.max)
			var ce *chat.Error
			if !errors.As(err, &ce) || ce.Code != tt.want || got != "" {
				t.Errorf("Clean(%+q) = %q, %v, want code %s", tt.in, got, err, tt.want)
			}
		})
	}
	if _, err := Clean("abcd", 4); err != nil {
		t.Errorf("a text of exactly the limit: %v", err)
	}
}

func TestCleanPlainAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { _, _ = Clean(ascii120, 4096) }); n != 0 {
		t.Errorf("Clean of printable ASCII: %v allocations, want 0", n)
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range append(seeds, "\xff", " \u0301x", "\u1100"+strings.Repeat("\u0301", 9)+"\u1161", "\u0344\u0344\u0344\u0344\u0344") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := Clean(in, 0)
		if err != nil {
			if got != "" {
				t.Fatalf("error and text %q", got)
			}
			return
		}
		if !utf8.ValidString(got) || !norm.NFC.IsNormalString(got) || strings.TrimFunc(got, unicode.IsSpace) != got || got == "" {
			t.Fatalf("Clean(%+q) = %+q is not clean", in, got)
		}
		row := 0
		for _, r := range got {
			if bidiControl(r) || unicode.IsControl(r) && r != '\n' && r != '\t' {
				t.Fatalf("Clean(%+q) = %+q holds %U", in, got, r)
			}
			if row++; !attachedMark(r) {
				row = 0
			}
			if row > maxAttached {
				t.Fatalf("Clean(%+q) = %+q stacks %d", in, got, row)
			}
		}
		if again, err := Clean(got, 0); err != nil || again != got {
			t.Fatalf("Clean(Clean(%+q)): %+q became %+q, %v", in, got, again, err)
		}
	})
}
