package policy_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/gate"
	"parley/policy"
	"parley/policy/decisionlog"
	"parley/policy/rego"
)

func newLog(t testing.TB, edit ...func(*decisionlog.Config)) *decisionlog.Log {
	t.Helper()
	cfg := decisionlog.Defaults()
	for _, f := range edit {
		f(&cfg)
	}
	l, err := decisionlog.New(cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func records(t testing.TB, l *decisionlog.Log, q decisionlog.Query) []*decisionlog.Record {
	t.Helper()
	q.Limit = decisionlog.MaxPage
	page, err := l.Find(q)
	if err != nil {
		t.Fatal(err)
	}
	return page.Records
}

func TestLiveRecords(t *testing.T) {
	log := newLog(t, func(c *decisionlog.Config) {
		c.Sample, c.PerMinute, c.Mask = []string{"*=0", "connect=1"}, 0, []string{"subject.id", "resource.id"}
	})
	e, err := patient().Compile(t.Context(), rego.Files(), "r1")
	if err != nil {
		t.Fatal(err)
	}
	live := policy.NewLive(e, "test", quiet())
	live.RecordTo(log)

	if d := live.Decide(t.Context(), question()); !d.Allow || d.ID != "" {
		t.Errorf("allowed and not sampled: got %+v, want no id", d)
	}
	in := question()
	in.Resource.Mode, in.Message = "archived", "0192a1b2-0000-7000-8000-000000000001"
	first, second := live.Decide(t.Context(), in), live.Decide(t.Context(), in)
	if first.Allow || first.ID == "" || second.ID == "" || first.ID == second.ID || !second.Cached {
		t.Fatalf("refused: got %+v and %+v, want an id each", first, second)
	}
	if d := live.Decide(t.Context(), gate.Sample(gate.Connect)); !d.Allow || d.ID == "" {
		t.Errorf("allowed and sampled: got %+v, want an id", d)
	}
	got := records(t, log, decisionlog.Query{Denied: true})
	if len(got) != 2 || got[0].ID != first.ID || got[1].ID != second.ID || !got[1].Cached || got[0].Cached || got[0].NS <= 0 || got[0].NS != got[1].NS {
		t.Fatalf("got %+v, want both refusals, with what evaluating took once", got)
	}
	r := got[0]
	if r.Revision != "r1" || r.Message != in.Message || r.Reasons[0].Code != "archived" || r.Input.Resource.Mode != "archived" {
		t.Errorf("got %+v, want what was decided", r)
	}
	// The default policy needs resource.id, by which templates are found, and not subject.id.
	if r.Input.Subject.ID != "" || r.Input.Resource.ID != "lobby" || !slices.Equal(r.Masked, []string{"subject.id"}) || r.NotReplayable {
		t.Errorf("got %+v of %+v, want the name alone masked", r.Masked, r.Input)
	}

	// Under rules that read the name it is recorded.
	named := compile(t, `default decision := {"allow": false}
decision := {"allow": true} if input.subject.id == "bob"`)
	live.Swap(named, "test")
	d := live.Decide(t.Context(), question())
	if r := records(t, log, decisionlog.Query{ID: d.ID})[0]; r.Input.Subject.ID != "ann" || slices.Contains(r.Masked, "subject.id") {
		t.Errorf("got %+v, want the name that the rules read", r)
	}
	live.Refuse("test", "r3", policy.Problems{{File: "p.rego", Line: 3, Reason: "no"}})
	events := records(t, log, decisionlog.Query{Events: true})
	if len(events) != 2 || events[0].Event != decisionlog.EventLive || events[1].Event != decisionlog.EventRefused || events[1].Detail != "p.rego:3: no" {
		t.Errorf("got %+v, want what happened", events)
	}
	blocked := live.Blocked()
	if blocked[policy.Blocked{Action: gate.MessageSend, Code: "archived"}] != 2 || blocked[policy.Blocked{Action: gate.MessageSend, Code: "denied"}] != 1 {
		t.Errorf("got %v, want the refusals by code", blocked)
	}
}

// What the policy cannot decide is recorded, also where it is let through.
func TestFailuresAreRecorded(t *testing.T) {
	log := newLog(t, func(c *decisionlog.Config) { c.Sample, c.PerMinute = nil, 0 })
	live := policy.NewLive(compile(t, only(`7`)), "test", quiet())
	live.RecordTo(log)
	live.AllowOnError([]string{gate.Typing})
	for _, action := range []string{gate.MessageSend, gate.Typing} {
		in := gate.Sample(action)
		in.Subject.ID = "bob"
		live.Decide(t.Context(), in)
	}
	got := records(t, log, decisionlog.Query{})
	if len(got) != 2 || !got[0].Failed || got[0].Allow || got[0].Reasons[0].Code != "policy_error" || !got[1].Failed || !got[1].Allow {
		t.Errorf("got %+v, want both failures", got)
	}
}

func TestBlockedIsBounded(t *testing.T) {
	live := policy.NewLive(compile(t, `decision := {"allow": false, "reasons": [{"code": input.subject.id}]}`), "test", quiet())
	for i := range 1000 {
		in := question()
		in.Subject.ID = fmt.Sprint("c", i)
		live.Decide(t.Context(), in)
	}
	blocked := live.Blocked()
	if n := blocked[policy.Blocked{Action: gate.MessageSend, Code: "other"}]; len(blocked) > 300 || n < 700 {
		t.Errorf("got %d codes, %d of them other, want few codes and the rest together", len(blocked), n)
	}
}

// TestCacheIsAudited poisons an answer and demands that it is found, set right,
// told, and that this cache answers nothing any more.
func TestCacheIsAudited(t *testing.T) {
	var said bytes.Buffer
	decisions := newLog(t)
	e := compile(t, `default decision := {"allow": true}
decision := {"allow": false, "reasons": ["No."]} if input.subject.muted`)
	live := policy.NewLive(e, "test", slog.New(slog.NewTextHandler(&said, nil)))
	live.RecordTo(decisions)
	in := question()
	in.Subject.Muted = true
	policy.Poison(e, in, gate.Decision{Allow: true, Revision: "r1"})
	wrong := 0
	for live.Stats().CacheWrong == 0 {
		if d := live.Decide(t.Context(), in); d.Allow {
			wrong++
		}
		if wrong > 1_000_000 {
			t.Fatal("a million wrong answers, and none was checked")
		}
	}
	for range 10 {
		if d := live.Decide(t.Context(), in); d.Allow || d.Cached {
			t.Fatalf("got %+v, want the rules to answer from here on", d)
		}
	}
	if st := live.Status(); !st.CacheOff || st.Stats.CacheAudits == 0 || st.Stats.CacheWrong != 1 {
		t.Errorf("got %+v, want the cache off", st.Stats)
	}
	if !strings.Contains(said.String(), "POLICY CACHE SWITCHED OFF") {
		t.Errorf("got log %s, want an alarm", said.String())
	}
	if got := records(t, decisions, decisionlog.Query{Events: true}); len(got) != 1 || got[0].Event != decisionlog.EventCacheOff {
		t.Errorf("got %+v, want the event", got)
	}
	live.Swap(compile(t, `decision := {"allow": true}`), "test")
	live.Decide(t.Context(), in)
	if d := live.Decide(t.Context(), in); !d.Cached || live.Status().CacheOff {
		t.Errorf("got %+v, want the next engine with a cache of its own", d)
	}
}

// A sound cache is checked over and over and found right.
func TestAuditsPass(t *testing.T) {
	live := policy.NewLive(benchPolicy(t), "test", quiet())
	in := question()
	for live.Stats().CacheAudits < 3 {
		live.Decide(t.Context(), in)
	}
	if st := live.Status(); st.CacheOff || st.Stats.CacheWrong > 0 {
		t.Errorf("got %+v, want nothing wrong", st.Stats)
	}
}

func benchPolicy(t testing.TB) *policy.Engine {
	t.Helper()
	e, err := patient().Compile(t.Context(), rego.Files(), rego.Revision)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestExplain(t *testing.T) {
	e, err := patient().Compile(t.Context(), policy.Files{"p.rego": []byte(`package parley

default decision := {"allow": true}

# Muted people read on,
# and write elsewhere.
decision := {"allow": false, "reasons": [{"code": "muted", "text": "You are muted."}]} if {
	quiet
}

quiet if input.subject.muted

# Nobody asks.
other if input.subject.banned
`)}, "r1")
	if err != nil {
		t.Fatal(err)
	}
	in := question()
	in.Subject.Muted = true
	x, err := e.Explain(t.Context(), in)
	if err != nil || x.Decision.Allow || len(x.Rules) != 2 {
		t.Fatalf("got %+v, %v, want the two rules that held", x, err)
	}
	if r := x.Rules[1]; r.File != "p.rego" || r.Line != 7 || r.Name != "parley.decision" || r.Words != "Muted people read on, and write elsewhere." {
		t.Errorf("got %+v, want the rule in its author's words", r)
	}
	if r := x.Rules[0]; r.Line != 11 || r.Words != "quiet if input.subject.muted" {
		t.Errorf("got %+v, want how the rule begins where nothing is said", r)
	}
	if !strings.Contains(x.Trace, "p.rego:11") || !strings.Contains(x.Trace, "input.subject.muted") {
		t.Errorf("got trace %s", x.Trace)
	}
	d, rule, ok := e.Blame(t.Context(), in)
	if !ok || rule.Line != 7 || d.Reasons[0].Code != "muted" {
		t.Errorf("blame: got %+v, %v, want the rule of the code", rule, ok)
	}
	_, rule, ok = e.Blame(t.Context(), question())
	if !ok || rule.Line != 3 || !strings.HasPrefix(rule.Words, "unless a rule says otherwise: ") {
		t.Errorf("blame: got %+v, %v, want the default", rule, ok)
	}
	if x, err := compile(t, only("7")).Explain(t.Context(), bobs()); err == nil || !x.Decision.Failed {
		t.Errorf("got %+v, %v, want why it cannot decide", x.Decision, err)
	}
}

// TestRefusers names the rule of each reason, by its sentence where two rules
// have one code.
func TestRefusers(t *testing.T) {
	e, err := patient().Compile(t.Context(), policy.Files{"p.rego": []byte(`package parley

decision := {"allow": count(no) == 0, "reasons": no}

# Muted people are quiet.
no contains {"code": "quiet", "text": "You are muted."} if input.subject.muted

# So are banned ones.
no contains {"code": "quiet", "text": "You are banned."} if input.subject.banned

no contains {"code": "late", "text": sprintf("Wait %d.", [input.context.slow_wait_s])} if input.context.slow_wait_s > 0

no contains {"code": concat("_", ["made", "up"])} if input.subject.type == "user"
`)}, "r1")
	if err != nil {
		t.Fatal(err)
	}
	in := question()
	in.Subject.Type = "user"
	in.Subject.Muted, in.Subject.Banned, in.Context.SlowWaitS = true, true, 7
	d, rules := e.Refusers(t.Context(), in)
	if d.Allow || len(d.Reasons) != 4 || len(rules) != 4 {
		t.Fatalf("got %+v, %+v, want a rule for each of four reasons", d, rules)
	}
	want := map[string]int{"You are muted.": 6, "You are banned.": 9, "Wait 7.": 11, "": 0}
	for i, r := range d.Reasons {
		if got := rules[i]; got.Line != want[r.Text] || got.Line > 0 && (got.File != "p.rego" || got.Name != "parley.no") {
			t.Errorf("%s %q: got %+v, want line %d", r.Code, r.Text, got, want[r.Text])
		}
	}
	if d, rules := compile(t, only("7")).Refusers(t.Context(), bobs()); !d.Failed || len(rules) != len(d.Reasons) || rules[0] != (gate.Rule{}) {
		t.Errorf("a failure: got %+v, %+v, want no rule", d, rules)
	}
}

func bobs() *gate.Input {
	in := question()
	in.Subject.ID = "bob"
	return in
}

// A trace that does not end is cut.
func TestExplainIsBounded(t *testing.T) {
	x, err := compile(t, endless).Explain(t.Context(), bobs())
	if err == nil || len(x.Trace) > 1<<20+100 || !strings.HasSuffix(x.Trace, "the trace goes on\n") {
		t.Errorf("got %d bytes of trace, %v, want it cut", len(x.Trace), err)
	}
}

func TestSame(t *testing.T) {
	slow, slower, again := 3, 4, 3
	base := gate.Decision{Allow: true, Obligations: gate.Obligations{SlowModeS: &slow}}
	for name, tt := range map[string]struct {
		other gate.Decision
		want  bool
	}{
		"equal":       {gate.Decision{Allow: true, Obligations: gate.Obligations{SlowModeS: &again}, Revision: "r", ID: "x", Cached: true}, true},
		"no reasons":  {gate.Decision{Allow: true, Reasons: []chat.Reason{}, Obligations: gate.Obligations{SlowModeS: &again}}, true},
		"answer":      {gate.Decision{Obligations: gate.Obligations{SlowModeS: &again}}, false},
		"obligation":  {gate.Decision{Allow: true, Obligations: gate.Obligations{SlowModeS: &slower}}, false},
		"obligations": {gate.Decision{Allow: true}, false},
		"reasons":     {gate.Decision{Allow: true, Reasons: []chat.Reason{{Code: "x"}}, Obligations: gate.Obligations{SlowModeS: &again}}, false},
		"failed":      {gate.Decision{Allow: true, Failed: true, Obligations: gate.Obligations{SlowModeS: &again}}, false},
	} {
		if got := policy.Same(&base, &tt.other); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}
