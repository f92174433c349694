package policy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"parley/policy"
)

func TestCompileRefuses(t *testing.T) {
	const ok = "package parley\ndefault decision := {\"allow\": true}\n"
	many := policy.Files{}
	for i := range policy.MaxFiles + 1 {
		many[fmt.Sprintf("p%d.rego", i)] = []byte("package p")
	}
	tests := []struct {
		name  string
		files policy.Files
		want  []string // each in the error
	}{
		{"nothing", nil, []string{"no .rego file"}},
		{"syntax", policy.Files{"a/p.rego": []byte("package parley\n\nallow if {\n")}, []string{"a/p.rego:4: "}},
		{"two files with faults", policy.Files{"p.rego": []byte("package"), "q.rego": []byte("packag")}, []string{"p.rego:1: ", "q.rego:1: "}},
		{"empty file", policy.Files{"p.rego": []byte(ok), "q.rego": []byte("")}, []string{"q.rego"}},
		{"old syntax", policy.Files{"p.rego": []byte("package parley\nallow { true }")}, []string{"p.rego:2: ", "`if` keyword is required"}},
		{"http.send", policy.Files{"p.rego": []byte(ok + "x := http.send({\"method\": \"get\", \"url\": \"http://x\"})")}, []string{"p.rego:3: the builtin http.send is forbidden"}},
		{"time.now_ns", policy.Files{"p.rego": []byte(ok + "x := time.now_ns()")}, []string{"p.rego:3: the builtin time.now_ns is forbidden"}},
		{"opa.runtime", policy.Files{"p.rego": []byte(ok + "x := opa.runtime()")}, []string{"opa.runtime is forbidden"}},
		{"rand.intn", policy.Files{"p.rego": []byte(ok + "x := rand.intn(\"x\", 2)")}, []string{"rand.intn is forbidden"}},
		{"uuid", policy.Files{"p.rego": []byte(ok + "x := uuid.rfc4122(\"x\")")}, []string{"uuid.rfc4122 is forbidden"}},
		{"bits.lsh", policy.Files{"p.rego": []byte(ok + "x := bits.lsh(1, 2)")}, []string{"bits.lsh is forbidden"}},
		{"io.jwt", policy.Files{"p.rego": []byte(ok + "x := io.jwt.decode_verify(\"x\", {})")}, []string{"io.jwt.decode_verify is forbidden"}},
		{"net", policy.Files{"p.rego": []byte(ok + "x := net.lookup_ip_addr(\"x\")")}, []string{"net.lookup_ip_addr is forbidden"}},
		{"impure test", policy.Files{"p.rego": []byte(ok), "p_test.rego": []byte("package parley_test\ntest_x if time.now_ns() > 0")}, []string{"p_test.rego:2: the builtin time.now_ns is forbidden"}},
		{"impure mock", policy.Files{"p.rego": []byte(ok + "x if count([]) == 1 with count as http.send")}, []string{"p.rego:3"}},
		{"unknown function", policy.Files{"p.rego": []byte(ok + "x := shout(\"x\")")}, []string{"p.rego:3: undefined function shout"}},
		{"unused variable", policy.Files{"p.rego": []byte(ok + "x if { y := 1; true }")}, []string{"p.rego:3: ", "y unused"}},
		{"recursion", policy.Files{"p.rego": []byte(ok + "x if y\ny if x")}, []string{"recursive"}},
		{"no entry point", policy.Files{"p.rego": []byte("package chat\ndefault decision := {\"allow\": true}")}, []string{"no file defines data.parley.decision"}},
		{"tests alone", policy.Files{"p_test.rego": []byte(ok)}, []string{"no file defines data.parley.decision"}},
		{"failing test", policy.Files{"p.rego": []byte(ok), "p_test.rego": []byte("package parley_test\nimport data.parley\n\ntest_good if parley.decision.allow\n\ntest_bad if not parley.decision.allow\n")},
			[]string{"p_test.rego:6: the test parley_test.test_bad failed"}},
		{"failing test that prints", policy.Files{"p.rego": []byte(ok), "p_test.rego": []byte("package parley_test\ntest_bad if {\n\tprint(\"seen\", 7)\n\tfalse\n}")},
			[]string{"p_test.rego:2: the test parley_test.test_bad failed; it printed: seen 7"}},
		{"test with an error", policy.Files{"p.rego": []byte(ok), "p_test.rego": []byte("package parley_test\ntest_bad if to_number(\"x\") == 1")},
			[]string{"p_test.rego:2: the test parley_test.test_bad failed: ", "to_number"}},
		{"tests that do not compile", policy.Files{"p.rego": []byte(ok), "p_test.rego": []byte("package parley_test\ntest_bad if nothing.here(1)")}, []string{"p_test.rego:2: undefined function nothing.here"}},
		{"trial undefined", policy.Files{"p.rego": []byte("package parley\ndecision := {\"allow\": true} if input.action.name == \"connect\"")},
			[]string{"trial decision for room.create and 18 more", "is undefined"}},
		{"trial malformed", policy.Files{"p.rego": []byte("package parley\ndecision := {\"allow\": 1}")}, []string{"allow is a number"}},
		{"trial error", policy.Files{"p.rego": []byte("package parley\n\ndecision := {\"allow\": to_number(input.subject.id) == 1}")}, []string{"p.rego:3: trial decision for connect"}},
		{"data is not JSON", policy.Files{"p.rego": []byte(ok), "data.json": []byte("{\n\"a\": 1,\n}")}, []string{"data.json:3: "}},
		{"data is not YAML", policy.Files{"p.rego": []byte(ok), "data.yaml": []byte("a: 1\nb: [")}, []string{"data.yaml:2: "}},
		{"a rule with too many expressions", policy.Files{"p.rego": []byte(ok + "\n\nx if {\n" + strings.Repeat("1 == 1\n", 100_000) + "}")}, []string{"p.rego:", "at most 2000 are allowed"}},
		{"a rule with too many calls", policy.Files{"p.rego": []byte(ok + "\nx := " + strings.Repeat("1+", 4000) + "1")}, []string{"p.rego:", "at most 2000 are allowed"}},
		{"a number no machine can write out", policy.Files{"p.rego": []byte(ok), "data.json": []byte(`{"n": 1e300000000}`)}, []string{"data.json: ", "number too big"}},
		{"a number in YAML", policy.Files{"p.rego": []byte(ok), "data.yaml": []byte("n: .inf")}, []string{"data.yaml"}},
		{"data is a list", policy.Files{"p.rego": []byte(ok), "data.json": []byte("[]")}, []string{"data.json: a data file must hold an object"}},
		{"data twice", policy.Files{"p.rego": []byte(ok), "data.json": []byte(`{"x": {"y": 1}}`), "x/data.json": []byte(`{"y": 2}`)}, []string{`x/data.json: another data file already gives "y" a value`}},
		{"data twice in depth", policy.Files{"p.rego": []byte(ok), "a/data.json": []byte(`{"x": {"y": 1}}`), "a/data.yaml": []byte("x: {y: 2}")}, []string{`"x.y" a value`}},
		{"data below a value", policy.Files{"p.rego": []byte(ok), "data.json": []byte(`{"x": 1}`), "x/data.json": []byte(`{}`)}, []string{`x/data.json: another data file already gives "x" a value`}},
		{"data shadows a rule", policy.Files{"p.rego": []byte(ok), "parley/data.json": []byte(`{"decision": 1}`)}, []string{"conflict"}},
		{"too many files", many, []string{"257 files, at most 256"}},
		{"large file", policy.Files{"p.rego": make([]byte, policy.MaxFileBytes+1)}, []string{"p.rego: the file has 1048577 bytes"}},
		{"large policy", policy.Files{"p.rego": []byte(ok), "1/data.json": make([]byte, 1<<20), "2/data.json": make([]byte, 1<<20), "3/data.json": make([]byte, 1<<20), "4/data.json": make([]byte, 1<<20)}, []string{"bytes together"}},
		{"path outside", policy.Files{"../p.rego": []byte(ok)}, []string{"not a clean relative path"}},
		{"deep nesting", policy.Files{"p.rego": []byte(ok + "x := " + strings.Repeat("[", 200_000))}, []string{"p.rego:3: "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := patient().Compile(t.Context(), tt.files, "r1")
			var problems policy.Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("got %v, want Problems", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to say %q", err, want)
				}
			}
		})
	}
}

