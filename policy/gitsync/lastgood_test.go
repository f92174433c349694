package gitsync

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/policy"
)

func TestRestoreWithoutTheRemote(t *testing.T) {
	r := newRepo(t)
	r.write("p.rego", "kept")
	commit := r.commit()
	cfg := config(r.dir)
	cfg.StateDir = filepath.Join(t.TempDir(), "state") // made by the first save
	s, c := syncer(t, cfg)
	if err := s.Restore(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: got %v, want that there is none", err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	away := r.dir + " away"
	if err := os.Rename(r.dir, away); err != nil {
		t.Fatal(err)
	}

	again, c := syncer(t, cfg)
	if err := again.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h := next(t, c); h.revision != "git:"+commit || string(h.files["p.rego"]) != "kept" {
		t.Errorf("got %+v, want the files of %s", h, commit)
	}
	if err := again.Sync(t.Context()); err == nil {
		t.Error("got no error from a remote that is gone")
	}
	if err := os.Rename(away, r.dir); err != nil {
		t.Fatal(err)
	}
	if err := again.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	none(t, c) // the same commit: nothing to do

	left, err := filepath.Glob(filepath.Join(cfg.StateDir, "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("got %v, %v; want one file and no temporary ones", left, err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	r := newRepo(t)
	r.write("p.rego", "kept")
	r.commit()
	base := config(r.dir)
	base.StateDir = t.TempDir()
	s, c := syncer(t, base)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	name := filepath.Join(base.StateDir, lastGoodName)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, content, want string
		change              func(*Config)
	}{
		{"damaged", strings.Replace(string(good), "a2VwdA", "a2VwdQ", 1), "digest does not match", nil},
		{"torn", string(good[:len(good)/2]), "unexpected end", nil},
		{"empty", "", "unexpected end", nil},
		{"another format", `{"format": 2}`, "format 2", nil},
		{"pinned to nothing", `{"format": 1, "pin": {"revision": "main"}}`, "no commit", nil},
		{"another ref", string(good), "another repository", func(c *Config) { c.Ref = "other" }},
		{"another path", string(good), "another repository", func(c *Config) { c.Path = "x" }},
		{"another repository", string(good), "another repository", func(c *Config) { c.URL = "/x" }},
		{"no folder configured", string(good), "no folder is configured", func(c *Config) { c.StateDir = "" }},
		{"too large", strings.Repeat(" ", maxLastGoodBytes+1), "more than", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(name, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg := base
			if tt.change != nil {
				tt.change(&cfg)
			}
			s, c := syncer(t, cfg)
			if err := s.Restore(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
			none(t, c)
		})
	}
}

func TestRestoreOfARefusedPolicy(t *testing.T) {
	cfg := config("/nowhere")
	cfg.StateDir = t.TempDir()
	if err := save(cfg.StateDir, lastGood{Format: 1, Identity: cfg.identity(), Commit: "abc", SavedAt: time.Now().UTC(), Files: policy.Files{"bad.rego": []byte("x")}}); err != nil {
		t.Fatal(err)
	}
	s, _ := syncer(t, cfg)
	var problems policy.Problems
	if err := s.Restore(t.Context()); !errors.As(err, &problems) {
		t.Errorf("got %v, want Apply's Problems", err)
	}
}

func TestAPolicyThatCannotBeKeptIsLive(t *testing.T) {
	r := newRepo(t)
	r.write("p.rego", "x")
	r.commit()
	cfg := config(r.dir)
	cfg.StateDir = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(cfg.StateDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, c := syncer(t, cfg)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	if st := s.Status(); st.SaveError == "" || st.Commit == "" {
		t.Errorf("got %+v, want the commit live and the error of saving", st)
	}
}

func TestStoppingBlamesNobody(t *testing.T) {
	r := newRepo(t)
	r.write("p.rego", "x")
	r.commit()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := New(config(r.dir), Hooks{
		Apply: func(ctx context.Context, _ policy.Files, _ string) error {
			cancel()
			return ctx.Err()
		},
		Refuse: func(string, error) { t.Error("refused while stopping") },
	}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	if err := s.Sync(ctx); !errors.Is(err, context.Canceled) || s.Status().Error != "" {
		t.Errorf("got %v, status %+v; want canceled and no error of the remote", err, s.Status())
	}
}

func TestConfigIsChecked(t *testing.T) {
	tests := []struct {
		name, want string
		change     func(*Config)
	}{
		{"no URL", "url is empty", func(c *Config) { c.URL = "" }},
		{"scheme", `scheme "git"`, func(c *Config) { c.URL = "git://x/y" }},
		{"ssh without a key", "needs policy.git.auth.ssh_key_file", func(c *Config) { c.URL = "ssh://git@x/y" }},
		{"short ssh without a key", "needs policy.git.auth.ssh_key_file", func(c *Config) { c.URL = "git@host:y.git" }},
		{"short ssh without a path", "malformed", func(c *Config) { c.URL = "git@host:" }},
		{"short ssh to an option", "malformed", func(c *Config) { c.URL = "git@-oProxyCommand=x:y" }},
		{"ssh to an option", "malformed", func(c *Config) { c.URL = "ssh://-oProxyCommand=x/y" }},
		{"ssh with a password", "holds a password", func(c *Config) { c.URL = "ssh://git:x@h/y" }},
		{"key without ssh", "are for ssh", func(c *Config) { c.URL, c.Auth.SSHKeyFile = "https://h/y", "/k" }},
		{"token for ssh", "are for https", func(c *Config) {
			c.URL, c.Auth = "ssh://h/y", Auth{TokenEnv: "T", SSHKeyFile: "/k", KnownHostsFile: "/h"}
		}},
		{"token for a path", "are for https", func(c *Config) { c.Auth.TokenEnv = "T" }},
		{"two tokens", "both set", func(c *Config) { c.URL, c.Auth = "https://h/y", Auth{TokenEnv: "T", TokenFile: "/t"} }},
		{"token twice", "holds credentials", func(c *Config) { c.URL, c.Auth.TokenEnv = "https://a:b@h/y", "T" }},
		{"token in the open", "use https", func(c *Config) { c.URL, c.Auth.TokenEnv = "http://h/y", "T" }},
		{"authorities without https", "is for https", func(c *Config) { c.URL, c.Auth.CAFile = "http://h/y", "/c" }},
		{"debounce", "debounce", func(c *Config) { c.Debounce = -1 }},
		{"signers that are not there", "no such file", func(c *Config) { c.Signers = []string{"/nowhere"} }},
		{"option", "neither a path nor", func(c *Config) { c.URL = "--upload-pack=x" }},
		{"relative file", "three slashes", func(c *Config) { c.URL = "file://x/y" }},
		{"no host", "malformed", func(c *Config) { c.URL = "https:///y" }},
		{"bad URL", "malformed", func(c *Config) { c.URL = "https://a:b@%zz" }},
		{"no ref", "policy.git.ref", func(c *Config) { c.Ref = "" }},
		{"ref with dots", "policy.git.ref", func(c *Config) { c.Ref = "a..b" }},
		{"path outside", "policy.git.path", func(c *Config) { c.Path = "../x" }},
		{"interval", "policy.git.interval", func(c *Config) { c.Interval = 0 }},
		{"timeout", "git timeout", func(c *Config) { c.Timeout = 0 }},
		{"fetch", "git fetch bound", func(c *Config) { c.MaxFetchBytes = 0 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config("/srv/policy.git")
			tt.change(&cfg)
			if _, err := New(cfg, Hooks{}, quiet()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
		})
	}
}

// FuzzLastGood decodes arbitrary files: what is accepted has its digest and
// files within bounds.
func FuzzLastGood(f *testing.F) {
	g := lastGood{Format: 1, Identity: "x", Commit: "y", Files: policy.Files{"p.rego": []byte("package p")}}
	dir := f.TempDir()
	if err := save(dir, g); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, lastGoodName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format": 1}`))
	f.Add([]byte(`{"format": 1, "pin": {"revision": "main"}}`))
	f.Add([]byte(`{"format": 1, "files": {"../p.rego": ""}, "digest": ""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := decodeLastGood(b)
		if err != nil {
			return
		}
		if want, _ := g.digest(); want != g.Digest || g.Files.Check() != nil {
			t.Errorf("accepted %q", b)
		}
	})
}
