package gitsync

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// signing configures a repository so that git signs with a key made for it.
type signing struct {
	r      *repo
	list   string   // file for policy.git.signers
	config []string // -c name=value ...
}

// sshSigning signs by ssh-keygen.
func sshSigning(t *testing.T, r *repo) *signing {
	t.Helper()
	dir := t.TempDir()
	key, public := keygen(t, dir, "sign", "ed25519")
	return &signing{
		r: r, list: file(t, "ann@example.test "+public+"\n"),
		config: []string{"-c", "gpg.format=ssh", "-c", "user.signingkey=" + key},
	}
}

// pgpSigning signs by gpg, with a key that is made by genArgs.
func pgpSigning(t *testing.T, r *repo) (s *signing, home string) {
	t.Helper()
	home, err := os.MkdirTemp("", "gpg") // short: the agent's socket lies in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		_ = os.RemoveAll(home)
	})
	runGPG(t, home, "--passphrase", "", "--quick-gen-key", "Ann <ann@example.test>", "ed25519", "sign", "never")
	program := file(t, "#!/bin/sh\nexec gpg --homedir "+home+" --batch --no-tty \"$@\"\n")
	if err := os.Chmod(program, 0o700); err != nil {
		t.Fatal(err)
	}
	return &signing{
		r: r, list: file(t, runGPG(t, home, "--armor", "--export")),
		config: []string{"-c", "gpg.program=" + program, "-c", "user.signingkey=ann@example.test"},
	}, home
}

func runGPG(t *testing.T, home string, args ...string) string {
	t.Helper()
	cmd := exec.Command("gpg", append([]string{"--homedir", home, "--batch", "--no-tty", "--yes"}, args...)...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gpg %v: %v: %s", args, err, said.String())
	}
	return string(out)
}

// commit makes a signed commit and returns it.
func (s *signing) commit() string {
	s.r.t.Helper()
	s.r.git("add", "-A")
	s.r.git(append(s.config, "commit", "-q", "-S", "--allow-empty", "-m", "signed")...)
	return s.r.git("rev-parse", "HEAD")
}

// tag signs a tag.
func (s *signing) tag(name string, args ...string) {
	s.r.t.Helper()
	s.r.git(append(append(append([]string{}, s.config...), "tag", "-s", "-f", "-m", "signed", name), args...)...)
}

func TestSignedCommits(t *testing.T) {
	for _, kind := range []string{"ssh", "openpgp"} {
		t.Run(kind, func(t *testing.T) {
			r := newRepo(t)
			by := sshSigning(t, r)
			if kind == "openpgp" {
				by, _ = pgpSigning(t, r)
			}
			r.write("p.rego", "1")
			first := by.commit()
			bare := filepath.Join(t.TempDir(), "bare.git")
			r.git("clone", "-q", "--bare", r.dir, bare)
			cfg := config(serve(t, bare)) // as it comes over the wire
			cfg.Signers, cfg.StateDir = []string{by.list}, t.TempDir()
			s, c := syncer(t, cfg)
			if err := s.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			if h := next(t, c); h.revision != "git:"+first {
				t.Errorf("got %+v, want %s", h, first)
			}
			if st := s.Status(); !strings.Contains(st.SignedBy, "ann@example.test") {
				t.Errorf("got %+v, want who signed", st)
			}
			r.write("p.rego", "2")
			r.commit() // not signed
			r.git("push", "-q", bare, "main")
			if err := s.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "it is not signed") {
				t.Errorf("got %v, want that it is not signed", err)
			}
			if h := next(t, c); h.refused == nil {
				t.Errorf("got %+v, want the refusal", h)
			}
			if st := s.Status(); st.Commit != first {
				t.Errorf("got %+v, want %s to stay", st, first)
			}
			signed := by.commit() // a signed head vouches for what it descends from
			r.git("push", "-q", bare, "main")
			if err := s.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			if h := next(t, c); h.revision != "git:"+signed {
				t.Errorf("got %+v, want %s", h, signed)
			}
			again, c := syncer(t, cfg)
			if err := again.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			next(t, c)
			if err := again.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			none(t, c) // its signature has counted before
		})
	}
}

