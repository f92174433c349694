package moderation

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Mask replaces each masked character. One byte, so that a masked text is
// never longer than the original.
const Mask = '*'

// interval is a run of bytes of the original text, on cluster boundaries.
type interval struct{ start, end int }

// unite sorts intervals and joins those that overlap or touch, in place.
func unite(in []interval) []interval {
	slices.SortFunc(in, func(a, b interval) int { return cmp.Compare(a.start, b.start) })
	out := in[:0]
	for _, iv := range in {
		if n := len(out); n > 0 && iv.start <= out[n-1].end {
			out[n-1].end = max(out[n-1].end, iv.end)
			continue
		}
		out = append(out, iv)
	}
	return out
}

// mask returns text with each cluster inside the intervals replaced by one
// Mask. White space stays, so that lines and the number of words do.
func mask(text string, in []interval) string {
	var b strings.Builder
	b.Grow(len(text))
	at := 0
	for _, iv := range in {
		b.WriteString(text[at:iv.start])
		for i := iv.start; i < iv.end; {
			r, size := utf8.DecodeRuneInString(text[i:])
			next := clusterEnd(text, i)
			switch {
			case unicode.IsSpace(r):
				b.WriteString(text[i : i+size]) // without the marks it carries
			default:
				b.WriteByte(Mask)
			}
			i = next
		}
		at = iv.end
	}
	b.WriteString(text[at:])
	return b.String()
}
