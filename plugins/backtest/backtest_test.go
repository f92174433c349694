package backtest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"parley/core/chat"
	"parley/plugins/backtest"
	"parley/sdk/abi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// version judges in process.
type version struct {
	rooms  string // it judges rooms whose name begins so
	decide func(text string) (abi.Verdict, abi.Result, error)
}

func (v version) Wants(room chat.RoomID, _ string) bool {
	return strings.HasPrefix(string(room), v.rooms)
}
func (v version) Decide(_, text, _ []byte) (abi.Verdict, abi.Result, uint64, error) {
	verdict, r, err := v.decide(string(text))
	return verdict, r, uint64(len(text)), err
}

// words masks each of the words it is given in the text, or denies.
func words(verdict abi.Verdict, code uint16, list ...string) version {
	return version{decide: func(text string) (abi.Verdict, abi.Result, error) {
		var spans []abi.Span
		for _, w := range list {
			if i := strings.Index(text, w); i >= 0 {
				spans = append(spans, abi.Span{Start: uint32(i), Length: uint32(len(w))})
			}
		}
		switch {
		case text == "crash":
			return abi.Error, abi.Result{}, errors.New("it trapped")
		case spans == nil:
			return abi.Allow, abi.Result{}, nil
		case verdict != abi.Redact:
			return verdict, abi.Result{Code: code, Reason: "no"}, nil
		}
		return verdict, abi.Result{Code: code, Reason: "no", Spans: spans}, nil
	}}
}

// pages is a source.
type pages [][]backtest.Record

func (p *pages) Next(context.Context) ([]backtest.Record, error) {
	if len(*p) == 0 {
		return nil, io.EOF
	}
	page := (*p)[0]
	*p = (*p)[1:]
	return page, nil
}

func record(id, room, text string) backtest.Record {
	return backtest.Record{ID: id, Room: room, User: "ann", Time: 1000, Input: abi.AppendInput(nil, &abi.Input{
		TimeMS: 1000, Text: []byte(text), Normalized: bytes.ToLower([]byte(text)), User: "ann", Room: room, Kind: "message"})}
}

