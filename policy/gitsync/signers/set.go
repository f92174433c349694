package signers

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"

	"parley/core/atomicfile"
)

// Bounds of what an operator may list and of what a repository may send.
const (
	maxFileBytes      = 1 << 20  // of one file of signers
	maxSignatureBytes = 64 << 10 // an OpenPGP signature by a long RSA key has 1 KiB
)

// skew is how far the clock of whoever signs may be ahead of ours.
const skew = 10 * time.Minute

// Why a signature does not count. Each is the cause alone; the caller names the
// object.
var (
	ErrUnsigned  = errors.New("it is not signed")
	ErrUnknown   = errors.New("its signer is not among policy.git.signers")
	ErrRevoked   = errors.New("the key that signed it is revoked")
	ErrExpired   = errors.New("the key that signed it is not valid at this time")
	ErrMismatch  = errors.New("its signature was made over something else")
	ErrNamespace = errors.New("its signature was made for another purpose")
	ErrMalformed = errors.New("its signature cannot be read")
	ErrWeak      = errors.New("its signature uses an algorithm that is not accepted")
)

// Set is those whose signatures count. Make one with Load.
type Set struct {
	ssh    []allowed
	pgp    openpgp.EntityList
	digest string
}

// Load reads files that hold either lines of OpenSSH's allowed_signers format
// or OpenPGP public keys, armored or not.
func Load(paths ...string) (*Set, error) {
	s := &Set{}
	sum := sha256.New()
	for _, path := range paths {
		b, err := atomicfile.Read(path, maxFileBytes)
		if err != nil {
			return nil, fmt.Errorf("read policy.git.signers: %w", err)
		}
		if err := s.add(b); err != nil {
			return nil, fmt.Errorf("read policy.git.signers %s: %w", path, err)
		}
		fmt.Fprintf(sum, "%d ", len(b))
		sum.Write(b)
	}
	if len(s.ssh)+len(s.pgp) == 0 {
		return nil, fmt.Errorf("read policy.git.signers %s: there is no key in them", strings.Join(paths, ", "))
	}
	s.digest = hex.EncodeToString(sum.Sum(nil))
	return s, nil
}

const keyBegin = "-----BEGIN PGP PUBLIC KEY BLOCK-----"

func (s *Set) add(b []byte) error {
	armored := bytes.Contains(b, []byte(keyBegin))
	switch {
	case bytes.Contains(b, []byte("PRIVATE KEY")):
		return errors.New("it holds a private key; list the public one")
	case armored: // any number of blocks, with whatever stands around them
		for _, block := range bytes.Split(b, []byte(keyBegin))[1:] {
			if err := s.addPGP(io.MultiReader(strings.NewReader(keyBegin), bytes.NewReader(block)), openpgp.ReadArmoredKeyRing); err != nil {
				return err
			}
		}
		return nil
	case len(b) > 0 && b[0]&0x80 != 0: // every OpenPGP packet begins so (RFC 9580, 4.2), no text does
		return s.addPGP(bytes.NewReader(b), openpgp.ReadKeyRing)
	}
	list, err := parseAllowed(b)
	s.ssh = append(s.ssh, list...)
	return err
}

// Digest names the content: equal files have equal digests.
func (s *Set) Digest() string { return s.digest }

// Verify says who signed payload: the cause as an error when nobody did whose
// signature counts. at is the time the signed object itself names.
func (s *Set) Verify(payload []byte, signature string, at, now time.Time) (by string, err error) {
	text := strings.TrimSpace(signature)
	switch {
	case text == "":
		return "", ErrUnsigned
	case len(text) > maxSignatureBytes:
		return "", fmt.Errorf("%w: it has more than %d bytes", ErrMalformed, maxSignatureBytes)
	case strings.HasPrefix(text, sshBegin):
		return s.verifySSH(payload, text, at, now)
	case strings.HasPrefix(text, pgpBegin):
		return s.verifyPGP(payload, text, at, now)
	}
	return "", fmt.Errorf("%w: it is neither SSH's nor OpenPGP's; X.509 is not supported", ErrMalformed)
}
