package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestPlain(t *testing.T) {
	for s, want := range map[string]string{
		"": "-", "ann": "ann", `its file is "x\y"`: `its file is "x\y"`, `"ann"`: `"\"ann\""`, "a\tb": `"a\tb"`, "a\nb": `"a\nb"`,
		"\x1b[2J": `"\x1b[2J"`, "a\u202eb": `"a\u202eb"`, "\xff": `"\xff"`, "größer 好": "größer 好",
	} {
		if got := plain(s); got != want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
}

func TestDiagTCP(t *testing.T) {
	const answer = `{"at":"2026-01-02T03:04:05Z","looked":3,"worst":[
		{"session":"s1","user":"ann","transport":"ws","network":"public","device":"evil\u001b[2J","retransmits":12,"loss_percent":4.25,"rtt_ms":81.5,"rttvar_ms":9,"unacked":2,"queued_bytes":300,"last_ack_ms":2500},
		{"session":"s2","user":"bob","transport":"tcp","network":"private","device":"","rtt_ms":1}]}`
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/v1/diag/tcp":
			http.NotFound(w, r)
		case r.Header.Get("Authorization") == "Bearer secret":
			_, _ = w.Write([]byte(answer))
		case r.Header.Get("Authorization") == "Bearer other":
			_, _ = w.Write([]byte("<html>"))
		default:
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"code":"unauthorized","text":"send the token"}`))
		}
	}))
	defer srv.Close()
	addr := strings.TrimPrefix(srv.URL, "http://")
	dir := t.TempDir()
	token := write(t, dir, "admin.token", "secret\n")

	out, err := command(t, "diag", "tcp", "--admin", addr, "--admin-token-file", token)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ann", `"evil\x1b[2J"`, "4.2%", "81.5±9.0 ms", "2.5 s", "bob", "3 connections looked at, 2026-01-02"} {
		if !strings.Contains(out, want) {
			t.Errorf("got no %q in\n%s", want, out)
		}
	}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no token":        {[]string{"--admin", addr}, "401 Unauthorized: it wants the token"},
		"no token file":   {[]string{"--admin", addr, "--admin-token-file", dir + "/none"}, "read the admin token"},
		"no Parley":       {[]string{"--admin", addr, "--admin-token-file", write(t, dir, "other", "other")}, "not that of a Parley server"},
		"nobody there":    {[]string{"--admin", "127.0.0.1:1"}, "is it running"},
		"no address":      {[]string{"--admin", "a b"}, "is no address"},
		"a word too many": {[]string{"now"}, "now"},
	} {
		if _, err := command(t, append([]string{"diag", "tcp"}, tc.args...)...); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}
