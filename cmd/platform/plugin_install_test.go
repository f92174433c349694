package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/core/atomicfile"
	"parley/plugins"
)

// TestInstallIsSafeAtEachStep installs a second version in the two steps that
// install makes and has a real catalog read the folder between them: it refuses
// the mixed pair and keeps judging with the first version.
func TestInstallIsSafeAtEachStep(t *testing.T) {
	dir, wasm := newPlugin(t, "no-tags")
	folder := t.TempDir()
	mustPlugin(t, "", []string{"no-tags is in " + folder, "4 vectors pass"}, "install", "--dir", folder, wasm)

	cfg := plugins.Defaults()
	cfg.Dir = folder
	catalog, err := plugins.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer catalog.Close()
	loaded := func() plugins.Status {
		t.Helper()
		_ = catalog.Load(t.Context()) // what it refuses is in the status
		all := catalog.Status()
		if len(all) != 1 {
			t.Fatalf("the catalog has %+v", all)
		}
		return all[0]
	}
	first := loaded()
	if first.Error != "" || first.Digest == "" {
		t.Fatalf("installed, it is %+v", first)
	}

	edit(t, filepath.Join(dir, "plugin.c"), "in this room", "in this house")
	edit(t, filepath.Join(dir, "no-tags.json"), "0.1.0", "0.2.0")
	mustPlugin(t, "", nil, "build", dir)
	other := t.TempDir()
	mustPlugin(t, "", nil, "install", "--dir", other, wasm)
	if err := atomicfile.Write(filepath.Join(folder, "no-tags.json"), []byte(read(t, filepath.Join(other, "no-tags.json"))), 0o644); err != nil {
		t.Fatal(err)
	}
	if between := loaded(); between.Digest != first.Digest || between.Version != "0.1.0" || !strings.Contains(between.Error, "SHA-256") {
		t.Errorf("between the steps it is %+v, want version 0.1.0 in force and the pair refused", between)
	}
	mustPlugin(t, "", nil, "install", "--dir", folder, wasm)
	if now := loaded(); now.Digest == first.Digest || now.Version != "0.2.0" || now.Error != "" {
		t.Errorf("after both steps it is %+v, want version 0.2.0", now)
	}
	if left, _ := filepath.Glob(filepath.Join(folder, ".*")); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}

// TestInstallReplacesTheManifestOfAnother: a module that carries its manifest,
// or has none, must not run with one that lies in the folder.
func TestInstallReplacesTheManifestOfAnother(t *testing.T) {
	dir, wasm := newPlugin(t, "no-tags")
	folder := t.TempDir()
	old := write(t, folder, "no-tags.json", `{"on_error": "hold", "kinds": ["nick"]}`)
	file, err := plugins.ReadFile(wasm, plugins.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	whole, err := plugins.Embed(file.Wasm, file.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	within := write(t, t.TempDir(), "no-tags.wasm", string(whole))
	mustPlugin(t, "", []string{"4 vectors pass"}, "install", "--dir", folder, within)
	if m, err := plugins.ParseManifest([]byte(read(t, old))); err != nil || len(m.Kinds) != 2 || m.SHA256 == "" || len(m.Vectors) != 4 {
		t.Errorf("the manifest in the folder is %+v, %v, want the module's own", m, err)
	}
	if err := os.Remove(filepath.Join(dir, "no-tags.json")); err != nil {
		t.Fatal(err)
	}
	mustPlugin(t, "", []string{"0 vectors pass"}, "install", "--dir", folder, wasm)
	if m, err := plugins.ParseManifest([]byte(read(t, old))); err != nil || m.Kinds != nil || m.SHA256 == "" {
		t.Errorf("the manifest in the folder is %+v, %v, want one that says the digest alone", m, err)
	}
}

func TestInstallRefuses(t *testing.T) {
	_, wasm := newPlugin(t, "no-tags")
	refusedPlugin(t, "plugin folder", "install", "--dir", filepath.Join(t.TempDir(), "none"), wasm)
	refusedPlugin(t, "it is a file", "install", "--dir", wasm, wasm)
	refusedPlugin(t, "data-dir", "install", wasm)
	refusedPlugin(t, "data-dir", "install", "--dir", "a", "--data-dir", "b", wasm)
	refusedPlugin(t, "not a WebAssembly", "install", "--dir", t.TempDir(), write(t, t.TempDir(), "bad.wasm", "not wasm"))
	data := t.TempDir()
	mustPlugin(t, "", nil, "install", "--data-dir", data, wasm)
	if _, err := os.Stat(filepath.Join(data, "plugins", "no-tags.wasm")); err != nil {
		t.Error(err)
	}
}

// adminStub answers /v1/plugins with what states returns, and keeps the orders
// it gets.
func adminStub(t *testing.T, states func() string) (addr string, orders func() []string) {
	t.Helper()
	var mu sync.Mutex
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			var o rolloutOrder
			if err := json.NewDecoder(r.Body).Decode(&o); err != nil || r.Header.Get("Authorization") == "" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			if o.Reason == "late" {
				w.WriteHeader(http.StatusConflict)
				_, _ = w.Write([]byte(`{"code":"conflict","text":"the rollout has moved on"}`))
				return
			}
			b, _ := json.Marshal(o)
			mu.Lock()
			got = append(got, r.URL.Path+" "+string(b))
			mu.Unlock()
		}
		_, _ = w.Write([]byte(states()))
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got)
	}
}

