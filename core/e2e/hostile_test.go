package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/client"
	"parley/policy"
)

// gitIn is git with something on its standard input.
func (r *repo) gitIn(in string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = r.dir, strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// commitTree makes a commit of a tree that no working tree could hold.
func (r *repo) commitTree(tree string) string {
	r.t.Helper()
	id := r.git("commit-tree", tree, "-p", "HEAD", "-m", "trick")
	r.git("update-ref", "refs/heads/main", id)
	return id
}

// reset brings branch and working tree back to a commit.
func (r *repo) reset(to string) {
	r.t.Helper()
	r.git("reset", "--quiet", "--hard", to)
	r.git("clean", "-fdxq")
}

// hostile is a commit that must be refused.
type hostile struct {
	name   string
	want   string        // stands in the refusal, one of these where there are lines
	commit func() string // makes it, on top of what is there
}

// hostiles are made in a repository that has nothing but rules in parley.rego
// with a default decision, and folders of other names than theirs.
func hostiles(r *repo) []hostile {
	file := func(name, text string) func() string {
		return func() string { return r.commit(map[string]string{name: text}) }
	}
	const test = "package parley_test\n\nd := [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n\n"
	deep := strings.Repeat("[", 300_000)
	return []hostile{
		{"http.send", "x.rego:3: the builtin http.send is forbidden", file("x.rego", "package x\n\nx := http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1\"})\n")},
		{"time.now_ns", "x.rego:3: the builtin time.now_ns is forbidden", file("x.rego", "package x\n\nx := time.now_ns()\n")},
		{"opa.runtime", "x.rego:3: the builtin opa.runtime is forbidden", file("x.rego", "package x\n\nx := opa.runtime().env\n")},
		{"bits.lsh", "the builtin bits.lsh is forbidden", file("x_test.rego", test+"test_x if bits.lsh(1, 99999999999) > 0\n")},
		{"recursion", "recursive", file("x.rego", "package x\n\nx if y\n\ny if x\n")},
		{"deep nesting", "max parsing recursion depth exceeded", file("x.rego", "package x\n\nx := "+deep+strings.Repeat("]", 300_000)+"\n")},
		// Which bound it meets first, of memory or of time, depends on the machine.
		{"comprehensions", "the child process that tried it died: it needs more than 512 MiB of memory (RLIMIT_AS)\ncontext deadline exceeded", file("x_test.rego", test+
			"test_x if count([[a, b, c, e, f, g, h, i] | some a in d; some b in d; some c in d; some e in d; some f in d; some g in d; some h in d; some i in d]) > 0\n")},
		{"100 MB of data", "", func() string {
			if err := os.WriteFile(filepath.Join(r.dir, "data.json"), bytes.Repeat([]byte(" "), 100<<20), 0o644); err != nil {
				r.t.Fatal(err)
			}
			return r.commit(nil)
		}},
		{"conflicting defaults", "multiple default rules", file("x.rego", "package parley\n\ndefault decision := {\"allow\": false}\n")},
		{"a glob that never ends", "matching its patterns takes too much work", file("x.rego", "package parley\n\ndecision := {\"allow\": false} if glob.match(\"*a*a*a*a*a*a*b*a\", [], \""+strings.Repeat("a", 64)+"\")\n")},
		{"a symbolic link", "x.rego", func() string {
			if err := os.Symlink("/etc/passwd", filepath.Join(r.dir, "x.rego")); err != nil {
				r.t.Fatal(err)
			}
			return r.commit(nil)
		}},
		{"a submodule", "sub", func() string {
			r.git("update-index", "--add", "--cacheinfo", "160000,"+r.git("rev-parse", "HEAD")+",sub")
			r.git("commit", "--quiet", "--message=sub")
			return r.git("rev-parse", "HEAD")
		}},
		{"a path that leads out", `it has an entry named ".."`, func() string {
			blob := r.gitIn(openRules, "hash-object", "-w", "--stdin")
			inner := r.gitIn(fmt.Sprintf("100644 blob %s\tx.rego\n", blob), "mktree")
			outer := r.gitIn(fmt.Sprintf("100644 blob %s\tparley.rego\n040000 tree %s\t..\n", blob, inner), "mktree")
			return r.commitTree(outer)
		}},
		{"operators locked out", `it locks out an operator: "role:admin moderate.review"`, file("x.rego", "package parley\n\n# Nobody reviews.\ndecision := {\"allow\": false} if input.action.name == \"moderate.review\"\n")},
	}
}

// refused waits until a commit is refused for what h says, while good decides.
func (h hostile) refused(n *node, commit, good string) {
	n.T.Helper()
	var refused *policy.Refusal
	await(n.T, h.name+" is refused", func() bool {
		refused = status[policyStatus](n, "/v1/policy/status").Refused
		return refused != nil && strings.Contains(refused.Revision, commit)
	})
	got, wants := refused.Problems.Error(), strings.Split(h.want, "\n")
	if !slices.ContainsFunc(wants, func(want string) bool { return strings.Contains(got, want) }) {
		n.T.Errorf("%s: got %q, want %q", h.name, got, h.want)
	}
	if got := status[policyStatus](n, "/v1/policy/status").Revision; !strings.Contains(got, good) {
		n.T.Errorf("%s: got %s live, want the last good one, %s", h.name, got, good)
	}
}

// TestHostileCommits sends a running server one hostile commit after the
// other. Each is refused for its cause and the last good rules go on deciding.
func TestHostileCommits(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	good := r.commit(map[string]string{"parley.rego": openRules})
	n := startNode(t, unlimited(settings{"policy.git.url": r.dir, "policy.git.interval": "1s", "policy.guard.keep": []string{"role:admin moderate.review"}}))
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	ann.says("lobby", "hello")
	all := hostiles(r)
	for _, h := range all {
		h.refused(n, h.commit(), good)
		ann.says("lobby", "after "+h.name)
		r.reset(good)
	}
	if code, body := n.Get("/readyz"); code != 200 || !strings.Contains(body, "the newest policy was refused") {
		t.Errorf("readyz: got %d %s, want ready, with a note", code, body)
	}
	if got := n.Metric("parley_policy_refused_total"); got < float64(len(all)) {
		t.Errorf("parley_policy_refused_total: got %v, want at least %d", got, len(all))
	}
	n.Stop()
}

// TestADecisionIsFoundByItsId follows a refusal from the person to the rule,
// and a change of the rules from its preview to the person who accepted it.
func TestADecisionIsFoundByItsId(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	r.commit(map[string]string{"parley.rego": quietRules})
	n := startNode(t, unlimited(settings{"policy.git.url": r.dir, "policy.git.interval": "1s", "policy.guard.max_changed": 1}))
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	_, err := ann.Send(within(t), "lobby", client.NewNonce(), "hello?")
	said := refusal(t, err)
	if said.Code != chat.CodeDenied || len(said.Decision) != 16 {
		t.Fatalf("got %+v, want a refusal that names its decision", said)
	}
	ask := func(args ...string) string {
		t.Helper()
		out, code := n.Bare(append(args, "--admin", n.Admin, "--data-dir", n.Data())...)
		if code != 0 {
			t.Errorf("platform %v: got exit code %d: %s", args, code, out)
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
	has(ask("policy", "log", "--id", said.Decision), "refuse message.send ann in lobby", "The lobby is quiet after eight.")
	has(ask("policy", "explain", "--id", said.Decision), "ann asked for message.send in lobby", "parley.rego:5 parley.decision")
	receipt, err := ann.Send(within(t), "kitchen", client.NewNonce(), "hello")
	if err != nil {
		t.Fatal(err)
	}
	has(ask("policy", "log", "--message", string(receipt.MessageID)), "allow  message.send ann in kitchen")

	// Silence everywhere changes more than one decision.
	_, _ = ann.Send(within(t), "kitchen", client.NewNonce(), "more")
	now := r.commit(map[string]string{"parley.rego": strings.Replace(quietRules, "\tinput.resource.id == \"lobby\"\n", "", 1)})
	await(t, "the guard refuses", func() bool {
		ref := status[policyStatus](n, "/v1/policy/status").Refused
		return ref != nil && strings.Contains(ref.Revision, now) && ref.Overridable
	})
	has(ask("policy", "status"), "REFUSED", "policy.guard.max_changed allows 1", "platform policy accept git:"+now)
	has(ask("policy", "accept", now[:10], "--by", "Olga"), "is accepted by Olga")
	await(t, "it is live", func() bool { return strings.Contains(status[policyStatus](n, "/v1/policy/status").Revision, now) })
	has(ask("policy", "audit", "--since", "1h"), "ACCEPTED git:"+now+" by Olga", "LIVE git:"+now, "with the same answer")

	// What was recorded outlives the process and says what a change would do.
	n.Stop()
	log := filepath.Join(n.Data(), "policy-log")
	out, code := n.Bare("policy", "diff", "HEAD~1", "HEAD", "--repo", r.dir, "--replay", log)
	if code != 2 {
		t.Errorf("diff: got exit code %d, want 2", code)
	}
	has(out, "allowed before, refused now", "parley.rego:5 parley.decision")
	n.Start()
	has(ask("policy", "log", "--id", said.Decision), "The lobby is quiet after eight.")
	n.Stop()
}
