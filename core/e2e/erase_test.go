package e2e

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"parley/core/absent"
	"parley/core/chat"
	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/redis"
	"parley/core/redis/redistest"
)

var quietLog = slog.New(slog.DiscardHandler)

// bigRoom puts a room of n entries into the nodes' Redis, and returns its journal.
func bigRoom(t *testing.T, store *redistest.Server, room chat.RoomID, n int) (j *journalredis.Journal, at journal.Position) {
	t.Helper()
	cfg := redis.Defaults()
	cfg.URL, cfg.DialTimeout, cfg.CallTimeout = store.URL(), patience, patience
	c, err := redis.Open(cfg, quietLog)
	if err != nil {
		t.Fatal(err)
	}
	if j, err = journalredis.New(journalredis.Defaults(), c, quietLog); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = j.Close()
		_ = c.Close()
	})
	in, err := j.Import(t.Context(), room)
	if err != nil {
		t.Fatal(err)
	}
	es := make([]journal.Entry, n)
	for i := range es {
		id := fmt.Sprintf("01890a5d-ac96-774b-bcce-%012x", i)
		es[i] = journal.Entry{Seq: uint64(i + 1), ID: chat.MessageID(id), Kind: journal.KindMessage, From: "ann", Time: 1764000000123, Nonce: id,
			Text: "said " + strconv.Itoa(i+1) + strings.Repeat(".", 100), Outcome: chat.Accepted}
	}
	if err := in.Put(t.Context(), es); err != nil {
		t.Fatal(err)
	}
	at, err = in.Commit(t.Context(), journal.Image{Top: journal.Position{Seq: uint64(n), ID: es[n-1].ID}, State: map[string][]byte{"settings": []byte("{}")}})
	if err != nil {
		t.Fatal(err)
	}
	return j, at
}

// TestEraseWhileANodeDies kills a node with SIGKILL in the middle of copying a
// room's log to erase something of it, while people write there on the other:
// the log is as it was, nothing that was said meanwhile is lost, and the next
// erasure finishes both.
func TestEraseWhileANodeDies(t *testing.T) {
	t.Parallel()
	x := startDuo(t, nil)
	const entries = 60_000
	said := 0
	j, at := bigRoom(t, x.store, "library", entries)
	bob := x.visit(1, "bob")
	bob.enters("library")

	// The node is to die in the middle: it is stopped, and killed if it had begun and
	// not ended. It may have been quicker, with another entry the next time.
	copying := func() bool { return x.store.Do("EXISTS", "parley:{library}:log:copy") == "1" }
	var done []uint64
	var half uint64 // what was to be erased when it died
	for half == 0 {
		seq := uint64(7 + len(done))
		ended := make(chan int, 1)
		go func() {
			_, code := x.nodes[0].Bare(adminArgs(x.nodes[0], "erase", "--room", "library", "--seq", fmt.Sprint(seq))...)
			ended <- code
		}()
		await(t, "the copy is under way, or done", func() bool { return copying() || len(ended) > 0 })
		x.nodes[0].Signal(syscall.SIGSTOP)
		copying() // behind what the node had sent
		if copying() {
			x.nodes[0].Kill()
			half = seq
			if code := <-ended; code == 0 {
				t.Error("the command of the node that was killed says that all is well")
			}
			continue
		}
		x.nodes[0].Signal(syscall.SIGCONT)
		if code := <-ended; code != 0 {
			t.Fatalf("erase %d: got code %d", seq, code)
		}
		done = append(done, seq)
		said++ // the entry that tells of it
	}
	for range 20 {
		bob.says("library", "still here")
		said++
	}
	whole := func(when string, erased ...uint64) {
		t.Helper()
		seq, fewer := uint64(0), uint64(entries+said)
		for seq < fewer {
			epoch, es, err := j.Read(t.Context(), "library", seq, 1000)
			if err != nil || epoch != at.Epoch || len(es) == 0 {
				t.Fatalf("%s, behind %d: got %d entries of epoch %q, %v, want those of %q", when, seq, len(es), epoch, err, at.Epoch)
			}
			for i := range es {
				e := &es[i]
				if seq++; e.Seq != seq || seq <= entries && string(e.ID) != fmt.Sprintf("01890a5d-ac96-774b-bcce-%012x", seq-1) {
					t.Fatalf("%s: got entry %d (%s) where %d should be", when, e.Seq, e.ID, seq)
				}
				gone := e.Outcome == chat.Erased
				want := false
				for _, s := range erased {
					want = want || s == seq
				}
				if gone != want || gone != (e.Text == "") && e.Kind == journal.KindMessage {
					t.Fatalf("%s: entry %d: got %+v, want erased %v", when, seq, e, want)
				}
			}
		}
	}
	whole("after the node died", done...)
	out := must(x.nodes[1], adminArgs(x.nodes[1], "erase", "--room", "library", "--seq", "30000", "--seq", "59999")...)
	if !strings.Contains(out, "erased 2 entries in 1 room and rejected 0 messages") {
		t.Errorf("got %q", out)
	}
	said++ // the entry that tells of it
	whole("after the next erasure", append(done, half, 30000, 59999)...)
	if keys := x.store.Do("KEYS", "parley:{library}:log:*"); keys != "" {
		t.Errorf("%s are left", keys)
	}
	x.nodes[1].Stop()
}

