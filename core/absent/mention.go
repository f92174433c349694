package absent

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"parley/core/chat"
)

// MaxMentions bounds the people whom one text mentions; further names are text
// and no more.
const MaxMentions = 10

// Mentions returns the names that a text mentions, each once, in the order of
// the text, at most MaxMentions. A mention is an "@" that does not follow a
// letter, a digit, a mark or a character of names (so an address of mail has
// none), with a valid user name right behind it. The name ends at the first
// character that names do not have; trailing ".:-+@" are punctuation. Whether
// there is such a person is for the caller to find out.
func Mentions(text string) []chat.UserID {
	var names []chat.UserID
	before := ' '
	for at := 0; at < len(text); {
		r, n := utf8.DecodeRuneInString(text[at:])
		if r != '@' || inName(before) {
			before = r
			at += n
			continue
		}
		at += n
		end := at
		for end < len(text) {
			c, n := utf8.DecodeRuneInString(text[end:])
			if !inName(c) {
				break
			}
			end += n
		}
		before = '@'
		name := chat.UserID(strings.TrimRight(text[at:end], ".:-+@"))
		at = end
		if end > 0 && chat.ValidUser(name) && !has(names, name) {
			if names = append(names, name); len(names) == MaxMentions {
				break
			}
		}
	}
	return names
}

// inName reports whether names may have the character.
func inName(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) || strings.ContainsRune("-_.@+:", r))
}

func has(names []chat.UserID, name chat.UserID) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}
