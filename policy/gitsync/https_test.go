package gitsync

import (
	"bytes"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// serveTLS offers a bare repository by https to those with the token, and
// returns its URL and a file with the certificate to trust.
func serveTLS(t *testing.T, bare, token string) (url, ca string) {
	t.Helper()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "git" || pass != token {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you, "+pass, http.StatusUnauthorized)
			return
		}
		backend(t, bare).ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return srv.URL + "/" + filepath.Base(bare), ca
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestHTTPSWithAToken(t *testing.T) {
	const token = "s3cret-t0ken"
	_, bare := bareRepo(t, "1")
	url, ca := serveTLS(t, bare, token)
	t.Setenv("POLICY_TOKEN", token)
	t.Setenv("EMPTY_TOKEN", "")
	for _, tt := range []struct {
		name string
		auth Auth
		want string // "" when it works
	}{
		{"file", Auth{TokenFile: file(t, token+"\n"), CAFile: ca}, ""},
		{"variable", Auth{TokenEnv: "POLICY_TOKEN", CAFile: ca}, ""},
		{"wrong token", Auth{TokenFile: file(t, "wr0ng-t0ken"), CAFile: ca}, "authentication required"},
		{"wrong user", Auth{User: "ann", TokenFile: file(t, token), CAFile: ca}, "authentication required"},
		{"no token", Auth{CAFile: ca}, "authentication required"},
		{"authority not trusted", Auth{TokenFile: file(t, token)}, "certificate"},
		{"no file", Auth{TokenFile: "/nowhere", CAFile: ca}, "token_file"},
		{"empty file", Auth{TokenFile: file(t, "\n"), CAFile: ca}, "holds no token"},
		{"two lines", Auth{TokenFile: file(t, "wr0ng\nt0ken"), CAFile: ca}, "more than one line"},
		{"large file", Auth{TokenFile: file(t, strings.Repeat("x", maxSecretBytes+1)), CAFile: ca}, "more than"},
		{"empty variable", Auth{TokenEnv: "EMPTY_TOKEN", CAFile: ca}, "EMPTY_TOKEN is not set"},
		{"no authority", Auth{TokenFile: file(t, token), CAFile: "/nowhere"}, "ca_file"},
		{"no certificate", Auth{TokenFile: file(t, token), CAFile: file(t, "x")}, "holds no certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			cfg := config(url)
			cfg.Auth = tt.auth
			hooks, c := listen()
			s, err := New(cfg, hooks, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			err = s.Sync(t.Context())
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if h := next(t, c); string(h.files["p.rego"]) != "1" {
					t.Errorf("got %+v", h)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want it to say %q", err, tt.want)
			}
			if all := err.Error() + s.Status().Error + log.String(); strings.Contains(all, token) || strings.Contains(all, "wr0ng") {
				t.Errorf("the token shows: %s", all)
			}
		})
	}
}

// A token that is replaced while the server runs is used from the next poll on.
func TestTokenIsReadAgain(t *testing.T) {
	_, bare := bareRepo(t, "1")
	url, ca := serveTLS(t, bare, "new-token")
	cfg := config(url)
	cfg.Auth = Auth{TokenFile: file(t, "old-token"), CAFile: ca}
	s, c := syncer(t, cfg)
	if err := s.Sync(t.Context()); err == nil {
		t.Fatal("got no error for the old token")
	}
	if err := os.WriteFile(cfg.Auth.TokenFile, []byte("new-token"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
}
