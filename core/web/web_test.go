package web_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/web"
)

func get(t *testing.T, h http.Handler, method, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, "http://chat.example:8080"+path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFiles(t *testing.T) {
	h := web.Handler(web.Config{})
	files, err := filepath.Glob("static/*")
	if err != nil || len(files) < 5 {
		t.Fatalf("static files: %v, %v", files, err)
	}
	for _, f := range files {
		path := "/" + filepath.Base(f)
		if path == "/index.html" {
			path = "/"
		}
		t.Run(path, func(t *testing.T) {
			r := get(t, h, "GET", path)
			if r.StatusCode != 200 || r.ContentLength <= 0 {
				t.Errorf("got %s, %d bytes", r.Status, r.ContentLength)
			}
			if head := get(t, h, "HEAD", path); head.Header.Get("Content-Length") != strconv.FormatInt(r.ContentLength, 10) {
				t.Errorf("HEAD: got length %s, want %d", head.Header.Get("Content-Length"), r.ContentLength)
			}
		})
	}
}

func TestContentTypes(t *testing.T) {
	h := web.Handler(web.Config{})
	for path, want := range map[string]string{
		"/":          "text/html; charset=utf-8",
		"/app.js":    "text/javascript; charset=utf-8",
		"/style.css": "text/css; charset=utf-8",
		"/icon.svg":  "image/svg+xml",
	} {
		if got := get(t, h, "GET", path).Header.Get("Content-Type"); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestStatus(t *testing.T) {
	h := web.Handler(web.Config{})
	for name, tc := range map[string]struct {
		method, path string
		want         int
	}{
		"page":            {"GET", "/", 200},
		"page, head":      {"HEAD", "/", 200},
		"query":           {"GET", "/?a=b", 200},
		"no such file":    {"GET", "/none.js", 404},
		"no index twice":  {"GET", "/index.html", 404},
		"no folder":       {"GET", "/static/app.js", 404},
		"no way out":      {"GET", "/../web.go", 404},
		"no encoded way":  {"GET", "/%2e%2e/web.go", 404},
		"post":            {"POST", "/", 405},
		"delete a file":   {"DELETE", "/app.js", 405},
		"options":         {"OPTIONS", "/", 405},
		"post to nothing": {"POST", "/none", 404},
	} {
		t.Run(name, func(t *testing.T) {
			r := get(t, h, tc.method, tc.path)
			if r.StatusCode != tc.want {
				t.Errorf("got %d, want %d", r.StatusCode, tc.want)
			}
			if tc.want == 405 && r.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("got Allow %q", r.Header.Get("Allow"))
			}
		})
	}
}

// TestSecurityHeaders: every answer carries them, errors too.
func TestSecurityHeaders(t *testing.T) {
	h := web.Handler(web.Config{})
	for _, path := range []string{"/", "/app.js", "/none"} {
		r := get(t, h, "GET", path)
		for name, want := range map[string]string{
			"X-Content-Type-Options":       "nosniff",
			"Referrer-Policy":              "no-referrer",
			"Cross-Origin-Opener-Policy":   "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: got %s %q, want %q", path, name, got, want)
			}
		}
		csp := directives(r.Header.Get("Content-Security-Policy"))
		for name, want := range map[string]string{
			"default-src":               "'none'",
			"script-src":                "'self'",
			"style-src":                 "'self'",
			"connect-src":               "'self' ws://chat.example:8080 wss://chat.example:8080",
			"img-src":                   "'self'",
			"base-uri":                  "'none'",
			"form-action":               "'none'",
			"frame-ancestors":           "'none'",
			"require-trusted-types-for": "'script'",
			"trusted-types":             "'none'",
		} {
			if csp[name] != want {
				t.Errorf("%s: got %s %q, want %q", path, name, csp[name], want)
			}
		}
	}
}

func directives(csp string) map[string]string {
	m := make(map[string]string)
	for _, d := range strings.Split(csp, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(d), " ")
		m[name] = value
	}
	return m
}

// TestHostInPolicy: a Host header adds itself to connect-src and nothing else.
func TestHostInPolicy(t *testing.T) {
	h := web.Handler(web.Config{})
	for host, want := range map[string]string{
		"127.0.0.1:8080":         "'self' ws://127.0.0.1:8080 wss://127.0.0.1:8080",
		"[::1]:8080":             "'self' ws://[::1]:8080 wss://[::1]:8080",
		"":                       "'self'",
		"a; script-src *":        "'self'",
		"a b":                    "'self'",
		"*":                      "'self'",
		"a'b":                    "'self'",
		"chat.example/x":         "'self'",
		strings.Repeat("a", 256): "'self'",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		csp := directives(w.Header().Get("Content-Security-Policy"))
		if got := csp["connect-src"]; got != want {
			t.Errorf("host %q: got %q, want %q", host, got, want)
		}
		if csp["script-src"] != "'self'" {
			t.Errorf("host %q: got script-src %q", host, csp["script-src"])
		}
	}
}

