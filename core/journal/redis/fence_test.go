package redis_test

import (
	"runtime"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/redis/redistest"
)

func place(rc journal.Receipt) journal.Position {
	return journal.Position{Epoch: rc.Epoch, Seq: rc.Seq, ID: rc.ID}
}

// TestPromotionIsAFence promotes a replica that has missed an entry, and has
// somebody append who has not heard of that entry. It must not take its place
// in the same epoch, though nobody has told the store that something is lost.
func TestPromotionIsAFence(t *testing.T) {
	primary := redistest.Start(t, redistest.Options{})
	replica := redistest.StartReplica(t, primary, redistest.Options{})
	j := node(t, quick(primary.URL()), journalredis.Defaults())
	kept := mustAppend(t, j, message("lobby", "kept"))
	until(t, "the replica to have it", func() bool { return replica.Do("XLEN", "parley:{lobby}:log") == "1" })
	replica.Pause()
	primary.Do("CLIENT", "KILL", "TYPE", "replica") // or the kernel keeps the entry for it
	lost := mustAppend(t, j, message("lobby", "lost"))
	primary.Kill()
	replica.Resume()
	replica.Do("REPLICAOF", "NO", "ONE")

	other := node(t, quick(replica.URL()), journalredis.Defaults())
	r := message("lobby", "after")
	r.Known = place(kept)
	after := insist(t, other, r)
	if after.Seq != lost.Seq || after.Epoch == lost.Epoch {
		t.Errorf("after the promotion: got %d of %s, want %d of another epoch", after.Seq, after.Epoch, lost.Seq)
	}
	// Who knows what was lost meets the others there, and so does whoever
	// knows nothing; one promotion is one epoch.
	for id, known := range map[string]journal.Position{"lost": place(lost), "kept": place(kept), "none": {}, "present": place(after)} {
		r := message("lobby", "by "+id)
		r.Known = known
		if rc := mustAppend(t, other, r); rc.Epoch != after.Epoch {
			t.Errorf("known %s: got epoch %s, want %s", id, rc.Epoch, after.Epoch)
		}
	}
	if epoch, all := ids(t, other, "lobby"); epoch != after.Epoch || len(all) != 6 || all[0] != "id-of-kept" || all[1] != "id-of-after" {
		t.Errorf("got %q of %s, want what survived and five more", all, epoch)
	}
	if rc := mustAppend(t, other, message("attic", "first")); rc.Seq != 1 { // a room born here
		t.Errorf("got %+v", rc)
	} else if next := mustAppend(t, other, message("attic", "second")); next.Epoch != rc.Epoch {
		t.Errorf("a room born on the promoted server has the epochs %s and %s", rc.Epoch, next.Epoch)
	}
}

// TestOneEpochForEachLoss empties the store twice. Each time a node appends
// that has just started and knows nothing, then one that knows the epoch
// before: neither begins a second one over the first.
func TestOneEpochForEachLoss(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	by := func(id string, known journal.Position) journal.Receipt {
		t.Helper()
		r := message("lobby", id)
		r.Known = known
		return mustAppend(t, j, r)
	}
	// Losses are never as close together as the millisecond that an epoch's name tells.
	lose := func() {
		server.Do("FLUSHALL")
		for at := time.Now().UnixMilli(); time.Now().UnixMilli() <= at; {
			runtime.Gosched()
		}
	}
	first := by("a", journal.Position{})
	lose()
	second := by("b", journal.Position{})
	if rc := by("c", place(first)); rc.Epoch != second.Epoch || second.Epoch == first.Epoch {
		t.Errorf("after the first loss: got the epochs %s and %s, want one that is not %s", second.Epoch, rc.Epoch, first.Epoch)
	}
	lose()
	third := by("d", place(first)) // has not heard of the second
	if rc := by("e", place(second)); rc.Epoch != third.Epoch || third.Epoch <= second.Epoch {
		t.Errorf("after the second loss: got the epochs %s and %s, want one that is later than %s", third.Epoch, rc.Epoch, second.Epoch)
	}
	if _, all := ids(t, j, chat.RoomID("lobby")); len(all) != 2 {
		t.Errorf("got %q, want the two entries since the last loss", all)
	}

	// An epoch that began later than the store's is one that the store lost.
	later := place(third)
	later.Epoch = "ffff00000000.00000001"
	if rc := by("f", later); rc.Epoch <= later.Epoch || rc.Seq != 3 {
		t.Errorf("known a later epoch: got %+v, want seq 3 of one that is later still", rc)
	}
}
