package source_test

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/policy/decisionlog"
	"parley/policy/preview"
	"parley/policy/source"
)

// recording is config with a log of everything.
func recording(t *testing.T) source.Config {
	t.Helper()
	lc := decisionlog.Defaults()
	lc.Sample = []string{"*=1"}
	log, err := decisionlog.New(lc, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config()
	cfg.Decisions = log
	cfg.Replay.Time = time.Minute
	return cfg
}

const (
	everybody = "package parley\n\ndefault decision := {\"allow\": true}\n"
	annLess   = everybody + `
# Ann does not write.
decision := {"allow": false, "reasons": [{"code": "no_ann", "text": "Ann does not write."}]} if {
	input.action.name == "message.send"
	input.subject.id == "ann"
}
`
	shut = everybody + `
# Closed for everybody.
decision := {"allow": false, "reasons": [{"code": "closed", "text": "Closed."}]} if input.action.name != "connect"
`
)

// A guard refuses what changes too much, and a person lets it pass by name;
// from a repository and from a folder.
func TestGuardAndAccept(t *testing.T) {
	for _, from := range []string{"git", "dir"} {
		t.Run(from, func(t *testing.T) {
			cfg := recording(t)
			cfg.Guard.MaxChanged = 2
			keep, err := preview.ParseKeep("role:admin moderate.review")
			if err != nil {
				t.Fatal(err)
			}
			cfg.Guard.Keep = []preview.Keep{keep}
			var commit func(rules string) (revision string)
			if from == "git" {
				r := newRepo(t)
				cfg.Git.URL = r.dir
				commit = func(rules string) string { return r.commit("p.rego", rules) }
			} else {
				cfg.Dir = t.TempDir()
				commit = func(rules string) string {
					if err := os.WriteFile(filepath.Join(cfg.Dir, "p.rego"), []byte(rules), 0o644); err != nil {
						t.Fatal(err)
					}
					return ""
				}
			}
			commit(everybody)
			var log syncBuffer
			s := open(t, cfg, &log)
			first := s.Status().Revision
			run(t, s)
			for range 2 {
				s.Decide(t.Context(), ask("ann"))
			}
			s.Decide(t.Context(), ask("bob"))

			// Within the bound: live, and what it changes is known.
			commit(annLess)
			st := until(t, s, "live", func(st source.Status) bool { return st.Revision != first })
			second := st.Revision
			if p := st.Preview; p == nil || p.Old != first || p.New != second || p.Changed != 2 || p.Replayed != 3 || p.Unequal != 0 ||
				len(p.Changes) != 1 || p.Changes[0].Kind != preview.AllowToDeny || p.Changes[0].Rule.Words != "Ann does not write." {
				t.Fatalf("got preview %+v, want both messages of ann", p)
			}
			if !strings.Contains(log.String(), "2 of 3 recorded decisions change") {
				t.Errorf("got log without the result:\n%s", log.String())
			}
			if st.Replayed != 3 || st.Unequal != 0 {
				t.Errorf("got %d replayed, %d unequal, want three that are equal", st.Replayed, st.Unequal)
			}

			// Beyond it: refused, naming the bound and the operator; the last good decides.
			s.Decide(t.Context(), ask("bob"))
			s.Decide(t.Context(), ask("bob"))
			commit(shut)
			st = until(t, s, "refused", func(st source.Status) bool { return st.Refused != nil })
			if st.Revision != second || !st.Refused.Overridable || len(st.Refused.Problems) != 2 ||
				!strings.Contains(st.Refused.Problems.Error(), "policy.guard.max_changed allows 2") || !strings.Contains(st.Refused.Problems.Error(), "locks out an operator") {
				t.Fatalf("got %s, refused %+v, want %s to decide on and both causes", st.Revision, st.Refused, second)
			}
			if st.Preview.New != st.Refused.Revision {
				t.Errorf("got a preview of %s, want one of what was refused", st.Preview.New)
			}
			if d := s.Decide(t.Context(), ask("bob")); !d.Allow {
				t.Errorf("got %+v, want the last good one to decide", d)
			}
			for rev, by := range map[string]string{"": "olga", "nonsense": "olga", second: "olga", st.Refused.Revision: " "} {
				if _, err := s.Accept(rev, by); !errors.Is(err, source.ErrAccept) {
					t.Errorf("accept %q by %q: got %v, want ErrAccept", rev, by, err)
				}
			}
			_, hash, _ := strings.Cut(st.Refused.Revision, ":")
			full, err := s.Accept(hash[:8], "olga")
			if err != nil || full != st.Refused.Revision {
				t.Fatalf("got %s, %v, want %s accepted", full, err, st.Refused.Revision)
			}
			st = until(t, s, "live", func(st source.Status) bool { return st.Revision == full })
			if st.Refused != nil {
				t.Errorf("got %+v, want the refusal forgotten", st.Refused)
			}
			if !strings.Contains(log.String(), "policy.guard overridden") || !strings.Contains(log.String(), "by=olga") {
				t.Errorf("got log without who it was:\n%s", log.String())
			}
			if _, err := s.Accept(full, "olga"); !errors.Is(err, source.ErrAccept) {
				t.Errorf("nothing is refused: got %v, want ErrAccept", err)
			}

			// What is broken cannot be accepted.
			commit("package parley\n\ndecision :=\n")
			st = until(t, s, "refused", func(st source.Status) bool { return st.Refused != nil })
			if _, err := s.Accept(st.Refused.Revision, "olga"); !errors.Is(err, source.ErrAccept) || st.Refused.Overridable {
				t.Errorf("got %v, %+v, want what does not compile to stay out", err, st.Refused)
			}

			audit, err := s.Audit(t.Context(), time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			if from == "git" { // going back changes as much, and who pins means it
				if err := s.Pin(t.Context(), strings.TrimPrefix(first, "git:"), "olga", "lock-out"); err != nil || s.Status().Revision != first {
					t.Errorf("pin: got %v, %s live, want %s whatever the guard says", err, s.Status().Revision, first)
				}
			}
			var events []string
			for _, r := range audit.Events {
				events = append(events, string(r.Event)+" "+r.By)
			}
			if got := strings.Join(events, ", "); got != "live , refused , accepted olga, live , refused " {
				t.Errorf("got %q, want all that happened, in order", got)
			}
			if audit.Revision != full || audit.Recorded[first] != 3 || audit.Recorded[second] != 3 || audit.Denied[second] != 0 || !audit.Complete {
				t.Errorf("got %+v, want what was decided", audit)
			}
		})
	}
}

func TestAuditReplays(t *testing.T) {
	cfg := recording(t)
	cfg.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(cfg.Dir, "p.rego"), []byte(annLess), 0o644); err != nil {
		t.Fatal(err)
	}
	s := open(t, cfg, io.Discard)
	for _, user := range []string{"ann", "bob", "ann"} {
		s.Decide(t.Context(), ask(user))
	}
	a, err := s.Audit(t.Context(), time.Now().Add(-time.Hour))
	if err != nil || a.Replayed != 3 || a.Equal != 3 || a.Blocked["no_ann"] != 2 || a.Denied[a.Revision] != 2 {
		t.Errorf("got %+v, %v, want three equal, two of them refused", a, err)
	}
	// A forged record is found.
	d := s.Decide(t.Context(), ask("bob"))
	d.Allow = false
	id := cfg.Decisions.Decided(decisionlog.Made{Input: ask("bob"), Decision: &d})
	if a, err = s.Audit(t.Context(), time.Time{}); err != nil || a.Replayed != 5 || a.Equal != 4 || len(a.Unequal) != 1 || a.Unequal[0] != id {
		t.Errorf("got %+v, %v, want the forged record named", a, err)
	}
	if a, err = s.Audit(t.Context(), time.Now().Add(time.Hour)); err != nil || a.Replayed != 0 || len(a.Events) != 0 {
		t.Errorf("got %+v, %v, want nothing of the future", a, err)
	}
	if st := s.Status(); st.Unequal != 1 || st.Log == nil || st.Log.Added == 0 {
		t.Errorf("got %+v, want it counted", st)
	}
}

func TestExplainRecorded(t *testing.T) {
	cfg := recording(t)
	cfg.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(cfg.Dir, "p.rego"), []byte(annLess), 0o644); err != nil {
		t.Fatal(err)
	}
	s := open(t, cfg, io.Discard)
	d := s.Decide(t.Context(), ask("ann"))
	x, err := s.Explain(t.Context(), d.ID)
	if err != nil || x.Now.Allow || !x.Exact || len(x.Rules) != 1 || x.Rules[0].Words != "Ann does not write." || x.Record.ID != d.ID || x.Trace == "" {
		t.Errorf("got %+v, %v, want the rule", x, err)
	}
	for _, id := range []string{"0000000000000000", "nonsense"} {
		if _, err := s.Explain(t.Context(), id); err == nil {
			t.Errorf("%s: got no error", id)
		}
	}
	plain := open(t, config(), io.Discard)
	if _, err := plain.Explain(t.Context(), d.ID); !errors.Is(err, source.ErrNoDecision) {
		t.Errorf("without a log: got %v, want ErrNoDecision", err)
	}
	if a, err := plain.Audit(t.Context(), time.Time{}); err != nil || a.Replayed != 0 {
		t.Errorf("without a log: got %+v, %v", a, err)
	}
}

// What an operator wants to keep and does not have is said at the start.
func TestMissingKeepIsSaid(t *testing.T) {
	cfg := config()
	keep, err := preview.ParseKeep("user:olga moderate.review lobby")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Guard.Keep = []preview.Keep{keep}
	var log syncBuffer
	open(t, cfg, &log)
	if !strings.Contains(log.String(), "it guards nothing there") {
		t.Errorf("got log %s, want a warning", log.String())
	}
}