func TestCompileAllows(t *testing.T) {
	tests := []struct {
		name  string
		files policy.Files
	}{
		{"print is erased", policy.Files{"p.rego": []byte("package parley\ndecision := {\"allow\": true} if print(input.nothing.here)")}},
		{"skipped test", policy.Files{"p.rego": []byte("package parley\ndecision := {\"allow\": true}"), "p_test.rego": []byte("package parley_test\ntodo_test_x if false")}},
		{"test with cases", policy.Files{"p.rego": []byte("package parley\ndecision := {\"allow\": true}"), "p_test.rego": []byte("package parley_test\ntest_x[c] if {\n\tsome c in [\"a\", \"b\"]\n\tcount(c) == 1\n}")}},
		{"metadata", policy.Files{"p.rego": []byte("package parley\n\n# METADATA\n# title: Open\ndecision := {\"allow\": true, \"reasons\": [rego.metadata.rule().title]}")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := patient().Compile(t.Context(), tt.files, "r1"); err != nil {
				t.Errorf("got %v, want it compiled", err)
			}
		})
	}
}

func TestProblemsAreBounded(t *testing.T) {
	files := policy.Files{}
	for i := range 40 {
		files[fmt.Sprintf("p%d.rego", i)] = []byte("no")
	}
	_, err := policy.Compile(t.Context(), files, "r1")
	var problems policy.Problems
	if !errors.As(err, &problems) || len(problems) != 21 || problems[20].Reason != "and 20 more" {
		t.Errorf("got %v, want 20 problems and a count", err)
	}
}

func TestCompileStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var problems policy.Problems
	for name, files := range map[string]policy.Files{
		"in the tests":     {"p.rego": []byte("package parley\ndecision := {\"allow\": true}"), "p_test.rego": []byte("package t\ntest_x if true")},
		"in the trial run": {"p.rego": []byte("package parley\ndecision := {\"allow\": count([1 | some x in [1, 2]; x > 0]) > 0}")},
	} {
		if _, err := policy.Compile(ctx, files, "r1"); err == nil || errors.As(err, &problems) {
			t.Errorf("%s: got %v, want an error that does not blame the policy", name, err)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, change := range map[string]func(*policy.Options){
		"eval_steps":    func(o *policy.Options) { o.EvalSteps = 0 },
		"eval_timeout":  func(o *policy.Options) { o.EvalTimeout = 0 },
		"cache_entries": func(o *policy.Options) { o.CacheEntries = -1 },
		"test_timeout":  func(o *policy.Options) { o.TestTimeout = 0 },
	} {
		o := policy.Defaults()
		change(&o)
		if _, err := o.Compile(t.Context(), nil, "r1"); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want it to name %s", err, name)
		}
	}
}

func TestWanted(t *testing.T) {
	for p, want := range map[string]bool{
		"p.rego": true, "a/b/p_test.rego": true, "data.json": true, "x/data.yaml": true, "x/data.yml": true,
		"README.md": false, "x/other.json": false, ".git/p.rego": false, "a/.hidden.rego": false, "..data/p.rego": false,
	} {
		if got := policy.Wanted(p); got != want {
			t.Errorf("Wanted(%q): got %v, want %v", p, got, want)
		}
	}
}

func TestDigestNamesContent(t *testing.T) {
	a := policy.Files{"a.rego": []byte("x"), "b.rego": []byte("y")}
	same := policy.Files{"b.rego": []byte("y"), "a.rego": []byte("x")}
	moved := policy.Files{"a.rego": []byte("xb"), ".rego": []byte("y")}
	if a.Digest() != same.Digest() || a.Digest() == moved.Digest() || len(a.Digest()) != 12 {
		t.Errorf("got %s, %s, %s; want the first two equal, the third not", a.Digest(), same.Digest(), moved.Digest())
	}
}
