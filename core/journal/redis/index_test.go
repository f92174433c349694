package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/redis/redistest"
)

func rooms(t *testing.T, j journal.Journal, limit int) string {
	t.Helper()
	list, err := j.Rooms(within(t), "", limit)
	if err != nil {
		t.Fatalf("rooms: %v", err)
	}
	return fmt.Sprint(list)
}

// A node that ended between listing a room and storing it leaves a name that
// whoever lists the rooms takes off; it is in nobody's way.
func TestListedButNotStored(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	for i := range 300 { // more than one page, before and between what is there
		server.Do("ZADD", "parley:rooms", "0", fmt.Sprintf("attic%03d", i))
	}
	server.Do("ZADD", "parley:rooms", "0", "no room}")
	mustAppend(t, j, message("lobby", "1"))
	mustAppend(t, j, message("attic299", "1"))
	if got := rooms(t, j, 1); got != "[attic299]" {
		t.Errorf("one room: got %s, want [attic299]", got)
	}
	if got := rooms(t, j, 10); got != "[attic299 lobby]" {
		t.Errorf("rooms: got %s, want [attic299 lobby]", got)
	}
	if n := server.Do("ZCARD", "parley:rooms"); n != "2" {
		t.Errorf("%s names are left in the list, want 2", n)
	}
	mustAppend(t, j, message("attic000", "1")) // its name was taken off
	if got := rooms(t, j, 10); got != "[attic000 attic299 lobby]" {
		t.Errorf("rooms: got %s, want attic000 as well", got)
	}
}

// Names that are taken off the list while the rooms are being made come back.
func TestListingWhileRoomsAreMade(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	nodes := []*journalredis.Journal{
		node(t, quick(server.URL()), journalredis.Defaults()), node(t, quick(server.URL()), journalredis.Defaults()),
	}
	const n = 400
	made, done := context.WithCancel(within(t))
	var wg sync.WaitGroup
	wg.Go(func() {
		defer done()
		for i := range n {
			if _, err := nodes[0].Append(within(t), message(chat.RoomID(fmt.Sprintf("room%03d", i)), "n")); err != nil {
				t.Errorf("append: %v", err)
				return
			}
		}
	})
	for made.Err() == nil {
		if _, err := nodes[1].Rooms(within(t), "", n); err != nil {
			t.Errorf("rooms: %v", err)
		}
	}
	wg.Wait()
	list, err := nodes[1].Rooms(within(t), "", 2*n)
	if err != nil || len(list) != n {
		t.Errorf("got %d rooms, %v, want %d", len(list), err, n)
	}
}

// A list that was lost, or lists a name too few because its room's keys were
// restored, has the room again with its next epoch.
func TestNoListNoNewRoom(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	server.Do("SET", "parley:rooms", "no list") // so that listing fails
	_, err := j.Append(within(t), message("lobby", "1"))
	if err == nil || errors.Is(err, journal.ErrOverloaded) {
		t.Fatalf("append to a room that cannot be listed: got %v, want an error", err)
	}
	if n := server.Do("EXISTS", "parley:{lobby}:log", "parley:{lobby}:meta", "parley:{lobby}:nonce:3:ann:1"); n != "0" {
		t.Errorf("%s keys of the room are stored, want none before its name", n)
	}
	server.Do("DEL", "parley:rooms")
	if rc := mustAppend(t, j, message("lobby", "1")); rc.Repeat || rc.Seq != 1 {
		t.Errorf("got %+v, want seq 1", rc)
	}
	if got := rooms(t, j, 10); got != "[lobby]" {
		t.Errorf("rooms: got %s, want [lobby]", got)
	}
}

