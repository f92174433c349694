package chat

import (
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 65)
	for _, tc := range []struct {
		name  string
		valid func(string) bool
		good  []string
		bad   []string
	}{
		{"room", func(s string) bool { return ValidRoom(RoomID(s)) },
			[]string{"lobby", "a", "7", "team-7", "a.b_c:d", long[:64]},
			[]string{"", "Lobby", "-a", ".a", "a b", "a/b", "ä", "a\x00", long}},
		{"user", func(s string) bool { return ValidUser(UserID(s)) },
			[]string{"ann", "Ann", "zoë", "李", "a.b@example+1", "नमस्ते", long[:64]},
			[]string{"", "-ann", "ann bob", "a\nb", "a\u200bb", "\u0301a", "a\xff", "a/b", long}},
		{"role", ValidRole,
			[]string{"moderator", "m1", long[:32]},
			[]string{"", "Moderator", "a b", long[:33]}},
		{"nonce", ValidNonce,
			[]string{"1", "0197c5f0-8100-7e5d-bf60-7d3b2c4e6f80", "!~", long[:64]},
			[]string{"", " ", "a b", `a"b`, `a\b`, "ä", "a\x7f", long}},
	} {
		for _, s := range tc.good {
			if !tc.valid(s) {
				t.Errorf("%s %q is refused", tc.name, s)
			}
		}
		for _, s := range tc.bad {
			if tc.valid(s) {
				t.Errorf("%s %q is taken", tc.name, s)
			}
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"lobby", "Zoë", "a\u0301", "\xff", strings.Repeat("x", 65)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		room, user := ValidRoom(RoomID(s)), ValidUser(UserID(s))
		if (room || user) && (len(s) == 0 || len(s) > 64 || !utf8.ValidString(s) || strings.ContainsAny(s, " \t\r\n/\"\\\x00")) {
			t.Errorf("%q is taken as a name", s)
		}
		if room && !user {
			t.Errorf("room %q is no user: every room name can be a user name", s)
		}
		if ValidNonce(s) && strings.ContainsAny(s, " \"\\\n\x00") {
			t.Errorf("nonce %q would need escaping", s)
		}
	})
}

func TestErrorNamesItsCauseToLogsOnly(t *testing.T) {
	e := Errorf(CodeDenied, "no %s", "entry")
	if got, want := e.Error(), "denied: no entry"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	e.Cause = io.ErrUnexpectedEOF
	if got, want := e.Error(), "denied: no entry: unexpected EOF"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(e, io.ErrUnexpectedEOF) {
		t.Error("the cause cannot be found")
	}
	if strings.Contains(e.Text, "EOF") {
		t.Error("the cause is in the text that clients see")
	}
}