func TestSignatureRefusals(t *testing.T) {
	r := newRepo(t)
	r.write("p.rego", "1")
	ann, bob := sshSigning(t, r), sshSigning(t, r)
	pgp, home := pgpSigning(t, r)

	// raw stores a commit made of the head's own with change.
	raw := func(change func(string) string) string {
		cmd := exec.Command("git", "hash-object", "-t", "commit", "-w", "--stdin")
		cmd.Dir = r.dir
		cmd.Stdin = strings.NewReader(change(r.git("cat-file", "commit", "HEAD") + "\n"))
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	head := func(id string) func() {
		return func() { r.git("update-ref", "refs/heads/main", id) }
	}
	signed := ann.commit()
	moved := raw(func(text string) string { return strings.Replace(text, "signed\n", "another message\n", 1) })
	twice := raw(func(text string) string {
		return strings.Replace(text, "\n\nsigned", "\ngpgsig -----BEGIN SSH SIGNATURE-----\n\nsigned", 1)
	})
	forFiles := func() string { // ssh-keygen signs for another purpose
		key := strings.TrimPrefix(ann.config[3], "user.signingkey=")
		payload := r.git("cat-file", "commit", r.git("commit-tree", "HEAD^{tree}", "-m", "x")) + "\n"
		cmd := exec.Command("ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", key)
		cmd.Stdin = strings.NewReader(payload)
		sig, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return raw(func(string) string {
			return strings.Replace(payload, "\n\nx", "\ngpgsig "+strings.ReplaceAll(strings.TrimSpace(string(sig)), "\n", "\n ")+"\n\nx", 1)
		})
	}()
	pgpSigned := pgp.commit()
	revs, err := filepath.Glob(filepath.Join(home, "openpgp-revocs.d", "*.rev"))
	if err != nil || len(revs) != 1 {
		t.Fatalf("got %v, %v", revs, err)
	}
	rev, err := os.ReadFile(revs[0])
	if err != nil {
		t.Fatal(err)
	}
	runGPG(t, home, "--import", file(t, strings.Replace(string(rev), ":-----BEGIN", "-----BEGIN", 1)))
	revoked := file(t, runGPG(t, home, "--armor", "--export"))
	public, err := os.ReadFile(ann.list)
	if err != nil {
		t.Fatal(err)
	}
	ended := file(t, strings.Replace(string(public), " ssh-", ` valid-before="20200101" ssh-`, 1))
	r.git("update-ref", "refs/heads/main", signed)
	ann.tag("v1")
	bob.tag("v2")
	r.git("tag", "-a", "-m", "not signed", "v3")
	r.git("update-ref", "refs/tags/v4", r.git("rev-parse", "v1"))

	for _, tt := range []struct {
		name, ref, list, want string
		prepare               func()
	}{
		{"signed", "main", ann.list, "", head(signed)},
		{"signed tag", "v1", ann.list, "", nil},
		{"signed tag by its full name", "refs/tags/v1", ann.list, "", nil},
		{"unknown signer", "main", bob.list, "its signer is not among", head(signed)},
		{"unknown kind of signer", "main", pgp.list, "its signer is not among", head(signed)},
		{"key ended", "main", ended, "not valid at this time", head(signed)},
		{"signature over another commit", "main", ann.list, "made over something else", head(moved)},
		{"two signatures", "main", ann.list, "more than one", head(twice)},
		{"wrong namespace", "main", ann.list, `namespace is "file"`, head(forFiles)},
		{"openpgp", "main", pgp.list, "", head(pgpSigned)},
		{"openpgp, unknown", "main", ann.list, "its signer is not among", head(pgpSigned)},
		{"openpgp, revoked", "main", revoked, "is revoked", head(pgpSigned)},
		{"tag by somebody else", "v2", ann.list, "its signer is not among", nil},
		{"tag not signed on a signed commit", "v3", ann.list, "the tag", nil},
		{"signed tag under another name", "v4", ann.list, `signed as the tag "v1"`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.prepare != nil {
				tt.prepare()
			}
			cfg := config(r.dir)
			cfg.Ref, cfg.Signers = tt.ref, []string{tt.list}
			s, c := syncer(t, cfg)
			err := s.Sync(t.Context())
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				next(t, c)
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
			if h := next(t, c); h.refused == nil {
				t.Errorf("got %+v, want it refused", h)
			}
		})
	}
}

// A list that changes is a reason to look at a refused commit again; one that
// cannot be read is none to take anything.
func TestSignersAreReadAgain(t *testing.T) {
	r := newRepo(t)
	r.write("p.rego", "1")
	ann, bob := sshSigning(t, r), sshSigning(t, r)
	ann.commit()
	cfg := config(r.dir)
	cfg.Signers = []string{bob.list}
	s, c := syncer(t, cfg)
	if err := s.Sync(t.Context()); err == nil {
		t.Fatal("got no error for an unknown signer")
	}
	next(t, c)
	if err := s.Sync(t.Context()); err != nil { // the same list
		t.Fatal(err)
	}
	none(t, c)
	if err := os.Rename(bob.list, bob.list+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err == nil || !strings.Contains(s.Status().Error, "policy.git.signers") {
		t.Errorf("got %v, status %+v; want that the list cannot be read", err, s.Status())
	}
	if err := os.Rename(ann.list, bob.list); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h := next(t, c); h.refused != nil {
		t.Errorf("got %+v, want it taken", h)
	}
}

// Signers that are asked for later are asked of the commit in use as well; it
// goes on deciding meanwhile.
func TestSignersComeLater(t *testing.T) {
	r := newRepo(t)
	r.write("p.rego", "1")
	by := sshSigning(t, r)
	first := r.commit()
	cfg := config(r.dir)
	cfg.StateDir = t.TempDir()
	s, c := syncer(t, cfg)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	cfg.Signers = []string{by.list}
	s, c = syncer(t, cfg)
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	if err := s.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "it is not signed") {
		t.Errorf("got %v, want that it is not signed", err)
	}
	if h := next(t, c); h.refused == nil || s.Status().Commit != first {
		t.Errorf("got %+v and %+v, want %s refused and still in use", h, s.Status(), first)
	}
	by.commit()
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
}
