package evidence_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/moderation"
	"parley/sdk/abi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestModes(t *testing.T) {
	for _, tt := range []struct {
		mode          evidence.Mode
		allow, denied bool
	}{{evidence.KeepFlagged, false, true}, {evidence.KeepAll, true, true}, {evidence.KeepNone, false, false}} {
		if got := tt.mode.Wants(abi.Allow); got != tt.allow {
			t.Errorf("%s wants allow: got %v", tt.mode, got)
		}
		if got := tt.mode.Wants(abi.Deny); got != tt.denied {
			t.Errorf("%s wants deny: got %v", tt.mode, got)
		}
	}
}

func TestConfig(t *testing.T) {
	for name, change := range map[string]func(*evidence.Config){
		"mode":      func(c *evidence.Config) { c.Keep = "some" },
		"retention": func(c *evidence.Config) { c.Retention = -1 },
		"queue":     func(c *evidence.Config) { c.QueueBytes = 0 },
		"notes":     func(c *evidence.Config) { c.NoteBytes = 0 },
		"decisions": func(c *evidence.Config) { c.DecisionRetention = -1 },
	} {
		cfg := evidence.Defaults()
		change(&cfg)
		if _, err := evidence.New(cfg, &memory{}, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// memory is a Store whose writes can be made to wait or to fail.
type memory struct {
	mu   sync.Mutex
	rs   []evidence.Record
	ds   []evidence.Record // decisions
	fail error
	puts int
}

func (m *memory) Put(rs []evidence.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.puts++
	if m.fail == nil {
		m.rs = append(m.rs, rs...)
	}
	return m.fail
}

func (m *memory) PutDecisions(rs []evidence.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.puts++
	if m.fail == nil {
		m.ds = append(m.ds, rs...)
	}
	return m.fail
}

func (m *memory) DecisionSize() (int, int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.ds), int64(len(m.ds))
}

func (m *memory) Get(id chat.MessageID) (evidence.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, rs := range [][]evidence.Record{m.rs, m.ds} {
		if i := slices.IndexFunc(rs, func(r evidence.Record) bool { return r.ID == id }); i >= 0 {
			return rs[i], nil
		}
	}
	return evidence.Record{}, evidence.ErrNotFound
}

func (m *memory) List(evidence.Query) (evidence.Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return evidence.Page{Records: slices.Clone(m.rs)}, m.fail
}

func (m *memory) EraseMessages(ids []chat.MessageID) (total int, err error) {
	for _, id := range ids {
		n, err := m.Erase(evidence.Selection{ID: id})
		if total += n; err != nil {
			return total, err
		}
	}
	return total, nil
}

func (m *memory) Erase(s evidence.Selection) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.rs) + len(m.ds)
	matches := func(r evidence.Record) bool { return s.Matches(&r.Decision) }
	if s.Only != evidence.Decisions {
		m.rs = slices.DeleteFunc(m.rs, matches)
	}
	if s.Only != evidence.Originals {
		m.ds = slices.DeleteFunc(m.ds, matches)
	}
	return before - len(m.rs) - len(m.ds), m.fail
}

func (m *memory) Size() (int, int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.rs), int64(len(m.rs))
}

func (m *memory) Close() error { return nil }

func record(id string, at time.Time) evidence.Record {
	return evidence.Record{Decision: moderation.Decision{ID: chat.MessageID(id), Room: "lobby", User: "ann", Time: at.UnixMilli()}, Input: []byte("input of " + id)}
}

// running runs a keeper in a bubble until the test's function has ended.
func running(t *testing.T, cfg evidence.Config, f func(t *testing.T, k *evidence.Keeper, m *memory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := new(memory)
		k, err := evidence.New(cfg, m, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := k.Run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
		synctest.Wait() // it has looked once for what is too old
		f(t, k, m)
		stop()
		wg.Wait()
	})
}

func TestKeeperWritesInTheBackground(t *testing.T) {
	running(t, evidence.Defaults(), func(t *testing.T, k *evidence.Keeper, m *memory) {
		k.Judged()
		for i := range 5 {
			k.Keep(record(fmt.Sprint(i), time.Now()))
		}
		synctest.Wait()
		if n, _ := m.Size(); n != 0 {
			t.Errorf("%d records were written at once, want them gathered", n)
		}
		time.Sleep(time.Second) // synthetic
		if s := k.Stats(); s.Records != 5 || s.Kept != 5 || s.Judged != 1 || m.puts != 1 {
			t.Errorf("got %+v in %d writes, want 5 records in one", s, m.puts)
		}
		k.Keep(record("late", time.Now()))
		if r, err := k.Get("late"); err != nil || string(r.Input) != "input of late" {
			t.Errorf("get of what waits: got %+v, %v", r, err)
		}
		if _, err := k.Get("none"); !errors.Is(err, evidence.ErrNotFound) {
			t.Errorf("get of nothing: got %v", err)
		}
		k.Keep(record("last", time.Now()))
		if p, err := k.List(evidence.Query{}); err != nil || len(p.Records) != 7 {
			t.Errorf("list: got %d records, %v, want 7", len(p.Records), err)
		}
		k.Keep(record("erased", time.Now()))
		if n, err := k.Erase(evidence.Selection{ID: "erased"}); n != 1 || err != nil {
			t.Errorf("erase of what waits: got %d, %v, want 1", n, err)
		}
		k.Keep(record("erased", time.Now()))
		k.Keep(record("erased too", time.Now()))
		if n, err := k.EraseMessages([]chat.MessageID{"erased", "none", "erased too"}); n != 2 || err != nil || k.Stats().Erased != 3 {
			t.Errorf("erase of some that wait: got %d, %v and %d in all, want 2 and 3", n, err, k.Stats().Erased)
		}
		k.Keep(record("at the end", time.Now())) // written when Run ends
	})
}

