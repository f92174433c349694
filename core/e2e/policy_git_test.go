package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/core/e2e/rig"
	"parley/core/transport/transporttest"
)

const hookSecret = "a secret of the Git server"

// gitStatus is the part of /v1/policy/status about the repository.
type gitStatus struct {
	Revision string `json:"revision"`
	Git      struct {
		Commit   string `json:"commit"`
		Head     string `json:"head"`
		SignedBy string `json:"signed_by"`
		Pin      *struct {
			Revision string `json:"revision"`
			Reason   string `json:"reason"`
		} `json:"pin"`
	} `json:"git"`
	Refused *struct {
		Revision string `json:"revision"`
	} `json:"refused"`
}

// hook calls the webhook as GitHub does and returns the status it answers with.
func hook(t *testing.T, c *http.Client, url, body, secret string) int {
	t.Helper()
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	req, err := http.NewRequestWithContext(within(t), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-GitHub-Event", "push")
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	req.Close = true
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

func secretFile(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(hookSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestAWebhookMakesACommitLive polls once a day: what goes live does so because
// of a call, the first of which is the first request the server ever gets there.
func TestAWebhookMakesACommitLive(t *testing.T) {
	t.Parallel()
	authority, dir := transporttest.NewAuthority(t), t.TempDir()
	cert, key, _ := authority.Files(dir, time.Now().Add(time.Hour))
	tlsClient := &http.Client{Transport: &http.Transport{TLSClientConfig: authority.Client()}}
	own := freePorts(t, 1)[0]
	for _, tt := range []struct {
		name  string
		extra settings
		url   func(*node) string
		call  *http.Client
	}{
		{"on the HTTP listener", nil, func(n *node) string { return "http://" + n.HTTP }, http.DefaultClient},
		{"on its own, with TLS", settings{"policy.git.webhook.listen": own, "tls.cert_file": cert, "tls.key_file": key},
			func(*node) string { return "https://" + own }, tlsClient},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRepo(t)
			r.commit(map[string]string{"parley.rego": openRules})
			keys := settings{"policy.git.url": r.dir, "policy.git.interval": "24h", "policy.git.webhook.secret_file": secretFile(t)}
			maps.Copy(keys, tt.extra)
			n := startNode(t, keys)
			now := r.commit(map[string]string{"parley.rego": quietRules})
			url := tt.url(n) + "/v1/hooks/policy"
			if got := hook(t, tt.call, url, `{"ref":"refs/heads/main"}`, hookSecret); got != http.StatusAccepted {
				t.Fatalf("got status %d, want 202", got)
			}
			live := func() gitStatus { return status[gitStatus](n, "/v1/policy/status") }
			await(t, "commit "+now+" is live", func() bool { return live().Git.Commit == now })
			if got := hook(t, tt.call, url, "{}", "another secret, as long"); got != http.StatusUnauthorized {
				t.Errorf("a wrong secret: got status %d, want 401", got)
			}
			for name, want := range map[string]float64{
				`parley_policy_webhooks_total{result="accepted"}`: 1, `parley_policy_webhooks_total{result="unauthorized"}`: 1,
				`parley_policy_live_seconds_count{since="webhook"}`: 1, `parley_policy_live_seconds_count{since="commit"}`: 1,
				`parley_policy_git_polls_total{result="taken"}`: 2, `parley_policy_fallback{to="default"}`: 0, `parley_policy_pinned`: 0,
			} {
				await(t, fmt.Sprintf("%s is %v", name, want), func() bool { return n.Metric(name) == want }) // counted behind the swap
			}
			n.Stop()
		})
	}
}

// TestAPinHolds pins a server to an older commit, restarts it, and lets it go;
// and takes a rewritten history, which nothing else does.
func TestAPinHolds(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	first := r.commit(map[string]string{"parley.rego": openRules})
	second := r.commit(map[string]string{"parley.rego": quietRules})
	n := startNode(t, settings{"policy.git.url": r.dir, "policy.git.interval": "1s"})
	live := func() gitStatus { return status[gitStatus](n, "/v1/policy/status") }
	run := func(args ...string) (string, int) {
		t.Helper()
		cmd := exec.CommandContext(within(t), built.platform, append(append([]string{"policy"}, args...), "--admin", n.Admin, "--data-dir", n.Data())...)
		cmd.Env = rig.CleanEnv()
		out, _ := cmd.CombinedOutput() // the code says how it ended
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := run("pin", first, "--reason", "the lobby must talk"); code != 0 || !strings.Contains(out, "git:"+first+" decides") {
		t.Fatalf("pin: got code %d\n%s", code, out)
	}
	if st := live(); st.Git.Commit != first || st.Git.Pin == nil || st.Git.Pin.Reason != "the lobby must talk" {
		t.Errorf("pinned: got %+v", st)
	}
	n.Kill()
	n.Start()
	await(t, "the repository has answered", func() bool { return live().Git.Head == second })
	if st := live(); st.Git.Commit != first || st.Git.Pin == nil {
		t.Errorf("after a restart: got %+v, want the pin", st)
	}
	if got := n.Metric("parley_policy_pinned"); got != 1 {
		t.Errorf("parley_policy_pinned: got %v, want 1", got)
	}
	if out, code := run("unpin"); code != 0 || !strings.Contains(out, "main is followed again") {
		t.Fatalf("unpin: got code %d\n%s", code, out)
	}
	await(t, "the ref is followed", func() bool { return live().Git.Commit == second })

	r.git("commit", "--quiet", "--amend", "--allow-empty", "--message=rewritten")
	rewritten := r.git("rev-parse", "HEAD")
	await(t, "the rewritten history is refused", func() bool { ref := live().Refused; return ref != nil && ref.Revision == "git:"+rewritten })
	if _, body := n.Get("/readyz"); !strings.Contains(body, "the newest policy was refused") {
		t.Errorf("/readyz: got %s, want a note", body)
	}
	if out, code := run("pin", "git:"+rewritten); code != 0 {
		t.Fatalf("pin: got code %d\n%s", code, out)
	}
	if st := live(); st.Git.Commit != rewritten || st.Refused != nil {
		t.Errorf("got %+v, want %s pinned", st, rewritten)
	}
	for _, wrong := range []string{first[:10], strings.Repeat("0", 40)} {
		if out, code := run("pin", wrong); code == 0 {
			t.Errorf("pin %s: got code 0\n%s", wrong, out)
		}
	}
	n.Stop()
}

// TestAStartWithoutARepositorySaysSo starts on an empty disk while the
// repository is away: the built-in policy decides, as loudly as can be.
func TestAStartWithoutARepositorySaysSo(t *testing.T) {
	t.Parallel()
	away := filepath.Join(t.TempDir(), "later")
	n := startNode(t, settings{"policy.git.url": away, "policy.git.interval": "1s"})
	if _, body := n.Get("/readyz"); !strings.Contains(body, "the built-in policy decides") {
		t.Errorf("/readyz: got %s, want a note", body)
	}
	if got := n.Metric(`parley_policy_fallback{to="default"}`); got != 1 {
		t.Errorf("parley_policy_fallback: got %v, want 1", got)
	}
	n.Logs("THE BUILT-IN POLICY DECIDES")
	r := newRepo(t)
	commit := r.commit(map[string]string{"parley.rego": openRules})
	if err := os.Rename(r.dir, away); err != nil {
		t.Fatal(err)
	}
	await(t, "the repository decides", func() bool { return status[gitStatus](n, "/v1/policy/status").Git.Commit == commit })
	if _, body := n.Get("/readyz"); strings.Contains(body, "notes") {
		t.Errorf("/readyz: got %s, want no note any more", body)
	}
	if got := n.Metric(`parley_policy_fallback{to="default"}`); got != 0 {
		t.Errorf("parley_policy_fallback: got %v, want 0", got)
	}
	n.Stop()
}