// TestTextsForTheAbsent: a text that waits for somebody absent is erased with its
// message; what waits moves with a backup to another Redis, where that is asked
// for.
func TestTextsForTheAbsent(t *testing.T) {
	t.Parallel()
	x := startDuo(t, settings{"absent.text": true}, "bob")
	ann := x.visit(0, "ann")
	ann.enters("lobby")
	gone, _ := ann.says("lobby", "@bob "+secret)
	kept, _ := ann.says("lobby", "@bob: see you on monday")
	keys := absent.KeysOf("parley")
	texts := func() string { return x.store.Do("HVALS", keys.Texts) }
	await(t, "both wait", func() bool { return strings.Contains(texts(), secret) && strings.Contains(texts(), "monday") })
	if _, err := ann.Erase(within(t), "lobby", "e1", gone.Seq, ""); err != nil {
		t.Fatal(err)
	}
	if left := texts(); left != "@bob: see you on monday" {
		t.Errorf("the texts %q wait, want the other one alone", left)
	}

	file := filepath.Join(t.TempDir(), "rooms.backup")
	if out := must(x.nodes[0], adminArgs(x.nodes[0], "backup", "--out", file)...); !strings.Contains(out, "2 messages for absent people") {
		t.Errorf("got %q", out)
	}
	store := redistest.Start(t, redistest.Options{AppendOnly: true})
	n := startNode(t, unlimited(settings{"redis.url": store.URL(), "absent.text": true}))
	if out := must(n, adminArgs(n, "restore", "--in", file)...); !strings.Contains(out, "not delivered: 2 messages for absent people; --absent has them delivered") || store.Do("EXISTS", keys.Stream) != "0" {
		t.Errorf("got %q, want it to leave them aside and say so", out)
	}
	t.Log(must(n, adminArgs(n, "restore", "--in", file, "--absent")...))
	r := newReceiver(t)
	startWorker(t, store, r)
	for _, d := range r.await(2) {
		want := map[chat.MessageID]string{gone.MessageID: "", kept.MessageID: "@bob: see you on monday"}[d.data.ID]
		if d.data.Text != want || d.data.User != "bob" || d.data.Epoch == kept.Epoch || d.data.Epoch == "" {
			t.Errorf("got %+v, want the text %q and the epoch that the room has now", d.data, want)
		}
	}
	plain := startNode(t, nil)
	if out, code := plain.Bare(adminArgs(plain, "restore", "--in", file, "--absent")...); code == 0 || !strings.Contains(out, "that needs Redis") {
		t.Errorf("without Redis: got code %d and %q, want a refusal", code, out)
	}

	must(x.nodes[0], adminArgs(x.nodes[0], "erase", "--user", "ann")...)
	if left := texts(); left != "" {
		t.Errorf("%q waits, once all that ann wrote was erased", left)
	}
}
