package signers

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// run runs a command and returns what it prints.
func run(t *testing.T, stdin string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s%s", name, args, err, out, said.String())
	}
	return string(out)
}

// sshKey makes a key with ssh-keygen and returns its file and its public line.
func sshKey(t *testing.T, args ...string) (file, public string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "key")
	run(t, "", "ssh-keygen", append([]string{"-q", "-N", "", "-C", "", "-f", file}, args...)...)
	b, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return file, strings.TrimSpace(string(b))
}

// sshSign signs with ssh-keygen as git does.
func sshSign(t *testing.T, key, namespace, payload string, args ...string) string {
	t.Helper()
	return run(t, payload, "ssh-keygen", append([]string{"-q", "-Y", "sign", "-f", key, "-n", namespace}, args...)...)
}

// load makes a Set of files with these contents.
func load(t *testing.T, contents ...string) (*Set, error) {
	t.Helper()
	dir, names := t.TempDir(), []string(nil)
	for i, c := range contents {
		name := filepath.Join(dir, string(rune('a'+i)))
		if err := os.WriteFile(name, []byte(c), 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return Load(names...)
}

func mustLoad(t *testing.T, contents ...string) *Set {
	t.Helper()
	s, err := load(t, contents...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSSHSignatures(t *testing.T) {
	const payload = "tree 1234\n\nmessage\n"
	now := time.Now()
	key, public := sshKey(t, "-t", "ed25519")
	_, other := sshKey(t, "-t", "ed25519")
	good := sshSign(t, key, "git", payload)
	list := "# who may\n\nann@example.test " + public + "\n"
	tests := []struct {
		name, list, signature string
		at                    time.Time
		want                  error
	}{
		{"listed", list, good, now, nil},
		{"with the other hash", list, sshSign(t, key, "git", payload, "-O", "hashalg=sha256"), now, nil},
		{"for git by name", `ann namespaces="file,git" ` + public, good, now, nil},
		{"for git by pattern", `ann namespaces="g*" ` + public, good, now, nil},
		{"quoted principals", `"ann,bob" ` + public, good, now, nil},
		{"second line lets it", `ann namespaces="file" ` + public + "\nann " + public, good, now, nil},
		{"within bounds", `ann valid-after="20200101Z",valid-before="29990101" ` + public, good, now, nil},
		{"not signed", list, "", now, ErrUnsigned},
		{"unknown signer", "bob " + other, good, now, ErrUnknown},
		{"for files by the list", `ann namespaces="file" ` + public, good, now, ErrNamespace},
		{"for files by the signature", list, sshSign(t, key, "file", payload), now, ErrNamespace},
		{"over something else", list, sshSign(t, key, "git", payload+"x"), now, ErrMismatch},
		{"ended", `ann valid-before="20200101" ` + public, good, now, ErrExpired},
		{"ended, and dated back", `ann valid-before="20200101" ` + public, good, time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC), ErrExpired},
		{"not begun", `ann valid-after="29990101120000" ` + public, good, now, ErrExpired},
		{"dated before it began", `ann valid-after="20200101" ` + public, good, time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC), ErrExpired},
		{"dated ahead", list, good, now.Add(time.Hour), ErrExpired},
		{"a clock ahead by little", list, good, now.Add(time.Minute), nil},
		{"torn", list, good[:len(good)/2], now, ErrMalformed},
		{"no base64", list, sshBegin + "\n%\n" + sshEnd, now, ErrMalformed},
		{"no SSHSIG", list, sshBegin + "\nAAAA\n" + sshEnd, now, ErrMalformed},
		{"X.509", list, "-----BEGIN SIGNED MESSAGE-----\nx", now, ErrMalformed},
		{"too long", list, sshBegin + strings.Repeat("A", maxSignatureBytes), now, ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			by, err := mustLoad(t, tt.list).Verify([]byte(payload), tt.signature, tt.at, now)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if (err == nil) != (by != "") {
				t.Errorf("got signer %q with error %v", by, err)
			}
		})
	}
}

func TestSSHKinds(t *testing.T) {
	for _, args := range [][]string{{"-t", "rsa", "-b", "2048"}, {"-t", "ecdsa"}} {
		key, public := sshKey(t, args...)
		if _, err := mustLoad(t, "ann "+public).Verify([]byte("x"), sshSign(t, key, "git", "x"), time.Now(), time.Now()); err != nil {
			t.Errorf("%v: got %v", args, err)
		}
	}
	_, short := sshKey(t, "-t", "rsa", "-b", "1024")
	if _, err := load(t, "ann "+short); !errors.Is(err, ErrWeak) {
		t.Errorf("RSA of 1024 bits: got %v, want %v", err, ErrWeak)
	}
}

// An RSA signature by SHA-1, which ssh-keygen does not make any more, and one
// with a hash that is not SSHSIG's.
func TestSSHWeak(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	set := mustLoad(t, "ann "+string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	digest := sha256.Sum256([]byte("x"))
	magic := [6]byte{'S', 'S', 'H', 'S', 'I', 'G'}
	for _, c := range []struct {
		algorithm, hash string
		version         uint32
		want            error
	}{
		{ssh.KeyAlgoRSASHA256, "sha256", 1, nil},
		{ssh.KeyAlgoRSA, "sha256", 1, ErrWeak},
		{ssh.KeyAlgoRSASHA256, "md5", 1, ErrWeak},
		{ssh.KeyAlgoRSASHA256, "sha256", 2, ErrMalformed},
	} {
		sig, err := signer.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, ssh.Marshal(sshSigned{magic, "git", "", c.hash, digest[:]}), c.algorithm)
		if err != nil {
			t.Fatal(err)
		}
		blob := ssh.Marshal(sshBlob{magic, c.version, signer.PublicKey().Marshal(), "git", "", c.hash, ssh.Marshal(sig)})
		text := sshBegin + "\n" + base64.StdEncoding.EncodeToString(blob) + "\n" + sshEnd
		if _, err := set.Verify([]byte("x"), text, time.Now(), time.Now()); !errors.Is(err, c.want) {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}

// gpg is a keyring of its own with one key, made at the given time.
type gpg struct {
	t    *testing.T
	home string
}

func newGPG(t *testing.T) *gpg {
	t.Helper()
	home, err := os.MkdirTemp("", "gpg") // short: the agent's socket lies in it
	if err != nil {
		t.Fatal(err)
	}
	g := &gpg{t, home}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		_ = os.RemoveAll(home)
	})
	return g
}

func (g *gpg) run(stdin string, args ...string) string {
	g.t.Helper()
	return run(g.t, stdin, "gpg", append([]string{"--homedir", g.home, "--batch", "--no-tty", "--yes", "--passphrase", "", "--pinentry-mode", "loopback"}, args...)...)
}

func (g *gpg) export() string { return g.run("", "--armor", "--export") }

func TestPGPSignatures(t *testing.T) {
	const payload = "tree 1234\n\nmessage\n"
	now := time.Now()
	g := newGPG(t)
	g.run("", "--quick-gen-key", "Ann <ann@example.test>", "ed25519", "sign", "never")
	good := g.run(payload, "--armor", "--detach-sign")
	public := g.export()
	binary := g.run("", "--export")

	other := newGPG(t)
	other.run("", "--quick-gen-key", "Bob <bob@example.test>", "rsa2048", "sign", "never")
	bobs := other.run(payload, "--armor", "--detach-sign")
	bob := other.export()

	ended := newGPG(t)
	then := []string{"--faked-system-time", "20200101T000000"}
	ended.run("", append(then, "--quick-gen-key", "Eve <eve@example.test>", "ed25519", "sign", "2d")...)
	eves := ended.run(payload, append(then, "--armor", "--detach-sign")...)
	eve := ended.export()

	revs, err := filepath.Glob(filepath.Join(g.home, "openpgp-revocs.d", "*.rev"))
	if err != nil || len(revs) != 1 {
		t.Fatalf("got %v, %v, want the revocation that gpg makes", revs, err)
	}
	rev, err := os.ReadFile(revs[0])
	if err != nil {
		t.Fatal(err)
	}
	g.run(strings.Replace(string(rev), ":-----BEGIN", "-----BEGIN", 1), "--import")
	revoked := g.export()

	for _, tt := range []struct {
		name, list, signature, payload string
		at                             time.Time
		want                           error
	}{
		{"listed", public, good, payload, now, nil},
		{"listed, not armored", binary, good, payload, now, nil},
		{"RSA among others", public + bob, bobs, payload, now, nil},
		{"unknown", bob, good, payload, now, ErrUnknown},
		{"over something else", public, good, payload + "x", now, ErrMismatch},
		{"revoked", revoked, good, payload, now, ErrRevoked},
		{"ended", eve, eves, payload, time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), ErrExpired},
		{"dated ahead", public, good, payload, now.Add(time.Hour), ErrExpired},
		{"something after it", public, good + bobs, payload, now, nil},
		{"no armor", public, pgpBegin + "\nx", payload, now, ErrMalformed},
		{"a key, not a signature", public, strings.ReplaceAll(public, "PUBLIC KEY BLOCK", "SIGNATURE"), payload, now, ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			by, err := mustLoad(t, tt.list).Verify([]byte(tt.payload), tt.signature, tt.at, now)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %q, %v, want %v", by, err, tt.want)
			}
			if err == nil && !strings.Contains(by, "@example.test") {
				t.Errorf("got %q, want the name in the key", by)
			}
		})
	}
	if _, err := load(t, g.run("", "--armor", "--export-secret-keys")); err == nil || !strings.Contains(err.Error(), "private key") {
		t.Errorf("got %v, want that a private key is refused", err)
	}
	for _, c := range []struct {
		ahead time.Duration
		want  error
	}{{time.Minute, nil}, {time.Hour, ErrExpired}} { // our clock behind the signer's
		if _, err := mustLoad(t, bob).Verify([]byte(payload), bobs, now, now.Add(-c.ahead)); !errors.Is(err, c.want) {
			t.Errorf("%v behind: got %v, want %v", c.ahead, err, c.want)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	key, public := sshKey(t, "-t", "ed25519")
	private, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, list, want string }{
		{"nothing", "# nobody\n", "no key"},
		{"no key", "ann", "line 1: want PRINCIPALS"},
		{"a key alone", public, "line 1: want PRINCIPALS"},
		{"a private key", string(private), "private key"},
		{"an option", "\nann frobnicate " + public, `line 2: the option "frobnicate"`},
		{"certificates", "ann cert-authority " + public, "certificates are not supported"},
		{"a time", `ann valid-before="soon" ` + public, "is not YYYYMMDD"},
		{"armor alone", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n", "read OpenPGP keys"},
		{"bytes", "\xff\xff\xff", "read OpenPGP keys"},
		{"too much", strings.Repeat("#", maxFileBytes+1), "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := load(t, tt.list); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
		})
	}
	if a, b := mustLoad(t, "ann "+public).Digest(), mustLoad(t, "bob "+public).Digest(); a == b {
		t.Error("different lists have one digest")
	}
}

