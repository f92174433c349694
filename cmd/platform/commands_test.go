package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/core/auth"
	"parley/core/config"
	"parley/core/transport/transporttest"
	"parley/plugins"
	"parley/policy/source"
)

// command runs the CLI in this process and returns what it printed.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := root()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	// Aside first, as editors do: a server that follows the folder never sees half
	// of it, or an empty file.
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBadConfigurationStopsTheStart(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "parley.yaml", "listen: 127.0.0.1:0\nlimits:\n  frame_byte: 3\n  text_bytes: many\n")
	for _, tc := range []struct {
		name string
		args []string
		want []string
	}{
		{"unknown key and bad value", []string{"run", "--config", file}, []string{file + ":3:", "frame_byte", "limits.frame_bytes", file + ":4:", "text_bytes"}},
		{"unknown flag", []string{"run", "--limits.frame_byte", "3"}, []string{"did you mean --limits.frame_bytes?"}},
		{"bad flag value", []string{"check", "--limits.frame_bytes", "x"}, []string{"--limits.frame_bytes", `"x"`, "allowed"}},
		{"no such file", []string{"run", "--config", filepath.Join(dir, "none.yaml")}, []string{"none.yaml"}},
		{"a word too many", []string{"run", "now"}, []string{"now"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := command(t, tc.args...)
			if err == nil {
				t.Fatal("it started")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to name %q", err, want)
				}
			}
		})
	}
}

func TestTokenIsOneTheServerTakes(t *testing.T) {
	dir := t.TempDir()
	out, err := command(t, "token", "--data_dir", dir, "--user", "ann", "--role", "moderator")
	if err != nil {
		t.Fatal(err)
	}
	v, err := auth.NewVerifier(auth.Config{Algorithm: auth.HS256, KeyFile: filepath.Join(dir, "jwt.key")})
	if err != nil {
		t.Fatal(err)
	}
	said, token, _ := strings.Cut(strings.TrimSpace(out), "\n")
	if !strings.Contains(said, "made a new key") {
		t.Errorf("got %q, want it to say that the key is new", said)
	}
	who, err := v.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	if who.User != "ann" || len(who.Roles) != 1 || who.Roles[0] != "moderator" {
		t.Errorf("got %+v, want ann with role moderator", who)
	}
	if _, err := command(t, "token", "--data_dir", dir, "--user", "not a name"); err == nil {
		t.Error("a token was made for a bad name")
	}
}

func TestCheckSaysWhatIsRefused(t *testing.T) {
	dir := t.TempDir()
	args := []string{"check", "--data_dir", filepath.Join(dir, "data"), "--plugins.dir", filepath.Join(dir, "plugins"), "--policy.dir", filepath.Join(dir, "policy")}
	write(t, dir, "policy/parley.rego", "package parley\n\ndefault decision := {\"allow\": true}\n")
	write(t, dir, "plugins/README", "not a plugin")
	out, err := command(t, args...)
	if err != nil || !strings.Contains(out, "policy   dir:") {
		t.Fatalf("a good set: got %v: %s", err, out)
	}
	if !strings.Contains(out, "no .wasm file in") {
		t.Errorf("got %q, want it to say that no plugin is there", out)
	}
	write(t, dir, "plugins/bad.wasm", "not wasm")
	write(t, dir, "policy/parley.rego", "package parley\n\ndecision := {\n")
	out, err = command(t, args...)
	if err == nil {
		t.Fatalf("a broken set passed: %s", out)
	}
	for _, want := range []string{"config   ok", "bad.wasm refused:", "policy   refused:", "parley.rego"} {
		if !strings.Contains(out, want) {
			t.Errorf("got %q, want it to say %q", out, want)
		}
	}
}

