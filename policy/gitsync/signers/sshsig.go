package signers

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// SSHSIG, as OpenSSH's PROTOCOL.sshsig defines it.
const (
	sshBegin     = "-----BEGIN SSH SIGNATURE-----"
	sshEnd       = "-----END SSH SIGNATURE-----"
	sshMagic     = "SSHSIG"
	sshNamespace = "git" // git-commit and git-tag sign for this purpose alone
	minRSABits   = 2048
)

// allowed is one line of an allowed_signers list.
type allowed struct {
	name          string // the principals, for people
	key           ssh.PublicKey
	namespaces    []string  // patterns; empty: all
	after, before time.Time // zero: no bound
}

// parseAllowed reads the format of ssh-keygen(1), "ALLOWED SIGNERS".
func parseAllowed(b []byte) (list []allowed, err error) {
	for n, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		a, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		list = append(list, a)
	}
	return list, nil
}

func parseLine(line string) (a allowed, err error) {
	name, rest, ok := strings.Cut(line, " ")
	if strings.HasPrefix(line, `"`) {
		name, rest, ok = strings.Cut(line[1:], `"`)
	}
	if !ok {
		return a, errors.New(`want PRINCIPALS [OPTIONS] KEY, such as: ann@example.org namespaces="git" ssh-ed25519 AAAA…`)
	}
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(strings.TrimSpace(rest)))
	if err != nil {
		return a, errors.New(`want PRINCIPALS [OPTIONS] KEY, such as: ann@example.org namespaces="git" ssh-ed25519 AAAA…`)
	}
	a = allowed{name: name, key: key}
	for _, o := range options {
		word, value, _ := strings.Cut(o, "=")
		value = strings.Trim(value, `"`)
		switch strings.ToLower(word) {
		case "namespaces":
			a.namespaces = strings.Split(value, ",")
		case "valid-after":
			a.after, err = parseTime(value)
		case "valid-before":
			a.before, err = parseTime(value)
		case "cert-authority":
			err = errors.New("certificates are not supported; list the keys themselves")
		default:
			err = fmt.Errorf("the option %q is not known", word)
		}
		if err != nil {
			return a, err
		}
	}
	return a, checkKey(key)
}

// parseTime reads YYYYMMDD[HHMM[SS]], with Z in UTC, else in local time.
func parseTime(s string) (time.Time, error) {
	zone, digits := time.Local, s
	if d, utc := strings.CutSuffix(s, "Z"); utc {
		zone, digits = time.UTC, d
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(layout) == len(digits) {
			if t, err := time.ParseInLocation(layout, digits, zone); err == nil {
				return t, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("the time %q is not YYYYMMDD[HHMM[SS]][Z]", s)
}

// checkKey refuses keys that prove too little.
func checkKey(key ssh.PublicKey) error {
	if key.Type() == "ssh-dss" {
		return fmt.Errorf("%w: DSA", ErrWeak)
	}
	if c, ok := key.(ssh.CryptoPublicKey); ok {
		if k, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok && k.N.BitLen() < minRSABits {
			return fmt.Errorf("%w: RSA with %d bits, at least %d are needed", ErrWeak, k.N.BitLen(), minRSABits)
		}
	}
	return nil
}

// sshBlob is the body of an SSHSIG.
type sshBlob struct {
	Magic     [6]byte
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

// sshSigned is what the key signs.
type sshSigned struct {
	Magic     [6]byte
	Namespace string
	Reserved  string
	Hash      string
	Digest    []byte
}

func decodeSSH(text string) (blob sshBlob, key ssh.PublicKey, sig ssh.Signature, err error) {
	fail := func(what string) (sshBlob, ssh.PublicKey, ssh.Signature, error) {
		return blob, nil, sig, fmt.Errorf("%w: %s", ErrMalformed, what)
	}
	inner, found := strings.CutSuffix(strings.TrimPrefix(text, sshBegin), sshEnd)
	if !found {
		return fail("it does not end")
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(inner), ""))
	if err != nil {
		return fail("it is not base64")
	}
	if err := ssh.Unmarshal(raw, &blob); err != nil || string(blob.Magic[:]) != sshMagic {
		return fail("it is no SSHSIG")
	}
	if blob.Version != 1 {
		return fail(fmt.Sprintf("SSHSIG version %d", blob.Version))
	}
	if key, err = ssh.ParsePublicKey(blob.PublicKey); err != nil {
		return fail("its public key is malformed")
	}
	if err := ssh.Unmarshal(blob.Signature, &sig); err != nil {
		return fail("its inner signature is malformed")
	}
	return blob, key, sig, nil
}

func (s *Set) verifySSH(payload []byte, text string, at, now time.Time) (string, error) {
	blob, key, sig, err := decodeSSH(text)
	if err != nil {
		return "", err
	}
	if blob.Namespace != sshNamespace {
		return "", fmt.Errorf("%w: its namespace is %q, not %q", ErrNamespace, blob.Namespace, sshNamespace)
	}
	mine := func(a allowed) bool { return bytes.Equal(a.key.Marshal(), key.Marshal()) }
	if !slices.ContainsFunc(s.ssh, mine) {
		return "", fmt.Errorf("%w: the key is %s", ErrUnknown, ssh.FingerprintSHA256(key))
	}
	if err := checkKey(key); err != nil {
		return "", err
	}
	var digest []byte
	switch blob.Hash {
	case "sha256":
		sum := sha256.Sum256(payload)
		digest = sum[:]
	case "sha512":
		sum := sha512.Sum512(payload)
		digest = sum[:]
	default:
		return "", fmt.Errorf("%w: the hash %q", ErrWeak, blob.Hash)
	}
	if sig.Format == ssh.KeyAlgoRSA { // SHA-1; PROTOCOL.sshsig forbids it
		return "", fmt.Errorf("%w: RSA with SHA-1", ErrWeak)
	}
	signed := ssh.Marshal(sshSigned{Magic: blob.Magic, Namespace: blob.Namespace, Reserved: blob.Reserved, Hash: blob.Hash, Digest: digest})
	if err := key.Verify(signed, &sig); err != nil {
		return "", ErrMismatch
	}
	// A key may stand on several lines; one that lets it sign is enough.
	for _, a := range s.ssh {
		if !mine(a) {
			continue
		}
		if err = a.allows(at, now); err == nil {
			return a.name, nil
		}
	}
	return "", err
}

// allows says why the line does not cover a signature of that time.
func (a allowed) allows(at, now time.Time) error {
	if len(a.namespaces) > 0 && !slices.ContainsFunc(a.namespaces, func(p string) bool {
		ok, _ := path.Match(p, sshNamespace)
		return ok
	}) {
		return fmt.Errorf("%w: the list lets %s sign for %s, not for git", ErrNamespace, a.name, strings.Join(a.namespaces, ", "))
	}
	if at.After(now.Add(skew)) {
		return fmt.Errorf("%w: it names a time to come, %s", ErrExpired, at.UTC().Format(time.RFC3339))
	}
	for _, t := range []time.Time{at, now} {
		if !a.after.IsZero() && t.Before(a.after) {
			return fmt.Errorf("%w: that of %s begins at %s", ErrExpired, a.name, a.after.UTC().Format(time.RFC3339))
		}
		if !a.before.IsZero() && !t.Before(a.before) {
			return fmt.Errorf("%w: that of %s ended at %s", ErrExpired, a.name, a.before.UTC().Format(time.RFC3339))
		}
	}
	return nil
}
