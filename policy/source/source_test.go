package source_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/gate"
	"parley/policy/rego"
	"parley/policy/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// config has time to spare for a busy machine and the race detector.
func config() source.Config {
	cfg := source.Defaults()
	cfg.Options.EvalTimeout = 10 * time.Second
	cfg.Options.TestTimeout = time.Minute
	cfg.Git.Interval = 5 * time.Millisecond
	return cfg
}

func open(t *testing.T, cfg source.Config, log io.Writer) *source.Source {
	t.Helper()
	s, err := source.Open(t.Context(), cfg, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run follows s until the test ends.
func run(t *testing.T, s *source.Source) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// until asks for the status until it is as wanted.
func until(t *testing.T, s *source.Source, what string, ok func(source.Status) bool) source.Status {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(time.Minute) // far above what a busy machine needs
	defer late.Stop()
	for {
		st := s.Status()
		if ok(st) {
			return st
		}
		select {
		case <-late.C:
			t.Fatalf("never %s: %+v", what, st)
		case <-tick.C:
		}
	}
}

// repo is a real repository driven by the git binary.
type repo struct {
	t   *testing.T
	dir string
}

func newRepo(t *testing.T) *repo {
	r := &repo{t: t, dir: t.TempDir()}
	r.git("init", "-q", "-b", "main")
	return r
}

func (r *repo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=Ann", "GIT_AUTHOR_EMAIL=ann@example.test", "GIT_COMMITTER_NAME=Ann", "GIT_COMMITTER_EMAIL=ann@example.test")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit replaces the files named by pairs of name and text.
func (r *repo) commit(pairs ...string) string {
	r.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if err := os.WriteFile(filepath.Join(r.dir, pairs[i]), []byte(pairs[i+1]), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
	r.git("add", "-A")
	r.git("commit", "-q", "-m", "change")
	return "git:" + r.git("rev-parse", "HEAD")
}

// says is a policy whose one reason has the code.
func says(code string) string {
	return fmt.Sprintf("package parley\n\ndecision := {\"allow\": false, \"reasons\": [{\"code\": %q, \"text\": input.subject.id}]}\n", code)
}

func ask(id string) *gate.Input {
	return &gate.Input{
		Subject:  gate.Subject{Type: "guest", ID: id},
		Action:   gate.Action{Name: gate.MessageSend},
		Resource: gate.Resource{Type: "room", ID: "lobby", Exists: true, Mode: "open", Visibility: "public"},
	}
}

func TestBuiltIn(t *testing.T) {
	cfg := config()
	cfg.Options.TestTimeout = 1 // no start runs the tests of what is in the binary
	s := open(t, cfg, io.Discard)
	run(t, s)
	if d := s.Decide(t.Context(), ask("ann")); !d.Allow || d.Revision != rego.Revision {
		t.Errorf("got %+v, want the built-in policy to allow", d)
	}
	if st := s.Status(); st.Source != "built-in" || st.Tests == 0 || st.Git != nil {
		t.Errorf("got %+v", st)
	}
	s.Trigger() // nothing to ask, and no harm
}

func TestFolderChangesAndBreaks(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		// Written aside and renamed, as an editor does: never seen half.
		full := filepath.Join(dir, name)
		if err := os.WriteFile(full+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(full+".new", full); err != nil {
			t.Fatal(err)
		}
	}
	write("p.rego", says("one"))
	cfg := config()
	cfg.Dir = dir
	var log syncBuffer
	s := open(t, cfg, &log)
	run(t, s)
	code := func() string { return s.Decide(t.Context(), ask("ann")).Reasons[0].Code }
	if got := code(); got != "one" {
		t.Fatalf("got %s, want one", got)
	}
	first := s.Status().Revision

	write("p.rego", says("two"))
	until(t, s, "changed", func(st source.Status) bool { return st.Revision != first })
	if got := code(); got != "two" {
		t.Errorf("got %s, want two", got)
	}
	write("p.rego", says("three")+"\nbroken if {\n")
	st := until(t, s, "refused", func(st source.Status) bool { return st.Refused != nil })
	if got := code(); got != "two" {
		t.Errorf("after a broken change: got %s, want two", got)
	}
	if p := st.Refused.Problems; p[0].File != "p.rego" || p[0].Line < 5 || !strings.HasPrefix(st.Refused.Revision, "dir:") {
		t.Errorf("got %+v, want file and line", st.Refused)
	}
	if !strings.Contains(log.String(), "POLICY REFUSED") {
		t.Errorf("log: got %s", log.String())
	}
	write("p.rego", says("two"))
	until(t, s, "settled", func(st source.Status) bool { return st.Refused == nil })
}

func TestFolderThatIsBrokenStopsTheStart(t *testing.T) {
	cfg := config()
	cfg.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(cfg.Dir, "p.rego"), []byte("package parley\nx := http.send({})"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := source.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "p.rego:2: the builtin http.send is forbidden") {
		t.Errorf("got %v, want file, line and builtin", err)
	}
	cfg.Git.URL = "/x"
	if _, err := source.Open(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "both set") {
		t.Errorf("got %v, want that both are set", err)
	}
	cfg = config()
	cfg.Git.URL = "git://x/y"
	if _, err := source.Open(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("got no error for a URL that is not supported")
	}
}

// TestCommitsUnderLoad merges rule after rule while others ask: every decision
// is whole, of one commit, and answered.
func TestCommitsUnderLoad(t *testing.T) {
	r := newRepo(t)
	var codes sync.Map // revision to code
	codes.Store(r.commit("p.rego", says("r0")), "r0")
	cfg := config()
	cfg.Git.URL = r.dir
	s := open(t, cfg, io.Discard)
	run(t, s)

	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("u%d", (i+g)%7)
				d := s.Decide(t.Context(), ask(id))
				want, known := codes.Load(d.Revision)
				if d.Failed || !known || len(d.Reasons) != 1 || d.Reasons[0].Code != want || d.Reasons[0].Text != id {
					t.Errorf("mixed or dropped decision %+v, want code %v for %s", d, want, id)
					return
				}
			}
		})
	}
	for n := 1; n <= 20; n++ {
		code := fmt.Sprintf("r%d", n)
		if err := os.WriteFile(filepath.Join(r.dir, "p.rego"), []byte(says(code)), 0o644); err != nil {
			t.Fatal(err)
		}
		// The commit is made first and the branch moved to it afterwards, so
		// that its id is known before any poll can take it.
		r.git("add", "-A")
		id := r.git("commit-tree", r.git("write-tree"), "-p", "HEAD", "-m", code)
		codes.Store("git:"+id, code)
		r.git("update-ref", "refs/heads/main", id)
		until(t, s, "at "+code, func(st source.Status) bool {
			want, _ := codes.Load(st.Revision)
			return want == code
		})
	}
	close(stop)
	wg.Wait()
	if st := s.Stats(); st.Failures != 0 || st.Swaps != 20 {
		t.Errorf("got %+v, want 20 swaps and no failure", st)
	}
}