func TestCheckReadsTheCertificate(t *testing.T) {
	dir := t.TempDir()
	cert, key, _ := transporttest.NewAuthority(t).Files(dir, time.Now().Add(time.Hour))
	args := []string{"check", "--data_dir", dir, "--tls.cert_file", cert, "--tls.key_file", key, "--tls.min_version", "1.3"}
	if out, err := command(t, args...); err != nil || !strings.Contains(out, "ok until") {
		t.Errorf("a good pair: got %v: %s", err, out)
	}
	write(t, dir, "tls.key", "no key")
	if out, err := command(t, args...); err == nil || !strings.Contains(out, "tls      refused:") {
		t.Errorf("a broken pair: got %v: %s", err, out)
	}
}

// TestCheckReadsTheRepositoryNow: a start falls back to the last good commit
// that data_dir keeps, or to the built-in policy; check must hide behind neither.
func TestCheckReadsTheRepositoryNow(t *testing.T) {
	dir := t.TempDir()
	repo, data := filepath.Join(dir, "repo"), filepath.Join(dir, "data")
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", repo, "-c", "user.name=t", "-c", "user.email=t@example.org"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	commit := func(rules string) {
		t.Helper()
		write(t, repo, "parley.rego", rules)
		git("add", ".")
		git("commit", "-q", "-m", "rules")
	}
	write(t, repo, "README", "rules")
	git("init", "-q", "-b", "main")
	commit("package parley\n\ndefault decision := {\"allow\": true}\n")
	cfg := config.Defaults()
	cfg.DataDir, cfg.Policy.Git.URL = data, repo
	from, err := policyConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := source.Open(t.Context(), from, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err) // as a start does, which keeps the commit
	}
	args := []string{"check", "--data_dir", data, "--policy.git.url", repo}
	if out, err := command(t, args...); err != nil {
		t.Fatalf("a good commit: got %v: %s", err, out)
	}
	commit("package parley\n\ndecision := {\n")
	if out, err := command(t, args...); err == nil || !strings.Contains(out, "policy   refused: git:") {
		t.Errorf("a broken commit: got %v: %s", err, out)
	}
	if err := os.RemoveAll(repo); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t, args...); err == nil || !strings.Contains(out, "cannot be read") {
		t.Errorf("no repository: got %v: %s", err, out)
	}
}

func TestVersionAndCompletion(t *testing.T) {
	for _, how := range []string{"version", "--version"} {
		if out, err := command(t, how); err != nil || !strings.HasPrefix(out, "parley ") {
			t.Errorf("%s: got %q, %v", how, out, err)
		}
	}
	if out, err := command(t, "completion", "bash"); err != nil || !strings.Contains(out, "platform") {
		t.Errorf("completion: got %d bytes, %v", len(out), err)
	}
	if out, err := command(t, "__complete", "bench", "fanout", "--closed-by", ""); err != nil || !strings.HasPrefix(out, "acks\narrivals\n") {
		t.Errorf("what closes a loop: got %q, %v", out, err)
	}
}

func TestBenchRefusesWhatMeasuresNothing(t *testing.T) {
	for _, args := range [][]string{
		{"idle", "--rooms", "0"},
		{"idle", "--rooms", "-1"},
		{"fanout", "--members", "0"},
		{"connect", "--parallel", "0"},
		{"rooms", "--duration", "-5s"},
		{"idle", "--pid", "1"},
		{"nonsense"},
	} {
		if out, err := command(t, append([]string{"bench"}, args...)...); err == nil {
			t.Errorf("%v: got no error, %s", args, out)
		}
	}
}

// Whatever the configuration allows, the host takes.
func TestLimitsOfPluginsAreTheHosts(t *testing.T) {
	for key, most := range map[string][2]string{"plugins.fuel": {"1000000000", "1000000001"}, "plugins.memory_bytes": {"64MiB", "65MiB"}} {
		load := func(value string) error {
			cfg, err := config.Load("", nil, map[string]string{key: value})
			if err != nil {
				return err
			}
			h, err := plugins.NewHost(pluginConfig(cfg), slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			return h.Close()
		}
		t.Chdir(t.TempDir())
		if err := load(most[0]); err != nil {
			t.Errorf("%s %s: %v", key, most[0], err)
		}
		if err := load(most[1]); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s %s: got %v, want an error that names the key", key, most[1], err)
		}
	}
}

