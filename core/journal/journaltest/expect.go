package journaltest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

var expectCases = []testCase{
	{"what is expected of the state decides", expected},
	{"racing changes of one state lose nothing", expectedRace},
}

func expected(t *testing.T, s Store) {
	j := open(t, s)
	set := func(key, value string) journal.Change { return journal.Change{Key: key, Value: []byte(value)} }
	absent := func(key string) journal.Change { return journal.Change{Key: key} }
	change(t, j, "lobby", set("a", "1"), set("empty", ""), set("binary", "\x00\xff"))
	state := map[string]string{"a": "1", "empty": "", "binary": "\x00\xff"}
	for i, c := range []struct {
		name   string
		expect []journal.Change
		ok     bool
	}{
		{"the value", []journal.Change{set("a", "1")}, true},
		{"all of them", []journal.Change{set("a", "1"), set("empty", ""), set("binary", "\x00\xff"), absent("b")}, true},
		{"another value", []journal.Change{set("a", "2")}, false},
		{"a part of the value", []journal.Change{set("binary", "\x00")}, false},
		{"one of several", []journal.Change{set("a", "1"), absent("b"), set("empty", "x")}, false},
		{"a value where there is none", []journal.Change{set("b", "1")}, false},
		{"an empty value where there is none", []journal.Change{set("b", "")}, false},
		{"no value where there is one", []journal.Change{absent("a")}, false},
		{"no value where there is an empty one", []journal.Change{absent("empty")}, false},
	} {
		r := message("lobby", "ann", fmt.Sprintf("n%d", i), "hi")
		r.Expect = c.expect
		r.Entry.Changes = []journal.Change{set("last", c.name)}
		rc, err := j.Append(within(t), r)
		if !c.ok {
			wantErr(t, c.name, err, journal.ErrChanged)
			if _, ok, err := j.Lookup(within(t), "lobby", "ann", r.Entry.Nonce); ok || err != nil {
				t.Errorf("%s: lookup of what was refused: got ok %v, error %v, want neither", c.name, ok, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		state["last"] = c.name
		// The resend is answered though the state is another by now.
		change(t, j, "lobby", set("a", "9"))
		wantReceipt(t, c.name+", resent", mustAppend(t, j, r), rc, true)
		change(t, j, "lobby", set("a", "1"))
	}
	wantState(t, "in the end", mustInfo(t, j, "lobby").State, state)
	_, es := readAll(t, j, "lobby", 0, 100)
	wantSeqs(t, "lobby", es, 1, 7)

	fresh := message("attic", "ann", "n", "hi")
	fresh.Expect = []journal.Change{set("a", "1")}
	_, err := j.Append(within(t), fresh)
	wantErr(t, "a value in a room that is not there", err, journal.ErrChanged)
	if top := mustInfo(t, j, "attic").Top; top.Seq != 0 {
		t.Errorf("got top %d after a refusal, want no entry", top.Seq)
	}
	fresh.Expect = []journal.Change{absent("a")}
	mustAppend(t, j, fresh)

	// The state outlives an epoch, and so does what may be expected of it.
	lost := message("lobby", "ann", "after", "hi")
	lost.Known = journal.Position{Epoch: "another", Seq: 99}
	lost.Expect = []journal.Change{set("a", "2")}
	_, err = j.Append(within(t), lost)
	wantErr(t, "another value in a new epoch", err, journal.ErrChanged)
	lost.Expect = []journal.Change{set("a", "1")}
	if rc := mustAppend(t, j, lost); rc.Seq != 8 {
		t.Errorf("in a new epoch: got seq %d, want 8", rc.Seq)
	}

	many := message("lobby", "ann", "many", "hi")
	many.Expect = make([]journal.Change, journal.MaxChanges+1)
	_, err = j.Append(within(t), many)
	wantErr(t, "too many expectations", err, journal.ErrTooLarge)
}

// expectedRace lets writers on two nodes add to one value, each by what it has
// read: none of their additions may be lost.
func expectedRace(t *testing.T, s Store) {
	const writers, each = 4, 10
	nodes := []journal.Journal{open(t, s)}
	if s.Shared {
		nodes = append(nodes, open(t, s))
	}
	change(t, nodes[0], "lobby", journal.Change{Key: "n", Value: []byte("")})
	ctx := within(t)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			j := nodes[w%len(nodes)]
			for i := 0; i < each; {
				info, err := j.Info(ctx, "lobby")
				if err != nil {
					t.Errorf("info: %v", err)
					return
				}
				r := message("lobby", chat.UserID(fmt.Sprintf("u%d", w)), fmt.Sprint(i), "more")
				r.Expect = []journal.Change{{Key: "n", Value: info.State["n"]}}
				r.Entry.Changes = []journal.Change{{Key: "n", Value: append(bytes.Clone(info.State["n"]), 'x')}}
				switch _, err := j.Append(ctx, r); {
				case err == nil:
					i++
				case !errors.Is(err, journal.ErrChanged):
					t.Errorf("append: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := mustInfo(t, nodes[0], "lobby").State["n"]; len(got) != writers*each {
		t.Errorf("%d of %d additions are left", len(got), writers*each)
	}
}
