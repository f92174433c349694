package evidence_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/moderation"
	"parley/sdk/abi"
)

func note(id, text string) evidence.Note {
	return evidence.Note{
		ID: chat.MessageID(id), Policy: "git:1",
		Message: moderation.Message{Room: "lobby", User: "ann", Roles: []string{"member"}, Kind: "message", Text: text, TimeMS: time.Now().UnixMilli(), Signals: abi.Signals{RecentPerMinute: 3}},
		Result:  moderation.Result{Text: text, Input: []byte(text), Records: []moderation.Record{{Plugin: "p", Digest: "d", Version: "2", Config: "c", Part: moderation.Enforce, Fuel: 7, Time: 9}}},
	}
}

// Every judged message leaves the record of its decision, without its text.
func TestNotesAreWrittenTogether(t *testing.T) {
	running(t, evidence.Defaults(), func(t *testing.T, k *evidence.Keeper, m *memory) {
		for i := range 5 {
			k.Note(note(fmt.Sprint("id-", i), "hello"))
		}
		time.Sleep(500 * time.Millisecond) // synthetic
		if n, _ := m.DecisionSize(); n != 0 {
			t.Errorf("%d records were written at once, want them gathered", n)
		}
		time.Sleep(time.Second)
		if s := k.Stats(); s.Noted != 5 || s.Decisions != 5 || s.Records != 0 || m.puts != 1 {
			t.Fatalf("got %+v in %d writes, want 5 decisions in one", s, m.puts)
		}
		r := m.ds[0]
		const hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" // sha256 of hello
		if r.Text != hash || r.Verdict != "allow" || r.Policy != "git:1" || len(r.Plugins) != 1 || r.Plugins[0].Fuel != 7 || r.Plugins[0].Digest != "d" || len(r.Input) != 0 {
			t.Errorf("got %+v", r)
		}
		if got, want := r.Message("hello"), note("", "hello").Message; !reflect.DeepEqual(got, moderation.Message{Room: want.Room, User: want.User, Roles: want.Roles, Kind: want.Kind, Text: want.Text, TimeMS: r.Time, Signals: want.Signals}) {
			t.Errorf("got the message %+v, want %+v", got, want)
		}
		k.Note(note("late", "hello"))
		if r, err := k.Get("late"); err != nil || r.ID != "late" {
			t.Errorf("get of what waits: got %+v, %v", r, err)
		}
		k.Note(note("erased", "hello"))
		if n, err := k.Erase(evidence.Selection{ID: "erased"}); n != 1 || err != nil {
			t.Errorf("erase of what waits: got %d, %v, want 1", n, err)
		}
		m.mu.Lock()
		m.fail = errors.New("disk full")
		m.mu.Unlock()
		k.Note(note("lost", "hello"))
		time.Sleep(2 * time.Second)
		if s := k.Stats(); s.NotesFailed != 1 {
			t.Errorf("got %d failed, want 1", s.NotesFailed)
		}
	})
}

func TestNotesAreBounded(t *testing.T) {
	cfg := evidence.Defaults()
	cfg.NoteBytes = 20_000
	running(t, cfg, func(t *testing.T, k *evidence.Keeper, m *memory) {
		m.mu.Lock() // a store that is slower than those who judge: it takes what there is once, and then they are too many
		for i := range 100 {
			k.Note(note(fmt.Sprint(i), "hello"))
		}
		m.mu.Unlock()
		synctest.Wait() // half the bound is a crowd, and does not wait to be gathered
		if s := k.Stats(); s.NotesDropped == 0 || s.Noted == 0 {
			t.Errorf("got %d written and %d dropped, want some of each", s.Noted, s.NotesDropped)
		}
		time.Sleep(2 * time.Second) // what came behind the crowd is gathered
		if s := k.Stats(); s.NotesDropped+s.Noted != 100 {
			t.Errorf("got %d written and %d dropped, want 100 together", s.Noted, s.NotesDropped)
		}
	})
	cfg.Decisions = false
	running(t, cfg, func(t *testing.T, k *evidence.Keeper, m *memory) {
		k.Note(note("1", "hello"))
		time.Sleep(2 * time.Second)
		if s := k.Stats(); s.Noted != 0 || s.NotesDropped != 0 {
			t.Errorf("got %+v, want nothing kept of decisions", s)
		}
	})
}

