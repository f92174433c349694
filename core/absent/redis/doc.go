// Package redis moves news for absent people through Redis: a Carrier, one on
// each node, takes it out of the rooms' outboxes into the stream of the
// installation, and a Queue hands it to the workers that deliver it.
//
// Each script touches the keys of one slot, so all kinds of Redis are the same.
// What is moved between two slots is put where it goes before it is taken off
// where it was: whatever ends in between, it is there twice and not gone. The
// copies have the same absent.Entry.Key.
package redis

import (
	"context"
	_ "embed"
	"fmt"
	"slices"

	"parley/core/absent"
	"parley/core/chat"
	rds "parley/core/redis"
)

var (
	//go:embed take.lua
	takeSource string
	//go:embed taken.lua
	takenSource string
	//go:embed release.lua
	releaseSource string // stands before put.lua, done.lua and bury.lua
	//go:embed put.lua
	putSource string
	//go:embed unlist.lua
	unlistSource string
	//go:embed read.lua
	readSource string
	//go:embed keep.lua
	keepSource string
	//go:embed done.lua
	doneSource string
	//go:embed bury.lua
	burySource string
	//go:embed revive.lua
	reviveSource string
	//go:embed erase.lua
	eraseSource string
	//go:embed amend.lua
	amendSource string

	takeScript   = rds.NewScript("take an outbox", takeSource).Bulk()
	takenScript  = rds.NewScript("empty an outbox", takenSource)
	putScript    = rds.NewScript("put news for absent people", releaseSource+putSource)
	unlistScript = rds.NewScript("unlist an outbox", unlistSource)
	readScript   = rds.NewScript("read news for absent people", readSource).Bulk()
	keepScript   = rds.NewScript("keep news for absent people", keepSource)
	doneScript   = rds.NewScript("end news for absent people", releaseSource+doneSource)
	buryScript   = rds.NewScript("bury news for absent people", releaseSource+burySource)
	eraseScript  = rds.NewScript("erase texts for absent people", eraseSource)
	amendScript  = rds.NewScript("erase in an outbox", amendSource)
	reviveScript = rds.NewScript("retry news for absent people", reviveSource)
)

// texts takes a reply that must be a list of strings.
func texts(reply any) ([]string, error) {
	list, ok := reply.([]any)
	if !ok && reply != nil {
		return nil, fmt.Errorf("redis answered %T, want a list", reply)
	}
	out := make([]string, len(list))
	for i, v := range list {
		if out[i], ok = v.(string); !ok {
			return nil, fmt.Errorf("redis answered %T at %d, want a string", v, i)
		}
	}
	return out, nil
}

// eachOutbox calls f for every room whose outbox may hold something. The list
// may change meanwhile: a room that is listed all the time is not left out.
func eachOutbox(ctx context.Context, client *rds.Client, keys absent.Keys, f func(chat.RoomID) error) error {
	var rooms []string
	for from := 0; ; {
		reply, err := client.Do(ctx, "zrange", keys.Rooms, from, from+pageRooms-1)
		if err != nil {
			return fmt.Errorf("list the outboxes: %w", err)
		}
		page, err := texts(reply)
		if err != nil {
			return fmt.Errorf("list the outboxes: %w", err)
		}
		rooms = append(rooms, page...)
		if len(page) < pageRooms {
			break
		}
		from += pageRooms / 2 // as many may have been taken off, or have moved back
	}
	slices.Sort(rooms)
	for _, room := range slices.Compact(rooms) {
		if !chat.ValidRoom(chat.RoomID(room)) {
			continue // the carriers' sweep takes it off
		}
		if err := f(chat.RoomID(room)); err != nil {
			return err
		}
	}
	return nil
}
