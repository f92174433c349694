package gitsync

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
)

// grow makes n commits, and returns the last.
func (r *repo) grow(n int) (id string) {
	r.t.Helper()
	for range n {
		r.write("p.rego", fmt.Sprint("package x # ", rand.Uint64()))
		id = r.commit()
	}
	return id
}

func TestDescent(t *testing.T) {
	for _, remote := range []string{"local", "http", "http, partial"} {
		t.Run(remote, func(t *testing.T) {
			r, bare := bareRepo(t, "1")
			url := bare
			switch remote {
			case "http":
				url = serve(t, bare)
			case "http, partial":
				url = serveWith(t, bare, func(http.Handler) http.Handler {
					return backend(t, bare, "uploadpack.allowFilter", "true")
				})
			}
			push := func() { r.git("push", "-q", "-f", bare, "main") }
			cfg := config(url)
			s, c := syncer(t, cfg)
			taken := func(what, id string) {
				t.Helper()
				if err := s.Sync(t.Context()); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if h := next(t, c); h.revision != "git:"+id {
					t.Errorf("%s: got %+v, want %s", what, h, id)
				}
			}
			refused := func(what, in string) {
				t.Helper()
				if err := s.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "does not descend") {
					t.Fatalf("%s: got %v, want it refused", what, err)
				}
				if h := next(t, c); h.refused == nil || s.Status().Commit != in {
					t.Errorf("%s: got %+v and %+v, want %s in use", what, h, s.Status(), in)
				}
			}
			r.grow(3)
			push()
			taken("first", r.git("rev-parse", "HEAD"))
			one := r.grow(1)
			push()
			taken("one later", one)
			many := r.grow(40)
			push()
			taken("forty later", many)

			r.git("checkout", "-q", "-b", "side", "HEAD~20")
			r.write("side", "x")
			r.commit()
			r.git("checkout", "-q", "main")
			r.git("merge", "-q", "--no-ff", "-m", "merge", "side")
			merge := r.git("rev-parse", "HEAD")
			push()
			taken("a merge of an old branch", merge)

			r.git("reset", "-q", "--hard", "HEAD~5")
			push()
			refused("moved back", merge)
			r.git("reset", "-q", "--hard", merge)
			push()
			taken("moved to the commit in use again", merge) // settles the refusal
			if err := s.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			none(t, c)

			r.git("commit", "-q", "--amend", "--allow-empty", "-m", "rewritten")
			push()
			refused("the last commit rewritten", merge)
			r.git("checkout", "-q", "--orphan", "new")
			r.grow(30)
			r.git("branch", "-f", "main")
			push()
			refused("another history", merge)
			r.git("checkout", "-q", "-B", "main", merge)
			after := r.grow(2)
			push()
			taken("mended", after)
		})
	}
}

// The history that is read to show a descent is bounded, and a commit whose
// descent lies beyond is refused.
func TestDescentIsBounded(t *testing.T) {
	r, bare := bareRepo(t, "1")
	cfg := config(serve(t, bare))
	s, c := syncer(t, cfg)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	for range 20 {
		noise := make([]byte, 2000) // does not compress
		for i := range noise {
			noise[i] = byte(' ' + rand.IntN(90))
		}
		r.write("p.rego", string(noise))
		r.commit()
	}
	r.git("push", "-q", bare, "main")
	s.cfg.MaxFetchBytes = 10_000 // the commit fits, what lies in between does not
	if err := s.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "could not be shown") || !strings.Contains(err.Error(), "more than 10000 bytes") {
		t.Errorf("got %v, want that its descent could not be shown", err)
	}
	if h := next(t, c); h.refused == nil {
		t.Errorf("got %+v, want it refused", h)
	}
}

// What was taken before a restart counts after it, also when the ref was moved
// meanwhile.
func TestDescentAcrossARestart(t *testing.T) {
	r, bare := bareRepo(t, "1")
	cfg := config(bare)
	cfg.StateDir = t.TempDir()
	s, c := syncer(t, cfg)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	r.git("commit", "-q", "--amend", "-m", "rewritten")
	r.git("push", "-q", "-f", bare, "main")
	again, c := syncer(t, cfg)
	if err := again.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	if err := again.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "does not descend") {
		t.Errorf("got %v, want it refused", err)
	}
	// Another ref is another matter: nothing was taken from it yet.
	r.git("push", "-q", bare, "main:other")
	cfg.Ref = "other"
	other, c := syncer(t, cfg)
	if err := other.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
}
