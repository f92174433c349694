package policy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/child"
	"parley/core/gate"
	"parley/policy"
	"parley/policy/rego"
)

// childDir holds what plainChild builds; TestMain removes it.
var childDir string

// plainChild is a program that tries policies, built as the server is.
var plainChild = sync.OnceValues(func() (string, error) {
	var err error
	if childDir, err = os.MkdirTemp("", "parley-policy-trial-"); err != nil {
		return "", err
	}
	out := filepath.Join(childDir, "trial")
	cmd := exec.Command("go", "build", "-o", out, "./testdata/trial")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the child: %w\n%s", err, msg)
	}
	return out, nil
})

func trial(t testing.TB, edit ...func(*child.Limits)) policy.Trial {
	t.Helper()
	path, err := plainChild()
	if err != nil {
		t.Fatal(err)
	}
	tr := policy.DefaultTrial()
	tr.Command = []string{path}
	for _, f := range edit {
		f(&tr.Limits)
	}
	return tr
}

const open = "package parley\n\ndefault decision := {\"allow\": true}\n"

func TestTrialPasses(t *testing.T) {
	tr := trial(t)
	v, err := tr.Try(t.Context(), patient(), rego.Files(), []policy.Sample{{ID: "x", Input: *question()}})
	if err != nil || len(v.Problems)+len(v.Warnings) > 0 || v.Tests < 20 || len(v.Reads) < 10 {
		t.Fatalf("got %+v, %v, want it to pass", v, err)
	}
	e, err := tr.Build(t.Context(), patient(), rego.Files(), "r7", nil, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if d := e.Decide(t.Context(), question()); !d.Allow || d.Revision != "r7" {
		t.Errorf("got %+v, want the engine to decide", d)
	}
	if s := policy.NewLive(e, "test", quiet()).Status(); s.Tests != v.Tests {
		t.Errorf("got %d tests, want the %d that passed in the child", s.Tests, v.Tests)
	}
}

func TestTrialWarnsOfTheForm(t *testing.T) {
	var log bytes.Buffer
	files := policy.Files{"p.rego": []byte("package parley\ndefault   decision := {\"allow\": true}")}
	if _, err := trial(t).Build(t.Context(), patient(), files, "r1", nil, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "p.rego: it is not in the usual form") {
		t.Errorf("got log %s, want a warning", log.String())
	}
	changed, err := policy.Format(files)
	if err != nil || string(changed["p.rego"]) != open {
		t.Errorf("got %q, %v, want the usual form", changed["p.rego"], err)
	}
	if _, err := policy.Format(policy.Files{"p.rego": []byte("package")}); err == nil {
		t.Error("got no error for what does not parse")
	}
}

// A question that was asked in earnest and that the new rules cannot answer.
func TestTrialAsksSamples(t *testing.T) {
	files := policy.Files{"p.rego": []byte(open + "\ndecision := 7 if input.subject.id == \"bob\"\n")}
	in := question()
	in.Subject.ID = "bob"
	_, err := trial(t).Build(t.Context(), patient(), files, "r1", []policy.Sample{{ID: "06h1f93qbr000001", Input: *in}}, quiet())
	var problems policy.Problems
	if !errors.As(err, &problems) || !strings.Contains(err.Error(), "cannot answer what bob asked (message.send, decision 06h1f93qbr000001): data.parley.decision is malformed") {
		t.Errorf("got %v, want the decision named", err)
	}
}

// bomb nests comprehensions over ten digits: 10^8 arrays of eight.
const bomb = "[[a, b, c, e, f, g, h, i] | some a in d; some b in d; some c in d; some e in d; some f in d; some g in d; some h in d; some i in d]"

// TestHostilePolicies: each is refused for its cause, and this process lives.
func TestHostilePolicies(t *testing.T) {
	nest := func(open, inner, end string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	var chain strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&chain, "r%d if r%d\n", i, i+1)
	}
	quick := func(l *child.Limits) { l.CPU = 2 * time.Second }
	for _, tt := range []struct {
		name  string
		files policy.Files
		want  string
		edit  func(*child.Limits)
	}{
		{"http.send", policy.Files{"p.rego": []byte(open + `x := http.send({"method": "get", "url": "http://169.254.169.254/"})`)}, "p.rego:4: the builtin http.send is forbidden", nil},
		{"time.now_ns", policy.Files{"p.rego": []byte(open + "x := time.now_ns()")}, "p.rego:4: the builtin time.now_ns is forbidden", nil},
		{"opa.runtime", policy.Files{"p.rego": []byte(open + "x := opa.runtime().env")}, "p.rego:4: the builtin opa.runtime is forbidden", nil},
		{"opa.runtime by with", policy.Files{"p.rego": []byte(open + "x if count([]) == 0 with count as opa.runtime")}, "p.rego:4", nil},
		{"bits.lsh", policy.Files{"p.rego": []byte(open), "p_test.rego": []byte("package parley_test\n\ntest_x if bits.lsh(1, 99999999999) > 0\n")}, "p_test.rego:3: the builtin bits.lsh is forbidden", nil},
		{"rules in a circle", policy.Files{"p.rego": []byte(open + "x if y\n\ny if x\n")}, "recursive", nil},
		{"deep arrays", policy.Files{"p.rego": []byte(open + "x := " + nest("[", "1", "]", 200_000))}, "max parsing recursion depth exceeded", nil},
		{"deep data", policy.Files{"p.rego": []byte(open), "data.json": []byte(`{"a":` + nest("[", "", "]", 450_000) + `}`)}, "exceeded max depth", nil},
		{"deep comprehensions", policy.Files{"p.rego": []byte(open + "x := " + nest("[y | y := ", "1", "]", 3000))}, "p.rego:4: the rule has 3001 expressions", nil},
		{"comprehensions in a test", policy.Files{"p.rego": []byte(open), "p_test.rego": []byte("package parley_test\n\nd := [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n\ntest_x if count(" + bomb + ") > 0\n")},
			"the child process that tried it died: it needs more than 512 MiB of memory (RLIMIT_AS)", nil},
		{"comprehensions in a decision", policy.Files{"p.rego": []byte(open + "d := [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n\ndecision := {\"allow\": count(" + bomb + ") > 0} if input.subject.type == \"guest\"\n")}, "more than 20000 steps", nil},
		{"rules that take the compiler's time", policy.Files{"p.rego": []byte(open + chain.String() + "r20000 := true\n")},
			"the child process that tried it died: it used more than 2s of processor time (RLIMIT_CPU)", quick},
		{"100 MB of data", policy.Files{"p.rego": []byte(open), "data.json": bytes.Repeat([]byte(" "), 100<<20)}, "data.json: the file has 104857600 bytes, at most 1048576 are allowed", nil},
		{"aliases that grow", policy.Files{"p.rego": []byte(open), "data.yaml": []byte(aliases())}, "data.yaml: yaml: document contains excessive aliasing", nil},
		{"conflicting defaults", policy.Files{"p.rego": []byte(open + "default decision := {\"allow\": false}\n")}, "multiple default rules", nil},
		{"conflicting answers", policy.Files{"p.rego": []byte(open + "decision := {\"allow\": false} if input.subject.type == \"guest\"\n\ndecision := {\"allow\": true} if input.resource.type == \"room\"\n")}, "conflicting values", nil},
		{"conflicting data", policy.Files{"p.rego": []byte(open), "data.json": []byte(`{"a": {"b": 1}}`), "a/data.json": []byte(`{"b": 2}`)}, "already gives", nil},
		{"strings that grow", policy.Files{"p.rego": []byte(open + grow() + "decision := {\"allow\": false} if s11 == input.subject.id\n")}, "makes more than 16777216 bytes", nil},
		{"a glob that tries everything", policy.Files{"p.rego": []byte(open + "decision := {\"allow\": false} if glob.match(\"*a*a*a*a*a*a*b*a\", [], \"" + strings.Repeat("a", 64) + "\")\n")}, "matching its patterns takes too much work", nil},
		{"an absolute path", policy.Files{"p.rego": []byte(open), "/etc/cron.d/x.rego": []byte(open)}, "is not a clean relative path", nil},
		{"a path that leads out", policy.Files{"p.rego": []byte(open), "../../x.rego": []byte(open)}, "is not a clean relative path", nil},
		{"no decision", policy.Files{"p.rego": []byte("package parley\n\nallow := true\n")}, "no file defines data.parley.decision", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tr := trial(t)
			if tt.edit != nil {
				tt.edit(&tr.Limits)
			}
			_, err := tr.Build(t.Context(), patient(), tt.files, "r1", nil, quiet())
			var problems policy.Problems
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %.600v, want Problems that say %q", err, tt.want)
			}
		})
	}
}

