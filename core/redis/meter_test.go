package redis_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"parley/core/redis"
	"parley/core/redis/redistest"
)

func TestRepliesAreBounded(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	const limit = 1 << 20
	c := open(t, server.URL(), func(c *redis.Config) { c.MaxReplyBytes = limit })
	half := strings.Repeat("x", limit/2)
	for _, args := range [][]any{
		{"set", "half", half}, {"set", "whole", half + half}, {"hset", "hash", "a", half, "b", half},
	} {
		if _, err := c.Do(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	deep := redis.NewScript("deep", `local t = {1}; for i = 1, tonumber(ARGV[1]) do t = {t} end; return t`)
	wide := redis.NewScript("wide", `local t = {}; for i = 1, tonumber(ARGV[1]) do t[i] = 1 end; return t`)
	for _, tt := range []struct {
		name string
		cmd  redis.Command
		want string // part of the error
	}{
		{"half of it", redis.Command{Args: []any{"get", "half"}}, ""},
		{"a string", redis.Command{Args: []any{"get", "whole"}}, "more than redis.max_reply_bytes, 1048576"},
		{"a hash", redis.Command{Args: []any{"hgetall", "hash"}}, "redis.max_reply_bytes"},
		{"a long list of little", redis.Command{Script: wide, Args: []any{limit / 32}}, "redis.max_reply_bytes"},
		{"a shorter one", redis.Command{Script: wide, Args: []any{limit / 40}}, ""},
		{"lists in lists", redis.Command{Script: deep, Args: []any{20}}, "lists in lists 16 deep"},
		{"fewer", redis.Command{Script: deep, Args: []any{14}}, ""},
	} {
		r := c.Pipeline(t.Context(), []redis.Command{tt.cmd})[0]
		if tt.want == "" && (r.Err != nil || r.Value == nil) {
			t.Errorf("%s: got %v", tt.name, r.Err)
		}
		if tt.want != "" && (!errors.Is(r.Err, redis.ErrReply) || !errors.Is(r.Err, redis.ErrUnavailable) || !strings.Contains(r.Err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want ErrReply that says %q", tt.name, r.Err, tt.want)
		}
	}
	// One round trip has one bound, and what was answered before it counts.
	until(t, "three replies of half the bound to share a round trip, and one to be refused", func() bool {
		get := redis.Command{Args: []any{"get", "half"}}
		return slices.ContainsFunc(c.Pipeline(t.Context(), []redis.Command{get, get, get}), func(r redis.Reply) bool { return errors.Is(r.Err, redis.ErrReply) })
	})
}

// TestMessagesAreBounded holds that a link to hear messages has a bound for each
// of them and none for all.
func TestMessagesAreBounded(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	const limit = 1 << 20
	c := open(t, server.URL(), func(c *redis.Config) { c.MaxReplyBytes = limit })
	e := newEar()
	s := listen(t, c, e)
	s.Subscribe("a")
	e.await(t, "the subscription", func() bool { return e.doubts["a"] == 1 })
	const n = 20
	for i := range n {
		server.Do("PUBLISH", "a", fmt.Sprint(i, strings.Repeat("x", limit/3)))
	}
	e.await(t, "all messages", func() bool { return len(e.heard["a"]) == n })
	if st := s.Stats(); st.Links != 1 {
		t.Errorf("%d messages of a third of the bound: got %+v, want one link all along", n, st)
	}
	server.Do("PUBLISH", "a", strings.Repeat("x", limit))
	e.await(t, "doubt after what was too large", func() bool { return e.doubts["a"] == 2 })
	server.Do("PUBLISH", "a", "small")
	e.await(t, "the next message", func() bool { return len(e.heard["a"]) > n })
	e.mu.Lock()
	defer e.mu.Unlock()
	if got := e.heard["a"][n:]; len(got) != 1 || got[0] != "small" {
		t.Errorf("got %d messages after that, want the small one", len(got))
	}
}
