package redis

import (
	"fmt"
	"testing"

	"parley/core/redis/redistest"
)

// TestSlotIsTheServers compares the slots with those that a server in cluster
// mode computes.
func TestSlotIsTheServers(t *testing.T) {
	server := redistest.StartCluster(t, 1, 0, redistest.Options{}).Masters[0]
	for _, key := range []string{
		"", "123456789", "foo", "foo{bar}baz", "foo{}bar", "foo{{bar}}zap", "foo{bar}{zap}", "{", "}{", "a{b", "{user}:at",
		"parley:{lobby}:log", "parley:{nodes}:changed", "gr\u00fc\u00dfe", "\x00\xff",
	} {
		if got, want := fmt.Sprint(Slot(key)), server.Do("CLUSTER", "KEYSLOT", key); got != want {
			t.Errorf("slot of %q: got %s, want %s", key, got, want)
		}
	}
}

func TestSlotOfACommand(t *testing.T) {
	const key = "parley:{lobby}:log"
	for _, tt := range []struct {
		args []any
		keys bool
	}{
		{[]any{"get", key}, true},
		{[]any{"SET", []byte(key), 1}, true},
		{[]any{"eval", "return 1", 1, key, "other"}, true},
		{[]any{"evalsha", "abc", "1", key}, true},
		{[]any{"eval", "return 1", 0, "other"}, false},
		{[]any{"xread", "count", 1, "STREAMS", key, "0"}, true},
		{[]any{"xreadgroup", "group", "g", "c", "streams", key, ">"}, true},
		{[]any{"xgroup", "create", key, "g", "$"}, true},
		{[]any{"xinfo", "stream", key}, true},
		{[]any{"spublish", key, "hello"}, true},
		{[]any{"ping"}, false},
		{[]any{"Time"}, false},
		{[]any{"config", "get", "appendonly"}, false},
		{[]any{"xread", "count", 1}, false},
		{[]any{"get"}, false},
	} {
		want := anySlot
		if tt.keys {
			want = Slot(key)
		}
		if got := slotOf(tt.args); got != want {
			t.Errorf("%q: got slot %d, want %d", tt.args, got, want)
		}
	}
}

func TestTagWhere(t *testing.T) {
	for _, want := range []int{0, 1, 8191, slotCount - 1} {
		tag := tagWhere(func(slot int) bool { return slot == want })
		if tag == "" || Slot("x:{"+tag+"}:y") != want {
			t.Errorf("a tag for slot %d: got %q, of slot %d", want, tag, Slot(tag))
		}
	}
	if tag := tagWhere(func(int) bool { return false }); tag != "" {
		t.Errorf("a tag for no slot: got %q", tag)
	}
}
