package webhook

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const secret = "0123456789abcdef-shared"

func mac(body string) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(body))
	return hex.EncodeToString(h.Sum(nil))
}

// hook returns a handler and what counts its calls of trigger.
func hook(t testing.TB, change func(*Config)) (*Handler, *int) {
	t.Helper()
	cfg := Defaults()
	cfg.Secret = []byte(secret)
	if change != nil {
		change(&cfg)
	}
	n := new(int)
	h, err := New(cfg, func() { *n++ })
	if err != nil {
		t.Fatal(err)
	}
	return h, n
}

func call(h http.Handler, method string, body io.Reader, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, Path, body)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestCalls(t *testing.T) {
	const push = `{"ref":"refs/heads/main"}`
	long := strings.Repeat("x", 101)
	for _, tt := range []struct {
		name, body string
		headers    []string
		want       Result
	}{
		{"GitHub", push, []string{"X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256=" + mac(push)}, Accepted},
		{"Gitea", push, []string{"X-Gitea-Event", "push", "X-Gitea-Signature", mac(push)}, Accepted},
		{"Gitea, which sends GitHub's too", push, []string{"X-Gitea-Signature", mac(push), "X-Hub-Signature-256", "sha256=" + mac(push)}, Accepted},
		{"GitLab", push, []string{"X-Gitlab-Event", "Push Hook", "X-Gitlab-Token", secret}, Accepted},
		{"an empty body", "", []string{"X-Hub-Signature-256", "sha256=" + mac("")}, Accepted},
		{"upper case", push, []string{"X-Gitea-Signature", strings.ToUpper(mac(push))}, Accepted},
		{"no signature", push, nil, Unauthorized},
		{"an empty one", push, []string{"X-Hub-Signature-256", ""}, Unauthorized},
		{"another body", push + " ", []string{"X-Hub-Signature-256", "sha256=" + mac(push)}, Unauthorized},
		{"no prefix", push, []string{"X-Hub-Signature-256", mac(push)}, Unauthorized},
		{"SHA-1", push, []string{"X-Hub-Signature", "sha1=" + mac(push)[:40]}, Unauthorized},
		{"no hex", push, []string{"X-Gitea-Signature", strings.Repeat("z", 64)}, Unauthorized},
		{"short", push, []string{"X-Gitea-Signature", mac(push)[:62]}, Unauthorized},
		{"one right of two", push, []string{"X-Gitea-Signature", mac(push), "X-Gitea-Signature", mac("")}, Unauthorized},
		{"a wrong one before a right one", push, []string{"X-Hub-Signature-256", "sha256=" + mac(""), "X-Gitea-Signature", mac(push)}, Unauthorized},
		{"a wrong token", push, []string{"X-Gitlab-Token", secret + "x"}, Unauthorized},
		{"a wrong token beside a right signature", push, []string{"X-Gitlab-Token", "x", "X-Gitea-Signature", mac(push)}, Unauthorized},
		{"too large", long, []string{"X-Gitea-Signature", mac(long)}, TooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, n := hook(t, func(c *Config) { c.BodyBytes = 100 })
			// Without a Content-Length, so that the bound itself is reached.
			w := call(h, http.MethodPost, io.MultiReader(strings.NewReader(tt.body)), tt.headers...)
			if w.Code != statuses[tt.want] || h.Count(tt.want) != 1 {
				t.Errorf("got status %d, want %d counted as %s", w.Code, statuses[tt.want], tt.want)
			}
			if got := *n == 1; got != (tt.want == Accepted) {
				t.Errorf("triggered: got %v", got)
			}
			if got := strings.TrimSpace(w.Body.String()); got != http.StatusText(statuses[tt.want]) {
				t.Errorf("got body %q, want no detail", got)
			}
		})
	}
}

