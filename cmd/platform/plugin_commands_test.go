package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/plugins"
	"parley/sdk/abi"
)

// plugin runs `platform plugin` with a cache of the test's own.
func plugin(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	c := root()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetIn(strings.NewReader(stdin))
	c.SetArgs(append([]string{"plugin"}, args...))
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

// mustPlugin is plugin for what has to work; it checks what is printed.
func mustPlugin(t *testing.T, stdin string, want []string, args ...string) string {
	t.Helper()
	out, err := plugin(t, stdin, args...)
	if err != nil {
		t.Fatalf("plugin %v: %v\n%s", args, err, out)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("plugin %v: no %q in\n%s", args, w, out)
		}
	}
	return out
}

// refusedPlugin is plugin for what has to fail with words.
func refusedPlugin(t *testing.T, want string, args ...string) {
	t.Helper()
	out, err := plugin(t, "", args...)
	if err == nil || !strings.Contains(err.Error()+out, want) {
		t.Errorf("plugin %v: got %v, want %q\n%s", args, err, want, out)
	}
}

// newPlugin makes a project in C, which compiles fastest, and returns its
// folder and module.
func newPlugin(t *testing.T, name string) (dir, wasm string) {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir = filepath.Join(t.TempDir(), name)
	mustPlugin(t, "", []string{"plugin.c", "platform plugin build " + dir, "platform plugin install " + dir}, "new", "--lang", "c", dir)
	mustPlugin(t, "", []string{name + ".wasm", "from c", "4 vectors pass"}, "build", dir)
	return dir, filepath.Join(dir, name+".wasm")
}

