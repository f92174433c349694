package policy_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/chat"
	"parley/core/gate"
	"parley/policy"
	"parley/policy/rego"
)

// patient are the default options with time to spare: the race detector on a
// busy machine must not turn into a policy_error.
func patient() policy.Options {
	o := policy.Defaults()
	o.EvalTimeout = time.Minute
	o.TestTimeout = time.Minute
	return o
}

// compile returns the engine of one file below package parley.
func compile(t testing.TB, rules string) *policy.Engine {
	t.Helper()
	e, err := patient().Compile(t.Context(), policy.Files{"p.rego": []byte("package parley\n" + rules)}, "r1")
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	return e
}

// question is a guest's message to an open public room.
func question() *gate.Input {
	return &gate.Input{
		Subject:  gate.Subject{Type: "guest", ID: "ann", Roles: []string{}},
		Action:   gate.Action{Name: gate.MessageSend},
		Resource: gate.Resource{Type: "room", ID: "lobby", Exists: true, Mode: "open", Visibility: "public"},
		Context:  gate.Context{Transport: "ws", Network: "public", TextBytes: 5},
	}
}

func ptr[T any](v T) *T { return &v }

func TestDecisionForms(t *testing.T) {
	denied := "The rules of this server do not allow this."
	tests := []struct {
		name, rules string
		want        gate.Decision
	}{
		{"minimal", `default decision := {"allow": true}`, gate.Decision{Allow: true}},
		{"minimal no", `default decision := {"allow": false}`, gate.Decision{
			Reasons: []chat.Reason{{Code: "denied", Text: denied, Source: "policy"}}}},
		{"reason as string", `decision := {"allow": false, "reasons": ["Not on Sundays."]}`, gate.Decision{
			Reasons: []chat.Reason{{Code: "denied", Text: "Not on Sundays.", Source: "policy"}}}},
		{"reason as object", `decision := {"allow": false, "reasons": [{"code": "sunday", "text": "Not on Sundays."}]}`, gate.Decision{
			Reasons: []chat.Reason{{Code: "sunday", Text: "Not on Sundays.", Source: "policy"}}}},
		{"reason without text", `decision := {"allow": false, "reasons": [{"code": "sunday"}]}`, gate.Decision{
			Reasons: []chat.Reason{{Code: "sunday", Text: denied, Source: "policy"}}}},
		{"reasons as a set", `decision := {"allow": false, "reasons": {"b.", "a."}}`, gate.Decision{
			Reasons: []chat.Reason{{Code: "denied", Text: "a.", Source: "policy"}, {Code: "denied", Text: "b.", Source: "policy"}}}},
		{"empty reason", `decision := {"allow": false, "reasons": [""]}`, gate.Decision{
			Reasons: []chat.Reason{{Code: "denied", Text: denied, Source: "policy"}}}},
		{"controls in a reason", `decision := {"allow": false, "reasons": ["a\nb\u202ec"]}`, gate.Decision{
			Reasons: []chat.Reason{{Code: "denied", Text: "a b c", Source: "policy"}}}},
		{"nulls are absent", `decision := {"allow": true, "reasons": null, "obligations": null}`, gate.Decision{Allow: true}},
		{"obligations", `decision := {"allow": true, "obligations": {"rate_limit": {"count": 3, "per_s": 60}, "slow_mode_s": 10, "plugins": ["links", "wordlist"], "history": 0, "text_bytes": 280}}`,
			gate.Decision{Allow: true, Obligations: gate.Obligations{
				RateLimit: &gate.RateLimit{Count: 3, PerS: 60}, SlowModeS: ptr(10),
				Plugins: []string{"links", "wordlist"}, History: ptr(0), TextBytes: ptr(280)}}},
		{"no plugins", `decision := {"allow": true, "obligations": {"plugins": []}}`,
			gate.Decision{Allow: true, Obligations: gate.Obligations{Plugins: []string{}}}},
		{"a new room", `decision := {"allow": true, "obligations": {"room": {"title": "News", "mode": "announce", "visibility": null, "slow_mode_s": 5}}}`,
			gate.Decision{Allow: true, Obligations: gate.Obligations{
				Room: &gate.RoomSettings{Title: "News", Mode: "announce", Visibility: "public", SlowModeS: 5}}}},
		{"rules that build the document", "decision.allow := false\ndecision.reasons contains \"x.\"", gate.Decision{
			Reasons: []chat.Reason{{Code: "denied", Text: "x.", Source: "policy"}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := compile(t, tt.rules)
			tt.want.Revision = "r1"
			if got := e.Decide(t.Context(), question()); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("first: got %+v, want %+v", got, tt.want)
			}
			tt.want.Cached = true
			if got := e.Decide(t.Context(), question()); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("second: got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// only makes a rule hold for the question's subject "bob" alone, which no trial
// asks about.
func only(decision string) string {
	return "default decision := {\"allow\": true}\ndecision := " + decision + ` if input.subject.id == "bob"`
}

func TestDecisionFailures(t *testing.T) {
	tests := []struct{ name, rules, cause string }{
		{"not an object", only(`7`), "is a number, not an object"},
		{"no allow", only(`{"reasons": []}`), "has no field allow"},
		{"allow is text", only(`{"allow": "yes"}`), "allow is a string"},
		{"unknown field", only(`{"allow": true, "reason": "x"}`), `unknown field "reason"`},
		{"reasons is text", only(`{"allow": false, "reasons": "x"}`), "reasons is a string"},
		{"reason is a number", only(`{"allow": false, "reasons": [1]}`), "a reason is a number"},
		{"reason with a typo", only(`{"allow": false, "reasons": [{"cod": "x"}]}`), `unknown field "cod"`},
		{"reason code", only(`{"allow": false, "reasons": [{"code": "Not OK"}]}`), "code \"Not OK\""},
		{"reason text", only(`{"allow": false, "reasons": [{"text": 1}]}`), "text is a number"},
		{"obligations is a list", only(`{"allow": true, "obligations": []}`), "obligations is a array"},
		{"unknown obligation", only(`{"allow": true, "obligations": {"ratelimit": 1}}`), `unknown field "ratelimit"`},
		{"rate limit without window", only(`{"allow": true, "obligations": {"rate_limit": {"count": 1}}}`), "needs both"},
		{"rate limit window", only(`{"allow": true, "obligations": {"rate_limit": {"count": 1, "per_s": 0}}}`), "per_s is 0"},
		{"rate limit shape", only(`{"allow": true, "obligations": {"rate_limit": 5}}`), "not {count, per_s}"},
		{"rate limit field", only(`{"allow": true, "obligations": {"rate_limit": {"per": 5}}}`), `unknown field "per"`},
		{"slow mode below zero", only(`{"allow": true, "obligations": {"slow_mode_s": -1}}`), "slow_mode_s is -1"},
		{"slow mode fraction", only(`{"allow": true, "obligations": {"slow_mode_s": 1.5}}`), "slow_mode_s is 1.5"},
		{"slow mode text", only(`{"allow": true, "obligations": {"slow_mode_s": "1"}}`), "slow_mode_s is a string"},
		{"plugin is a number", only(`{"allow": true, "obligations": {"plugins": [1]}}`), "plugins has a number"},
		{"plugin without name", only(`{"allow": true, "obligations": {"plugins": [""]}}`), "name of 0 bytes"},
		{"too many plugins", only(`{"allow": true, "obligations": {"plugins": [sprintf("p%d", [x]) | some x in split("` + strings.Repeat("a,", 70) + `", ",")]}}`), "more than 64 names"},
		{"plugins is text", only(`{"allow": true, "obligations": {"plugins": "x"}}`), "plugins is a string"},
		{"room shape", only(`{"allow": true, "obligations": {"room": "x"}}`), "not {title, mode, visibility, slow_mode_s}"},
		{"room field", only(`{"allow": true, "obligations": {"room": {"topic": "x"}}}`), `unknown field "topic"`},
		{"room mode", only(`{"allow": true, "obligations": {"room": {"mode": "closed"}}}`), `mode "closed" is not one of`},
		{"room visibility", only(`{"allow": true, "obligations": {"room": {"visibility": "x"}}}`), `visibility "x" is neither`},
		{"room title", only(`{"allow": true, "obligations": {"room": {"title": 1}}}`), "room.title is a number"},
		{"room slow mode", only(`{"allow": true, "obligations": {"room": {"slow_mode_s": 21601}}}`), "room.slow_mode_s is 21601"},
		{"key is a number", only(`{1: true, "allow": true}`), "has a key that is a number"},
		{"undefined", `decision := {"allow": true} if input.subject.id != "bob"`, "is undefined"},
		{"builtin error", only(`{"allow": to_number(input.subject.id) == 1}`), "to_number"},
		{"two answers", only(`{"allow": true}`) + "\ndecision := {\"allow\": false} if input.subject.id == \"bob\"", "conflicting values"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := compile(t, tt.rules)
			in := question()
			in.Subject.ID = "bob"
			want := gate.Decision{Failed: true, Revision: "r1"}
			for range 2 { // a failed decision is never cached
				got := e.Decide(t.Context(), in)
				if len(got.Reasons) != 1 || got.Reasons[0].Code != "policy_error" || strings.Contains(got.Reasons[0].Text, tt.cause) {
					t.Fatalf("reasons: got %+v, want one policy_error without the cause", got.Reasons)
				}
				got.Reasons = nil
				if !reflect.DeepEqual(got, want) {
					t.Errorf("got %+v, want %+v", got, want)
				}
			}
			if _, err := e.Evaluate(t.Context(), in); err == nil || !strings.Contains(err.Error(), tt.cause) {
				t.Errorf("cause: got %v, want it to say %q", err, tt.cause)
			}
		})
	}
}

func TestReasonsAreBounded(t *testing.T) {
	e := compile(t, `decision := {"allow": false, "reasons": [sprintf("%s %d", [long, i]) | some i, _ in split("`+strings.Repeat("a", 39)+`", "")]}
long := concat("", ["ä" | some _ in split("`+strings.Repeat("a", 999)+`", "")])`)
	got := e.Decide(t.Context(), question()).Reasons
	if len(got) != 8 {
		t.Fatalf("got %d reasons, want 8", len(got))
	}
	for _, r := range got {
		if len(r.Text) > 512 || !strings.HasSuffix(r.Text, "ä…") {
			t.Errorf("got a reason of %d bytes ending in %q, want at most 512, cut between characters", len(r.Text), r.Text[len(r.Text)-8:])
		}
	}
}

// endless asks for 10^8 steps when bob asks.
const endless = `default decision := {"allow": true}
decision := {"allow": n > 0} if {
	input.subject.id == "bob"
	d := [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
	n := count([1 | some a in d; some b in d; some c in d; some e in d; some f in d; some g in d; some h in d; some i in d; a + b + c + e + f + g + h + i == 100])
}`

func TestBoundsDeny(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*policy.Options)
		want   string
	}{
		"steps": {func(o *policy.Options) { o.EvalSteps = 1000 }, "more than 1000 steps"},
		"time":  {func(o *policy.Options) { o.EvalSteps, o.EvalTimeout = 1<<40, time.Millisecond }, "more than 1ms"},
	} {
		t.Run(name, func(t *testing.T) {
			o := patient()
			tt.change(&o)
			e, err := o.Compile(t.Context(), policy.Files{"p.rego": []byte("package parley\n" + endless)}, "r1")
			if err != nil {
				t.Fatal(err)
			}
			in := question()
			in.Subject.ID = "bob"
			if d := e.Decide(t.Context(), in); !d.Failed || d.Allow {
				t.Errorf("got %+v, want a failed decision", d)
			}
			if _, err := e.Evaluate(t.Context(), in); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to name the bound", err)
			}
		})
	}
}

func TestCancelledCallerDenies(t *testing.T) {
	e := compile(t, endless)
	in := question()
	in.Subject.ID = "bob"
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := e.Evaluate(ctx, in); !d.Failed || err == nil {
		t.Errorf("got %+v, %v, want a failed decision", d, err)
	}
}

func TestDefaultPolicy(t *testing.T) {
	e, err := patient().Compile(t.Context(), rego.Files(), rego.Revision)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(e.Reads(), " "), "subject.type subject.roles subject.new_account subject.room_role subject.banned subject.muted action.name action.role action.changes action.mode resource.mode resource.visibility resource.direct resource.template target.type target.self target.room_role context.slow_wait_s context.periods context.networks"; got != want {
		t.Errorf("reads: got %s, want %s", got, want)
	}
	in := question()
	in.Resource.Mode = "announce"
	d := e.Decide(t.Context(), in)
	if d.Allow || len(d.Reasons) != 1 || d.Reasons[0].Code != "moderators_write" || d.Revision != rego.Revision {
		t.Errorf("got %+v, want a refusal with code moderators_write", d)
	}
}

func TestPolicyDataIsConfiguration(t *testing.T) {
	e, err := patient().Compile(t.Context(), policy.Files{
		"p.rego":               []byte("package parley\ndecision := {\"allow\": input.subject.id in data.lists.staff, \"reasons\": [data.lists.text, sprintf(\"%v\", [data.lists.deep.big])]}"),
		"lists/data.json":      []byte(`{"staff": ["eve"], "text": "Staff only."}`),
		"lists/deep/data.yaml": []byte("big: 9007199254740993\n"),
		"data.json":            []byte(`{"lists": {"more": 1}}`),
	}, "r1")
	if err != nil {
		t.Fatal(err)
	}
	d := e.Decide(t.Context(), question())
	if d.Allow || len(d.Reasons) != 2 || d.Reasons[0].Text != "Staff only." || d.Reasons[1].Text != "9007199254740993" {
		t.Errorf("got %+v, want a refusal that quotes the data", d)
	}
	in := question()
	in.Subject.ID = "eve"
	if d := e.Decide(t.Context(), in); !d.Allow {
		t.Errorf("got %+v, want eve allowed", d)
	}
}

func TestCacheOff(t *testing.T) {
	o := patient()
	o.CacheEntries = 0
	e, err := o.Compile(t.Context(), rego.Files(), "r1")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if d := e.Decide(t.Context(), question()); !d.Allow || d.Cached {
			t.Errorf("got %+v, want an uncached yes", d)
		}
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func TestMain(m *testing.M) {
	code := m.Run()
	if childDir != "" {
		_ = os.RemoveAll(childDir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