func TestBrokenCommitIsRefused(t *testing.T) {
	tests := []struct {
		name, file, text, wantFile, reason string
		line                               int
	}{
		{"syntax", "p.rego", "package parley\n\ndecision := {\n", "p.rego", "", 4},
		{"failing test", "p_test.rego", "package parley_test\n\nimport data.parley\n\ntest_open if parley.decision.allow\n", "p_test.rego", "test_open failed", 5},
		{"http.send", "q.rego", "package parley\n\nx := http.send({\"method\": \"get\", \"url\": \"http://x\"})\n", "q.rego", "the builtin http.send is forbidden", 3},
		{"time.now_ns", "q.rego", "package parley\n\n\nx := time.now_ns()\n", "q.rego", "the builtin time.now_ns is forbidden", 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRepo(t)
			good := r.commit("p.rego", says("good"))
			cfg := config()
			cfg.Git.URL, cfg.Git.StateDir = r.dir, t.TempDir()
			var log syncBuffer
			s := open(t, cfg, &log)
			run(t, s)
			bad := r.commit(tt.file, tt.text)
			st := until(t, s, "refused", func(st source.Status) bool { return st.Refused != nil })
			p := st.Refused.Problems[0]
			if st.Refused.Revision != bad || p.File != tt.wantFile || p.Line != tt.line || !strings.Contains(p.Reason, tt.reason) {
				t.Errorf("got %+v, want %s:%d: %s of %s", st.Refused, tt.wantFile, tt.line, tt.reason, bad)
			}
			if st.Revision != good || s.Decide(t.Context(), ask("ann")).Reasons[0].Code != "good" {
				t.Errorf("got %s, want %s to stay", st.Revision, good)
			}
			if !strings.Contains(log.String(), "POLICY REFUSED") {
				t.Errorf("log: got %s, want the refusal", log.String())
			}
			r.git("revert", "--no-edit", "HEAD")
			fixed := "git:" + r.git("rev-parse", "HEAD")
			st = until(t, s, "reverted", func(st source.Status) bool { return st.Revision == fixed })
			if st.Refused != nil || st.Stats.Refused != 1 {
				t.Errorf("got %+v, want one refusal, forgotten", st)
			}
		})
	}
}

