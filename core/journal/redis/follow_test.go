package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/redis/redistest"
)

// patience is far above what a loaded machine needs.
const patience = redistest.Patience

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func message(room chat.RoomID, nonce string) journal.Request {
	return journal.Request{Room: room, Entry: journal.Entry{
		ID: chat.MessageID("id-of-" + nonce), Kind: journal.KindMessage, From: "ann",
		Time: time.Now().UnixMilli(), Nonce: nonce, Text: "text of " + nonce, Outcome: chat.Accepted,
	}}
}

func mustAppend(t *testing.T, j journal.Journal, r journal.Request) journal.Receipt {
	t.Helper()
	rc, err := j.Append(within(t), r)
	if err != nil {
		t.Fatalf("append %s: %v", r.Entry.Nonce, err)
	}
	return rc
}

// insist appends until the journal takes it, as a client that resends does.
func insist(t *testing.T, j journal.Journal, r journal.Request) journal.Receipt {
	t.Helper()
	ctx := within(t)
	for {
		rc, err := j.Append(ctx, r)
		if err == nil {
			return rc
		}
		if ctx.Err() != nil {
			t.Fatalf("append %s: still %v after %v", r.Entry.Nonce, err, patience)
		}
	}
}

// ids reads the whole room, as a room does: it tries again while the journal is
// unavailable.
func ids(t *testing.T, j journal.Journal, room chat.RoomID) (epoch string, all []chat.MessageID) {
	t.Helper()
	ctx := within(t)
	for after := uint64(0); ; {
		e, es, err := j.Read(ctx, room, after, 100)
		if errors.Is(err, journal.ErrUnavailable) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			t.Fatalf("read %s: %v", room, err)
		}
		if len(es) == 0 {
			return e, all
		}
		for _, x := range es {
			if x.Seq != after+1 {
				t.Fatalf("read %s: got seq %d after %d", room, x.Seq, after)
			}
			after = x.Seq
			all = append(all, x.ID)
		}
	}
}

// follower is a Watcher that keeps a room's log the way a room does: it takes
// what it hears, and reads after a doubt.
type follower struct {
	j    journal.Journal
	room chat.RoomID

	mu     sync.Mutex
	got    map[string]chat.MessageID // by "epoch seq"
	doubts int
	stale  bool
	news   chan struct{} // one slot
}

func follow(t *testing.T, j journal.Journal, room chat.RoomID) *follower {
	t.Helper()
	f := &follower{j: j, room: room, got: map[string]chat.MessageID{}, news: make(chan struct{}, 1)}
	cancel, err := j.Watch(within(t), room, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cancel)
	return f
}

func (f *follower) Appended(epoch string, e *journal.Entry) {
	f.note(func() { f.got[fmt.Sprintf("%s %d", epoch, e.Seq)] = e.ID })
}

func (f *follower) Reviewed(*journal.Review) {}

func (f *follower) Doubt() { f.note(func() { f.doubts, f.stale = f.doubts+1, true }) }

func (f *follower) note(change func()) {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	select {
	case f.news <- struct{}{}:
	default:
	}
}

func (f *follower) doubted() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.doubts
}

// await waits until the follower holds exactly want as seqs 1, 2, ... of epoch.
func (f *follower) await(t *testing.T, epoch string, want []chat.MessageID) {
	t.Helper()
	deadline := time.After(patience)
	for {
		f.mu.Lock()
		stale := f.stale
		f.stale = false
		f.mu.Unlock()
		if stale {
			e, all := ids(t, f.j, f.room)
			f.note(func() {
				for i, id := range all {
					f.got[fmt.Sprintf("%s %d", e, i+1)] = id
				}
			})
		}
		held := 0
		f.mu.Lock()
		for i, id := range want {
			if got, ok := f.got[fmt.Sprintf("%s %d", epoch, i+1)]; ok {
				held++
				if got != id {
					t.Errorf("seq %d: heard %s, want %s", i+1, got, id)
				}
			}
		}
		f.mu.Unlock()
		if held == len(want) {
			return
		}
		select {
		case <-f.news:
		case <-deadline:
			t.Fatalf("heard %d of %d entries within %v", held, len(want), patience)
		}
	}
}

// awaitDoubt waits for a doubt after the first n.
func (f *follower) awaitDoubt(t *testing.T, n int) {
	t.Helper()
	deadline := time.After(patience)
	for f.doubted() <= n {
		select {
		case <-f.news:
		case <-deadline:
			t.Fatalf("no doubt within %v", patience)
		}
	}
}

var until = redistest.Await

// commandCalls is how often the server has run a command.
func commandCalls(t *testing.T, s *redistest.Server, command string) string {
	t.Helper()
	for line := range strings.Lines(s.Do("INFO", "commandstats")) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":calls="); ok {
			n, _, _ := strings.Cut(rest, ",")
			return n
		}
	}
	return "0"
}
