package moderation

import (
	"reflect"
	"testing"
	"time"

	"parley/sdk/abi"
)

// rehearsing is a fake that can rehearse, and may be in quarantine.
type rehearsing struct {
	*staged
	quarantined bool
	decided     int
	rehearsed   int
}

func (r *rehearsing) Quarantined() bool { return r.quarantined }

func (r *rehearsing) Decide(input, text, normalized []byte) (abi.Verdict, abi.Result, uint64, error) {
	r.decided++
	return r.staged.Decide(input, text, normalized)
}

func (r *rehearsing) Rehearse(input, text, normalized []byte) (abi.Verdict, abi.Result, uint64, error) {
	r.rehearsed++
	return r.staged.Decide(input, text, normalized)
}

// TestRehearse: the verdict is Judge's, and nobody counts or observes it.
func TestRehearse(t *testing.T) {
	trial := &rehearsing{staged: as(Canary, failing("p", abi.Deny))}
	inForce := &rehearsing{staged: as(Shadow, verdict("p", abi.Hold, 3))}
	shadow := &rehearsing{staged: as(Shadow, verdict("q", abi.Deny, 4))}
	plain := verdict("r", abi.Flag, 1)
	s := stage(t, trial, inForce, shadow, plain)
	m := &Message{Room: "lobby", User: "ann", Kind: "message", Text: "hello"}
	got, err := s.Rehearse(t.Context(), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Verdict != abi.Hold || parts(got.Records) != "p:canary:error p:enforce:hold r:enforce:flag" {
		t.Errorf("got %v by %s, want hold by the version in force, without the shadow", got.Verdict, parts(got.Records))
	}
	if trial.decided+inForce.decided+shadow.decided+shadow.rehearsed != 0 || trial.rehearsed != 1 || inForce.rehearsed != 1 {
		t.Errorf("decided or rehearsed by others than those that count: %+v %+v %+v", trial, inForce, shadow)
	}
	if len(trial.told)+len(inForce.told)+len(shadow.told) != 0 {
		t.Errorf("told: %q %q %q", trial.told, inForce.told, shadow.told)
	}
	real, err := s.Judge(t.Context(), m, nil)
	if err != nil || real.Verdict != got.Verdict || !reflect.DeepEqual(real.Reasons, got.Reasons) {
		t.Errorf("a judgement: got %v %v, %v, want what was rehearsed: %v %v", real.Verdict, real.Reasons, err, got.Verdict, got.Reasons)
	}
}

// TestRehearseInQuarantine: a plugin that is not asked is not asked here either,
// and its on_error counts.
func TestRehearseInQuarantine(t *testing.T) {
	sick := &rehearsing{staged: as(Enforce, &fake{name: "p", onError: abi.Deny, decide: verdict("p", abi.Allow, 0).decide}), quarantined: true}
	got, err := stage(t, sick).Rehearse(t.Context(), &Message{Room: "lobby", User: "ann", Kind: "message", Text: "hello"}, nil)
	if err != nil || got.Verdict != abi.Deny || !got.Failed || sick.rehearsed != 0 {
		t.Errorf("got %v, failed %v, %v, asked %d times; want a deny unasked", got.Verdict, got.Failed, err, sick.rehearsed)
	}
}

// TestPeek answers as Observe would, and counts nothing.
func TestPeek(t *testing.T) {
	tr, now := NewTracker(64), time.Unix(1_000_000, 0)
	if got := tr.Peek("lobby", "ann", "a", now); got != (abi.Signals{}) {
		t.Errorf("of nobody: got %+v", got)
	}
	for i, text := range []string{"a", "b", "a", "c", "a"} {
		at := now.Add(time.Duration(i) * 7 * time.Second)
		first := tr.Peek("lobby", "ann", text, at)
		again := tr.Peek("lobby", "ann", text, at)
		if want := tr.Observe("lobby", "ann", text, at); first != want || again != want {
			t.Errorf("message %d: got %+v and %+v, want %+v", i, first, again, want)
		}
	}
	later := now.Add(time.Hour)
	if got := tr.Peek("lobby", "ann", "a", later); got.RecentPerMinute != 0 || got.Repeats != 3 {
		t.Errorf("an hour later: got %+v", got)
	}
	if got := tr.Peek("lobby", "ann", "a", now.Add(28*time.Second)); got.RecentPerMinute != 5 {
		t.Errorf("a look ahead was remembered: got %+v", got)
	}
}
