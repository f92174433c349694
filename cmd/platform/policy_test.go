package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/core/admin"
	"parley/core/auth"
	"parley/core/gate"
	"parley/policy"
	"parley/policy/decisionlog"
	"parley/policy/preview"
	"parley/policy/source"
)

func TestPolicyNewCheckTestFmt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rules")
	has := func(out string, err error, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("got %v: %s\nwant %q in it", err, out, w)
			}
		}
	}
	out, err := command(t, "policy", "new", dir)
	has(out, err, "house.rego", "platform policy check")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := command(t, "policy", "new", dir); err == nil {
		t.Error("again: got no error, want the folder left alone")
	}
	out, err = command(t, "policy", "check", dir)
	has(out, err, "ok: 8 files", "tests passed")
	out, err = command(t, "policy", "test", "-v", dir)
	has(out, err, "ok   house_test.rego:6 parley_test.test_guests_only_read_in_news")
	if out, err = command(t, "policy", "fmt", "-l", dir); err != nil || out != "" {
		t.Errorf("fmt: got %q, %v, want nothing to do", out, err)
	}

	write(t, dir, "house.rego", "package parley\nrefusal contains \"No.\" if   input.action.name == \"typing\"\n")
	out, err = command(t, "policy", "check", dir)
	has(out, err, "house_test.rego:6: the test parley_test.test_guests_only_read_in_news failed")
	if !errors.Is(err, errTold) {
		t.Errorf("check: got %v, want exit code 1", err)
	}
	out, err = command(t, "policy", "test", dir)
	has(out, err, "FAIL house_test.rego:6", "tests passed")
	if !errors.Is(err, errTold) {
		t.Errorf("test: got %v, want exit code 1", err)
	}
	if out, err = command(t, "policy", "fmt", "-l", dir); !errors.Is(err, errTold) || out != "house.rego\n" {
		t.Errorf("fmt -l: got %q, %v, want the file and exit code 1", out, err)
	}
	if out, err = command(t, "policy", "fmt", dir); err != nil || out != "house.rego\n" {
		t.Errorf("fmt: got %q, %v, want the file", out, err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "house.rego")); err != nil || string(text) != "package parley\n\nrefusal contains \"No.\" if input.action.name == \"typing\"\n" {
		t.Errorf("got %q, %v, want the usual form", text, err)
	}
	write(t, dir, "house.rego", "package")
	for _, c := range []string{"check", "test", "fmt"} {
		out, err := command(t, "policy", c, dir)
		has(out, err, "house.rego:1: ")
		if !errors.Is(err, errTold) {
			t.Errorf("%s: got %v, want exit code 1", c, err)
		}
	}
	if _, err := command(t, "policy", "check", filepath.Join(dir, "nowhere")); err == nil {
		t.Error("no folder: got no error")
	}
}

