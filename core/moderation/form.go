package moderation

import (
	"encoding/binary"
	"sort"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"parley/core/chat"
)

// Form is the normalised form of a text, with the way back. Bytes compares
// equal for texts that look alike: it is NFKC with invisible characters
// stripped, in lower case, look-alike letters replaced by the ASCII letter
// they imitate (the skeleton of Unicode Technical Standard 39, except that
// ASCII stands for itself). Digits and signs that stand for letters are left:
// whether "4" is an "a" is for a plugin to say.
//
// The text is cut into clusters: a rune with all that attaches to it
// (combining marks, invisible characters). Each byte of the normalised form
// comes from one cluster, and a span maps back to whole clusters, so masking
// never cuts a character in two. A Form is immutable; any goroutine may read
// it.
type Form struct {
	original string
	norm     []byte
	// runs partition both texts, in rising order of both offsets. A linear run
	// is ASCII, offsets run in step; any other is one cluster. Empty when both
	// texts have the same offsets throughout.
	runs []run

	buf foldBuffer
}

type run struct {
	norm, orig int // where the run begins in either text
	linear     bool
}

// Normalize returns the normalised form of text, which should be Clean (it
// must be valid UTF-8 for spans to make sense). A form longer than maxBytes
// (0 = no limit) is a *chat.Error with code text_too_long: one character can
// grow eleven-fold.
func Normalize(text string, maxBytes int) (*Form, error) {
	f := new(Form)
	if err := f.set(text, maxBytes); err != nil {
		return nil, err
	}
	return f, nil
}

// Bytes returns the normalised text. The caller must not modify it.
func (f *Form) Bytes() []byte { return f.norm }

// Original maps the bytes start to end of the normalised text to the bytes of
// the original they come from, widened to whole clusters. It needs
// 0 <= start < end <= len(Bytes()).
func (f *Form) Original(start, end int) (int, int) {
	if len(f.runs) == 0 {
		return start, end
	}
	first, last := f.byNorm(start), f.byNorm(end-1)
	from, to := f.runs[first].orig, f.runEnd(last)
	if r := f.runs[first]; r.linear {
		from += start - r.norm
	}
	if r := f.runs[last]; r.linear {
		to = r.orig + end - r.norm
	}
	return from, to
}

// Expand widens the bytes start to end of the original text to whole
// clusters. It needs 0 <= start < end <= len(text).
func (f *Form) Expand(start, end int) (int, int) {
	if len(f.runs) == 0 {
		return start, end
	}
	first, last := f.byOrig(start), f.byOrig(end-1)
	if !f.runs[first].linear {
		start = f.runs[first].orig
	}
	if !f.runs[last].linear {
		end = f.runEnd(last)
	}
	return start, end
}

// byNorm finds the run that holds a byte of the normalised text: the last
// that begins at or before it, which passes over runs that left no trace.
func (f *Form) byNorm(at int) int {
	return sort.Search(len(f.runs), func(i int) bool { return f.runs[i].norm > at }) - 1
}

func (f *Form) byOrig(at int) int {
	return sort.Search(len(f.runs), func(i int) bool { return f.runs[i].orig > at }) - 1
}

// runEnd returns where a run ends in the original.
func (f *Form) runEnd(i int) int {
	if i+1 < len(f.runs) {
		return f.runs[i+1].orig
	}
	return len(f.original)
}

// set computes the form of text anew, reusing f's buffers.
func (f *Form) set(text string, maxBytes int) error {
	f.original, f.norm, f.runs = text, f.norm[:0], f.runs[:0]
	for i := 0; i < len(text); {
		end := i + asciiPrefix(text[i:])
		if end == len(text) && i == 0 {
			f.appendASCII(text) // offsets agree: no runs
			break
		}
		if end > i && end < len(text) && attaches(runeAt(text, end)) {
			end-- // the last letter heads a cluster
		}
		if end > i {
			f.runs = append(f.runs, run{len(f.norm), i, true})
			f.appendASCII(text[i:end])
			i = end
		}
		if i < len(text) {
			end = clusterEnd(text, i)
			f.runs = append(f.runs, run{len(f.norm), i, false})
			f.appendCluster(text[i:end])
			i = end
		}
		if maxBytes > 0 && len(f.norm) > maxBytes {
			break
		}
	}
	if maxBytes > 0 && len(f.norm) > maxBytes {
		return chat.Errorf(chat.CodeTextTooLong, "the text grows beyond %d bytes when its compatibility characters are written out; shorten it", maxBytes)
	}
	return nil
}

// appendASCII lowers the letters of s, which is ASCII, eight at a time.
func (f *Form) appendASCII(s string) {
	const ones = 0x0101010101010101
	at := len(f.norm)
	f.norm = append(f.norm, s...)
	b := f.norm[at:]
	for ; len(b) >= 8; b = b[8:] {
		w := binary.LittleEndian.Uint64(b)
		// The high bit of each byte that is >= 'A' and not > 'Z'; a quarter of
		// it is the difference between the cases.
		upper := (w + ones*(0x80-'A')) &^ (w + ones*(0x80-'Z'-1)) & (ones * 0x80)
		binary.LittleEndian.PutUint64(b, w|upper>>2)
	}
	for i, c := range b {
		b[i] = lowerASCII(c)
	}
}

// appendCluster appends the normalised form of one cluster.
func (f *Form) appendCluster(s string) {
	if r, size := utf8.DecodeRuneInString(s); size == len(s) {
		f.norm = append(f.norm, lookup(r).form...)
		return
	}
	f.buf.fold(s)
	f.norm = append(f.norm, f.buf.composed...)
}

// foldBuffer is the memory that folding a cluster works in.
type foldBuffer struct{ parts, mapped, composed []byte }

// fold leaves the normalised form of one cluster in b.composed: decompose,
// drop what is invisible, replace look-alikes, compose. (NFKC is NFKD
// composed, and look-alikes are defined on decomposed text.)
func (b *foldBuffer) fold(s string) {
	b.parts = b.parts[:0]
	for _, r := range s {
		if !invisible(r) {
			b.parts = utf8.AppendRune(b.parts, r)
		}
	}
	b.mapped = norm.NFKD.Append(b.mapped[:0], b.parts...)
	b.parts = b.parts[:0]
	for i := 0; i < len(b.mapped); {
		r, size := utf8.DecodeRune(b.mapped[i:])
		if !invisible(r) {
			b.parts = appendSkeleton(b.parts, r)
		}
		i += size
	}
	b.composed = norm.NFC.Append(b.composed[:0], b.parts...)
}

// clusterEnd returns where the cluster that begins at i ends.
func clusterEnd(text string, i int) int {
	_, size := utf8.DecodeRuneInString(text[i:])
	for i += size; i < len(text); i += size {
		if text[i] < 0x80 {
			break
		}
		var r rune
		if r, size = utf8.DecodeRuneInString(text[i:]); !attaches(r) {
			break
		}
	}
	return i
}

func runeAt(text string, i int) rune {
	r, _ := utf8.DecodeRuneInString(text[i:])
	return r
}

// asciiPrefix returns how many bytes of s precede the first that is not ASCII.
func asciiPrefix(s string) int {
	i := 0
	for ; i+8 <= len(s); i += 8 {
		if (s[i]|s[i+1]|s[i+2]|s[i+3]|s[i+4]|s[i+5]|s[i+6]|s[i+7])&0x80 != 0 {
			break
		}
	}
	for ; i < len(s); i++ {
		if s[i] >= 0x80 {
			break
		}
	}
	return i
}