func edit(t *testing.T, path, old, now string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		t.Fatalf("%s has no %q", path, old)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(b), old, now)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestPluginAuthorsLoop(t *testing.T) {
	dir, wasm := newPlugin(t, "no-tags")
	refusedPlugin(t, "not empty", "new", "--lang", "c", dir)
	refusedPlugin(t, "is not a plugin name", "new", "--lang", "c", filepath.Join(dir, "Bad_Name"))
	refusedPlugin(t, "there are go", "new", "--lang", "cobol", dir+"-x")
	refusedPlugin(t, "lang", "new", dir+"-x")

	mustPlugin(t, "", []string{"ok", "two tags", "rule_1", "4 of 4 vectors pass"}, "test", dir)
	mustPlugin(t, "", []string{"4 of 4 vectors pass"}, "test", wasm)
	mustPlugin(t, "hello\n\na #tag here\n", []string{"allow", "redact", "rule_1", "a **** here", "No hash tags", "fuel"}, "run", wasm)
	mustPlugin(t, "a #tag\n", []string{"not asked"}, "run", "--kind", "nick", wasm)
	refusedPlugin(t, `--kind "nickname", want message, edit, nick or topic`, "run", "--kind", "nickname", wasm)
	mustPlugin(t, "\xff\n", []string{"the server would not take it", "UTF-8"}, "run", wasm)

	var line judged
	out := mustPlugin(t, "a #tag\n", nil, "run", "--json", "--user", "bob", "--room", "staff", "--role", "moderator", wasm)
	if err := json.Unmarshal([]byte(out), &line); err != nil || line.Verdict != "redact" || line.Masked != "a ****" || line.Code != 1 || line.Fuel == 0 || line.NS == 0 {
		t.Errorf("run --json: got %+v, %v", line, err)
	}
	// Installing elsewhere leaves the project's own module alone.
	to := filepath.Join(t.TempDir(), "out")
	mustPlugin(t, "", nil, "build", dir, "--out", to)
	for _, name := range []string{"no-tags.wasm", "no-tags.json"} {
		if _, err := os.Stat(filepath.Join(to, name)); err != nil {
			t.Error(err)
		}
	}

	// A vector that differs is shown by test, and refused by build and install.
	edit(t, filepath.Join(dir, "no-tags.json"), `"want": "allow"`, `"want": "deny"`)
	out, err := plugin(t, "", "test", wasm)
	if !errors.Is(err, errTold) || !strings.Contains(out, "FAIL") || !strings.Contains(out, "got allow, want deny") || !strings.Contains(out, "2 of 4 vectors pass") {
		t.Errorf("a vector that differs: got %v\n%s", err, out)
	}
	var rows []vectorRow
	if out, err = plugin(t, "", "test", "--json", wasm); !errors.Is(err, errTold) || json.Unmarshal([]byte(out), &rows) != nil || len(rows) != 4 || rows[0].OK || !rows[1].OK {
		t.Errorf("test --json: got %v, %+v", err, rows)
	}
	refusedPlugin(t, "the server would refuse it", "build", dir)
	refusedPlugin(t, "want deny", "install", "--dir", t.TempDir(), wasm)
	mustPlugin(t, "a #tag\n", []string{"redact"}, "run", wasm) // so that the author can look

	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	mustPlugin(t, "a #tag\n", []string{"redact"}, "run", "--cache", "", wasm)
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("without a cache it left %v, %v", left, err)
	}

	refusedPlugin(t, "has no test vectors", "test", write(t, t.TempDir(), "bare.wasm", read(t, wasm)))
	refusedPlugin(t, "is no module", "run", dir)
	refusedPlugin(t, "no such file", "run", dir+"/none.wasm")
	edit(t, filepath.Join(dir, "plugin.c"), "return parley", "retrun parley")
	refusedPlugin(t, "build no-tags", "build", dir)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPluginBench(t *testing.T) {
	_, wasm := newPlugin(t, "no-tags")
	mustPlugin(t, "", []string{"decisions/s", "p99", "fuel", "12 lines", "allow"}, "bench", "--duration", "20ms", wasm)
	lines := write(t, t.TempDir(), "lines.txt", "one #tag\ntwo\n\nthree\n\xff\n")
	var r benchResult
	out := mustPlugin(t, "", nil, "bench", "--duration", "20ms", "--text", lines, "--json", wasm)
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Lines != 3 || r.Verdicts["redact"] != 1 || r.Verdicts["allow"] != 2 ||
		r.PerSecond <= 0 || r.NS.P50 <= 0 || r.NS.P99 < r.NS.P50 || r.NS.Max < r.NS.P99 || r.Fuel.Max < r.Fuel.P50 || r.Fuel.P50 == 0 {
		t.Errorf("got %+v, %v", r, err)
	}
	refusedPlugin(t, "no line that a server would take", "bench", "--text", write(t, t.TempDir(), "bad.txt", "\xff\n"), wasm)
	refusedPlugin(t, "--duration", "bench", "--duration", "1ms", wasm)
	refusedPlugin(t, "read the lines", "bench", "--text", wasm+"-none", wasm)
}

func TestPluginSignAndInspect(t *testing.T) {
	dir, wasm := newPlugin(t, "no-tags")
	mustPlugin(t, "", []string{"signature  none", "func decide(i32, i32) -> (i64)", "imports    none", "fixed", `"want": "redact"`}, "inspect", wasm)

	key := filepath.Join(t.TempDir(), "sign.key")
	public := strings.TrimSpace(mustPlugin(t, "", nil, "keygen", "--key", key))
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the key file: %v, %v", info, err)
	}
	refusedPlugin(t, "is there already", "keygen", "--key", key)
	before := read(t, filepath.Join(dir, "no-tags.json"))
	mustPlugin(t, "", []string{public}, "sign", "--key", key, wasm)
	after := read(t, filepath.Join(dir, "no-tags.json"))
	if _, rest, _ := strings.Cut(before, "{"); !strings.HasSuffix(after, rest) {
		t.Errorf("signing changed what its author wrote:\n%s", after)
	}
	mustPlugin(t, "", []string{"untrusted, by " + public}, "inspect", wasm)
	mustPlugin(t, "", []string{"signature  trusted"}, "inspect", "--trusted-key", public, wasm)
	var shown struct{ Name, Signature, Signer string }
	if out := mustPlugin(t, "", nil, "inspect", "--json", wasm); json.Unmarshal([]byte(out), &shown) != nil || shown.Name != "no-tags" || shown.Signer != public {
		t.Errorf("inspect --json: got %+v", shown)
	}
	mustPlugin(t, "", nil, "sign", "--key", key, wasm) // again: in the same places
	if again := read(t, filepath.Join(dir, "no-tags.json")); again != after {
		t.Errorf("signed again it is\n%s, was\n%s", again, after)
	}

	edit(t, filepath.Join(dir, "plugin.c"), "in this room", "in this house")
	mustPlugin(t, "", []string{"sign it again"}, "build", dir)
	mustPlugin(t, "", []string{"signature  wrong"}, "inspect", wasm)
	refusedPlugin(t, "SHA-256", "install", "--dir", t.TempDir(), wasm)
	mustPlugin(t, "", nil, "sign", "--key", key, wasm)
	mustPlugin(t, "", nil, "install", "--dir", t.TempDir(), wasm)

	refusedPlugin(t, "not a public key", "inspect", "--trusted-key", "x", wasm)
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	refusedPlugin(t, "others can read the key", "sign", "--key", key, wasm)
	refusedPlugin(t, "no private key in PEM", "sign", "--key", write(t, t.TempDir(), "k", "no key"), wasm)
	refusedPlugin(t, "read the key", "sign", "--key", key+"-none", wasm)
	refusedPlugin(t, "no module", "sign", "--key", writeKey(t), dir)
}