// policyNode is the admin API over real rules that remember everything.
func policyNode(t *testing.T, rules string) (addr, dir string, src *source.Source, log *decisionlog.Log) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	dir = t.TempDir()
	write(t, dir, "rules/p.rego", rules)
	lc := decisionlog.Defaults()
	lc.Sample, lc.Dir = []string{"*=1"}, filepath.Join(dir, "policy-log")
	log, err := decisionlog.New(lc, quiet)
	if err != nil {
		t.Fatal(err)
	}
	cfg := source.Defaults()
	cfg.Dir, cfg.Decisions, cfg.Options.EvalTimeout = filepath.Join(dir, "rules"), log, time.Minute
	cfg.Guard.MaxChanged = 1
	if src, err = source.Open(t.Context(), cfg, quiet); err != nil {
		t.Fatal(err)
	}
	token, err := auth.LoadOrCreateAdminToken(filepath.Join(dir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(admin.New(admin.Deps{
		Token: token, Metrics: http.NotFoundHandler(), Log: quiet, Decisions: log, Policy: policyAdmin{src},
		Ready:  func(context.Context) []string { return nil },
		Status: map[string]func() any{"policy/status": func() any { return src.Status() }},
	}))
	t.Cleanup(srv.Close)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- log.Run(ctx) }()
	go func() { done <- src.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return strings.TrimPrefix(srv.URL, "http://"), dir, src, log
}

const (
	rulesBefore = "package parley\n\ndefault decision := {\"allow\": true}\n\n# Ann does not write.\ndecision := {\"allow\": false, \"reasons\": [{\"code\": \"no_ann\", \"text\": \"Not you, Ann.\"}]} if input.subject.id == \"ann\"\n"
	rulesAfter  = "package parley\n\ndefault decision := {\"allow\": true}\n\n# Bob does not write.\ndecision := {\"allow\": false, \"reasons\": [{\"code\": \"no_bob\", \"text\": \"Not you, Bob.\"}]} if input.subject.id == \"bob\"\n"
)

func asks(user string) *gate.Input {
	in := gate.Sample(gate.MessageSend)
	in.Subject.ID = user
	return in
}

func TestPolicyCommandsAskTheServer(t *testing.T) {
	addr, dir, src, _ := policyNode(t, rulesBefore)
	ask := func(args ...string) string {
		t.Helper()
		out, err := command(t, append(args, "--admin", addr, "--data-dir", dir)...)
		if err != nil {
			t.Errorf("platform %v: %v: %s", args, err, out)
		}
		return out
	}
	has := func(out string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("got %s\nwant %q in it", out, w)
			}
		}
	}
	refused := src.Decide(t.Context(), asks("ann"))
	src.Decide(t.Context(), asks("bob"))
	has(ask("policy", "log"), "refuse message.send ann in lobby [no_ann] Not you, Ann.", "allow  message.send bob in lobby")
	if out := ask("policy", "log", "--user", "bob"); strings.Contains(out, "ann") {
		t.Errorf("got %s, want bob alone", out)
	}
	has(ask("policy", "log", "--reason", "no_ann", "--since", "1h", "--room", "lobby", "--denied"), refused.ID)
	has(ask("policy", "explain", "--id", refused.ID), "ann asked for message.send in lobby", "p.rego:6 parley.decision", "Ann does not write.")
	has(ask("policy", "explain", "--id", refused.ID, "--trace"), "Step by step:", "p.rego:6")
	has(ask("policy", "explain", "--id", refused.ID, "--json"), `"exact": true`)
	has(ask("policy", "status"), "dir:", "2 recorded", "1 files")
	has(ask("policy", "status", "--json"), `"revision"`)
	has(ask("policy", "audit"), "refused as no_ann: 1", "Asked again: 2, with the same answer: 2")

	file := filepath.Join(dir, "decisions.jsonl")
	ask("policy", "log", "--json", "--out", file)
	records, bad, err := readDecisions(file, 10)
	if err != nil || bad > 0 || len(records) != 2 || records[0].ID != refused.ID {
		t.Errorf("got %v, %d, %v, want both records in the file", records, bad, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want a file for its owner alone", info, err)
	}

	// The guard refuses a change of both, and an operator accepts it.
	write(t, dir, "rules/p.rego", rulesAfter)
	for src.Status().Refused == nil {
		select {
		case <-t.Context().Done():
			t.Fatal("never refused")
		case <-time.After(5 * time.Millisecond):
		}
	}
	revision := src.Status().Refused.Revision
	has(ask("policy", "status"), "REFUSED", "policy.guard.max_changed allows 1", "platform policy accept "+revision)
	if out, err := command(t, "policy", "accept", "dir:nonsense", "--by", "olga", "--admin", addr, "--data-dir", dir); err == nil || !strings.Contains(err.Error(), "the revision that is refused is") {
		t.Errorf("got %v: %s, want the right one named", err, out)
	}
	if _, err := command(t, "policy", "accept", revision, "--by", "olga", "--admin", addr); err == nil {
		t.Error("without the token: got no error")
	}
	has(ask("policy", "accept", revision, "--by", "olga"), revision+" is accepted by olga")
	for src.Status().Revision != revision {
		select {
		case <-t.Context().Done():
			t.Fatal("never live")
		case <-time.After(5 * time.Millisecond):
		}
	}
	has(ask("policy", "log", "--events"), "ACCEPTED "+revision+" by olga", "LIVE "+revision)
	has(ask("policy", "audit", "--since", "2h"), "ACCEPTED", "by olga")

	for _, args := range [][]string{
		{"policy", "log", "--since", "yesterday"}, {"policy", "audit", "--since", "soon"}, {"policy", "log", "--limit", "0", "--id", "nonsense"},
		{"policy", "explain", "--id", "0000000000000000"}, {"policy", "explain"}, {"policy", "explain", dir, "--id", refused.ID},
	} {
		if out, err := command(t, append(args, "--admin", addr, "--data-dir", dir)...); err == nil && args[1] != "log" || err == nil && strings.Contains(args[2], "since") {
			t.Errorf("platform %v: got no error: %s", args, out)
		}
	}
}