func aliases() string {
	var b strings.Builder
	b.WriteString("a: &a [x,x,x,x,x,x,x,x,x,x]\n")
	for c := 'b'; c < 'k'; c++ {
		fmt.Fprintf(&b, "%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 10), ","))
	}
	return b.String()
}

func grow() string {
	var b strings.Builder
	b.WriteString("s0 := \"aaaaaaaaaaaaaaaa\"\n\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&b, "s%d := concat(\"\", [%s])\n\n", i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("s%d, ", i-1), 8), ", "))
	}
	return b.String()
}

func TestTrialWithoutProperChild(t *testing.T) {
	script := func(text string) policy.Trial {
		tr := policy.DefaultTrial()
		tr.Command = []string{"/bin/sh", "-c", text}
		return tr
	}
	files := policy.Files{"p.rego": []byte(open)}
	for text, refused := range map[string]bool{"exit 3": true, "kill -9 $$": true, "echo nonsense": false} {
		v, err := script(text).Try(t.Context(), policy.Defaults(), files, nil)
		if refused != (err == nil && len(v.Problems) == 1) || !refused && err == nil {
			t.Errorf("%s: got %+v, %v", text, v, err)
		}
	}
	tr := policy.DefaultTrial()
	tr.Command = []string{"/nonexistent"}
	if _, err := tr.Build(t.Context(), policy.Defaults(), files, "r1", nil, quiet()); err == nil || errors.As(err, new(policy.Problems)) {
		t.Errorf("got %v, want a fault that is not the policy's", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := trial(t).Try(ctx, policy.Defaults(), files, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if _, err := (policy.Trial{}).Try(ctx, policy.Defaults(), files, nil); err == nil {
		t.Error("in this process: got no error, want it cancelled")
	}
}

// A child's input that is none does not bring it to try anything.
func TestTrialMainRefuses(t *testing.T) {
	for _, in := range []string{"", "x", strings.Repeat("\xff", 24)} {
		var out bytes.Buffer
		if code := policy.TrialMain(strings.NewReader(in), &out); code == 0 || out.Len() > 0 {
			t.Errorf("%q: got %d, %q, want a failure", in, code, out.String())
		}
	}
}

func TestPolicyTest(t *testing.T) {
	files := policy.Files{"p.rego": []byte(open), "p_test.rego": []byte(`package parley_test

import data.parley

test_open if parley.decision.allow

test_shut if {
	print("hello", parley.decision)
	not parley.decision.allow
}

todo_test_later if false

test_broken if to_number("x") == 1
`)}
	got, err := policy.Test(t.Context(), patient(), files)
	if err != nil || len(got) != 3 {
		t.Fatalf("got %+v, %v, want three tests", got, err)
	}
	by := map[string]policy.TestResult{}
	for _, r := range got {
		by[r.Name] = r
	}
	if r := by["parley_test.test_open"]; r.Failure != "" || r.File != "p_test.rego" || r.Line != 5 {
		t.Errorf("got %+v, want it passed, with its place", r)
	}
	if r := by["parley_test.test_shut"]; r.Failure != "it is not true" || !strings.HasPrefix(r.Printed, "hello {") {
		t.Errorf("got %+v, want it failed, with what it printed", r)
	}
	if r := by["parley_test.test_broken"]; !strings.Contains(r.Failure, "to_number") {
		t.Errorf("got %+v, want its error", r)
	}
	if _, err := policy.Test(t.Context(), policy.Defaults(), policy.Files{"p.rego": []byte("package")}); !errors.As(err, new(policy.Problems)) {
		t.Errorf("got %v, want Problems", err)
	}
}

// BenchmarkTrial is what a commit's trial costs: the child's start and all it
// does with the default policy.
func BenchmarkTrial(b *testing.B) {
	tr := trial(b)
	samples := make([]policy.Sample, policy.MaxSamples)
	for i := range samples {
		samples[i] = policy.Sample{ID: "x", Input: *gate.Sample(gate.MessageSend)}
	}
	for b.Loop() {
		if v, err := tr.Try(b.Context(), policy.Defaults(), rego.Files(), samples); err != nil || len(v.Problems) > 0 {
			b.Fatal(v, err)
		}
	}
}
