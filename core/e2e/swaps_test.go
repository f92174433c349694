package e2e

import (
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/journal"
	"parley/core/wire"
	"parley/policy/decisionlog"
)

// leastBytes is what every revision of numbered allows at least.
const leastBytes = 100

// swapRooms are the room that even revisions open, and the one of the odd.
var swapRooms = []chat.RoomID{"even", "odd"}

// numbered is revision n of rules whose every answer about a message names it:
// which of two rooms is open, how long a text may be there, and code and
// sentence of the refusal in the other. Each of three files has a part of that,
// so that rules of two revisions would contradict each other.
func numbered(n int) map[string]string {
	return map[string]string{
		"data.json": fmt.Sprintf("{\"number\": %d}\n", n),
		"parley.rego": fmt.Sprintf(`package parley

import data.numbered

default decision := {"allow": true}

decision := {"allow": true, "obligations": {"text_bytes": %d}} if {
	input.action.name == "message.send"
	input.resource.id == open_room
}

decision := {"allow": false, "reasons": [{"code": numbered.code, "text": numbered.text}]} if {
	input.action.name == "message.send"
	input.resource.id != open_room
}

rooms := ["even", "odd"]

open_room := rooms[data.number %% 2]
`, leastBytes+n),
		"numbered/numbered.rego": fmt.Sprintf(`package numbered

code := sprintf("revision_%%d", [data.number])

text := "Revision %d refuses."
`, n),
		"parley_test.rego": `package parley_test

import data.parley

test_elsewhere_is_closed if {
	not parley.decision.allow with input as {"action": {"name": "message.send"}, "resource": {"id": "elsewhere"}}
}
`,
	}
}

// merge commits files on a branch and merges that; it returns the merge.
func (r *repo) merge(files map[string]string) string {
	r.t.Helper()
	r.git("checkout", "--quiet", "-b", "change")
	r.commit(files)
	r.git("checkout", "--quiet", "main")
	r.git("merge", "--quiet", "--no-ff", "-m", "merge a change", "change")
	r.git("branch", "--quiet", "-D", "change")
	return r.git("rev-parse", "HEAD")
}

// serveGit offers a repository by git's own HTTP server and returns its URL.
func serveGit(t *testing.T, r *repo) string {
	t.Helper()
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatalf("find git's programs: %v", err)
	}
	srv := httptest.NewServer(&cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"), Root: "/", InheritEnv: []string{"PATH"},
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(r.dir), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	})
	t.Cleanup(srv.Close)
	return srv.URL + "/" + filepath.Base(r.dir) + "/.git"
}

// TestSwapsUnderLoad merges one revision after the other, over file and over
// HTTP, while clients send all the time, and hostile commits in between, half of
// them over each. Every message is decided, each by one revision as a whole, and
// once anybody has been told of a revision, nobody is answered by one before it.
// PARLEY_LONG=1 makes 100 swaps over each 1,000, and takes all hostile commits over both.
func TestSwapsUnderLoad(t *testing.T) {
	t.Parallel()
	for i, over := range []struct {
		name string
		url  func(*testing.T, *repo) string
	}{
		{"file", func(_ *testing.T, r *repo) string { return "file://" + r.dir }},
		{"http", serveGit},
	} {
		t.Run(over.name, func(t *testing.T) {
			t.Parallel()
			r := newRepo(t)
			s := &swapping{t: t, r: r, revisions: map[string]int64{}}
			for j, h := range hostiles(r) {
				if one := many(2, 1); j%one == i%one {
					s.bad = append(s.bad, h)
				}
			}
			s.commit(1)
			s.node = startNode(t, unlimited(settings{
				"policy.git.url": over.url(t, r), "policy.git.interval": "24h", // so that only calls make it look
				"policy.git.webhook.secret_file": secretFile(t), "policy.git.webhook.debounce": "0s",
				"policy.guard.keep":     []string{"role:admin moderate.review"},
				"policy.replay.entries": 100,
				// Everything is recorded and nothing makes way.
				"policy.log.sample": []string{"*=1"}, "policy.log.entries": 1 << 14, "policy.log.max_bytes": "4GiB",
			}))
			s.run(many(100, 1000))
		})
	}
}

// swapping is one run of TestSwapsUnderLoad.
type swapping struct {
	t         *testing.T
	r         *repo
	node      *node
	revisions map[string]int64 // number of each
	head      string           // the last good commit
	bad       []hostile        // made between the good ones
}

// commit makes revision n the head, each fifth by merging a branch.
func (s *swapping) commit(n int) {
	s.t.Helper()
	how := s.r.commit
	if n%5 == 0 {
		how = s.r.merge
	}
	s.head = how(numbered(n))
	s.revisions["git:"+s.head] = int64(n)
}