func TestPolicyLogFollows(t *testing.T) {
	addr, dir, src, log := policyNode(t, rulesBefore)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := root()
	out, in := io.Pipe()
	c.SetOut(in)
	c.SetErr(in)
	c.SetArgs([]string{"policy", "log", "--follow", "--json", "--user", "ann", "--admin", addr, "--data-dir", dir})
	done := make(chan error, 1)
	go func() { done <- c.ExecuteContext(ctx) }()
	lines := make(chan string)
	go func() {
		b := make([]byte, 1<<16)
		n, _ := out.Read(b)
		lines <- string(b[:n])
		_, _ = io.Copy(io.Discard, out)
	}()
	// The follower hears of what is decided once it listens; ask until it does.
	var line string
	for line == "" {
		src.Decide(t.Context(), asks("bob"))
		src.Decide(t.Context(), asks("ann"))
		select {
		case line = <-lines:
		case <-time.After(5 * time.Millisecond):
		}
	}
	first, _, _ := strings.Cut(line, "\n")
	if r, err := decisionlog.Decode([]byte(first)); err != nil || r.Input.Subject.ID != "ann" {
		t.Errorf("got %s, %v, want a decision about ann", line, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("interrupted: got %v, want a clean end", err)
	}
	_ = in.Close()
	log.EndFollowers()
	if out, err := command(t, "policy", "log", "-f", "--admin", addr, "--data-dir", dir); err == nil || !strings.Contains(err.Error(), "ended the stream") {
		t.Errorf("got %v: %s, want the end told", err, out)
	}
}

func TestPolicyDiff(t *testing.T) {
	_, dir, src, _ := policyNode(t, rulesBefore)
	var lines bytes.Buffer
	for _, user := range []string{"ann", "bob", "bob", "eve"} {
		d := src.Decide(t.Context(), asks(user))
		r := decisionlog.Record{ID: d.ID, Revision: d.Revision, Input: asks(user), Allow: d.Allow, Reasons: d.Reasons}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(b, '\n'))
	}
	lines.WriteString("not a record\n")
	log := write(t, dir, "decisions.jsonl", lines.String())
	before, after := filepath.Join(dir, "rules"), filepath.Dir(write(t, dir, "after/p.rego", rulesAfter))

	out, err := command(t, "policy", "diff", before, after, "--replay", log)
	if code := exitCode(0); !errors.As(err, &code) || code != 2 {
		t.Errorf("got %v, want exit code 2", err)
	}
	for _, want := range []string{
		"3 of 4 recorded decisions change: 2 to refused, 1 to allowed", "2 x message.send: allowed before, refused now",
		"rule     p.rego:6 parley.decision: Bob does not write.", "Ann does not write.", "1 lines of", "after    refused, no_bob: Not you, Bob.",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("got %s\nwant %q in it", out, want)
		}
	}
	for _, bound := range [][]string{{"--max-changed", "3"}, {"--max-share", "75"}} {
		if out, err := command(t, append([]string{"policy", "diff", before, after, "--replay", log}, bound...)...); err != nil {
			t.Errorf("%v: got %v: %s", bound, err, out)
		}
	}
	if out, err := command(t, "policy", "diff", before, before, "--replay", log, "--json"); err != nil || !strings.Contains(out, `"changed": 0`) {
		t.Errorf("nothing changes: got %v: %s", err, out)
	}
	if out, _ := command(t, "policy", "diff", before, after, "--replay", log, "--markdown"); !strings.Contains(out, "| 2 | `message.send` |") {
		t.Errorf("got %s, want a table", out)
	}
	if out, err := command(t, "policy", "diff", builtIn, after, "--replay", log, "--entries", "1"); err != nil || !strings.Contains(out, "0 of 1") {
		t.Errorf("one record: got %v: %s", err, out)
	}
	for _, args := range [][]string{
		{before, after}, {before, after, "--replay", dir + "/nothing"}, {before, after, "--replay", after}, {before, "no-such-revision", "--replay", log},
		{before, "-x", "--replay", log}, {before, after, "--replay", log, "--entries", "0"}, {before, filepath.Dir(write(t, dir, "broken/p.rego", "package")), "--replay", log},
		{before, after, "--replay", write(t, dir, "empty.jsonl", "")},
	} {
		out, err := command(t, append([]string{"policy", "diff"}, args...)...)
		if code := exitCode(0); err == nil || errors.As(err, &code) {
			t.Errorf("%v: got %v: %s, want exit code 1", args, err, out)
		}
	}
}