func TestCaching(t *testing.T) {
	h := web.Handler(web.Config{})
	r := get(t, h, "GET", "/app.js")
	etag := r.Header.Get("ETag")
	if !regexp.MustCompile(`^"[\w-]{16}"$`).MatchString(etag) || r.Header.Get("Cache-Control") != "no-cache" {
		t.Fatalf("got ETag %s, Cache-Control %s", etag, r.Header.Get("Cache-Control"))
	}
	for header, want := range map[string]int{
		etag: 304, "W/" + etag: 304, `"x", ` + etag: 304, "*": 304, `"x"`: 200, "": 200,
	} {
		r := get(t, h, "GET", "/app.js", "If-None-Match", header)
		if r.StatusCode != want {
			t.Errorf("If-None-Match %s: got %d, want %d", header, r.StatusCode, want)
		}
		if r.StatusCode == 304 && (body(t, r) != "" || r.Header.Get("ETag") != etag) {
			t.Errorf("If-None-Match %s: a 304 carries the ETag and no body", header)
		}
	}
	if other := get(t, web.Handler(web.Config{Name: "Other"}), "GET", "/").Header.Get("ETag"); other == get(t, h, "GET", "/").Header.Get("ETag") {
		t.Error("two different pages have one ETag")
	}
}

func TestPage(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  web.Config
		want []string
	}{
		"defaults": {web.Config{}, []string{"<title>Parley</title>", `"parley-room" content="lobby"`, `"parley-socket" content="v1/ws"`, `"parley-rooms" content=""`}},
		"own": {web.Config{Name: "Tea & <b>Chat</b>", Room: "tea", Rooms: []chat.RoomID{"announcements", "No Room", "tea"}, Socket: "chat/v1/ws"},
			[]string{"<title>Tea &amp; &lt;b&gt;Chat&lt;/b&gt;</title>", `"parley-room" content="tea"`, `"parley-socket" content="chat/v1/ws"`, `"parley-rooms" content="announcements tea "`}},
		"bad room": {web.Config{Room: `x"><script>`}, []string{`"parley-room" content="lobby"`}},
	} {
		t.Run(name, func(t *testing.T) {
			page := body(t, get(t, web.Handler(tc.cfg), "GET", "/"))
			for _, want := range tc.want {
				if !strings.Contains(page, want) {
					t.Errorf("the page lacks %s", want)
				}
			}
		})
	}
}

func TestHandlerIsShared(t *testing.T) {
	h := web.Handler(web.Config{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if r := get(t, h, "GET", "/"); r.StatusCode != 200 {
					t.Errorf("got %s", r.Status)
				}
			}
		})
	}
	wg.Wait()
}

// TestNothingRunsText: no file holds a way to turn text into markup or code,
// whatever the policy header would make of it.
func TestNothingRunsText(t *testing.T) {
	banned := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|srcdoc|createContextualFragment|setHTML|javascript:|set(?:Timeout|Interval)\(\s*["'` + "`" + `]`)
	inline := regexp.MustCompile(`(?i)<[^>]*\s(?:on[a-z]+|style)\s*=|<style|<script(?:\s[^>]*)?>[^<]`)
	outside := regexp.MustCompile(`(?i)(?:src|href|import|from|url)\s*[=(]?\s*["']?(?:https?:)?//`)
	entries, err := os.ReadDir("static")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join("static", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(b), "\n") {
			for what, re := range map[string]*regexp.Regexp{"turns text into markup or code": banned, "is an inline handler, style or script": inline, "loads from elsewhere": outside} {
				if m := re.FindString(line); m != "" {
					t.Errorf("static/%s:%d: %q %s", e.Name(), i+1, m, what)
				}
			}
		}
	}
}

// TestImports: every module that a script imports is served.
func TestImports(t *testing.T) {
	h := web.Handler(web.Config{})
	scripts, _ := filepath.Glob("static/*.js")
	found := 0
	for _, s := range scripts {
		b, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`from "\./([^"]+)"`).FindAllStringSubmatch(string(b), -1) {
			found++
			if r := get(t, h, "GET", "/"+m[1]); r.StatusCode != 200 {
				t.Errorf("%s imports %s: got %s", s, m[1], r.Status)
			}
		}
	}
	if found == 0 {
		t.Error("no script imports another; the pattern is wrong")
	}
}

// TestLabels: each field of the page has a label, each image a text.
func TestLabels(t *testing.T) {
	page := body(t, get(t, web.Handler(web.Config{}), "GET", "/"))
	fields := regexp.MustCompile(`<(?:input|textarea)\b[^>]*\bid="([^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(fields) < 4 {
		t.Fatalf("found %d fields", len(fields))
	}
	for _, f := range fields {
		if !strings.Contains(page, `for="`+f[1]+`"`) {
			t.Errorf("field %s has no label", f[1])
		}
	}
	for _, img := range regexp.MustCompile(`<img\b[^>]*>`).FindAllString(page, -1) {
		if !strings.Contains(img, "alt=") {
			t.Errorf("%s has no alt", img)
		}
	}
	if !strings.Contains(page, `<html lang="en">`) {
		t.Error("the page names no language")
	}
}

func BenchmarkPage(b *testing.B) {
	h := web.Handler(web.Config{})
	r := httptest.NewRequest("GET", "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
}
