package gitsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// repo is a real repository with a work tree, driven by the git binary.
type repo struct {
	t   *testing.T
	dir string
}

func newRepo(t *testing.T) *repo {
	r := &repo{t: t, dir: filepath.Join(t.TempDir(), "policy repo")}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.git("init", "-q", "-b", "main")
	return r
}

// git runs git in the repository and returns what it prints.
func (r *repo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(),
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Ann", "GIT_AUTHOR_EMAIL=ann@example.test", "GIT_COMMITTER_NAME=Ann", "GIT_COMMITTER_EMAIL=ann@example.test")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// write puts a file into the work tree.
func (r *repo) write(name, text string) {
	r.t.Helper()
	full := filepath.Join(r.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// commit commits the whole work tree and returns the new commit.
func (r *repo) commit() string {
	r.t.Helper()
	r.git("add", "-A")
	r.git("commit", "-q", "--allow-empty", "-m", "change")
	return r.git("rev-parse", "HEAD")
}

// heard is what a Syncer told its hooks.
type heard struct {
	revision string
	files    policy.Files
	refused  error
}

// listen returns hooks that pass everything on. Files with a bad.rego are
// refused.
func listen() (Hooks, chan heard) {
	c := make(chan heard, 100)
	return Hooks{
		Apply: func(_ context.Context, files policy.Files, revision string) error {
			if _, bad := files["bad.rego"]; bad {
				return policy.Problems{{File: "bad.rego", Line: 1, Reason: "bad"}}
			}
			c <- heard{revision: revision, files: files}
			return nil
		},
		Refuse: func(revision string, err error) { c <- heard{revision: revision, refused: err} },
	}, c
}

func config(url string) Config {
	cfg := Defaults()
	cfg.URL = url
	return cfg
}

func syncer(t *testing.T, cfg Config) (*Syncer, chan heard) {
	t.Helper()
	hooks, c := listen()
	s, err := New(cfg, hooks, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

// none fails when the hooks heard anything.
// next is what is heard next.
func next(t *testing.T, c chan heard) heard {
	t.Helper()
	select {
	case h := <-c:
		return h
	case <-time.After(time.Minute):
		t.Fatal("waited a minute and heard nothing")
	}
	return heard{}
}

func none(t *testing.T, c chan heard) {
	t.Helper()
	select {
	case h := <-c:
		t.Fatalf("got %+v, want nothing", h)
	default:
	}
}

func TestReadsACommit(t *testing.T) {
	r := newRepo(t)
	r.write("p.rego", "root")
	r.write("rules/p.rego", "below")
	r.write("rules/lists/data.json", "{}")
	r.write("rules/README.md", "no")
	r.write("rules/.github/p.rego", "no")
	commit := r.commit()
	r.git("tag", "-a", "v1", "-m", "one")
	r.git("branch", "other")
	r.git("pack-refs", "--all")
	r.git("gc", "-q")
	bare := filepath.Join(t.TempDir(), "bare.git")
	r.git("clone", "-q", "--bare", r.dir, bare)
	tree := filepath.Join(t.TempDir(), "worktree")
	r.git("worktree", "add", "-q", "-b", "third", tree)

	url := serve(t, bare)
	tests := []struct {
		name, url, ref, path, want string
	}{
		{"plain path", r.dir, "main", "", "root"},
		{"file URL", "file://" + r.dir, "main", "rules", "below"},
		{"bare", bare, "main", "rules/", "below"},
		{"linked work tree", tree, "third", "rules", "below"},
		{"annotated tag", bare, "v1", "rules", "below"},
		{"HEAD", bare, "HEAD", "rules", "below"},
		{"full name", bare, "refs/heads/other", "rules", "below"},
		{"http", url, "main", "rules", "below"},
		{"http tag", url, "v1", "rules", "below"},
		{"http HEAD", url, "HEAD", "", "root"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(tt.url)
			cfg.Ref, cfg.Path = tt.ref, tt.path
			s, c := syncer(t, cfg)
			if err := s.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := next(t, c)
			if got.revision != "git:"+commit || string(got.files["p.rego"]) != tt.want {
				t.Errorf("got %+v, want p.rego %q of %s", got, tt.want, commit)
			}
			if tt.want == "below" && len(got.files) != 2 {
				t.Errorf("got %d files, want p.rego and lists/data.json", len(got.files))
			}
			if st := s.Status(); st.Commit != commit || st.Error != "" || st.PolledAt == nil {
				t.Errorf("status: got %+v", st)
			}
			if err := s.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			none(t, c) // the ref has not moved
		})
	}
}

func TestRefusesACommit(t *testing.T) {
	tests := []struct {
		name, path, want string
		make             func(r *repo)
	}{
		{"link", "", "link.rego: it is a symbolic link", func(r *repo) {
			if err := os.Symlink("/etc/passwd", filepath.Join(r.dir, "link.rego")); err != nil {
				r.t.Fatal(err)
			}
		}},
		{"submodule", "", "sub: it is a submodule", func(r *repo) {
			r.write("p.rego", "x")
			id := r.commit()
			r.git("update-index", "--add", "--cacheinfo", "160000,"+id+",sub")
			r.git("commit", "-q", "-m", "sub")
		}},
		{"large file", "", "data.json: the file has 1048577 bytes", func(r *repo) { r.write("data.json", strings.Repeat("x", policy.MaxFileBytes+1)) }},
		{"large together", "", "bytes together", func(r *repo) {
			for i := range 5 {
				r.write(fmt.Sprintf("d%d/data.json", i), strings.Repeat("x", policy.MaxFileBytes))
			}
		}},
		{"many files", "", "more than 256 policy files", func(r *repo) {
			for i := range policy.MaxFiles + 1 {
				r.write(fmt.Sprintf("p%d.rego", i), "x")
			}
		}},
		{"deep", "", "more than 16 deep", func(r *repo) { r.write(strings.Repeat("a/", 20)+"p.rego", "x") }},
		{"no folder", "rules", `no folder "rules"`, func(r *repo) { r.write("p.rego", "x") }},
		{"refused by Apply", "", "bad.rego:1: bad", func(r *repo) { r.write("bad.rego", "x") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRepo(t)
			tt.make(r)
			commit := ""
			if tt.name == "submodule" {
				commit = r.git("rev-parse", "HEAD")
			} else {
				commit = r.commit()
			}
			cfg := config(r.dir)
			cfg.Path, cfg.StateDir = tt.path, t.TempDir()
			s, c := syncer(t, cfg)
			err := s.Sync(t.Context())
			var problems policy.Problems
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want Problems that say %q", err, tt.want)
			}
			if h := next(t, c); h.refused == nil || h.revision != "git:"+commit {
				t.Errorf("got %+v, want %s refused", h, commit)
			}
			if err := s.Sync(t.Context()); err != nil {
				t.Errorf("again: got %v, want it left alone until the ref moves", err)
			}
			none(t, c)
			if _, err := os.Stat(filepath.Join(cfg.StateDir, lastGoodName)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a refused commit was kept as the last good one: %v", err)
			}
			// A commit that puts it right is taken.
			r.git("rm", "-r", "-q", "--cached", ".")
			r.git("clean", "-fdqx")
			r.write("rules/p.rego", "good")
			fixed := r.commit()
			if err := s.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			if h := next(t, c); h.revision != "git:"+fixed || h.refused != nil {
				t.Errorf("got %+v, want %s taken", h, fixed)
			}
		})
	}
}

func TestUnreadableRemote(t *testing.T) {
	r := newRepo(t)
	r.write("p.rego", "x")
	r.commit()
	var out bytes.Buffer
	cfg := config(filepath.Join(t.TempDir(), "away"))
	hooks, c := listen()
	s, err := New(cfg, hooks, slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := s.Sync(t.Context()); err == nil {
			t.Fatal("got no error for a repository that is not there")
		}
	}
	none(t, c)
	if st := s.Status(); st.Error == "" || st.ErrorSince == nil || st.PolledAt != nil {
		t.Errorf("status: got %+v, want the error", st)
	}
	if n := strings.Count(out.String(), "cannot be read"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, out.String())
	}
	if d := s.pause(); d < 8*cfg.Interval*9/10 || d > 8*cfg.Interval*11/10 {
		t.Errorf("pause after failures: got %v, want about eight intervals", d)
	}
	if err := os.Rename(r.dir, cfg.URL); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	if st := s.Status(); st.Error != "" || st.ErrorSince != nil || st.PolledAt == nil {
		t.Errorf("status: got %+v, want the error gone", st)
	}
	if d := s.pause(); d < cfg.Interval*9/10 || d > cfg.Interval*11/10 {
		t.Errorf("pause: got %v, want about %v", d, cfg.Interval)
	}
	other := config(cfg.URL)
	other.Ref = "nowhere"
	o, _ := syncer(t, other)
	if err := o.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "no branch or tag nowhere") {
		t.Errorf("got %v, want that the branch is not there", err)
	}
}

func TestRunFollowsAndStops(t *testing.T) {
	r := newRepo(t)
	r.write("p.rego", "1")
	r.commit()
	cfg := config(r.dir)
	cfg.Interval = 5 * time.Millisecond
	s, c := syncer(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	next(t, c)
	for i := range 3 {
		r.write("p.rego", fmt.Sprint("change ", i))
		id := r.commit()
		if h := next(t, c); h.revision != "git:"+id {
			t.Errorf("got %+v, want %s", h, id)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

// What was refused is looked at again when somebody asks for it.
func TestRetry(t *testing.T) {
	r := newRepo(t)
	r.write("bad.rego", "1")
	id := r.commit()
	s, c := syncer(t, config(r.dir))
	for range 2 {
		if err := s.Sync(t.Context()); err == nil {
			t.Fatal("got no error for a bad commit")
		}
		if h := next(t, c); h.revision != "git:"+id || h.refused == nil {
			t.Errorf("got %+v, want it refused", h)
		}
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		none(t, c)
		s.Retry()
	}
}

func TestTrigger(t *testing.T) {
	r := newRepo(t)
	r.write("p.rego", "1")
	r.commit()
	cfg := config(r.dir)
	cfg.Interval = time.Hour
	s, c := syncer(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	next(t, c)
	r.write("p.rego", "2")
	id := r.commit()
	for range 10 {
		s.Trigger() // never blocks
	}
	if h := next(t, c); h.revision != "git:"+id {
		t.Errorf("got %+v, want %s", h, id)
	}
	cancel()
	<-done
}