func TestRun(t *testing.T) {
	old := words(abi.Redact, 1, "darn")
	for _, tt := range []struct {
		name              string
		before, after     version
		text              string
		pair              backtest.Pair
		changed, reworded uint64
		masked            [2]string
	}{
		{"the same", old, old, "darn it", backtest.Pair{Old: "redact", New: "redact"}, 0, 0, [2]string{}},
		{"nothing found", old, words(abi.Deny, 1, "heck"), "hello", backtest.Pair{Old: "allow", New: "allow"}, 0, 0, [2]string{}},
		{"a stronger verdict", old, words(abi.Deny, 1, "darn"), "darn it", backtest.Pair{Old: "redact", New: "deny"}, 1, 0, [2]string{"**** it", ""}},
		{"more is masked", old, words(abi.Redact, 1, "darn", "it"), "darn it", backtest.Pair{Old: "redact", New: "redact"}, 1, 0, [2]string{"**** it", "**** **"}},
		{"another rule", old, words(abi.Redact, 2, "darn"), "darn it", backtest.Pair{Old: "redact", New: "redact"}, 0, 1, [2]string{}},
		{"the same is masked in other pieces", words(abi.Redact, 1, "darn"), words(abi.Redact, 1, "da", "rn"), "darn it", backtest.Pair{Old: "redact", New: "redact"}, 0, 0, [2]string{}},
		{"it fails", words(abi.Deny, 1), version{decide: func(string) (abi.Verdict, abi.Result, error) { return abi.Error, abi.Result{}, errors.New("x") }},
			"hi", backtest.Pair{Old: "allow", New: "error"}, 1, 0, [2]string{}},
		{"another room", old, version{rooms: "staff", decide: old.decide}, "hi", backtest.Pair{Old: "allow", New: backtest.NotAsked}, 1, 0, [2]string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := backtest.Run(t.Context(), backtest.Defaults(), tt.before, tt.after, &pages{{record("m1", "lobby", tt.text)}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.Records != 1 || r.Pairs[tt.pair] != 1 || r.Changed != tt.changed || r.Reworded != tt.reworded {
				t.Fatalf("got %+v, want the pair %v, %d changed, %d reworded", r, tt.pair, tt.changed, tt.reworded)
			}
			if tt.changed == 0 {
				return
			}
			c := r.Changes[0]
			if c.ID != "m1" || c.Text != tt.text || c.Old.Verdict != tt.pair.Old || c.New.Verdict != tt.pair.New || [2]string{c.Old.Masked, c.New.Masked} != tt.masked {
				t.Errorf("got %+v, want masked %q", c, tt.masked)
			}
		})
	}
}

// TestRunIsInOrder: however many workers, the report is the same, and bounded.
func TestRunIsInOrder(t *testing.T) {
	var source pages
	for p := range 5 {
		var page []backtest.Record
		for i := range 37 {
			text := "hello"
			if i%3 == 0 {
				text = "darn"
			}
			page = append(page, record(fmt.Sprintf("%d-%02d", p, i), "lobby", text))
		}
		source = append(source, page, nil)
	}
	source = append(source, []backtest.Record{{ID: "cut", Input: []byte("short")}, record("crash", "lobby", "crash")})
	var want []string
	for _, workers := range []int{1, 2, 7, 100} {
		src := slices.Clone(source)
		var seen []backtest.Progress
		r, err := backtest.Run(t.Context(), backtest.Config{Limit: 60, Workers: workers}, words(abi.Flag, 1, "darn"), words(abi.Deny, 1, "darn"), &src,
			func(p backtest.Progress) { seen = append(seen, p) })
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range r.Changes {
			got = append(got, c.ID)
		}
		if want == nil {
			want = got
		}
		if !slices.Equal(got, want) || !slices.IsSorted(got) || len(got) != 60 {
			t.Errorf("%d workers: got the changes %v, want %v", workers, got, want)
		}
		if r.Records != 186 || r.Changed != 65 || r.Malformed != 1 || r.Old.Failed != 1 || r.New.Failed != 1 || r.Pairs[backtest.Pair{Old: "error", New: "error"}] != 1 {
			t.Errorf("%d workers: got %d records, %d changed, %d malformed, pairs %v", workers, r.Records, r.Changed, r.Malformed, r.Pairs)
		}
		if len(seen) != 6 || seen[5] != (backtest.Progress{Records: 186, Changed: 65}) && seen[5].Records != 186 {
			t.Errorf("%d workers: progress %v", workers, seen)
		}
		if r.Old.Decisions != 186 || r.Old.PerSecond() <= 0 || r.Took <= 0 {
			t.Errorf("%d workers: got %+v", workers, r.Old)
		}
		var counted uint64
		for _, b := range r.New.Fuel.Buckets() {
			counted += b.Count
		}
		if b := r.New.Fuel.Buckets(); counted != 186 || b[0].Below != 8 || len(b) != 1 || r.New.Fuel.Max != 5 {
			t.Errorf("fuel: got %+v, max %d", b, r.New.Fuel.Max)
		}
	}
}

// failing is a source that ends with an error after its first page.
type failing struct{ pages }

func (f *failing) Next(ctx context.Context) ([]backtest.Record, error) {
	page, err := f.pages.Next(ctx)
	if err != nil {
		err = errors.New("the server went away")
	}
	return page, err
}

func TestRunStops(t *testing.T) {
	v := words(abi.Flag, 1, "darn")
	r, err := backtest.Run(t.Context(), backtest.Defaults(), v, v, &failing{pages{{record("m", "lobby", "x")}}}, nil)
	if err == nil || r.Records != 1 {
		t.Errorf("a source that fails: got %d records, %v", r.Records, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := backtest.Run(ctx, backtest.Defaults(), v, v, &pages{{record("m", "lobby", "x")}}, nil); !errors.Is(err, context.Canceled) || r.Records != 0 {
		t.Errorf("cancelled: got %d records, %v", r.Records, err)
	}
	if _, err := backtest.Run(t.Context(), backtest.Config{}, v, v, &pages{}, nil); err == nil {
		t.Error("no workers: got no error")
	}
}