func writeKey(t *testing.T) string {
	t.Helper()
	key := filepath.Join(t.TempDir(), "k")
	mustPlugin(t, "", nil, "keygen", "--key", key)
	return key
}

// records are lines as the evidence store gives them.
func records(texts ...string) []map[string]any {
	var out []map[string]any
	for i, text := range texts {
		input := abi.AppendInput(nil, &abi.Input{TimeMS: 1000, Text: []byte(text), Normalized: []byte(strings.ToLower(text)), User: "ann", Room: "lobby", Kind: "message"})
		out = append(out, map[string]any{"id": fmt.Sprint("m", i), "room": "lobby", "user": "ann", "ts": 1000 + i, "input": input, "verdict": "allow", "plugins": []string{}})
	}
	return out
}

// evidenceServer answers as the admin listener does, two records a page.
func evidenceServer(t *testing.T, all []map[string]any) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.URL.Path != "/v1/evidence" || q.Get("room") != "lobby" || q.Get("since") == "" || r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		at := 0
		if after := q.Get("after"); after != "" {
			_, _ = fmt.Sscan(after, &at)
		}
		page := map[string]any{"records": all[at:min(at+2, len(all))], "next": ""}
		if at+2 < len(all) {
			page["next"] = fmt.Sprint(at + 2)
		}
		_ = json.NewEncoder(w).Encode(page)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestPluginBacktest(t *testing.T) {
	dir, old := newPlugin(t, "no-tags")
	folder, data := t.TempDir(), t.TempDir()
	mustPlugin(t, "", nil, "install", "--dir", folder, old)
	edit(t, filepath.Join(dir, "plugin.c"), "c == '_'", "c == '_' || c == '!'")
	edit(t, filepath.Join(dir, "plugin.c"), "CODE_TAG = 1", "CODE_TAG = 2")
	mustPlugin(t, "", nil, "build", dir)

	all := records("hello", "a #tag", "a #tag! now", "#b", "nothing")
	var file strings.Builder
	for _, r := range all {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		file.Write(append(b, '\n'))
	}
	lines := write(t, t.TempDir(), "evidence.jsonl", file.String())
	write(t, data, "admin.token", "secret\n")
	addr := evidenceServer(t, all)

	text := mustPlugin(t, "", []string{"5 messages, 1 changed, 2 for another rule", "redact -> redact", "a #tag! now", "a ****! now", "a ***** now", "fuel below", "decisions/s"},
		"backtest", old, "--against", filepath.Join(folder, "no-tags.wasm"), "--from", lines)
	if strings.Contains(text, "m1") {
		t.Errorf("a message that did not change is shown:\n%s", text)
	}
	for name, args := range map[string][]string{
		"a file":     {"--from", lines},
		"stdin":      {"--from", "-", "--since", "1000000h"},
		"the server": {"--admin", addr, "--data-dir", data, "--room", "lobby"},
	} {
		out, err := plugin(t, file.String(), append([]string{"backtest", old, "--against", "no-tags", "--dir", folder, "--json", "--exit-code"}, args...)...)
		var r backtestReport
		if !errors.Is(err, exitChanged) || json.Unmarshal([]byte(out), &r) != nil || r.Records != 5 || r.Changed != 1 || r.Reworded != 2 || len(r.Changes) != 1 ||
			r.Changes[0].ID != "m2" || r.Changes[0].Old.Masked != "a ****! now" || r.Changes[0].New.Masked != "a ***** now" || len(r.Pairs) != 2 || r.New.Decisions != 5 || len(r.New.Histogram) == 0 {
			t.Errorf("%s: got %v\n%s", name, err, out)
		}
	}
	same := []string{"backtest", old, "--against", old, "--from", lines, "--exit-code"}
	if out, err := plugin(t, "", same...); err != nil || !strings.Contains(out, "0 changed") {
		t.Errorf("against itself: got %v\n%s", err, out)
	}
	mustPlugin(t, "", []string{"0 messages", "nothing was judged"}, "backtest", old, "--against", old, "--from", lines, "--room", "staff")
	mustPlugin(t, "", []string{"and 1 more (--limit)"}, "backtest", old, "--against", filepath.Join(folder, "no-tags.wasm"), "--from", lines, "--limit", "0")

	refusedPlugin(t, "401", "backtest", old, "--against", old, "--admin", addr, "--room", "lobby")
	refusedPlugin(t, "is it running", "backtest", old, "--against", old, "--admin", "127.0.0.1:1")
	refusedPlugin(t, "say with --dir", "backtest", old, "--against", "no-tags")
	refusedPlugin(t, "neither a module", "backtest", old, "--against", "No Name")
	refusedPlugin(t, "line 1 is no record", "backtest", old, "--against", old, "--from", write(t, t.TempDir(), "x", "nonsense\n"))
	refusedPlugin(t, "--since", "backtest", old, "--against", old, "--since", "-1h")
}

