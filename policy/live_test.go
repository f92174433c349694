package policy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"parley/core/gate"
	"parley/policy"
)

func TestLiveSwapsUnderLoad(t *testing.T) {
	engine := func(n int) *policy.Engine {
		e, err := patient().Compile(t.Context(), policy.Files{"p.rego": fmt.Appendf(nil,
			"package parley\ndecision := {\"allow\": false, \"reasons\": [{\"code\": \"r%d\", \"text\": input.subject.id}]}", n)}, fmt.Sprintf("r%d", n))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	live := policy.NewLive(engine(0), "test", quiet())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			in := question()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				in.Subject.ID = fmt.Sprintf("u%d", (i+g)%5)
				d := live.Decide(t.Context(), in)
				if d.Failed || len(d.Reasons) != 1 || d.Reasons[0].Code != d.Revision || d.Reasons[0].Text != in.Subject.ID {
					t.Errorf("mixed decision: %+v for %s", d, in.Subject.ID)
					return
				}
			}
		})
	}
	const swaps = 50
	for n := range swaps {
		live.Swap(engine(n+1), "test")
	}
	close(stop)
	wg.Wait()
	s := live.Stats()
	if s.Swaps != swaps || s.Failures != 0 || s.Evals == 0 {
		t.Errorf("got %+v, want %d swaps and no failure", s, swaps)
	}
	if got := live.Decide(t.Context(), question()).Revision; got != "r50" {
		t.Errorf("revision: got %s, want r50", got)
	}
}

func TestLiveStatus(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	live := policy.NewLive(compile(t, only(`{"allow": 1}`)), "dir /x", log)
	bob := question()
	bob.Subject.ID = "bob"
	live.Decide(t.Context(), question())
	live.Decide(t.Context(), question())
	live.Decide(t.Context(), bob)
	live.Decide(t.Context(), bob)
	_, err := policy.Compile(t.Context(), policy.Files{"q.rego": []byte("package parley\nx := time.now_ns()")}, "r2")
	live.Refuse("dir /x", "r2", err)

	s := live.Status()
	if s.Revision != "r1" || s.Source != "dir /x" || s.LoadedAt.IsZero() || s.Files != 1 {
		t.Errorf("got %+v, want revision r1 of dir /x", s)
	}
	if s.Stats.Hits != 1 || s.Stats.Evals != 3 || s.Stats.Failures != 2 || s.Stats.Refused != 1 || s.Stats.CacheEntries != 1 {
		t.Errorf("stats: got %+v", s.Stats)
	}
	if s.Failure == nil || s.Failure.Subject != "bob" || !strings.Contains(s.Failure.Cause, "allow is a number") {
		t.Errorf("failure: got %+v", s.Failure)
	}
	if s.Refused == nil || s.Refused.Revision != "r2" || len(s.Refused.Problems) != 1 || s.Refused.Problems[0].File != "q.rego" || s.Refused.Problems[0].Line != 2 {
		t.Errorf("refused: got %+v", s.Refused)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"revision":"r1"`, `"file":"q.rego","line":2,"reason":"the builtin time.now_ns is forbidden`, `"cache_hits":1`, `"reads":["subject.id"]`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("JSON: got %s, want it to hold %s", b, want)
		}
	}
	if n := strings.Count(out.String(), "policy could not decide"); n != 1 {
		t.Errorf("got %d log lines for failures within a second, want 1:\n%s", n, out.String())
	}
	if !strings.Contains(out.String(), "POLICY REFUSED") || !strings.Contains(out.String(), "q.rego:2") {
		t.Errorf("log: got %s, want the refusal", out.String())
	}
	live.Swap(compile(t, `decision := {"allow": true}`), "dir /x")
	live.Refuse("dir /x", "", errors.New("gone"))
	if r := live.Status().Refused; r == nil || r.Problems[0].Reason != "gone" {
		t.Errorf("got %+v, want the plain error as a problem", r)
	}
	live.Swap(compile(t, `decision := {"allow": true}`), "dir /x")
	if r := live.Status().Refused; r != nil {
		t.Errorf("got %+v, want the refusal forgotten", r)
	}
}