// A start refuses a key of tokens that it cannot read; so does check.
func TestCheckReadsTheKey(t *testing.T) {
	dir := t.TempDir()
	check := func(args ...string) (string, error) {
		return command(t, append([]string{"check", "--data_dir", dir}, args...)...)
	}
	if out, err := check(); err != nil { // the start makes one
		t.Errorf("no key yet: got %v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "jwt.key")); err == nil {
		t.Error("check made a key")
	}
	for _, args := range [][]string{
		{"--auth.jwt.key_file", filepath.Join(dir, "none")},
		{"--auth.jwt.key_file", write(t, dir, "short", "secret")},
		{"--auth.jwt.algorithm", "EdDSA", "--auth.jwt.key_file", write(t, dir, "pem", "no PEM")},
	} {
		if out, err := check(args...); err == nil || !strings.Contains(out, "auth     refused: auth.jwt: ") || !strings.Contains(out, args[len(args)-1]) {
			t.Errorf("%v: got %v: %s", args, err, out)
		}
	}
	write(t, dir, "jwt.key", "cut off")
	if out, err := check(); err == nil || !strings.Contains(out, "jwt.key has 7 bytes") {
		t.Errorf("a damaged key: got %v: %s", err, out)
	}
}

// SIGTERM while plugins are tried is an order, and no failure.
func TestRunIsToldToStopBeforeItIsReady(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "plugins/p.wasm", "\x00asm\x01\x00\x00\x00")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := root()
	c.SetArgs([]string{"run", "--data_dir", filepath.Join(dir, "data"), "--plugins.dir", filepath.Join(dir, "plugins"),
		"--listen", "127.0.0.1:0", "--tcp.listen", "", "--admin.listen", "", "--log.level", "error"})
	if err := c.ExecuteContext(ctx); err != nil {
		t.Errorf("got %v, want none", err)
	}
}

// A start refuses a folder for its data that cannot be one, and a token of the admin
// API that it cannot read; so does check, which makes neither.
func TestCheckReadsDataDirAndAdminToken(t *testing.T) {
	dir := t.TempDir()
	if out, err := command(t, "check", "--data_dir", filepath.Join(dir, "a", "b")); err != nil { // the start makes it
		t.Errorf("no data_dir yet: got %v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); err == nil {
		t.Error("check made data_dir")
	}
	file := write(t, dir, "file", "x")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--data_dir", file}, "data     refused: data_dir: " + file + " is a file"},
		{[]string{"--data_dir", filepath.Join(file, "a", "b")}, "data     refused: data_dir: " + file + " is a file"},
		{[]string{"--data_dir", dir, "--admin.token_file", filepath.Join(dir, "none")}, "admin    refused: admin token: "},
		{[]string{"--data_dir", dir, "--admin.token_file", file}, "has 1 bytes, at least 32"},
	} {
		if out, err := command(t, append([]string{"check"}, c.args...)...); err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%v: got %v: %s, want it to say %q", c.args, err, out, c.want)
		}
	}
	if out, err := command(t, "check", "--data_dir", dir, "--admin.token_file", filepath.Join(dir, "none"), "--admin.listen", ""); err != nil {
		t.Errorf("no admin listener, so no token: got %v: %s", err, out)
	}
	write(t, dir, "admin.token", "cut off")
	if out, err := command(t, "check", "--data_dir", dir); err == nil || !strings.Contains(out, "admin.token has 7 bytes") {
		t.Errorf("a damaged token: got %v: %s", err, out)
	}
}

// A server takes the key_file it is told, and makes none there; a token of a key
// that this command made would be for no server.
func TestTokenMakesNoKeyThatIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none")
	if out, err := command(t, "token", "--user", "ann", "--auth.jwt.key_file", file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v: %s, want an error that names the file", err, out)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("it made the key")
	}
}
