package redis

import (
	"strings"
	"testing"

	"parley/core/chat"
)

func FuzzCall(f *testing.F) {
	f.Add(`{"by":"x","user":"bob","from":"ann","room":"dm:x","new":true}`)
	f.Add(`{"user":"b b"}`)
	f.Fuzz(func(t *testing.T, s string) {
		x, err := parseCall(s)
		if err == nil && (!chat.ValidUser(x.User) || !chat.ValidUser(x.From) || !chat.ValidRoom(x.Room)) {
			t.Fatalf("took %+v", x)
		}
	})
}

// FuzzItems reads items and letters as Redis might answer them.
func FuzzItems(f *testing.F) {
	f.Add("1-1", "3", "room\x00lobby\x00seq\x001\x00epoch\x00e\x00id\x00m\x00from\x00ann\x00user\x00bob\x00kind\x00mention\x00time\x001")
	f.Add("", "x", "reason")
	f.Fuzz(func(t *testing.T, id, tries, kv string) {
		var list []any
		for _, s := range strings.Split(kv, "\x00") {
			list = append(list, s)
		}
		it, err := parseItem([]any{id, tries, list})
		if err != nil {
			t.Fatal(err)
		}
		l, err := parseLetter([]any{id, list})
		if err != nil {
			t.Fatal(err)
		}
		if (it.Bad == nil) != (l.Bad == "") || it.Bad == nil && it.Entry != l.Entry {
			t.Fatalf("got %+v and %+v", it, l)
		}
		for _, v := range []any{nil, id, []any{}, []any{list, id}, []any{1, 2, 3}, []any{id, tries, id}, []any{id, nil, []any{1}}} {
			_, _ = parseItem(v)
			_, _ = parseLetter(v)
		}
	})
}