func TestPolicyDiffOfRevisions(t *testing.T) {
	repo := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", repo, "-c", "user.name=t", "-c", "user.email=t@example.org"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	git("init", "-q", "-b", "main")
	commit := func(rules string) {
		write(t, repo, "policy/p.rego", rules)
		git("add", ".")
		git("commit", "-q", "-m", "rules")
	}
	write(t, repo, "README", "not a rule")
	commit(rulesBefore)
	commit(rulesAfter)
	b, err := json.Marshal(decisionlog.Record{ID: "06h1f93qbr000001", Revision: "x", Input: asks("bob"), Allow: true})
	if err != nil {
		t.Fatal(err)
	}
	log := write(t, t.TempDir(), "d.jsonl", string(b))
	out, err := command(t, "policy", "diff", "main~1", "main", "--repo", repo, "--path", "policy", "--replay", log)
	if code := exitCode(0); !errors.As(err, &code) || code != 2 || !strings.Contains(out, "Bob does not write.") {
		t.Errorf("got %v: %s, want bob refused", err, out)
	}
	if _, err := command(t, "policy", "diff", "main~1", "main", "--repo", repo, "--path", "nowhere", "--replay", log); err == nil {
		t.Error("no such folder: got no error")
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(repo, "policy", "q.rego")); err != nil {
		t.Fatal(err)
	}
	git("add", ".")
	git("commit", "-q", "-m", "link")
	if _, err := command(t, "policy", "diff", "main~1", "main", "--repo", repo, "--path", "policy", "--replay", log); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("got %v, want the link refused", err)
	}
}

func TestPolicyExplainsAQuestion(t *testing.T) {
	dir := t.TempDir()
	q, err := json.Marshal(asks("ann"))
	if err != nil {
		t.Fatal(err)
	}
	question, rules := write(t, dir, "q.json", string(q)), filepath.Dir(write(t, dir, "rules/p.rego", rulesBefore))
	out, err := command(t, "policy", "explain", rules, "--input", question)
	if err != nil || !strings.Contains(out, "refused, no_ann: Not you, Ann.") || !strings.Contains(out, "Ann does not write.") {
		t.Errorf("got %v: %s, want the rule in words", err, out)
	}
	if out, err = command(t, "policy", "explain", "--input", question); err != nil || !strings.Contains(out, "by default now: allowed") {
		t.Errorf("got %v: %s, want the built-in rules asked", err, out)
	}
	record := write(t, dir, "r.json", `{"id":"06h1f93qbr000001","revision":"x","input":`+string(q)+`}`)
	if out, err = command(t, "policy", "explain", rules, "--input", record); err != nil || !strings.Contains(out, "no_ann") {
		t.Errorf("a line of a log: got %v: %s", err, out)
	}
	for _, text := range []string{"", "{}", "[1]", strings.Repeat(" ", maxQuestion+1)} {
		if _, err := command(t, "policy", "explain", rules, "--input", write(t, dir, "bad.json", text)); err == nil {
			t.Errorf("%.10q: got no error", text)
		}
	}
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"": {}, "24h": now.Add(-24 * time.Hour), "2026-01-31T08:00:00Z": time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC),
		"2026-01-31": time.Date(2026, 1, 31, 0, 0, 0, 0, time.Local),
	} {
		if got, err := moment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	if _, err := moment("-1h", now); err == nil {
		t.Error("the future: got no error")
	}
}

