package preview_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/policy"
	"parley/policy/decisionlog"
	"parley/policy/preview"
	"parley/policy/rego"
)

func compile(t testing.TB, revision, rules string) *policy.Engine {
	t.Helper()
	o := policy.Defaults()
	o.EvalTimeout = time.Minute
	e, err := o.Compile(t.Context(), policy.Files{"p.rego": []byte("package parley\n\n" + rules)}, revision)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// recorded asks e and returns the log's records, as a server makes them.
func recorded(t testing.TB, e *policy.Engine, edit func(*decisionlog.Config), questions ...*gate.Input) []*decisionlog.Record {
	t.Helper()
	cfg := decisionlog.Defaults()
	cfg.Sample = []string{"*=1"}
	if edit != nil {
		edit(&cfg)
	}
	quiet := slog.New(slog.DiscardHandler)
	log, err := decisionlog.New(cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	live := policy.NewLive(e, "test", quiet)
	live.RecordTo(log)
	for _, in := range questions {
		live.Decide(t.Context(), in)
	}
	page, err := log.Find(decisionlog.Query{Limit: decisionlog.MaxPage})
	if err != nil {
		t.Fatal(err)
	}
	return page.Records
}

func ask(action, user string, edit ...func(*gate.Input)) *gate.Input {
	in := gate.Sample(action)
	in.Subject.ID = user
	for _, f := range edit {
		f(in)
	}
	return in
}

func muted(in *gate.Input) { in.Subject.Muted = true }

const (
	before = `default decision := {"allow": true}

# Muted people read on.
decision := {"allow": false, "reasons": [{"code": "muted", "text": "You are muted."}]} if input.subject.muted
`
	after = `default decision := {"allow": true}

# Only eve writes.
decision := {"allow": false, "reasons": [{"code": "eve_writes", "text": "Eve writes here."}]} if {
	input.action.name == "message.send"
	input.subject.id != "eve"
}

# Joining is slow.
decision := {"allow": true, "obligations": {"history": 5}} if input.action.name == "room.join"
`
)

func TestCompare(t *testing.T) {
	old, fresh := compile(t, "r1", before), compile(t, "r2", after)
	records := recorded(t, old, nil,
		ask(gate.MessageSend, "ann"), ask(gate.MessageSend, "bob"), ask(gate.MessageSend, "eve"),
		ask(gate.MessageSend, "eve", muted), ask(gate.MessageSend, "dan", muted), ask(gate.RoomJoin, "ann"), ask(gate.Connect, "ann"))
	r := preview.Compare(t.Context(), old, fresh, records, time.Minute)
	if r.Old != "r1" || r.New != "r2" || r.Replayed != 7 || r.Changed != 4 || r.Recorded != 7 || r.Unequal != 0 || r.Late+r.Unreplayable != 0 {
		t.Fatalf("got %+v, want 4 of 7 changed", r)
	}
	type row struct {
		kind   preview.Kind
		action string
		count  int
		rule   string
	}
	want := []row{
		{preview.AllowToDeny, gate.MessageSend, 2, "p.rego:6 Only eve writes."},
		{preview.DenyToAllow, gate.MessageSend, 1, "p.rego:6 Muted people read on."},
		{preview.Obligations, gate.RoomJoin, 1, "p.rego:12 Joining is slow."},
		{preview.Reasons, gate.MessageSend, 1, "p.rego:6 Only eve writes."},
	}
	if len(r.Changes) != len(want) {
		t.Fatalf("got %+v, want %d changes", r.Changes, len(want))
	}
	for i, w := range want {
		c := r.Changes[i]
		rule := fmt.Sprintf("%s:%d %s", c.Rule.File, c.Rule.Line, c.Rule.Words)
		if c.Kind != w.kind || c.Action != w.action || c.Count != w.count || !strings.HasPrefix(rule, w.rule) {
			t.Errorf("got %s %s %d by %s, want %+v", c.Kind, c.Action, c.Count, rule, w)
		}
	}
	x := r.Changes[0].Example
	if x.Input.Subject.ID != "bob" || !x.Old.Allow || x.New.Reasons[0].Code != "eve_writes" || x.ID != records[1].ID {
		t.Errorf("got example %+v, want the newest, with both answers", x)
	}
	if got, want := r.Summary(), "4 of 7 recorded decisions change: 2 to refused, 1 to allowed, 1 in their conditions"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var text, markdown bytes.Buffer
	if err := errors.Join(r.WriteText(&text), r.WriteMarkdown(&markdown)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"r1 -> r2", "2 x message.send: allowed before, refused now", `guest "bob" in "lobby"`, "after    refused, eve_writes: Eve writes here.", `allowed with {"history":5}`} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("got text without %q:\n%s", want, text.String())
		}
	}
	if want := "| 2 | `message.send` | allowed before, refused now | `p.rego:6` Only eve writes. |"; !strings.Contains(markdown.String(), want) {
		t.Errorf("got markdown without %q:\n%s", want, markdown.String())
	}
	if b, err := json.Marshal(r); err != nil || !strings.Contains(string(b), `"kind":"allow_to_deny"`) {
		t.Errorf("got %s, %v", b, err)
	}
}