func TestKeeperWritesTheRestAtTheEnd(t *testing.T) {
	var m *memory
	running(t, evidence.Defaults(), func(_ *testing.T, k *evidence.Keeper, s *memory) {
		m = s
		k.Keep(record("last", time.Now()))
	})
	if len(m.rs) != 1 {
		t.Errorf("got %d records after the end, want 1", len(m.rs))
	}
}

func TestKeeperForgets(t *testing.T) {
	cfg := evidence.Defaults()
	cfg.Retention = time.Hour
	running(t, cfg, func(t *testing.T, k *evidence.Keeper, m *memory) {
		k.Keep(record("a", time.Now()))
		time.Sleep(50 * time.Minute)
		k.Keep(record("b", time.Now()))
		time.Sleep(12 * time.Minute)
		if _, err := k.Get("a"); !errors.Is(err, evidence.ErrNotFound) {
			t.Errorf("after its time: got %v, want it gone", err)
		}
		if _, err := k.Get("b"); err != nil {
			t.Errorf("before its time: got %v", err)
		}
		if s := k.Stats(); s.Erased != 1 {
			t.Errorf("counted %d erased, want 1", s.Erased)
		}
	})
}

func TestKeeperDropsWhatDoesNotFit(t *testing.T) {
	cfg := evidence.Defaults()
	cfg.QueueBytes = 3000
	running(t, cfg, func(t *testing.T, k *evidence.Keeper, m *memory) {
		for i := range 100 {
			k.Keep(record(fmt.Sprint(i), time.Now()))
		}
		time.Sleep(time.Second)
		s := k.Stats()
		if s.Dropped == 0 || s.Kept == 0 || s.Dropped+s.Kept != 100 {
			t.Errorf("got %d kept and %d dropped, want some of each and 100 together", s.Kept, s.Dropped)
		}
		m.mu.Lock()
		m.fail = errors.New("disk full")
		m.mu.Unlock()
		k.Keep(record("x", time.Now()))
		time.Sleep(time.Second)
		if s := k.Stats(); s.Failed != 1 {
			t.Errorf("counted %d failed, want 1", s.Failed)
		}
	})
}

func full() evidence.Record {
	return evidence.Record{
		Decision: moderation.Decision{ID: "01", Room: "lobby", User: "žaneta", Kind: "message", Time: 5, Text: "ab", Policy: "git:1", Verdict: "deny",
			Reasons: []chat.Reason{{Code: "rule_1", Text: "no", Source: "plugin:p"}},
			Plugins: []moderation.Vote{{Name: "p", Version: "1", Digest: "d", Config: "c", OnError: "deny", Verdict: "deny", Code: 1, Score: 2, Fuel: 3, TimeNS: 4, Error: "e"}}},
		Input: []byte{1, 0, 255},
	}
}

func TestRecordRoundTrip(t *testing.T) {
	for _, want := range []evidence.Record{full(), {Input: []byte{}}} {
		b, err := evidence.Append(nil, &want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := evidence.Decode(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if got.Digest() != want.Digest() {
			t.Error("the digest of the decision changed on the way")
		}
	}
	long := full()
	long.Input = make([]byte, evidence.MaxRecordBytes)
	if _, err := evidence.Append(nil, &long); err == nil {
		t.Error("a record beyond the bound was encoded")
	}
}

func FuzzDecode(f *testing.F) {
	r := full()
	b, err := evidence.Append(nil, &r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{1, 255, 255, 255, 255, '{', '}'})
	f.Add([]byte{1, 2, 0, 0, 0, '{', '}', 9})
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := evidence.Decode(b)
		if err != nil {
			return
		}
		again, err := evidence.Append(nil, &r)
		if err != nil {
			t.Fatalf("decoded %+v and cannot encode it: %v", r, err)
		}
		if r2, err := evidence.Decode(again); err != nil || !reflect.DeepEqual(r, r2) {
			t.Fatalf("decoded %+v, then %+v, %v", r, r2, err)
		}
	})
}
