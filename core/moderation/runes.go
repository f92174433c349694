package moderation

import (
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"go.mau.fi/util/confusable"
	"golang.org/x/text/unicode/norm"
)

// bidiControl reports the characters that change the direction of the text
// around them (Unicode Standard Annex 9, section 2, and the deprecated format
// characters U+206A to U+206F): with them a message can show other words than
// it contains.
func bidiControl(r rune) bool {
	switch {
	case r == 0x061c, r == 0x200e, r == 0x200f:
	case 0x202a <= r && r <= 0x202e, 0x2066 <= r && r <= 0x206f:
	default:
		return false
	}
	return true
}

// invisible reports the code points that are drawn as nothing: the property
// Default_Ignorable_Code_Point of the Unicode Character Database, its
// unassigned ranges included.
func invisible(r rune) bool {
	if r < 0x300 {
		return r == 0x00ad
	}
	switch {
	case r == 0x034f, r == 0x061c, r == 0x3164, r == 0xfeff, r == 0xffa0:
	case r == 0x115f, r == 0x1160, r == 0x17b4, r == 0x17b5:
	case 0x180b <= r && r <= 0x180f, 0x200b <= r && r <= 0x200f:
	case 0x202a <= r && r <= 0x202e, 0x2060 <= r && r <= 0x206f:
	case 0xfe00 <= r && r <= 0xfe0f, 0xfff0 <= r && r <= 0xfff8:
	case 0x1bca0 <= r && r <= 0x1bca3, 0x1d173 <= r && r <= 0x1d17a:
	case 0xe0000 <= r && r <= 0xe0fff:
	default:
		return false
	}
	return true
}

// known is what the tables say of one rune.
type known struct {
	r        rune
	attaches bool
	form     string // normalised, as a cluster of its own
}

// cache keeps what was computed for a rune, in the slot of its low bits: asking
// the tables takes a microsecond, and people keep to a few hundred characters.
// Its memory is bounded by its size; a slot is replaced as a whole.
var cache [4096]atomic.Pointer[known]

func lookup(r rune) *known {
	slot := &cache[uint32(r)%uint32(len(cache))]
	if k := slot.Load(); k != nil && k.r == r {
		return k
	}
	var b foldBuffer
	b.fold(string(r))
	k := &known{
		r:        r,
		attaches: invisible(r) || unicode.Is(unicode.M, r) || composesBackwards(r),
		form:     string(b.composed),
	}
	slot.Store(k)
	return k
}

// attaches reports whether r is shown as part of the rune before it, or not at
// all: combining marks, invisible characters, and those that compose with what
// precedes (Hangul vowels and finals).
func attaches(r rune) bool { return r >= 0x80 && lookup(r).attaches }

func composesBackwards(r rune) bool {
	var b [4]byte
	return !norm.NFC.Properties(utf8.AppendRune(b[:0], r)).BoundaryBefore()
}

// appendSkeleton appends what r looks like, in lower case. ASCII stands for
// itself: the prototypes of Unicode Technical Standard 39 turn "m" into "rn"
// and "1" into "l", which would make every plugin's word list unreadable.
// Other characters take the prototype of r itself where that is an ASCII
// letter or digit, else that of its other case (small Cyrillic ve is no b, the
// capital is), else whatever prototype or lower case there is.
func appendSkeleton(dst []byte, r rune) []byte {
	if r < 0x80 {
		return append(dst, lowerASCII(byte(r)))
	}
	if c := negativeLetter(r); c != 0 {
		return append(dst, c)
	}
	if 0x1100 <= r && r <= 0x11ff { // parts of a Hangul syllable; replaced, they would not compose again
		return utf8.AppendRune(dst, r)
	}
	lower, upper := unicode.ToLower(r), unicode.ToUpper(r)
	look := confusable.GetReplacement(r)
	if !alphanumeric(look) {
		other := lower
		if r == lower {
			other = upper
		}
		if alt := confusable.GetReplacement(other); alphanumeric(alt) {
			look = alt
		}
	}
	switch {
	case look == "":
		return utf8.AppendRune(dst, unicode.ToLower(upper)) // by way of upper, so that both sigmas are one
	case look == "rn":
		return append(dst, 'm') // the prototype of m, which stands for itself here
	case look == "l" && r == upper && confusable.GetReplacement(lower) == "i":
		return append(dst, 'i') // a capital I, whose prototype is l
	}
	for _, c := range look {
		dst = utf8.AppendRune(dst, unicode.ToLower(c))
	}
	return dst
}

// negativeLetter returns the letter in a negative circled or squared capital
// (U+1F150 to U+1F169 and U+1F170 to U+1F189), which have no decomposition in
// Unicode, and 0 for any other rune.
func negativeLetter(r rune) byte {
	switch {
	case 0x1f150 <= r && r <= 0x1f169:
		return 'a' + byte(r-0x1f150)
	case 0x1f170 <= r && r <= 0x1f189:
		return 'a' + byte(r-0x1f170)
	}
	return 0
}

// alphanumeric reports whether s begins with an ASCII letter or digit.
func alphanumeric(s string) bool {
	if s == "" {
		return false
	}
	c := lowerASCII(s[0])
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
}

func lowerASCII(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
