package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What people get wrong on the command line is refused, in words that help.
func TestMistakesAreNamed(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	denied := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"code":"unauthorized","text":"send the token"}`))
	}))
	defer denied.Close()
	missing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"code":"no_plugin","text":"there is no plugin \"lnks\""}`))
	}))
	defer missing.Close()
	addr := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }
	dir := t.TempDir()
	token := write(t, dir, "admin.token", "wrong\n")
	nowhere := filepath.Join(dir, "daat")
	for _, tc := range []struct {
		name string
		args []string
		want []string
	}{
		{"a command of plugin", []string{"plugin", "isntall"}, []string{`"isntall"`, "install"}},
		{"a command of diag", []string{"diag", "udp"}, []string{`"udp"`, "platform diag"}},
		{"a flag of the command's own", []string{"token", "--user", "ann", "--rol", "x"}, []string{"did you mean --role?"}},
		{"the other spelling of a flag", []string{"plugin", "list", "--data_dir", dir}, []string{"did you mean --data-dir?"}},
		{"a flag of the configuration", []string{"token", "--data-dir", dir}, []string{"did you mean --data_dir?"}},
		{"no argument", []string{"explain"}, []string{"MESSAGE_ID"}},
		{"too many arguments", []string{"plugin", "inspect", "a.wasm", "b.wasm"}, []string{"NAME.wasm"}},
		{"no folder to install to", []string{"plugin", "install", "a.wasm"}, []string{"--dir", "--data-dir"}},
		{"two folders to install to", []string{"plugin", "install", "a.wasm", "--dir", dir, "--data-dir", dir}, []string{"--dir", "--data-dir", "not both"}},
		{"a data folder that is not there", []string{"plugin", "install", "a.wasm", "--data-dir", nowhere}, []string{nowhere, "no such file"}},
		{"the chat listener", []string{"plugin", "list", "--admin", addr(other)}, []string{"404", "admin.listen"}},
		{"a port alone", []string{"plugin", "list", "--admin", "9090"}, []string{`"9090"`, "127.0.0.1:9090"}},
		{"no token", []string{"plugin", "list", "--admin", addr(denied)}, []string{"401", "--admin-token-file"}},
		{"a wrong token", []string{"plugin", "list", "--admin", addr(denied), "--admin-token-file", token}, []string{"401", token}},
		{"a plugin that is not there", []string{"plugin", "rollout", "lnks", "promote", "--admin", addr(missing)}, []string{`there is no plugin "lnks"`}},
		{"a node that is no URL", []string{"bench", "failover", "--target", "127.0.0.1:8080"}, []string{"try the node 127.0.0.1:8080"}},
		{"nodes that are not there to kill", []string{"bench", "failover", "--target", "tcp://127.0.0.1:1", "--kills", "2"}, []string{"--kills", "--target"}},
		{"one node to kill", []string{"bench", "failover", "--nodes", "1"}, []string{"at least 2"}},
		{"a mode that is not there", []string{"bench", "failovr"}, []string{"failover"}},
		{"a loop closed by nothing we know", []string{"bench", "fanout", "--closed-by", "pubs"}, []string{"--closed-by pubs", "acks or arrivals"}},
		{"arrivals on several nodes", []string{"bench", "fanout", "--closed-by", "arrivals", "--nodes", "2", "--spread"}, []string{"without --spread"}},
		{"arrivals in several processes", []string{"bench", "rooms", "--closed-by", "arrivals", "--rooms", "2000"}, []string{"20000 members", "18000"}},
		{"no URL to put load on", []string{"bench", "idle", "--target", "127.0.0.1:8080"}, []string{"ws://"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := command(t, tc.args...)
			if err == nil {
				t.Fatalf("got no error, but\n%s", out)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
		})
	}
	if _, err := os.Stat(nowhere); err == nil {
		t.Error("install made a data folder that was not there")
	}
}

// The admin listener may be named as a browser shows it.
func TestAdminMayBeAURL(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"plugins":[]}`)) }))
	defer srv.Close()
	if out, err := command(t, "plugin", "list", "--admin", srv.URL+"/"); err != nil || !strings.Contains(out, "no plugins") {
		t.Errorf("got %q, %v", out, err)
	}
}

// The help of a command shows the keys it heeds, not all of the configuration.
func TestHelpShowsWhatACommandHeeds(t *testing.T) {
	for _, tc := range []struct {
		command string
		in, out []string
	}{
		{"run", []string{"--listen", "--limits.text_bytes"}, nil},
		{"check", []string{"--plugins.dir", "--limits.text_bytes"}, nil},
		{"token", []string{"--user", "--ttl", "--data_dir", "--auth.jwt.key_file", "--config"}, []string{"--limits.text_bytes"}},
		{"doctor", []string{"--json", "--redis.url", "--liveness.ping", "--limits.connections"}, []string{"--limits.text_bytes"}},
		{"explain", []string{"--admin", "--admin-token-file", "--data-dir"}, []string{"--limits.text_bytes", "--admin.listen"}},
	} {
		help, err := command(t, tc.command, "--help")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range tc.in {
			if !strings.Contains(help, want+" ") {
				t.Errorf("%s: the help lacks %s", tc.command, want)
			}
		}
		for _, not := range tc.out {
			if strings.Contains(help, not+" ") {
				t.Errorf("%s: the help shows %s, which it does not heed", tc.command, not)
			}
		}
	}
	// what is not shown is a flag all the same: a script may give one set to all
	if out, err := command(t, "token", "--data_dir", t.TempDir(), "--user", "ann", "--limits.text_bytes", "1KiB"); err != nil {
		t.Errorf("got %v: %s", err, out)
	}
}