// TestPluginCommandsKnowNoQuarantine: a server stops asking a plugin that fails
// again and again; whoever looks at it wants to see every failure.
func TestPluginCommandsKnowNoQuarantine(t *testing.T) {
	dir, _ := newPlugin(t, "no-tags")
	edit(t, filepath.Join(dir, "plugin.c"), "parley_mask(&spans, PARLEY_TEXT, i, end);", "__builtin_trap();")
	edit(t, filepath.Join(dir, "no-tags.json"), `"vectors"`, `"limits": {"fuel": 100000}, "vectors"`)
	to := t.TempDir()
	refusedPlugin(t, "unreachable", "build", dir, "--out", to) // its vectors fail, and it is there to be looked at
	out := mustPlugin(t, strings.Repeat("a #tag\n", 20), nil, "run", filepath.Join(to, "no-tags.wasm"))
	if n := strings.Count(out, "it trapped: unreachable"); n != 20 {
		t.Errorf("got %d of 20 failures told:\n%s", n, out)
	}
}

// TestBuildKnowsItsOwnDigest: a manifest within the module names the digest of
// the module without it.
func TestBuildKnowsItsOwnDigest(t *testing.T) {
	dir, wasm := newPlugin(t, "no-tags")
	key := writeKey(t)
	mustPlugin(t, "", nil, "sign", "--key", key, wasm)
	file, err := plugins.ReadFile(wasm, plugins.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	whole, err := plugins.Embed(file.Wasm, file.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "no-tags.json")); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\ncp '" + write(t, t.TempDir(), "whole", string(whole)) + "' \"$1\"\n"
	if err := os.WriteFile(filepath.Join(dir, "build.sh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if out := mustPlugin(t, "", []string{"4 vectors pass"}, "build", dir); strings.Contains(out, "sign it again") {
		t.Errorf("got\n%s\nwant the digest of the manifest taken for right", out)
	}
}
