package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"parley/core/chat"
	"parley/core/journal"
)

// What nodes keep of messages besides the log (evidence) is theirs alone, so an
// erasure is listed for all of them to look at, those included that do not have
// the room in memory or are down.

// forgetFor is how long an erasure stays listed: longer than nodes are down, and
// than evidence is kept by default.
const forgetFor = 60 * 24 * time.Hour

// forgottenKey names the list: "m ID" or "u USER", by the time of the erasure.
func (j *Journal) forgottenKey() string { return j.client.Prefix() + ":{forgotten}:list" }

// Forget lists messages, or everything of a user until now, to be erased by
// every node from what it keeps besides the log.
func (j *Journal) Forget(ctx context.Context, ids []chat.MessageID, user chat.UserID) error {
	if err := j.begin(); err != nil {
		return err
	}
	defer j.calls.Done()
	now := time.Now()
	args := []any{"zadd", j.forgottenKey()}
	for _, id := range ids {
		args = append(args, now.UnixMilli(), "m "+string(id))
	}
	if user != "" {
		args = append(args, now.UnixMilli(), "u "+string(user))
	}
	if len(args) == 2 {
		return nil
	}
	const what = "list what is to be forgotten"
	if _, err := j.client.Do(ctx, args...); err != nil {
		return fail(what, err)
	}
	_, err := j.client.Do(ctx, "zremrangebyscore", j.forgottenKey(), "-inf", now.Add(-forgetFor).UnixMilli())
	return fail(what, err)
}

// Forgotten returns at most limit erasures from the given Unix ms on, the oldest
// first, after passing over some.
func (j *Journal) Forgotten(ctx context.Context, since int64, skip, limit int) ([]journal.Forgotten, error) {
	if err := j.begin(); err != nil {
		return nil, err
	}
	defer j.calls.Done()
	const what = "read what is to be forgotten"
	reply, err := j.client.Do(ctx, "zrangebyscore", j.forgottenKey(), since, "+inf", "withscores", "limit", skip, limit)
	if err != nil {
		return nil, fail(what, err)
	}
	pairs, err := texts(reply)
	if err == nil && len(pairs)%2 != 0 {
		err = fmt.Errorf("redis answered %d parts, want pairs", len(pairs))
	}
	if err != nil {
		return nil, fail(what, err)
	}
	fs := make([]journal.Forgotten, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		at, err := strconv.ParseFloat(pairs[i+1], 64)
		if err != nil {
			return nil, fail(what, fmt.Errorf("read a time: %w", err))
		}
		f := journal.Forgotten{At: int64(at)}
		switch kind, name, _ := strings.Cut(pairs[i], " "); kind {
		case "m":
			f.ID = chat.MessageID(name)
		case "u":
			f.User = chat.UserID(name)
		}
		fs = append(fs, f) // one of a later version names nothing
	}
	return fs, nil
}
