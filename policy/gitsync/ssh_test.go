package gitsync

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"golang.org/x/crypto/ssh"
)

// sshd is a real ssh server on a free port that lets one key in.
type sshd struct {
	t                     *testing.T
	addr, user            string
	keyFile, otherKeyFile string // that may log in, and that may not
	hostKey, otherHostKey string // public lines: the server's, and of nobody
	knownHosts, dir       string
	stop                  func()
}

func keygen(t *testing.T, dir, name, kind string) (file, public string) {
	t.Helper()
	file = filepath.Join(dir, name)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	b, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return file, strings.TrimSpace(string(b))
}

func newSSHD(t *testing.T) *sshd {
	t.Helper()
	s := &sshd{t: t, dir: t.TempDir()}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s.user = me.Username
	if me.Uid == "0" { // sshd's own demand, which its package meets when it starts as a service
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var login, host, ecdsa string
	s.keyFile, login = keygen(t, s.dir, "login", "ed25519")
	s.otherKeyFile, _ = keygen(t, s.dir, "other", "ed25519")
	host, s.hostKey = keygen(t, s.dir, "host", "ed25519")
	ecdsa, _ = keygen(t, s.dir, "host_ecdsa", "ecdsa") // the server has more keys than are known
	_, s.otherHostKey = keygen(t, s.dir, "nobody", "ed25519")
	authorized := filepath.Join(s.dir, "authorized")
	if err := os.WriteFile(authorized, []byte(login+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	host1, port, _ := net.SplitHostPort(s.addr)
	_ = ln.Close()
	conf := filepath.Join(s.dir, "sshd_config")
	text := fmt.Sprintf("ListenAddress %s:%s\nHostKey %s\nHostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nPasswordAuthentication no\n"+
		"KbdInteractiveAuthentication no\nUsePAM no\nPidFile none\nPermitRootLogin prohibit-password\nLogLevel INFO\nMaxStartups 100\n", host1, port, ecdsa, host, authorized)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "/usr/sbin/sshd", "-D", "-e", "-f", conf)
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start sshd (Debian's openssh-server): %v", err)
	}
	up, done := make(chan bool, 1), make(chan struct{})
	var log strings.Builder // read after done
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(said); lines.Scan(); {
			fmt.Fprintln(&log, lines.Text())
			if strings.HasPrefix(lines.Text(), "Server listening") {
				up <- true
			}
		}
		close(up)
	}()
	s.stop = func() { cancel(); <-done; _ = cmd.Wait() }
	t.Cleanup(s.stop)
	if !<-up {
		<-done
		t.Fatalf("sshd did not start: %s", log.String())
	}
	s.knownHosts = s.known("known_hosts", s.hostKey)
	return s
}

// known writes a known_hosts file with one key for the server.
func (s *sshd) known(name, key string) string {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(s.addr)
	file := filepath.Join(s.dir, name)
	if err := os.WriteFile(file, []byte(fmt.Sprintf("[%s]:%s %s\n", host, port, key)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

// config follows the repository at dir.
func (s *sshd) config(dir string) Config {
	cfg := config("ssh://" + s.user + "@" + s.addr + dir)
	cfg.Auth = Auth{SSHKeyFile: s.keyFile, KnownHostsFile: s.knownHosts}
	return cfg
}

func TestSSHFollows(t *testing.T) {
	srv := newSSHD(t)
	r, bare := bareRepo(t, "1")
	s, c := syncer(t, srv.config(bare))
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	for range 3 { // more than one commit in between: the history is read in a second session
		r.write("p.rego", "2")
		r.write("n", r.git("rev-list", "--count", "HEAD"))
		r.commit()
	}
	id := r.git("rev-parse", "HEAD")
	r.git("push", "-q", bare, "main")
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h := next(t, c); h.revision != "git:"+id || string(h.files["p.rego"]) != "2" {
		t.Errorf("got %+v, want %s", h, id)
	}
	r.git("reset", "-q", "--hard", "HEAD~2")
	r.git("push", "-q", "-f", bare, "main")
	if err := s.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "does not descend") {
		t.Errorf("moved back: got %v, want it refused", err)
	}
}

func TestSSHRefusals(t *testing.T) {
	srv := newSSHD(t)
	_, bare := bareRepo(t, "1")
	noise := func(cfg *Config) { cfg.MaxFetchBytes = 500 }
	locked := filepath.Join(srv.dir, "locked")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, tt := range []struct {
		name, want string
		change     func(*Config)
	}{
		{"host key changed", "THE HOST KEY HAS CHANGED", func(c *Config) { c.Auth.KnownHostsFile = srv.known("changed", srv.otherHostKey) }},
		{"host key revoked", "THE HOST KEY IS REVOKED", func(c *Config) {
			c.Auth.KnownHostsFile = filepath.Join(srv.dir, "revoked")
			text := "@revoked * " + srv.hostKey + "\n"
			b, err := os.ReadFile(srv.knownHosts)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(c.Auth.KnownHostsFile, append([]byte(text), b...), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"host unknown", "is not in", func(c *Config) {
			c.Auth.KnownHostsFile = filepath.Join(srv.dir, "empty")
			if err := os.WriteFile(c.Auth.KnownHostsFile, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"no known_hosts", "known_hosts_file", func(c *Config) { c.Auth.KnownHostsFile = "/nowhere" }},
		{"key not let in", "does not accept the key", func(c *Config) { c.Auth.SSHKeyFile = srv.otherKeyFile }},
		{"no key file", "ssh_key_file", func(c *Config) { c.Auth.SSHKeyFile = "/nowhere" }},
		{"no key", "is no private key", func(c *Config) { c.Auth.SSHKeyFile = srv.knownHosts }},
		{"locked key", "has a passphrase", func(c *Config) { c.Auth.SSHKeyFile = locked }},
		{"no repository", "does not appear to be a git repository", func(c *Config) { c.URL = "ssh://" + srv.user + "@" + srv.addr + "/nowhere/x.git" }},
		{"a path that is a command", "does not appear to be a git repository", func(c *Config) { c.URL = "ssh://" + srv.user + "@" + srv.addr + "/x';exit 9;'!" }},
		{"too much", "more than 500 bytes", noise},
		{"nobody listens", "connect", func(c *Config) { c.URL = "ssh://" + srv.user + "@127.0.0.1:1/x" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := srv.config(bare)
			tt.change(&cfg)
			if strings.Contains(cfg.URL, ":1/") {
				cfg.Auth.KnownHostsFile = filepath.Join(srv.dir, "port1")
				if err := os.WriteFile(cfg.Auth.KnownHostsFile, []byte("[127.0.0.1]:1 "+srv.hostKey+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s, c := syncer(t, cfg)
			if err := s.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
			none(t, c)
		})
	}
}

// lateEnd ends the request when the server has answered it and gone.
type lateEnd struct {
	io.WriteCloser
	session *ssh.Session
}

func (e lateEnd) Close() error {
	if err := e.session.Wait(); err != nil {
		return err
	}
	return e.WriteCloser.Close()
}

// A server that answers and closes before it hears that the request is at its end
// has answered all the same.
func TestSSHAnswersAtOnce(t *testing.T) {
	srv := newSSHD(t)
	_, bare := bareRepo(t, "1")
	cfg := srv.config(bare)
	ep, err := cfg.endpoint()
	if err != nil {
		t.Fatal(err)
	}
	conf, addr, err := cfg.sshConfig(ep)
	if err != nil {
		t.Fatal(err)
	}
	client, err := ssh.Dial("tcp", addr, conf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Wait() }()
	defer client.Close()
	r := &sshRemote{client: client, path: ep.path}
	refs, err := r.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.first.in = lateEnd{r.first.in, r.first.session}
	req := packp.NewUploadPackRequestFromCapabilities(refs.Capabilities)
	req.Wants = append(req.Wants, *refs.Head)
	resp, err := r.upload(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Close()
	if got, err := io.ReadAll(resp); err != nil || !bytes.Contains(got, []byte("PACK")) {
		t.Errorf("got %d bytes, %v, want the objects", len(got), err)
	}
}

// A server that accepts and says nothing holds a poll no longer than Timeout.
func TestSSHStalls(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dir := t.TempDir()
	key, public := keygen(t, dir, "key", "ed25519")
	host, port, _ := net.SplitHostPort(ln.Addr().String())
	known := filepath.Join(dir, "known")
	if err := os.WriteFile(known, []byte("["+host+"]:"+port+" "+public+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config("ssh://git@" + ln.Addr().String() + "/x")
	cfg.Auth, cfg.Timeout = Auth{SSHKeyFile: key, KnownHostsFile: known}, 50*time.Millisecond
	s, _ := syncer(t, cfg)
	if err := s.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "did not answer in time") {
		t.Errorf("got %v, want the timeout", err)
	}
}

func TestShortSSHURL(t *testing.T) {
	for url, want := range map[string]string{
		"git@example.org:team/policy.git":      "git example.org team/policy.git",
		"example.org:policy.git":               " example.org policy.git",
		"ssh://ann@example.org:2222/srv/p.git": "ann example.org:2222 /srv/p.git",
		"ssh://example.org/~ann/p.git":         " example.org ~ann/p.git",
		"ssh://git@[::1]:22/p%20q.git":         "git [::1]:22 /p q.git",
	} {
		ep, err := Config{URL: url}.endpoint()
		if err != nil || !ep.ssh() {
			t.Errorf("%s: got %+v, %v", url, ep, err)
			continue
		}
		if got := ep.url.User.Username() + " " + ep.url.Host + " " + ep.path; got != want {
			t.Errorf("%s: got %q, want %q", url, got, want)
		}
	}
	if got := quote("a'b!c"); got != `'a'\''b'\!'c'` {
		t.Errorf("quoted: got %s", got)
	}
}