func TestSplit(t *testing.T) {
	for _, tt := range []struct{ name, raw, payload, signature string }{
		{"unsigned", "tree x\n\nm\n", "tree x\n\nm\n", ""},
		{"signed", "tree x\ngpgsig A\n B\n \n C\nencoding y\n\ngpgsig no\n", "tree x\nencoding y\n\ngpgsig no\n", "A\nB\n\nC\n"},
		{"the other hash", "tree x\ngpgsig-sha256 A\n B\n\nm", "tree x\n\nm", ""},
		{"a folded header", "tree x\nmergetag a\n b\ngpgsig S\n\nm", "tree x\nmergetag a\n b\n\nm", "S\n"},
		{"no message", "tree x\ngpgsig S", "tree x\n", "S"},
		{"nothing", "", "", ""},
	} {
		payload, signature, err := SplitCommit([]byte(tt.raw))
		if err != nil || string(payload) != tt.payload || signature != tt.signature {
			t.Errorf("%s: got %q, %q, %v", tt.name, payload, signature, err)
		}
	}
	if _, _, err := SplitCommit([]byte("gpgsig A\nx y\ngpgsig B\n\n")); !errors.Is(err, ErrMalformed) {
		t.Errorf("two signatures: got %v, want %v", err, ErrMalformed)
	}
	tag := "object x\n\n" + sshBegin + "\nquoted\n" + pgpBegin + "\nreal"
	if payload, signature := SplitTag([]byte(tag)); signature != pgpBegin+"\nreal" || string(payload)+signature != tag {
		t.Errorf("tag: got %q, %q", payload, signature)
	}
}