func TestHitsAllocateNothing(t *testing.T) {
	live := policy.NewLive(compile(t, `decision := {"allow": count(input.subject.roles) == 0, "reasons": [input.subject.id]}`), "test", quiet())
	in := question()
	ctx := t.Context()
	live.Decide(ctx, in)
	var d gate.Decision
	if n := testing.AllocsPerRun(100, func() { d = live.Decide(ctx, in) }); n != 0 || !d.Cached {
		t.Errorf("got %v allocations, cached %v; want 0, true", n, d.Cached)
	}
}

// TestAllowOnError: what the operator has named goes ahead without
// obligations, each time with a loud line and a count; nothing else does.
func TestAllowOnError(t *testing.T) {
	const undecided = "package parley\ndecision := {\"allow\": false, \"obligations\": {\"history\": 1}} if input.subject.id == \"bob\"\n" +
		"decision := {\"alow\": true} if input.subject.id == \"ann\"\n" +
		"decision := {\"allow\": to_number(input.subject.id) == 1} if input.subject.id == \"eve\"\n"
	e := policy.CompileUntried(t, undecided)
	var log bytes.Buffer
	live := policy.NewLive(e, "test", slog.New(slog.NewTextHandler(&log, nil)))
	live.AllowOnError([]string{gate.Typing})
	ask := func(action, who string) gate.Decision {
		in := gate.Sample(action)
		in.Subject.ID = who
		return live.Decide(t.Context(), in)
	}
	for i, who := range []string{"ann", "eve", "zoe", "zoe"} { // malformed, an error, undefined; never remembered
		if d := ask(gate.Typing, who); !d.Allow || !d.Failed || len(d.Reasons) != 0 {
			t.Errorf("%s types: got %+v, want it let through", who, d)
		}
		if got, want := strings.Count(log.String(), "LET THROUGH"), i+1; got != want {
			t.Errorf("got %d loud lines, want %d", got, want)
		}
		if d := ask(gate.MessageSend, who); d.Allow || !d.Failed || d.Reasons[0].Code != "policy_error" {
			t.Errorf("%s writes: got %+v, want policy_error", who, d)
		}
	}
	if d := ask(gate.Typing, "bob"); d.Allow || d.Failed {
		t.Errorf("bob types: got %+v, want the policy's own no", d)
	}
	if s := live.Stats(); s.LetThrough != 4 || s.Failures != 8 {
		t.Errorf("got %d let through of %d failures, want 4 of 8", s.LetThrough, s.Failures)
	}
}

func TestChangedTellsOfSwaps(t *testing.T) {
	e := policy.CompileUntried(t, "package parley\ndecision := {\"allow\": true}")
	live := policy.NewLive(e, "test", quiet())
	first := live.Changed()
	select {
	case <-first:
		t.Fatal("told of a change before there was one")
	default:
	}
	live.Swap(e, "test")
	<-first
	select {
	case <-live.Changed():
		t.Fatal("told again of a swap that came before")
	default:
	}
}

// TestRehearsalLeavesNoTrace: it says what Decide says, where that lets a failure
// through too, and nothing is counted, remembered or kept as a failure.
func TestRehearsalLeavesNoTrace(t *testing.T) {
	live := policy.NewLive(compile(t, only(`{"allow": false, "reasons": [{"code": "never", "text": "no"}]}`)), "test", quiet())
	live.AllowOnError([]string{gate.MessageSend})
	before := live.Status()
	for range 3 {
		if d := live.Rehearse(t.Context(), bobs()); d.Allow || len(d.Reasons) != 1 || d.Reasons[0].Code != "never" || d.ID != "" || d.Cached {
			t.Fatalf("got %+v", d)
		}
	}
	live.Swap(compile(t, only("7")), "test")
	send, join := bobs(), bobs()
	send.Action.Name, join.Action.Name = gate.MessageSend, gate.RoomJoin
	if d := live.Rehearse(t.Context(), send); !d.Allow || !d.Failed || d.Reasons != nil {
		t.Errorf("an action that is let through: got %+v", d)
	}
	if d := live.Rehearse(t.Context(), join); d.Allow || !d.Failed {
		t.Errorf("another one: got %+v", d)
	}
	after := live.Status()
	before.Stats.Swaps = 1
	if after.Stats != before.Stats || after.Failure != nil || len(live.Blocked()) != 0 {
		t.Errorf("got %+v, failure %+v, blocked %v; want as before: %+v", after.Stats, after.Failure, live.Blocked(), before.Stats)
	}
}