// What waits is listed before it is stored, and never listed for long when it
// is not.
func TestWaitingListedButNotStored(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	waiting := func() string { return server.Do("ZCARD", "parley:waiting") }
	server.Do("ZADD", "parley:waiting", "1", "lobby id-of-nothing") // as a node leaves it that ends in between
	server.Do("ZADD", "parley:waiting", "99999999999999", "lobby under-way")
	r := held("h1")
	mustAppend(t, j, r)
	ws, err := j.Overdue(within(t), 1<<60, 10)
	if err != nil || len(ws) != 1 || ws[0].Review.Entry.ID != r.Entry.ID {
		t.Errorf("overdue: got %+v, %v, want the one that is stored", ws, err)
	}
	if n := waiting(); n != "2" {
		t.Errorf("%s names are left, want that of the review and the one that may be under way", n)
	}
	mustAppend(t, j, r) // the same attempt again: it waits still
	if ws, err := j.Overdue(within(t), 1<<60, 10); err != nil || len(ws) != 1 {
		t.Errorf("overdue after a resend: got %+v, %v, want it", ws, err)
	}
	again := held("h1")
	again.Entry.ID, again.Review.Entry.ID = "id-of-the-resend", "id-of-the-resend"
	if rc := mustAppend(t, j, again); !rc.Repeat || rc.ID != r.Entry.ID {
		t.Errorf("resend: got %+v, want a repeat", rc)
	}
	if n := waiting(); n != "2" {
		t.Errorf("%s names after a resend, want 2", n)
	}
	for i := range journal.MaxOwnReviews { // one too many
		_, err = j.Append(within(t), held(fmt.Sprintf("more%d", i)))
	}
	if !errors.Is(err, journal.ErrOwnQueueFull) {
		t.Fatalf("got %v, want ErrOwnQueueFull", err)
	}
	if n := waiting(); n != fmt.Sprint(1+journal.MaxOwnReviews) {
		t.Errorf("%s names, want none of what was refused", n)
	}
	server.Do("SET", "parley:waiting", "no list")
	if _, err := j.Append(within(t), held("h2")); err == nil {
		t.Error("a hold that cannot be listed: got no error")
	}
	if n := server.Do("HLEN", "parley:{lobby}:reviews"); n != fmt.Sprint(journal.MaxOwnReviews) {
		t.Errorf("%s are stored, want none without its name", n)
	}
}

// The name of a review that was decided by a node that ended before it took the
// name off.
func TestDecidedButListed(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	r := held("h1")
	mustAppend(t, j, r)
	mustAppend(t, j, decided(r, chat.Accepted))
	if n := server.Do("ZCARD", "parley:waiting"); n != "0" {
		t.Errorf("%s names after the decision, want none", n)
	}
	server.Do("ZADD", "parley:waiting", "100", "lobby "+string(r.Entry.ID))
	if ws, err := j.Overdue(within(t), 101, 10); err != nil || len(ws) != 0 {
		t.Errorf("overdue: got %+v, %v, want none", ws, err)
	}
	if n := server.Do("ZCARD", "parley:waiting"); n != "0" {
		t.Errorf("%s names are left, want none", n)
	}
	server.Do("ZADD", "parley:waiting", "100", "lobby "+string(r.Entry.ID))
	if _, err := j.Append(within(t), decided(r, chat.Rejected)); !errors.Is(err, journal.ErrNotOpen) {
		t.Errorf("decided twice: got %v, want ErrNotOpen", err)
	}
	if n := server.Do("ZCARD", "parley:waiting"); n != "0" {
		t.Errorf("%s names are left, want none", n)
	}
}

// Every key of an append has the room's hash tag, and no other key is touched
// by a script.
func TestScriptsKeepToOneSlot(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	r := held("h1")
	mustAppend(t, j, message("lobby", "1"))
	mustAppend(t, j, r)
	mustAppend(t, j, decided(r, chat.Accepted))
	lost := message("lobby", "2")
	lost.Known = journal.Position{Epoch: "another", Seq: 7}
	mustAppend(t, j, lost)
	for key := range strings.FieldsSeq(server.Do("KEYS", "*")) {
		if !strings.HasPrefix(key, "parley:{lobby}:") && key != "parley:rooms" {
			t.Errorf("key %s lies outside the room's slot", key)
		}
	}
}