func TestCompareLeavesOut(t *testing.T) {
	old, fresh := compile(t, "r1", before), compile(t, "r2", after)
	// r1 does not read the name, so it is masked; r2 does, so nothing can be said.
	records := recorded(t, old, func(c *decisionlog.Config) { c.Mask = []string{"subject.id"} }, ask(gate.MessageSend, "ann"))
	if r := preview.Compare(t.Context(), old, fresh, records, time.Minute); r.Unreplayable != 1 || r.Replayed != 0 {
		t.Errorf("masked: got %+v, want it left out and counted", r)
	}
	if r := preview.Compare(t.Context(), old, old, records, time.Minute); r.Replayed != 1 || r.Changed != 0 {
		t.Errorf("masked, and read by neither: got %+v, want it replayed", r)
	}
	if r := preview.Compare(t.Context(), old, fresh, records, 0); r.Late != 0 || r.Unreplayable != 1 {
		t.Errorf("no time: got %+v", r)
	}
	records = recorded(t, old, nil, ask(gate.MessageSend, "ann"), ask(gate.MessageSend, "bob"))
	if r := preview.Compare(t.Context(), old, fresh, records, 0); r.Late != 2 || r.Replayed != 0 || r.Share() != 0 {
		t.Errorf("no time: got %+v, want them counted as late", r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := preview.Compare(ctx, old, fresh, records, time.Minute); r.Replayed != 0 {
		t.Errorf("cancelled: got %+v", r)
	}
	var text bytes.Buffer
	r := preview.Report{Late: 3, Unreplayable: 2, Recorded: 9, Unequal: 1}
	if err := r.WriteText(&text); err != nil || !strings.Contains(text.String(), "for want of time") || !strings.Contains(text.String(), "policy.log.mask") || !strings.Contains(text.String(), "1 of 9 records are not") {
		t.Errorf("got %s, %v, want all of it said", text.String(), err)
	}
}

// A record that its own revision does not give is a node or a cache gone wrong.
func TestCompareFindsWhatIsNotEqual(t *testing.T) {
	old := compile(t, "r1", before)
	records := recorded(t, old, nil, ask(gate.MessageSend, "ann"), ask(gate.MessageSend, "bob"))
	forged := *records[0]
	forged.Allow, forged.Reasons = false, []chat.Reason{{Code: "x", Text: "y", Source: "policy"}}
	records[0] = &forged
	r := preview.Compare(t.Context(), old, old, records, time.Minute)
	if r.Recorded != 2 || r.Unequal != 1 || r.UnequalExample == nil || r.UnequalExample.ID != forged.ID || r.Changed != 0 {
		t.Errorf("got %+v, want the forged record found", r)
	}
}

func TestReportsAreBounded(t *testing.T) {
	var rules strings.Builder
	rules.WriteString("default decision := {\"allow\": true}\n")
	for i := range 100 {
		fmt.Fprintf(&rules, "decision := {\"allow\": false, \"reasons\": [{\"code\": \"c%d\"}]} if input.subject.id == \"u%d\"\n", i, i)
	}
	old, fresh := compile(t, "r1", before), compile(t, "r2", rules.String())
	var questions []*gate.Input
	for i := range 100 {
		questions = append(questions, ask(gate.MessageSend, fmt.Sprint("u", i)))
	}
	r := preview.Compare(t.Context(), old, fresh, recorded(t, old, nil, questions...), time.Minute)
	sum := 0
	for _, c := range r.Changes {
		sum += c.Count
	}
	if len(r.Changes) != 64 || sum != 100 || r.Changed != 100 {
		t.Errorf("got %d changes of %d decisions, want 64 of 100", len(r.Changes), sum)
	}
}

func guard(t testing.TB, keep ...string) (g preview.Guard) {
	t.Helper()
	for _, text := range keep {
		k, err := preview.ParseKeep(text)
		if err != nil {
			t.Fatal(err)
		}
		g.Keep = append(g.Keep, k)
	}
	return g
}

func TestGuardBounds(t *testing.T) {
	old := compile(t, "r1", before)
	report := func(changed, replayed int) *preview.Report {
		return &preview.Report{Changed: changed, Replayed: replayed}
	}
	for name, tt := range map[string]struct {
		g      preview.Guard
		report *preview.Report
		want   string
	}{
		"no bound":         {preview.Guard{}, report(1000, 1000), ""},
		"within number":    {preview.Guard{MaxChanged: 5}, report(5, 1000), ""},
		"beyond number":    {preview.Guard{MaxChanged: 5}, report(6, 1000), "changes 6 of 1000 replayed decisions, policy.guard.max_changed allows 5"},
		"within share":     {preview.Guard{MaxShare: 10}, report(10, 100), ""},
		"beyond share":     {preview.Guard{MaxShare: 10}, report(11, 100), "changes 11.0 % of 100 replayed decisions, policy.guard.max_share allows 10 %"},
		"share of too few": {preview.Guard{MaxShare: 10}, report(19, 19), ""},
	} {
		err := tt.g.Check(t.Context(), tt.report, old, old)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
		var problems policy.Problems
		var over interface{ Overridable() bool }
		if err != nil && (!errors.As(err, &problems) || !errors.As(err, &over) || !over.Overridable()) {
			t.Errorf("%s: got %T, want Problems that can be overridden", name, err)
		}
	}
}

func TestGuardKeepsOperators(t *testing.T) {
	o := policy.Defaults()
	o.EvalTimeout, o.TestTimeout = time.Minute, time.Minute
	old, err := o.Compile(t.Context(), rego.Files(), rego.Revision)
	if err != nil {
		t.Fatal(err)
	}
	g := guard(t, "role:admin connect", "role:admin moderate.review", "user:olga moderate.review lobby")
	if got := g.Missing(t.Context(), old); len(got) != 1 || got[0] != "user:olga moderate.review lobby" {
		t.Errorf("got %v missing, want what the default policy does not allow", got)
	}
	fresh := compile(t, "r2", `default decision := {"allow": true}

# Nobody reviews.
decision := {"allow": false, "reasons": [{"code": "closed", "text": "Closed."}]} if input.action.name != "connect"
`)
	err = g.Check(t.Context(), &preview.Report{}, old, fresh)
	var exceeded *preview.Exceeded
	if !errors.As(err, &exceeded) || len(exceeded.Problems) != 1 {
		t.Fatalf("got %v, want the one lock-out", err)
	}
	if p := exceeded.Problems[0]; p.File != "p.rego" || p.Line != 6 ||
		p.Reason != `policy.guard: it locks out an operator: "role:admin moderate.review" is allowed now and would not be (closed: Closed.)` {
		t.Errorf("got %v, want who, what and by which rule", p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Check(ctx, &preview.Report{}, old, fresh); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestParseKeep(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "is not role:NAME ACTION",
		"role:admin":                    "is not role:NAME ACTION",
		"admin connect":                 "is not role:NAME ACTION",
		"role: connect":                 "is not role:NAME ACTION",
		"role:a connect x y":            "is not role:NAME ACTION",
		"role:admin conect":             "did you mean connect?",
		"role:admin message.send NO/NO": "names no room",
		"role:admin connect lobby":      "names no room",
	} {
		if _, err := preview.ParseKeep(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	if k, err := preview.ParseKeep("  user:olga   message.send news "); err != nil || k.String() != "user:olga message.send news" {
		t.Errorf("got %v, %v", k, err)
	}
}

// BenchmarkCompare is a thousand recorded decisions asked of two engines.
func BenchmarkCompare(b *testing.B) {
	o := policy.Defaults()
	e, err := o.Compile(b.Context(), rego.Files(), rego.Revision)
	if err != nil {
		b.Fatal(err)
	}
	var questions []*gate.Input
	for i := range 1000 {
		questions = append(questions, ask(gate.Actions()[i%len(gate.Actions())], fmt.Sprint("u", i)))
	}
	records := recorded(b, e, nil, questions...)
	for b.Loop() {
		if r := preview.Compare(b.Context(), e, e, records, time.Minute); r.Replayed != 1000 || r.Changed > 0 {
			b.Fatal(r)
		}
	}
}

// TestCompareAsksByTheNewHours: what was recorded at night is asked as it would
// be with the hours of the new data.
func TestCompareAsksByTheNewHours(t *testing.T) {
	o := policy.Defaults()
	o.EvalTimeout, o.TestTimeout = time.Minute, time.Minute
	now := time.Now().UTC()
	engine := func(revision string, day time.Weekday) *policy.Engine {
		t.Helper()
		files := rego.Files()
		files["parley/data.yaml"] = fmt.Appendf(nil, `
periods: {rest: [{days: [%s], from: "00:00", to: "24:00"}]}
templates: {all: {rooms: ["*"], quiet: [rest]}}
`, strings.ToLower(day.String()[:3]))
		e, err := o.Compile(t.Context(), files, revision)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	// The days are fixed by now, and so is the record: midnight may pass meanwhile.
	old, fresh := engine("r1", (now.Weekday()+3)%7), engine("r2", now.Weekday())
	records := recorded(t, old, nil, ask(gate.MessageSend, "ann", func(in *gate.Input) { in.Raw.Now = now }))
	late := *records[0]
	late.Time = now
	r := preview.Compare(t.Context(), old, fresh, []*decisionlog.Record{&late}, time.Minute)
	if r.Replayed != 1 || r.Unequal != 0 || len(r.Changes) != 1 || r.Changes[0].Kind != preview.AllowToDeny || r.Changes[0].Example.New.Reasons[0].Code != "quiet_hours" {
		t.Fatalf("got %+v, want the message refused in quiet hours", r)
	}
	if rule := r.Changes[0].Rule; rule == nil || rule.File != "settings.rego" {
		t.Errorf("got the rule %+v, want that of quiet hours", rule)
	}
}

// TestCompareSaysWhatNobodyKnows: networks that mean something else now are not
// replayed as if they were the same, where it matters.
func TestCompareSaysWhatNobodyKnows(t *testing.T) {
	o := policy.Defaults()
	o.EvalTimeout, o.TestTimeout = time.Minute, time.Minute
	engine := func(revision, office string) *policy.Engine {
		t.Helper()
		files := rego.Files()
		files["parley/data.yaml"] = fmt.Appendf(nil, "networks: {office: [%s]}\ntemplates: {team: {rooms: [team], networks: [office]}}\n", office)
		e, err := o.Compile(t.Context(), files, revision)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	old, fresh := engine("r1", "192.0.2.0/24"), engine("r2", "198.51.100.0/24")
	from := func(room string) *gate.Input {
		return ask(gate.MessageSend, "ann", func(in *gate.Input) {
			in.Resource.ID, in.Raw.Remote = room, netip.MustParseAddr("192.0.2.7")
		})
	}
	records := recorded(t, old, nil, from("team"), from("lobby"))
	r := preview.Compare(t.Context(), old, fresh, records, time.Minute)
	if r.Replayed != 1 || r.Unsure != 1 || r.Changed != 0 || r.Unequal != 0 {
		t.Fatalf("got %+v, want the lobby replayed and the team unsure", r)
	}
	if got := r.Summary(); !strings.HasPrefix(got, "0 of 1 recorded") || !strings.Contains(got, "of 1 more nobody can say") {
		t.Errorf("got %q", got)
	}
	if r := preview.Compare(t.Context(), old, engine("r3", "192.0.2.0/24"), records, time.Minute); r.Replayed != 2 || r.Unsure != 0 {
		t.Errorf("the same networks: got %+v, want both replayed", r)
	}
	r = preview.Report{Unsure: 3}
	if got := r.Summary(); got != "nothing recorded to replay; of 3 more nobody can say, since they hang on an address or an age" {
		t.Errorf("got %q", got)
	}
}
