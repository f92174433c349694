package release

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// api is an HTTPS server that takes patches as Kubernetes does.
type api struct {
	*httptest.Server
	got  []string // method, path, token, type and body of each request
	fail int      // requests still to be answered 500
}

func newAPI(t *testing.T) (*api, Patcher) {
	t.Helper()
	a := &api{}
	a.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		a.got = append(a.got, strings.Join([]string{r.Method, r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), string(body)}, " "))
		switch {
		case strings.HasPrefix(r.URL.Path, "/forbidden"):
			http.Error(w, "no such right", http.StatusForbidden)
		case a.fail > 0:
			a.fail--
			http.Error(w, "starting", http.StatusInternalServerError)
		}
	}))
	t.Cleanup(a.Close)
	dir := t.TempDir()
	p := Patcher{TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt")}
	if err := os.WriteFile(p.TokenFile, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
	if err := os.WriteFile(p.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	return a, p
}

// TestApply sends each patch, tries again what failed for now, and gives up at
// once what was refused, without keeping back the rest.
func TestApply(t *testing.T) {
	a, p := newAPI(t)
	a.fail = 1
	err := p.Apply(t.Context(), []Patch{
		{URL: a.URL + "/weights", Body: []byte(`{"w":0}`)}, {URL: a.URL + "/forbidden", Body: []byte(`{}`)}, {URL: a.URL + "/nodes", Body: []byte(`{"n":0}`)},
	})
	if err == nil || !strings.Contains(err.Error(), "/forbidden: status 403: no such right") {
		t.Errorf("got %v, want the refusal", err)
	}
	kind := " Bearer secret application/merge-patch+json "
	want := []string{"PATCH /weights" + kind + `{"w":0}`, "PATCH /weights" + kind + `{"w":0}`, "PATCH /forbidden" + kind + "{}", "PATCH /nodes" + kind + `{"n":0}`}
	if strings.Join(a.got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(a.got, "\n"), strings.Join(want, "\n"))
	}
}

// TestApplyTrustsNobody refuses a server whose certificate is not the one named.
func TestApplyTrustsNobody(t *testing.T) {
	a, p := newAPI(t)
	p.CAFile = p.TokenFile
	if err := p.Apply(t.Context(), []Patch{{URL: a.URL}}); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Errorf("a file without certificates: got %v", err)
	}
	p.CAFile = filepath.Join(t.TempDir(), "none")
	if err := p.Apply(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "read the certificates") {
		t.Errorf("no file: got %v", err)
	}
	if len(a.got) != 0 {
		t.Errorf("the server was sent %v", a.got)
	}
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	p.CAFile = big
	if err := p.Apply(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a file beyond the bound: got %v", err)
	}
}