func TestOtherCalls(t *testing.T) {
	h, n := hook(t, func(c *Config) { c.BodyBytes = 100 })
	if w := call(h, http.MethodGet, nil, "X-Gitlab-Token", secret); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" {
		t.Errorf("GET: got %d", w.Code)
	}
	if w := call(h, http.MethodPost, strings.NewReader(strings.Repeat("x", 101)), "X-Gitlab-Token", secret); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a length that is declared: got %d", w.Code)
	}
	if w := call(h, http.MethodPost, io.MultiReader(strings.NewReader("x"), broken{}), "X-Gitea-Signature", mac("x")); w.Code != http.StatusBadRequest {
		t.Errorf("a body that breaks off: got %d", w.Code)
	}
	if *n != 0 || h.Count(Broken) != 2 {
		t.Errorf("got %d triggers, %d broken", *n, h.Count(Broken))
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the connection broke") }

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, n := hook(t, func(c *Config) { c.PerSecond, c.Burst = 2, 3 })
		for range 10 {
			call(h, http.MethodPost, nil, "X-Gitlab-Token", secret)
		}
		if *n != 3 || h.Count(TooMany) != 7 {
			t.Errorf("at once: got %d, %d refused; want 3 and 7", *n, h.Count(TooMany))
		}
		if w := call(h, http.MethodPost, nil, "X-Gitlab-Token", secret); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
			t.Errorf("got %d, want 429 that says when", w.Code)
		}
		time.Sleep(time.Second)
		for range 10 {
			call(h, http.MethodPost, nil, "X-Gitlab-Token", secret)
		}
		if *n != 5 {
			t.Errorf("a second later: got %d, want 5", *n)
		}
	})
}

// Callers that never finish their body hold no more than AtOnce places, and
// give them back.
func TestSlowCallers(t *testing.T) {
	h, n := hook(t, func(c *Config) { c.AtOnce = 2 })
	var wg sync.WaitGroup
	var ends []*io.PipeWriter
	for range 2 {
		r, w := io.Pipe()
		ends = append(ends, w)
		wg.Go(func() { call(h, http.MethodPost, r, "X-Gitea-Signature", mac("other")) })
		if _, err := w.Write([]byte("x")); err != nil { // it is being read
			t.Fatal(err)
		}
	}
	if w := call(h, http.MethodPost, bytes.NewReader(nil), "X-Gitea-Signature", mac("")); w.Code != http.StatusTooManyRequests {
		t.Errorf("got %d, want 429", w.Code)
	}
	for _, w := range ends {
		_ = w.Close()
	}
	wg.Wait()
	if w := call(h, http.MethodPost, bytes.NewReader(nil), "X-Gitea-Signature", mac("")); w.Code != http.StatusAccepted || *n != 1 {
		t.Errorf("got %d, %d triggers; want it taken", w.Code, *n)
	}
}

func TestConfig(t *testing.T) {
	for _, change := range []func(*Config){
		func(c *Config) { c.Secret = []byte("short") }, func(c *Config) { c.BodyBytes = 0 }, func(c *Config) { c.PerSecond = 0 },
		func(c *Config) { c.Burst = 0 }, func(c *Config) { c.AtOnce = 0 },
	} {
		cfg := Defaults()
		cfg.Secret = []byte(secret)
		change(&cfg)
		if _, err := New(cfg, func() {}); err == nil {
			t.Errorf("%+v: got no error", cfg)
		}
	}
}

// FuzzCall makes any call: what is not signed never triggers, and what is does.
func FuzzCall(f *testing.F) {
	f.Add("POST", "X-Hub-Signature-256", "sha256="+mac("x"), []byte("x"))
	f.Add("POST", "X-Gitea-Signature", mac(""), []byte{})
	f.Add("POST", "X-Gitlab-Token", secret, []byte("x"))
	f.Add("POST", "X-Gitlab-Token", "", []byte("x"))
	f.Add("PUT", "X-Hub-Signature", "sha1=", []byte("x"))
	f.Fuzz(func(t *testing.T, method, name, value string, body []byte) {
		h, n := hook(t, nil)
		r := httptest.NewRequest(http.MethodPost, Path, bytes.NewReader(body))
		r.Method = method
		r.Header = http.Header{http.CanonicalHeaderKey(name): {value}}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		sum := mac(string(body))
		signed := map[string]bool{
			"X-Hub-Signature-256": strings.HasPrefix(value, "sha256=") && strings.EqualFold(value[min(7, len(value)):], sum),
			"X-Gitea-Signature":   strings.EqualFold(value, sum), "X-Gitlab-Token": value == secret,
		}[http.CanonicalHeaderKey(name)]
		if got, want := *n == 1, signed && method == http.MethodPost; got != want {
			t.Errorf("%s %s: %s: triggered %v, want %v", method, name, value, got, want)
		}
		if (w.Code == http.StatusAccepted) != (*n == 1) {
			t.Errorf("got status %d with %d triggers", w.Code, *n)
		}
	})
}
