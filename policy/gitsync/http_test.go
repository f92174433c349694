package gitsync

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// serve offers a bare repository by smart HTTP, as git's own server does, and
// returns its URL.
func serve(t *testing.T, bare string) string { return serveWith(t, bare, nil) }

func serveWith(t *testing.T, bare string, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	h := backend(t, bare)
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		srv.Close()
	})
	return srv.URL + "/" + filepath.Base(bare)
}

// backend is git's own server. settings are pairs of git's configuration.
func backend(t *testing.T, bare string, settings ...string) http.Handler {
	t.Helper()
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	settings = append(settings, "safe.directory", "*")
	env := []string{"GIT_PROJECT_ROOT=" + filepath.Dir(bare), "GIT_HTTP_EXPORT_ALL=1", fmt.Sprint("GIT_CONFIG_COUNT=", len(settings)/2)}
	for i := 0; i < len(settings); i += 2 {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i/2, settings[i]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i/2, settings[i+1]))
	}
	return &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"), Root: "/", Env: env, InheritEnv: []string{"PATH"},
	}
}

// bareRepo returns a bare repository with one commit of a policy.
func bareRepo(t *testing.T, text string) (r *repo, bare string) {
	t.Helper()
	r = newRepo(t)
	r.write("p.rego", text)
	r.commit()
	bare = filepath.Join(t.TempDir(), "bare.git")
	r.git("clone", "-q", "--bare", r.dir, bare)
	return r, bare
}

func TestHTTPFollows(t *testing.T) {
	r, bare := bareRepo(t, "1")
	for i := range 30 { // history that a shallow read must not fetch
		r.write("p.rego", strings.Repeat("x", i))
		r.commit()
	}
	r.git("push", "-q", bare, "main")
	s, c := syncer(t, config(serve(t, bare)))
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	r.write("p.rego", "2")
	id := r.commit()
	r.git("push", "-q", bare, "main")
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h := next(t, c); h.revision != "git:"+id || string(h.files["p.rego"]) != "2" {
		t.Errorf("got %+v, want %s", h, id)
	}
}

func TestHTTPBounds(t *testing.T) {
	noise := make([]byte, 2000) // does not compress
	for i := range noise {
		noise[i] = byte(' ' + rand.IntN(90))
	}
	_, bare := bareRepo(t, string(noise))
	cfg := config(serve(t, bare))
	cfg.MaxFetchBytes = 600 // the refs fit, the pack does not
	s, c := syncer(t, cfg)
	err := s.Sync(t.Context())
	if err == nil || !strings.Contains(err.Error(), "more than 600 bytes") {
		t.Errorf("got %v, want the bound", err)
	}
	none(t, c)
	if st := s.Status(); st.Error == "" {
		t.Errorf("status: got %+v, want the error", st)
	}
}

func TestHTTPCredentials(t *testing.T) {
	_, bare := bareRepo(t, "1")
	var asked atomic.Int32
	url := serveWith(t, bare, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			if user, pass, _ := r.BasicAuth(); user != "ann" || pass != "s3cret" {
				http.Error(w, "who are you", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	good, c := syncer(t, config(strings.Replace(url, "http://", "http://ann:s3cret@", 1)))
	if err := good.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	bad, _ := syncer(t, config(strings.Replace(url, "http://", "http://ann:wr0ng@", 1)))
	err := bad.Sync(t.Context())
	if err == nil || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("got %v, want an error without the password", err)
	}
	for _, s := range []*Syncer{good, bad} {
		if u := s.Status().URL; u != url {
			t.Errorf("status: got URL %s, want %s", u, url)
		}
	}
	if asked.Load() == 0 {
		t.Error("the server was never asked")
	}
}

func TestHTTPIsNoRepository(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		srv.Close()
	})
	s, _ := syncer(t, config(srv.URL+"/x.git"))
	if err := s.Sync(t.Context()); err == nil {
		t.Error("got no error for a server without a repository")
	}
}
