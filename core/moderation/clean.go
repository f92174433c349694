package moderation

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"parley/core/chat"
)

// maxAttached bounds the combining marks and invisible characters in a row.
// Thai, Tibetan and Arabic need up to five, the longest emoji flag seven;
// stacks of dozens only cover the lines above and below.
const maxAttached = 8

// Clean makes a text fit to be stored, shown and judged, or says why it cannot
// be. The result
//
//   - is valid UTF-8 in Normalization Form C (Unicode Standard Annex 15);
//   - has no control characters but tab and newline (CR LF, CR and the line
//     and paragraph separators become one newline) and no bidi controls;
//   - has at most 8 combining marks or invisible characters in a row;
//   - has no space at either end, shows at least one character, and is at most
//     maxBytes long (0 = no limit).
//
// Cleaning a clean text returns it unchanged, without allocating where it is
// printable ASCII. Errors are *chat.Error with code bad_request or
// text_too_long. Any goroutine may call it.
func Clean(text string, maxBytes int) (string, error) {
	if !plain(text) {
		if !utf8.ValidString(text) {
			return "", chat.Errorf(chat.CodeBadRequest, "the text is not valid UTF-8; send it encoded as UTF-8")
		}
		text = capAttached(norm.NFC.String(capAttached(dropControls(text))))
		text = strings.TrimFunc(text, unicode.IsSpace)
		if !visible(text) {
			return "", chat.Errorf(chat.CodeBadRequest, "the text is empty once spaces and invisible characters are taken away; write something")
		}
	}
	if maxBytes > 0 && len(text) > maxBytes {
		return "", chat.Errorf(chat.CodeTextTooLong, "the text has %d bytes, at most %d are allowed; shorten it or split it", len(text), maxBytes)
	}
	return text, nil
}

// plain reports whether text is non-empty printable ASCII without space at
// either end, which needs no cleaning.
func plain(text string) bool {
	if text == "" || text[0] == ' ' || text[len(text)-1] == ' ' {
		return false
	}
	for i := 0; i < len(text); i++ {
		if c := text[i]; c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

func dropControls(text string) string {
	var b strings.Builder
	b.Grow(len(text))
	var last rune
	for _, r := range text {
		switch {
		case r == '\n' && last == '\r':
		case r == '\r', r == 0x2028, r == 0x2029:
			b.WriteByte('\n')
		case r == '\n', r == '\t':
			b.WriteRune(r)
		case r < ' ', 0x7f <= r && r <= 0x9f, bidiControl(r):
		default:
			b.WriteRune(r)
		}
		last = r
	}
	return b.String()
}

// capAttached drops what exceeds maxAttached in a row. It runs before
// composing, because composing breaks up longer rows with characters of its
// own, and after it, because composing may lengthen a row. Cutting the end of
// a row keeps a composed text composed: nothing composes forwards.
func capAttached(text string) string {
	var b strings.Builder
	row := 0
	kept := 0 // text[:kept] is in b or needs no copy yet
	for i, r := range text {
		if !attachedMark(r) {
			row = 0
			continue
		}
		if row++; row <= maxAttached {
			continue
		}
		b.WriteString(text[kept:i])
		kept = i + utf8.RuneLen(r)
	}
	if kept == 0 {
		return text
	}
	b.WriteString(text[kept:])
	return b.String()
}

func attachedMark(r rune) bool {
	return r >= 0xad && (invisible(r) || unicode.Is(unicode.M, r))
}

func visible(text string) bool {
	for _, r := range text {
		if !unicode.IsSpace(r) && !invisible(r) {
			return true
		}
	}
	return false
}
