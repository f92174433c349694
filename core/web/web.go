// Package web is the chat client that the server carries inside itself: plain
// HTML, CSS and ES modules, embedded as they are written, without a build step.
//
// Handler serves it and nothing else. It promises that no byte of a page comes
// from a person: what people write reaches a browser only through the
// WebSocket and is shown with textContent, under a Content-Security-Policy
// that allows no other script, style or address than the server's own.
//
// Everything is read and hashed once, when Handler is called; the handler
// holds no lock, starts no goroutine and may serve any number of requests at
// once.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"parley/core/chat"
)

//go:embed static
var static embed.FS

// Config is what a server may say about itself in the page. The zero value of
// each field means its default.
type Config struct {
	// Name is what the page calls the server; "Parley" by default.
	Name string
	// Room is where a visitor without a #room in the address begins; "lobby"
	// by default. A value that is no room name is replaced by the default.
	Room chat.RoomID
	// Rooms are offered to visitors who have not joined them, in this order.
	// What is no room name is left out.
	Rooms []chat.RoomID
	// Socket is the path of the WebSocket endpoint, resolved by the browser
	// against the page's own address; "v1/ws" by default. It is relative, so
	// that the server works below a path of a reverse proxy.
	Socket string
}

// The defaults of Config.
const (
	DefaultName   = "Parley"
	DefaultRoom   = chat.RoomID("lobby")
	DefaultSocket = "v1/ws"
)

// file is one embedded file, ready to be sent.
type file struct {
	body        []byte
	contentType string
	etag        string // strong, RFC 9110 §8.8.3
}

// Handler serves the client at /, its files beside it, and 404 for everything
// else. It answers GET and HEAD (405 otherwise), conditional requests with 304
// (RFC 9110 §13), and sets the security headers on every answer.
func Handler(cfg Config) http.Handler {
	files := load(cfg)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header(), r.Host)
		f, ok := files[r.URL.Path]
		if !ok {
			http.Error(w, "there is no such page; the chat client is at /", http.StatusNotFound)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "this address answers GET and HEAD only", http.StatusMethodNotAllowed)
			return
		}
		serve(w, r, f)
	})
}

// serve sends one file. The names of the files carry no version, so a browser
// asks each time (no-cache) and mostly gets a 304 of a few bytes.
func serve(w http.ResponseWriter, r *http.Request, f file) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", f.etag)
	if matches(r.Header.Get("If-None-Match"), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.contentType)
	h.Set("Content-Length", strconv.Itoa(len(f.body)))
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(f.body) // a browser that went away is no news
}

// matches compares as If-None-Match asks: weakly, against a list or "*"
// (RFC 9110 §13.1.2).
func matches(header, etag string) bool {
	for _, t := range strings.Split(header, ",") {
		t = strings.TrimPrefix(strings.TrimSpace(t), "W/")
		if t == etag || t == "*" {
			return true
		}
	}
	return false
}

// secure sets the headers that keep a page what it is. They are on every
// answer, errors included, since a browser may show any of them.
func secure(h http.Header, host string) {
	connect := "'self'"
	if validHost(host) {
		// CSP Level 3 lets 'self' cover ws: and wss: of the same host, older
		// Safari does not; naming the host is as narrow and works in both.
		connect += " ws://" + host + " wss://" + host
	}
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; "+
		"connect-src "+connect+"; img-src 'self'; base-uri 'none'; form-action 'none'; "+
		"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
}

// validHost keeps a Host header that could end a directive or add a source
// out of the policy (RFC 3986 §3.2.2: names, IPv4, bracketed IPv6, a port).
func validHost(host string) bool {
	if host == "" || len(host) > 255 {
		return false
	}
	for i := 0; i < len(host); i++ {
		switch c := host[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '-', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return true
}

// load reads every embedded file. The files are part of the binary, so what
// goes wrong here is a fault of the build and every test would meet it.
func load(cfg Config) map[string]file {
	files := make(map[string]file)
	err := fs.WalkDir(static, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := static.ReadFile(name)
		if err != nil {
			return err
		}
		f := file{body: body, contentType: contentTypes[path.Ext(name)]}
		if f.contentType == "" {
			return fmt.Errorf("file %s has no content type", name)
		}
		at := strings.TrimPrefix(name, "static")
		if at == "/index.html" {
			if f.body, err = page(body, cfg); err != nil {
				return err
			}
			at = "/"
		}
		sum := sha256.Sum256(f.body)
		f.etag = `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
		files[at] = f
		return nil
	})
	if err != nil {
		panic(fmt.Sprintf("web: embedded files: %v", err))
	}
	return files
}

// page fills in what the server says about itself.
func page(body []byte, cfg Config) ([]byte, error) {
	if cfg.Name == "" {
		cfg.Name = DefaultName
	}
	if !chat.ValidRoom(cfg.Room) {
		cfg.Room = DefaultRoom
	}
	cfg.Rooms = slices.DeleteFunc(slices.Clone(cfg.Rooms), func(r chat.RoomID) bool { return !chat.ValidRoom(r) })
	if cfg.Socket == "" {
		cfg.Socket = DefaultSocket
	}
	t, err := template.New("index.html").Parse(string(body))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, cfg)
	return out.Bytes(), err
}

// contentTypes are spelled out: the system's table differs between machines,
// and nosniff makes a wrong one fatal.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".svg":  "image/svg+xml",
}
