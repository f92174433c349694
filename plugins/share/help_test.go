package share_test

import (
	"log/slog"
	"testing"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/core/redis"
	"parley/sdk/abi"
)

// observe has one judge decide, as the stage does, and tells it what came of it.
func observe(j moderation.Judge, in *abi.Input, encoded []byte) int {
	staged, ok := j.(moderation.Staged)
	if !ok {
		return 0
	}
	part := staged.Part(chat.RoomID(in.Room), chat.UserID(in.User))
	if part == moderation.None {
		return 0
	}
	v, _, fuel, err := j.Decide(encoded, in.Text, in.Normalized)
	staged.Observe(&moderation.Record{Part: part, Verdict: v, Fuel: fuel, Err: err}, nil, false)
	if part == moderation.Canary && v == abi.Deny {
		return 1
	}
	return 0
}

// flip changes one byte of an object in Redis.
func flip(t *testing.T, url, key string) {
	t.Helper()
	cfg := redis.Defaults()
	cfg.URL = url
	c, err := redis.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	reply, err := c.Do(t.Context(), "hget", key, "0")
	text, ok := reply.(string)
	if err != nil || !ok || text == "" {
		t.Fatalf("got %v, %v of %s, want a part", reply, err, key)
	}
	b := []byte(text)
	b[len(b)/2] ^= 1
	if _, err := c.Do(t.Context(), "hset", key, "0", b); err != nil {
		t.Fatal(err)
	}
}
