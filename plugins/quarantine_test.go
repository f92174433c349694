package plugins_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/moderation"
	"parley/plugins"
	"parley/sdk/abi"
)

// After repeated faults the plugin is not asked, its on_error decides, and it
// comes back by probes. Time is that of a bubble.
func TestQuarantine(t *testing.T) {
	for _, c := range []struct {
		onError string
		want    abi.Verdict
	}{{"closed", abi.Deny}, {"open", abi.Allow}, {"hold", abi.Hold}} {
		t.Run(c.onError, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.drop(trapOn("x"), `{"on_error":"`+c.onError+`"}`)
				say := func(text string) moderation.Result {
					r, err := w.stage.Judge(t.Context(), &moderation.Message{Room: "lobby", User: "ann", Kind: "message", Text: text}, nil)
					if err != nil {
						t.Fatal(err)
					}
					return r
				}
				for range 5 {
					say("x")
				}
				s := w.status()
				if q := s.Quarantine; s.State != plugins.StateQuarantined || q == nil || !strings.Contains(q.Why, "unreachable") || q.NextProbe.Sub(q.Since) != time.Second {
					t.Fatalf("got %+v with %+v, want it in quarantine", s, q)
				}
				decisions := func() uint64 { return w.status().Decisions }
				before := decisions()
				for range 10 {
					r := say("hello")
					if r.Verdict != c.want || r.Failed != (c.want != abi.Allow) || !errors.Is(r.Records[0].Err, moderation.ErrQuarantined) {
						t.Fatalf("got %s failed=%v %v, want %s", r.Verdict, r.Failed, r.Records[0].Err, c.want)
					}
					if c.want == abi.Deny && !strings.Contains(r.Refusal().Reasons[0].Text, "quarantine") {
						t.Errorf("got %+v, want the quarantine named", r.Refusal())
					}
				}
				if decisions() != before {
					t.Error("it was asked in quarantine")
				}
				// A bad probe doubles the interval, good ones end it; the messages that
				// probe are treated like the others.
				for i, probe := range []struct {
					after time.Duration
					text  string
				}{{time.Second, "x"}, {2 * time.Second, "hello"}, {time.Second, "hello"}, {time.Second, "hello"}} {
					<-time.After(probe.after - time.Nanosecond)
					say(probe.text)
					if decisions() != before {
						t.Fatalf("probe %d came too early", i)
					}
					<-time.After(time.Nanosecond)
					if r := say(probe.text); r.Verdict != c.want {
						t.Fatalf("probe %d: got %s, want %s", i, r.Verdict, c.want)
					}
					if before++; decisions() != before {
						t.Fatalf("got %d decisions after probe %d, want %d", decisions(), i, before)
					}
				}
				if s := w.status(); s.State != plugins.StateActive || s.Quarantine != nil {
					t.Errorf("got %+v after three good probes", s)
				}
				if r := say("hello"); r.Verdict != abi.Allow || r.Records[0].Err != nil {
					t.Errorf("got %s, %v from the plugin that is back", r.Verdict, r.Records[0].Err)
				}
				if k := counters(w); k.Quarantines != 1 || k.Unasked != 18 || k.Usage[0].Verdicts["error"] != 5 || !w.log.has("plugin quarantined") || !w.log.has("back from quarantine") {
					t.Errorf("got %+v", k)
				}
				for range 5 {
					say("x")
				}
				w.mustOrder(plugins.Order{Action: "retry"})
				if s := w.status(); s.State != plugins.StateActive {
					t.Errorf("got %+v once an operator said so", s)
				}
			})
		})
	}
}