const twoPlugins = `{"plugins":[
	{"name":"bad","state":"refused","error":"not a module \u001b[2J","decisions":0,"faults":0,"fuel":0},
	{"name":"links","state":"active","version":"1.2","digest":"0123456789abcdef0123","decisions":10,"faults":1,"fuel":5000,"last_fault":"it trapped",
	 "candidate":{"version":"1.3","digest":"fedcba98765432100123","stage":"canary","percent":5,"since":"2026-01-02T03:04:05Z","decisions":7,"faults":0,"denied":2,"compared":7,"disagreed":1},
	 "last_rollback":{"version":"1.1","stage":"shadow","reason":"p99_fuel","by":"guard","at":"2026-01-01T00:00:00Z"}}]}`

func TestPluginListAndRollout(t *testing.T) {
	addr, got := adminStub(t, func() string { return twoPlugins })
	token := write(t, t.TempDir(), "admin.token", "secret\n")
	mustPlugin(t, "", []string{"links", "active", "0123456789ab", "500", "canary 5% fedcba987654", "1 of 7 unlike the version in force",
		`its file was refused: "not a module \x1b[2J"`, "it trapped", "rolled back from shadow at 2026-01-01T00:00:00Z by guard: p99_fuel"}, "list", "--admin", addr)
	var answer struct{ Plugins []map[string]any }
	if out := mustPlugin(t, "", nil, "list", "--json", "--admin", addr); json.Unmarshal([]byte(out), &answer) != nil || len(answer.Plugins) != 2 {
		t.Errorf("list --json: got %s", out)
	}
	out := mustPlugin(t, "", []string{"links"}, "rollout", "links", "--admin", addr)
	if strings.Contains(out, "bad") || len(got()) != 0 {
		t.Errorf("rollout of one shows\n%s and ordered %v", out, got())
	}
	for _, args := range [][]string{{"promote"}, {"canary", "--percent", "20", "--reason", "it is good"}, {"rollback"}, {"shadow"}, {"retry"}} {
		mustPlugin(t, "", []string{"links"}, append([]string{"rollout", "links", "--admin", addr, "--admin-token-file", token}, args...)...)
	}
	want := []string{`{"action":"promote"}`, `{"action":"set","stage":"canary","percent":20,"reason":"it is good"}`, `{"action":"rollback"}`, `{"action":"set","stage":"shadow"}`, `{"action":"retry"}`}
	for i, w := range want {
		if i >= len(got()) || got()[i] != "/v1/plugins/links/rollout "+w {
			t.Fatalf("ordered %v, want %v", got(), want)
		}
	}
	refusedPlugin(t, "the rollout has moved on", "rollout", "links", "promote", "--reason", "late", "--admin", addr, "--admin-token-file", token)
	refusedPlugin(t, "is no order", "rollout", "links", "pause", "--admin", addr)
	refusedPlugin(t, "--percent", "rollout", "links", "promote", "--percent", "3", "--admin", addr)
	refusedPlugin(t, "--percent", "rollout", "links", "canary", "--percent", "101", "--admin", addr)
	refusedPlugin(t, `no plugin "nobody"`, "rollout", "nobody", "--admin", addr)

	c := root()
	var names strings.Builder
	c.SetOut(&names)
	c.SetArgs([]string{"__complete", "plugin", "rollout", "--admin", addr, ""})
	if err := c.ExecuteContext(t.Context()); err != nil || !strings.Contains(names.String(), "links\n") {
		t.Errorf("completion: got %q, %v", names.String(), err)
	}
	empty, _ := adminStub(t, func() string { return `{"plugins":[]}` })
	mustPlugin(t, "", []string{"no plugins"}, "list", "--admin", empty)
}

// TestInstallWaits: until the server judges with the version, refuses it, or
// the time is over.
func TestInstallWaits(t *testing.T) {
	_, wasm := newPlugin(t, "no-tags")
	digest := ""
	var calls atomic.Int32
	for _, tt := range []struct{ name, last, err string }{
		{"in force", `{"name":"no-tags","state":"active","digest":"DIGEST"}`, ""},
		{"on trial", `{"name":"no-tags","state":"active","digest":"old","candidate":{"digest":"DIGEST","stage":"shadow"}}`, ""},
		{"refused", `{"name":"no-tags","state":"active","digest":"old","error":"it is not signed","refused_at":"LATER"}`, "the server refused no-tags: it is not signed"},
		{"never", `{"name":"no-tags","state":"active","digest":"old","error":"of long ago","refused_at":"2020-01-01T00:00:00Z"}`, "does not judge with no-tags yet"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls.Store(0)
			addr, _ := adminStub(t, func() string {
				if calls.Add(1) < 3 {
					return `{"plugins":[]}`
				}
				later := time.Now().Add(time.Second).Format(time.RFC3339)
				return `{"plugins":[` + strings.NewReplacer("DIGEST", digest, "LATER", later).Replace(tt.last) + `]}`
			})
			wait := "1m"
			if tt.name == "never" {
				wait = "200ms"
			}
			file, err := plugins.ReadFile(wasm, plugins.Defaults())
			if err != nil {
				t.Fatal(err)
			}
			digest = digestOf(t, file)
			out, err := plugin(t, "", "install", "--dir", t.TempDir(), "--admin", addr, "--wait", wait, wasm)
			if tt.err == "" && (err != nil || !strings.Contains(out, "the server judges with it") || calls.Load() < 3) {
				t.Errorf("got %v after %d calls\n%s", err, calls.Load(), out)
			}
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %v, want %q", err, tt.err)
			}
		})
	}
}

// digestOf loads the module to learn what a server calls its digest.
func digestOf(t *testing.T, f plugins.File) string {
	t.Helper()
	h, err := plugins.NewHost(plugins.Defaults(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	p, err := h.Load(context.Background(), f.Name, f.Wasm, f.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	return p.Digest()
}