// What others wrote must not steer the terminal.
func TestShownDecisionsArePlain(t *testing.T) {
	in := asks("a\x1b[2Jnn\n")
	var out bytes.Buffer
	if err := showDecision(&out, &decisionlog.Record{ID: "x", Input: in, Reasons: nil}); err != nil || strings.ContainsAny(strings.TrimSuffix(out.String(), "\n"), "\x1b\n") {
		t.Errorf("got %q, %v", out.String(), err)
	}
	out.Reset()
	x := source.Explanation{Record: &decisionlog.Record{Input: in}, Now: preview.Answer{}, Trace: "\x1b[2J\nx"}
	if err := showExplanation(&out, &x, true); err != nil || strings.Contains(out.String(), "\x1b") {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

// FuzzUntarPolicy feeds what git might write of a revision.
func FuzzUntarPolicy(f *testing.F) {
	for _, files := range []map[string]string{
		{"p.rego": rulesBefore, "README": "x", "lists/data.json": "{}"}, {"../x.rego": rulesBefore}, {},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for name, text := range files {
			if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
				f.Fatal(err)
			}
			if _, err := io.WriteString(w, text); err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		files, err := untarPolicy(archive)
		if err != nil {
			return
		}
		for name, text := range files {
			if !policy.Wanted(name) || len(text) > policy.MaxFileBytes {
				t.Errorf("took %q of %d bytes", name, len(text))
			}
		}
		if len(files) > policy.MaxFiles {
			t.Errorf("took %d files", len(files))
		}
	})
}

// A token that nobody has named goes to this machine's server, and to no other.
func TestTokenStaysHere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "admin.token")
	if err := os.WriteFile(file, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PARLEY_ADMIN_TOKEN_FILE", file)
	t.Setenv("PARLEY_ADMIN_LISTEN", "10.0.0.7:9090")
	for addr, want := range map[string]string{
		"127.0.0.1:9090": file, "localhost:9090": file, "[::1]:1": file, ":9090": file, "http://127.0.0.1:9090/": file, "10.0.0.7:9090": file,
		"10.0.0.8:9090": "", "example.org:9090": "", "10.0.0.7:9091": "", "nonsense": "",
	} {
		if got := (&adminFlags{addr: addr}).token(); got != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
		if got := (&adminFlags{addr: addr, tokenFile: "named"}).token(); got != "named" {
			t.Errorf("%s: got %q, want what was named", addr, got)
		}
	}
}

// Beside the server, in the environment that configures it, commands find its admin
// listener and its token by themselves.
func TestCommandsFindTheServerOfTheirEnvironment(t *testing.T) {
	addr, dir, _, _ := policyNode(t, "package parley\n\ndefault decision := {\"allow\": true}\n")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, listen := range []string{addr, ":" + port, "0.0.0.0:" + port, "[::]:" + port} {
		t.Setenv("PARLEY_ADMIN_LISTEN", listen)
		if out, err := command(t, "policy", "status"); err != nil {
			t.Errorf("PARLEY_ADMIN_LISTEN=%s: %v: %s", listen, err, out)
		}
		if out, err := command(t, "policy", "status", "--admin", listen); err != nil {
			t.Errorf("--admin %s: %v: %s", listen, err, out)
		}
	}
	t.Setenv("PARLEY_DATA_DIR", filepath.Join(dir, "none"))
	if _, err := command(t, "policy", "log"); err == nil || !strings.Contains(err.Error(), "--admin-token-file") {
		t.Errorf("no token there: got %v, want to be told of the flag", err)
	}
	if out, err := command(t, "policy", "status"); err != nil {
		t.Errorf("a question that needs no token: %v: %s", err, out)
	}
	t.Setenv("PARLEY_DATA_DIR", dir)
	if out, err := command(t, "policy", "log"); err != nil {
		t.Errorf("PARLEY_DATA_DIR: %v: %s", err, out)
	}
	t.Setenv("PARLEY_DATA_DIR", "")
	t.Setenv("PARLEY_ADMIN_TOKEN_FILE", filepath.Join(dir, "admin.token"))
	if out, err := command(t, "policy", "log"); err != nil {
		t.Errorf("PARLEY_ADMIN_TOKEN_FILE: %v: %s", err, out)
	}
	t.Setenv("PARLEY_ADMIN_LISTEN", "127.0.0.1:1")
	if out, err := command(t, "policy", "log", "--admin", addr); err != nil {
		t.Errorf("the flag wins: %v: %s", err, out)
	}
}