func TestRestartWithTheRemoteGone(t *testing.T) {
	r := newRepo(t)
	good := r.commit("p.rego", says("good"))
	cfg := config()
	cfg.Git.URL, cfg.Git.StateDir = r.dir, t.TempDir()
	open(t, cfg, io.Discard) // takes the commit and keeps it on disk
	if err := os.Rename(r.dir, r.dir+"-away"); err != nil {
		t.Fatal(err)
	}
	var log syncBuffer
	s := open(t, cfg, &log)
	run(t, s)
	st := until(t, s, "noticing that the remote is gone", func(st source.Status) bool { return st.Git.Error != "" })
	if st.Revision != good || st.Source != "git "+r.dir || s.Decide(t.Context(), ask("ann")).Reasons[0].Code != "good" {
		t.Errorf("got %+v, want %s from disk", st, good)
	}
	if !strings.Contains(log.String(), "restored from disk") || !strings.Contains(log.String(), "cannot be read") {
		t.Errorf("log: got %s", log.String())
	}
	if err := os.Rename(r.dir+"-away", r.dir); err != nil {
		t.Fatal(err)
	}
	until(t, s, "reachable again", func(st source.Status) bool { return st.Git.Error == "" })
}

func TestColdStartWithoutAnything(t *testing.T) {
	cfg := config()
	cfg.Git.URL, cfg.Git.StateDir = filepath.Join(t.TempDir(), "later"), t.TempDir()
	if err := os.WriteFile(filepath.Join(cfg.Git.StateDir, "policy-last-good.json"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log syncBuffer
	s := open(t, cfg, &log)
	run(t, s)
	if st := s.Status(); st.Revision != rego.Revision || st.Source != "built-in" || st.Refused == nil {
		t.Errorf("got %+v, want the built-in policy and the reason", st)
	}
	for _, want := range []string{"THE BUILT-IN POLICY DECIDES", "cannot be used"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log: got %s, want %q", log.String(), want)
		}
	}
	r := newRepo(t)
	late := r.commit("p.rego", says("late"))
	if err := os.Rename(r.dir, cfg.Git.URL); err != nil {
		t.Fatal(err)
	}
	st := until(t, s, "the repository's", func(st source.Status) bool { return st.Revision == late })
	b, err := json.Marshal(st)
	if err != nil || !bytes.Contains(b, []byte(`"git":{"url":`)) || !bytes.Contains(b, []byte(`"revision":"git:`)) {
		t.Errorf("JSON: got %s, %v", b, err)
	}
}

func TestColdStartOnABrokenCommit(t *testing.T) {
	r := newRepo(t)
	bad := r.commit("p.rego", "package parley\nx := time.now_ns()\n")
	cfg := config()
	cfg.Git.URL = r.dir
	s := open(t, cfg, io.Discard)
	st := s.Status()
	if st.Revision != rego.Revision || st.Refused == nil || st.Refused.Revision != bad || st.Refused.Problems[0].Line != 2 {
		t.Errorf("got %+v, want the built-in policy and what is wrong with %s", st, bad)
	}
}

func TestOpenStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg := config()
	cfg.Git.URL = filepath.Join(t.TempDir(), "away")
	if _, err := source.Open(ctx, cfg, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("got no error")
	}
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
