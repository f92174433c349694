package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/client"
	"parley/policy"
)

// repo is a real Git repository with a working tree.
type repo struct {
	t   *testing.T
	dir string
}

func newRepo(t *testing.T) *repo {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Fatal("this test needs git on the PATH: apt-get install git")
	}
	r := &repo{t: t, dir: t.TempDir()}
	r.git("init", "--quiet", "--initial-branch=main")
	return r
}

func (r *repo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=Olga", "GIT_AUTHOR_EMAIL=olga@example.org", "GIT_COMMITTER_NAME=Olga", "GIT_COMMITTER_EMAIL=olga@example.org")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit writes files and commits them; it returns the commit's hash.
func (r *repo) commit(files map[string]string) string {
	r.t.Helper()
	for name, text := range files {
		path := filepath.Join(r.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
	r.git("add", "--all")
	r.git("commit", "--quiet", "--message=change the rules")
	return r.git("rev-parse", "HEAD")
}

const (
	openRules = `package parley

default decision := {"allow": true}
`
	quietRules = `package parley

default decision := {"allow": true}

decision := {"allow": false, "reasons": ["The lobby is quiet after eight."]} if {
	input.action.name == "message.send"
	input.resource.id == "lobby"
}
`
	quietTests = `package parley_test

import data.parley

test_lobby_is_quiet if {
	not parley.decision.allow with input as {"action": {"name": "message.send"}, "resource": {"id": "lobby"}}
}
`
	brokenRules = `package parley

default decision := {"allow": true}

decision := {"allow": false} if {
	input.action.name ==
}
`
	brokenLine = 6 // of brokenRules
)

// policyStatus is the part of /v1/policy/status these tests read.
type policyStatus struct {
	Revision string          `json:"revision"`
	Tests    int             `json:"tests"`
	Refused  *policy.Refusal `json:"refused"`
}

// TestACommitChangesARuleInARunningServer follows a repository through a good
// commit, a broken one, one whose tests fail, and a repair.
func TestACommitChangesARuleInARunningServer(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	was := r.commit(map[string]string{"rules/parley.rego": openRules})
	n := startNode(t, settings{"policy.git.url": r.dir, "policy.git.path": "rules", "policy.git.interval": "1s"})
	live := func() policyStatus { return status[policyStatus](n, "/v1/policy/status") }
	if got := live(); !strings.Contains(got.Revision, was[:7]) {
		t.Fatalf("revision: got %q, want that of commit %s", got.Revision, was)
	}
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	ann.says("lobby", "hello")

	now := r.commit(map[string]string{"rules/parley.rego": quietRules, "rules/parley_test.rego": quietTests})
	await(t, "commit "+now+" is live", func() bool { return strings.Contains(live().Revision, now[:7]) })
	quiet := func() {
		t.Helper()
		_, err := ann.Send(within(t), "lobby", client.NewNonce(), "hello?")
		if said := refusal(t, err); said.Code != chat.CodeDenied || len(said.Reasons) != 1 || said.Reasons[0].Text != "The lobby is quiet after eight." {
			t.Fatalf("send under the new rule: got %+v, want it denied in the rule's words", said)
		}
	}
	quiet()
	if got := live(); got.Tests != 1 || got.Refused != nil {
		t.Errorf("status: got %+v, want 1 test passed and nothing refused", got)
	}
	ann.says("kitchen", "it is louder here")

	refused := func(commit, what string, match func(policy.Problem) bool) {
		t.Helper()
		await(t, what, func() bool {
			ref := live().Refused
			return ref != nil && strings.Contains(ref.Revision, commit[:7])
		})
		got := live()
		ok := false
		for _, p := range got.Refused.Problems {
			ok = ok || match(p)
		}
		if !ok {
			t.Errorf("%s: got problems %v", what, got.Refused.Problems)
		}
		if !strings.Contains(got.Revision, now[:7]) {
			t.Errorf("%s: live is %q, want the commit before, %s", what, got.Revision, now)
		}
		quiet()
	}
	bad := r.commit(map[string]string{"rules/parley.rego": brokenRules})
	refused(bad, "a commit that does not parse is refused with its line", func(p policy.Problem) bool {
		return strings.HasSuffix(p.File, "parley.rego") && (p.Line == brokenLine || p.Line == brokenLine+1) && p.Reason != ""
	})
	bad = r.commit(map[string]string{"rules/parley.rego": openRules}) // its test still wants quiet
	refused(bad, "a commit whose test fails is refused with the test's line", func(p policy.Problem) bool {
		return strings.HasSuffix(p.File, "parley_test.rego") && p.Line == 5
	})

	now = r.commit(map[string]string{"rules/parley.rego": openRules, "rules/parley_test.rego": "package parley_test\n"})
	await(t, "the repair is live", func() bool { return strings.Contains(live().Revision, now[:7]) })
	ann.says("lobby", "good morning")
	if got := n.Metric("parley_policy_refused_total"); got < 2 {
		t.Errorf("parley_policy_refused_total: got %v, want at least 2", got)
	}

	// Without the repository the last good rules are still there. They are
	// written behind the swap, so that a full disk holds up no rule.
	await(t, "the repair is on disk", func() bool {
		kept, err := os.ReadFile(filepath.Join(n.Data(), "policy", "policy-last-good.json"))
		return err == nil && strings.Contains(string(kept), now)
	})
	n.Kill()
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	n.Start()
	if got := live(); !strings.Contains(got.Revision, now[:7]) {
		t.Errorf("after a restart without the repository: got revision %q, want the last good one, %s", got.Revision, now)
	}
	n.Stop()
}

// TestAFolderOfRulesIsFollowed does the same with policy.dir.
func TestAFolderOfRulesIsFollowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "parley.rego"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(openRules)
	n := startNode(t, unlimited(settings{"policy.dir": dir}))
	ann := visit(t, client.Options{URL: n.TCPURL(), Guest: "ann"})
	ann.says("lobby", "hello")
	write(quietRules)
	await(t, "the new rule refuses", func() bool {
		_, err := ann.Send(within(t), "lobby", client.NewNonce(), "hello?")
		var said *chat.Error
		return errors.As(err, &said) && said.Code == chat.CodeDenied
	})
	write(brokenRules)
	await(t, "the broken rules are refused", func() bool {
		return status[policyStatus](n, "/v1/policy/status").Refused != nil
	})
	_, err := ann.Send(within(t), "lobby", client.NewNonce(), "hello?")
	if said := refusal(t, err); said.Code != chat.CodeDenied {
		t.Errorf("under broken rules: got %+v, want the old ones to decide", said)
	}
	n.Stop()
}
