package chat

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of names, in bytes.
const (
	MaxRoomBytes = 64  // fits a store key, a URL segment and a screen line
	MaxUserBytes = 64  // the same
	MaxNonce     = 64  // a UUID with room to spare
	MaxRoles     = 16  // global roles of one identity
	MaxRoleBytes = 32  // one role
	MaxDevice    = 128 // "web", "ios/3.1 (iPhone)"
)

// ValidRoom reports whether id names a room: 1 to 64 bytes of lower-case
// ASCII letters, digits, '-', '_', '.' and ':', beginning with a letter or
// digit. Titles for people belong in room settings; a name that several
// spellings could imitate would be a trap.
func ValidRoom(id RoomID) bool {
	return validSlug(string(id), MaxRoomBytes)
}

func validSlug(s string, limit int) bool {
	if len(s) == 0 || len(s) > limit {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case i > 0 && (c == '-' || c == '_' || c == '.' || c == ':'):
		default:
			return false
		}
	}
	return true
}

// ValidUser reports whether id is a well-formed user name: 1 to 64 bytes of
// UTF-8 letters, marks, digits and "-_.@+:", beginning with a letter or
// digit, without spaces or controls.
func ValidUser(id UserID) bool {
	s := string(id)
	if len(s) == 0 || len(s) > MaxUserBytes || !utf8.ValidString(s) {
		return false
	}
	for i, r := range s {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r):
		case i > 0 && (unicode.IsMark(r) || strings.ContainsRune("-_.@+:", r)):
		default:
			return false
		}
	}
	return true
}

// ValidRole reports whether s may be a role: like a room name, 1 to 32 bytes.
func ValidRole(s string) bool { return validSlug(s, MaxRoleBytes) }

// ValidNonce reports whether s may be a nonce: 1 to 64 printable ASCII bytes
// without space, quote or backslash, so that it needs no escaping anywhere.
func ValidNonce(s string) bool {
	if len(s) == 0 || len(s) > MaxNonce {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
