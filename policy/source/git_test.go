package source_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/policy/gitsync"
	"parley/policy/source"
)

func TestPinThroughTheSource(t *testing.T) {
	r := newRepo(t)
	first := r.commit("p.rego", says("first"))
	second := r.commit("p.rego", says("second"))
	cfg := config()
	cfg.Git.URL, cfg.Git.StateDir = r.dir, t.TempDir()
	s := open(t, cfg, io.Discard)
	run(t, s)
	code := func() string { return s.Decide(t.Context(), ask("ann")).Reasons[0].Code }
	if !s.FromGit() || s.Fallback() != source.NoFallback || len(s.Notes()) != 0 {
		t.Errorf("got %v, %q, %q; want the repository to decide", s.FromGit(), s.Fallback(), s.Notes())
	}
	if err := s.Pin(t.Context(), strings.TrimPrefix(first, "git:"), "olga", "because"); err != nil {
		t.Fatal(err)
	}
	if st := s.Status(); code() != "first" || st.Revision != first || st.Git.Pin == nil || st.Git.Pin.By != "olga" {
		t.Errorf("pinned: got %s, %+v", code(), st.Git)
	}
	if err := s.Unpin(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, s, "following again", func(st source.Status) bool { return st.Revision == second })
	until(t, s, "counted", func(source.Status) bool { // which is done last
		st, ok := s.GitStats()
		return ok && st.Polls[gitsync.ResultTaken] == 2 && st.SinceCommit.Count == 1 && st.SinceTrigger.Count == 0
	})

	// A broken commit and a repository that is away are told, each in its words.
	bad := r.commit("p.rego", "package parley\nx := time.now_ns()\n")
	until(t, s, "refused", func(st source.Status) bool { return st.Refused != nil })
	if notes := strings.Join(s.Notes(), "\n"); !strings.Contains(notes, "the newest policy was refused ("+bad) {
		t.Errorf("got %q, want the refusal", notes)
	}
	if err := os.Rename(r.dir, r.dir+"-away"); err != nil {
		t.Fatal(err)
	}
	until(t, s, "noticed", func(st source.Status) bool { return st.Git.Error != "" })
	if notes := strings.Join(s.Notes(), "\n"); !strings.Contains(notes, "has not answered since") || s.Fallback() != source.NoFallback {
		t.Errorf("got %q, %q; want that it does not answer", notes, s.Fallback())
	}
	again := open(t, cfg, io.Discard)
	if again.Fallback() != source.FromDisk {
		t.Errorf("got %q, want the last good policy", again.Fallback())
	}
	run(t, again)
	until(t, again, "noticed", func(st source.Status) bool { return st.Git.Error != "" })
	if notes := strings.Join(again.Notes(), "\n"); !strings.Contains(notes, "the last good policy on disk decides ("+second) {
		t.Errorf("got %q, want that it is from disk", notes)
	}
}

func TestNothingToPin(t *testing.T) {
	s := open(t, config(), io.Discard)
	if err := s.Pin(t.Context(), strings.Repeat("a", 40), "", ""); err == nil {
		t.Error("pinned without a repository")
	}
	if err := s.Unpin(t.Context()); err == nil {
		t.Error("unpinned without a repository")
	}
	if _, ok := s.GitStats(); ok || s.FromGit() || s.Fallback() != source.NoFallback || s.Notes() != nil {
		t.Error("got word of a repository, want none")
	}
}

func TestNotesOfAColdStart(t *testing.T) {
	cfg := config()
	cfg.Git.URL = filepath.Join(t.TempDir(), "away")
	s := open(t, cfg, io.Discard)
	if notes := strings.Join(s.Notes(), "\n"); !strings.Contains(notes, "the built-in policy decides") || s.Fallback() != source.FromDefault {
		t.Errorf("got %q, %q; want the built-in policy", notes, s.Fallback())
	}
}
