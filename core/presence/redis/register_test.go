package redis

import (
	"slices"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/presence"
)

func TestRegisterCodec(t *testing.T) {
	many := make([]chat.UserID, presence.NameLimit)
	for i := range many {
		many[i] = chat.UserID(strings.Repeat(string(rune('a'+i%26)), 1+i%chat.MaxUserBytes) + "-" + strings.Repeat("x", i/52))
	}
	slices.Sort(many)
	many = slices.Compact(many)
	for i := range many {
		many[i] = many[i][:min(len(many[i]), chat.MaxUserBytes)]
	}
	slices.Sort(many)
	many = slices.Compact(many)
	for _, g := range []presence.Register{
		{Version: 1},
		{Version: 1 << 63, Count: 1, Users: []chat.UserID{"ann"}},
		{Version: 37, Count: 3, Users: []chat.UserID{"Zoë", "ann", "bob"}},
		{Version: 2, Count: len(many), Users: many},
		{Version: 5, Count: 10_000_000},
	} {
		text := encodeRegister(g)
		got, err := decodeRegister(text)
		if err != nil || got.Version != g.Version || got.Count != g.Count || !slices.Equal(got.Users, g.Users) {
			t.Errorf("%.80q: got %+v, %v, want %+v", text, got, err, g)
		}
	}
	if got := encodeRegister(presence.Register{Version: 35, Count: 2, Users: []chat.UserID{"zoe", "ann"}}); got != "1 z 2 ann zoe" {
		t.Errorf("got %q", got)
	}
}

func TestBadRegistersAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                   "not a register",
		"1":                  "not a register",
		"2 1 0":              "not a register",
		"1 1":                "not a register",
		"1 ! 0":              "version",
		"1 -1 0":             "version",
		"1 1 ":               "count",
		"1 1 -1":             "count",
		"1 1 x":              "count",
		"1 1 10000001":       "at most 10000000",
		"1 1 99999999999999": "count",
		"1 1 5":              "names nobody",
		"1 1 0 ann":          "more users than the 0",
		"1 1 1 ann bob":      "more users than the 1",
		"1 1 2 ann":          "counts 2 users and names 1",
		"1 1 2 bob ann":      "do not rise",
		"1 1 2 ann ann":      "do not rise",
		"1 1 2 ann ":         "no user name",
		"1 1 1 a\x00b":       "no user name",
		"1 1 201 ann":        "for at most 200",
		"1 1 1 " + strings.Repeat("x", chat.MaxUserBytes+1): "no user name",
		strings.Repeat("1 1 0 ", 10_000):                    "at most",
	} {
		if _, err := decodeRegister(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: got %v, want an error with %q", text, err, want)
		}
	}
}

func TestHints(t *testing.T) {
	h := hint{kindHere, "a-12345678", "1 z 2 ann zoe"}
	if got, err := decodeHint(encodeHint(h)); err != nil || got != h {
		t.Errorf("got %+v, %v, want %+v", got, err, h)
	}
	for _, text := range []string{"", "here", "here ", "here a", "here  1 1 0"} {
		if h, err := decodeHint(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, h)
		}
	}
}

func FuzzDecodeRegister(f *testing.F) {
	f.Add("1 z 2 ann zoe")
	f.Add("1 1 0")
	f.Add("1 zzzzzzzzzzzzz 5000")
	f.Add("1 1 2 bob ann")
	f.Fuzz(func(t *testing.T, text string) {
		g, err := decodeRegister(text)
		if err != nil {
			return
		}
		if g.Count < 0 || g.Count > maxCount || len(g.Users) > presence.NameLimit || len(g.Users) != 0 && len(g.Users) != g.Count {
			t.Fatalf("%q: got %+v out of bounds", text, g)
		}
		again, err := decodeRegister(encodeRegister(g))
		if err != nil || again.Version != g.Version || again.Count != g.Count || !slices.Equal(again.Users, g.Users) {
			t.Fatalf("%q: got %+v, %v after writing it again, want %+v", text, again, err, g)
		}
	})
}

func FuzzDecodeHint(f *testing.F) {
	f.Add("here a-12345678 1 z 2 ann zoe")
	f.Add("type a-12345678 ann")
	f.Add("here  ")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := decodeHint(text)
		if err == nil && encodeHint(h) != text {
			t.Fatalf("%q: got %+v, which is another message", text, h)
		}
	})
}

func TestLedger(t *testing.T) {
	l := newLedger[string]()
	now := time.Unix(1000, 0)
	take := func(n int, want ...string) {
		t.Helper()
		if got := l.take(n); !slices.Equal(got, want) {
			t.Fatalf("got %q to write, want %q", got, want)
		}
	}
	l.mark("a")
	l.mark("b")
	l.mark("a")
	l.mark("c")
	take(2, "a", "b")
	l.mark("a") // while it is being written
	l.wrote("a", now, nil)
	l.wrote("b", now, chat.Errorf(chat.CodeUnavailable, "away"))
	take(9, "c", "a", "b")
	for _, k := range []string{"a", "b", "c"} {
		l.wrote(k, now, nil)
	}
	take(9)
	later := func(d time.Duration) { now = now.Add(d); l.age(now, time.Minute) }
	later(confirmAfter - time.Second)
	take(9)
	later(time.Second)
	take(9, "b") // what went unanswered is written once more
	l.wrote("b", now, nil)
	later(confirmAfter)
	take(9)
	later(time.Minute - 2*confirmAfter)
	got := l.take(9)
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("got %q to refresh, want a and c", got)
	}
	delete(l.m, "a")
	l.wrote("a", now, nil) // forgotten meanwhile
	take(9)
	l.wrote("a", now, chat.Errorf(chat.CodeUnavailable, "away"))
	take(9, "a")
}