// call makes the server look. It is called again while it is called too often.
func (s *swapping) call() {
	s.t.Helper()
	await(s.t, "the webhook takes a call", func() bool {
		return hook(s.t, http.DefaultClient, "http://"+s.node.HTTP+"/v1/hooks/policy", `{"ref":"refs/heads/main"}`, hookSecret) == http.StatusAccepted
	})
}

func (s *swapping) run(swaps int) {
	n := s.node
	listener := visit(s.t, client.Options{URL: n.WSURL(), Guest: "listener"})
	for _, room := range swapRooms {
		listener.enters(room)
	}
	load := startSwapLoad(s.t, n)
	defer load.stop()
	await(s.t, "the first revision answers", func() bool { return load.seen.Load() == 1 })

	began, bad := time.Now(), s.bad
	for i := range swaps {
		if next := len(bad) * i / swaps; next < len(bad)*(i+1)/swaps {
			h, good := bad[next], s.head
			commit := h.commit()
			s.call()
			h.refused(n, commit, good)
			asked := load.count()
			await(s.t, "the last good revision decides after "+h.name, func() bool { return load.count() > asked })
			s.r.reset(good)
		}
		want := i + 2 // the first one was there before
		s.commit(want)
		s.call()
		await(s.t, fmt.Sprintf("revision %d answers", want), func() bool { return load.seen.Load() >= int64(want) || s.t.Failed() })
		if s.t.Failed() {
			return
		}
	}
	took := time.Since(began)
	load.stop()

	for name, ok := range map[string]func(float64) bool{
		"parley_policy_swaps_total":                       func(v float64) bool { return v >= float64(swaps) },
		"parley_policy_refused_total":                     func(v float64) bool { return v >= float64(len(bad)) },
		"parley_policy_failures_total":                    func(v float64) bool { return v == 0 },
		"parley_policy_cache_wrong_total":                 func(v float64) bool { return v == 0 },
		`parley_policy_decisions_total{from="cache"}`:     func(v float64) bool { return v > 0 },
		`parley_policy_log_total{outcome="dropped"}`:      func(v float64) bool { return v == 0 },
		`parley_policy_log_total{outcome="failed"}`:       func(v float64) bool { return v == 0 },
		`parley_policy_git_polls_total{result="error"}`:   func(v float64) bool { return v == 0 },
		`parley_policy_git_polls_total{result="refused"}`: func(v float64) bool { return v >= float64(len(bad)) },
	} {
		if v := n.Metric(name); !ok(v) {
			s.t.Errorf("%s is %v after %d swaps and %d hostile commits", name, v, swaps, len(bad))
		}
	}
	s.heard(listener, load)
	n.Stop()
	records := decisions(s.t, n)
	load.check(records, s.revisions)
	s.t.Logf("%d swaps and %d refused commits in %v; %d messages answered, %d decisions on record", swaps, len(bad), took.Round(time.Millisecond), load.count(), len(records))
}

// heard demands that one who was in both rooms all the time has heard what was
// acknowledged, once and in order: no swap put anybody out.
func (s *swapping) heard(listener *visitor, load *swapLoad) {
	s.t.Helper()
	posted := load.posted()
	var heard map[chat.MessageID]bool
	await(s.t, "the listener has heard every message", func() bool {
		heard = map[chat.MessageID]bool{}
		last := map[chat.RoomID]uint64{}
		for _, ev := range listener.got() {
			e, ok := ev.(*wire.EntryEvent)
			if !ok || e.Type != wire.Type(journal.KindMessage) {
				continue
			}
			if was := last[e.Room]; was != 0 && e.Seq != was+1 {
				s.t.Fatalf("the listener heard %d after %d in %s", e.Seq, was, e.Room)
			}
			last[e.Room], heard[e.ID] = e.Seq, true
		}
		return len(heard) >= len(posted)
	})
	for _, id := range posted {
		if !heard[id] {
			s.t.Errorf("message %s was acknowledged and never heard", id)
		}
	}
	if len(heard) != len(posted) {
		s.t.Errorf("%d messages were heard, %d acknowledged", len(heard), len(posted))
	}
}

// decisions are the decisions of a server that has stopped, as it recorded them.
func decisions(t *testing.T, n *node) (all []*decisionlog.Record) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(n.Data(), "policy-log", "decisions-*.jsonl"))
	if err != nil || len(names) == 0 {
		t.Fatalf("find the decision log: got %v, %v", names, err)
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		err = decisionlog.Read(f, func(r *decisionlog.Record, err error) bool {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if r.IsDecision() {
				all = append(all, r)
			}
			return true
		})
		if _ = f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}