// The seeds of FuzzVerify are signatures that count, over another text.
func TestSeeds(t *testing.T) {
	set, err := Load("testdata/allowed_signers", "testdata/ann.asc")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"testdata/commit.sig", "testdata/commit.asc"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if by, err := set.Verify([]byte("tree 1234\n\nmessage\n"), string(b), time.Now(), time.Now()); err != nil || !strings.Contains(by, "ann@example.test") {
			t.Errorf("%s: got %q, %v", name, by, err)
		}
	}
}

// FuzzVerify feeds signatures that nobody made: none counts.
func FuzzVerify(f *testing.F) {
	ssh, err := os.ReadFile("testdata/allowed_signers")
	if err != nil {
		f.Fatal(err)
	}
	set, err := Load("testdata/allowed_signers", "testdata/ann.asc")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(ssh))
	for _, name := range []string{"testdata/commit.sig", "testdata/commit.asc"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if by, err := set.Verify([]byte("never signed"), text, time.Now(), time.Now()); err == nil {
			t.Errorf("%q counts as signed by %s", text, by)
		}
	})
}

// FuzzSplit: whatever a commit is, nothing is lost or made up but headers.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("tree x\ngpgsig A\n B\n\nmessage"))
	f.Add([]byte("object x\n\n" + sshBegin))
	f.Fuzz(func(t *testing.T, raw []byte) {
		payload, signature, err := SplitCommit(raw)
		if err == nil && len(payload)+len(signature) > len(raw) {
			t.Errorf("%q became %q and %q", raw, payload, signature)
		}
		if payload, signature := SplitTag(raw); string(payload)+signature != string(raw) {
			t.Errorf("tag %q became %q and %q", raw, payload, signature)
		}
	})
}