// Originals and decisions have an age each.
func TestDecisionsOutliveOriginals(t *testing.T) {
	cfg := evidence.Defaults()
	cfg.Retention, cfg.DecisionRetention = time.Hour, 3*time.Hour
	running(t, cfg, func(t *testing.T, k *evidence.Keeper, m *memory) {
		k.Note(note("a", "hello"))
		k.Keep(record("a", time.Now()))
		if r, err := k.Get("a"); err != nil || len(r.Input) == 0 {
			t.Errorf("got %+v, %v, want the original", r, err)
		}
		time.Sleep(2 * time.Hour)
		if r, err := k.Get("a"); err != nil || len(r.Input) != 0 {
			t.Errorf("after the original's time: got %+v, %v, want the decision", r, err)
		}
		time.Sleep(2 * time.Hour)
		if _, err := k.Get("a"); !errors.Is(err, evidence.ErrNotFound) {
			t.Errorf("after the decision's time: got %v", err)
		}
	})
}

func TestNoteAllocatesNothing(t *testing.T) {
	k, err := evidence.New(evidence.Defaults(), &memory{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := note("0197c5f0-8001-7d4c-ae5f-6c2a1b3d5e7f", "hello")
	for range 1000 {
		k.Note(n)
	}
	if _, err := k.Get("x"); !errors.Is(err, evidence.ErrNotFound) { // writes them, and keeps the queue
		t.Fatal(err)
	}
	if _, err := k.Get("x"); !errors.Is(err, evidence.ErrNotFound) {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(500, func() { k.Note(n) }); got > 0 {
		t.Errorf("a note allocates %v times, want none", got)
	}
}

// decisions are random records as plugins make them, and some that they do not.
func decisions(rng *rand.Rand, n int) []evidence.Record {
	pick := func(all ...string) string { return all[rng.IntN(len(all))] }
	rs := make([]evidence.Record, n)
	for i := range rs {
		r := evidence.Record{Decision: moderation.Decision{
			ID:   chat.MessageID(pick(fmt.Sprintf("0197c5f0-%04x-7d4c-ae5f-6c2a1b3d5e7f", i), fmt.Sprintf("0197C5F0-%04x-7d4c-ae5f-6c2a1b3d5e7f", i), fmt.Sprint("id-", i), "")),
			Room: "lobby", User: chat.UserID(pick("ann", "bob", "žaneta")), Kind: "message", Time: 1_764_000_000_000 - rng.Int64N(100),
			Text: pick(strings.Repeat("ab", 32), strings.Repeat("AB", 32), "", strings.Repeat("zz", 32)), Policy: pick("git:1", ""), Verdict: pick("allow", "deny"),
			Failed: rng.IntN(2) == 0, Plugins: []moderation.Vote{},
		}}
		if rng.IntN(3) > 0 {
			r.Context = &evidence.Context{Signals: abi.Signals{RecentPerMinute: rng.Uint32(), Repeats: 1, AccountAgeHours: 2}, Idle: rng.IntN(3), Exempt: rng.IntN(2) == 0}
			if rng.IntN(2) == 0 {
				r.Context.Roles = []string{"member", "moderator"}
			}
		}
		for range rng.IntN(3) {
			r.Reasons = append(r.Reasons, chat.Reason{Code: "rule_1", Text: pick("no", "\x00"), Source: "plugin:p"})
		}
		for range rng.IntN(4) {
			r.Plugins = append(r.Plugins, moderation.Vote{Name: pick("p", "q"), Version: "1", Digest: strings.Repeat("cd", 32), Config: pick("", "c"), Part: pick("", "shadow"), OnError: "deny",
				Verdict: pick("allow", "error"), Code: uint16(rng.Uint32()), Score: 1000, Fuel: rng.Uint64(), TimeNS: rng.Int64() - 1<<62, Error: pick("", "it trapped")})
		}
		rs[i] = r
	}
	return rs
}

func TestBlockRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		want := decisions(rng, 1+rng.IntN(20))
		b, err := evidence.AppendBlock([]byte("before"), want)
		if err != nil {
			t.Fatal(err)
		}
		b = b[len("before"):]
		got, err := evidence.DecodeBlock(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
		for i := range want {
			if !evidence.BlockMayHold(b, want[i].ID) || got[i].Digest() != want[i].Digest() {
				t.Fatalf("the block does not say that it holds %q, or the digest is another", want[i].ID)
			}
		}
		if evidence.BlockCount(b) != len(want) || evidence.BlockMayHold(b, "another") {
			t.Error("the block says that it holds another")
		}
		if _, err := evidence.DecodeBlock(b[:len(b)-1]); err == nil {
			t.Error("a block that was cut was decoded")
		}
	}
	for name, n := range map[string]int{"none": 0, "too many": evidence.MaxBlockRecords + 1} {
		if _, err := evidence.AppendBlock(nil, make([]evidence.Record, n)); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	long := decisions(rng, 1)
	long[0].Policy = strings.Repeat("x", evidence.MaxBlockBytes)
	if b, err := evidence.AppendBlock(nil, long); err == nil || len(b) > 0 {
		t.Errorf("a block beyond the bound: got %d bytes, %v", len(b), err)
	}
	if evidence.BlockCount([]byte("nonsense")) != 0 || evidence.BlockMayHold(nil, "") {
		t.Error("nonsense is taken for a block")
	}
}

func FuzzDecodeBlock(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 4 {
		b, err := evidence.AppendBlock(nil, decisions(rng, 1+rng.IntN(4)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{1, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		rs, err := evidence.DecodeBlock(b)
		if err != nil {
			return
		}
		again, err := evidence.AppendBlock(nil, rs)
		if err != nil {
			t.Fatalf("decoded %+v and cannot encode it: %v", rs, err)
		}
		if rs2, err := evidence.DecodeBlock(again); err != nil || !reflect.DeepEqual(rs, rs2) {
			t.Fatalf("decoded %+v, then %+v, %v", rs, rs2, err)
		}
	})
}

// What a block costs: a second's worth of a busy node.
func BenchmarkBlock(b *testing.B) {
	var notes []evidence.Note
	for i := range 1000 {
		n := note(fmt.Sprintf("0197c5f0-%04x-7d4c-ae5f-6c2a1b3d5e7f", i), strings.Repeat("a usual message ", 7))
		n.Message.User = chat.UserID(fmt.Sprint("user-", i%100))
		r := n.Result.Records[0]
		r.Digest, r.Config, r.OnError, r.Time = strings.Repeat("ab", 32), strings.Repeat("cd", 32), abi.Deny, 700
		n.Result.Records = []moderation.Record{r, r}
		n.Result.Records[1].Plugin = "q"
		notes = append(notes, n)
	}
	b.ReportAllocs()
	var size int
	for b.Loop() {
		block, err := evidence.AppendBlock(nil, evidence.RecordsOf(notes))
		if err != nil {
			b.Fatal(err)
		}
		size = len(block)
	}
	b.ReportMetric(float64(size)/float64(len(notes)), "B/record")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(notes)), "ns/record")
}

// void is a store that forgets.
type void struct{ memory }

func (*void) PutDecisions([]evidence.Record) error { return nil }

// What a note costs whoever sends the message, and what is done with it in the
// background besides writing.
func BenchmarkNote(b *testing.B) {
	cfg := evidence.Defaults()
	cfg.NoteBytes = 1 << 30
	k, err := evidence.New(cfg, &void{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	n := note("0197c5f0-8001-7d4c-ae5f-6c2a1b3d5e7f", "hello")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if k.Note(n); i%2000 == 1999 {
			_, _ = k.Get("x") // writes them
		}
	}
}
