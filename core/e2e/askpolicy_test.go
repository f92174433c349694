package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/policy/rego"
)

// TestTheAdminAPIAsksThePolicy lets a rule of the operator's own keep somebody
// from changing the server: by name, with the rule's sentence, and in the
// decision log. What concerns the policy itself stays open.
func TestTheAdminAPIAsksThePolicy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, b := range rego.Files() {
		if strings.HasSuffix(name, "_test.rego") {
			continue
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rule := "package parley\n\nrefusal contains {\"code\": \"trainee\", \"text\": \"Trainees change nothing.\"} if {\n" +
		"\tinput.action.name == \"admin.write\"\n\tinput.subject.id == \"tess\"\n}\n"
	if err := os.WriteFile(filepath.Join(dir, "trainees.rego"), []byte(rule), 0o600); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, unlimited(settings{"policy.dir": dir, "admin.ask_policy": true}))
	for _, tt := range []struct {
		method, path, by string
		want             int
		say              string
	}{
		{http.MethodPut, "/v1/rooms/lobby", "olga", http.StatusOK, ""},
		{http.MethodPut, "/v1/rooms/lobby", "tess", http.StatusForbidden, "Trainees change nothing. (admin.write for tess; decision "},
		{http.MethodGet, "/v1/rooms/lobby", "tess", http.StatusOK, ""},
		{http.MethodGet, "/v1/policy/status", "tess", http.StatusOK, ""},
	} {
		code, body := n.AskAs(tt.by, tt.method, tt.path, map[string]any{"title": "Lobby"})
		if code != tt.want || !strings.Contains(body, tt.say) {
			t.Errorf("%s %s by %s: got %d %s, want %d %s", tt.method, tt.path, tt.by, code, body, tt.want, tt.say)
		}
	}
	await(t, "the refusal is in the decision log", func() bool {
		_, body := n.Get("/v1/policy/decisions?user=tess&denied=1")
		return strings.Contains(body, `"trainee"`) && strings.Contains(body, "admin.write")
	})
	n.Stop()
}
