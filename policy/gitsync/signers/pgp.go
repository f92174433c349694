package signers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

const pgpBegin = "-----BEGIN PGP SIGNATURE-----"

func (s *Set) addPGP(r io.Reader, read func(io.Reader) (openpgp.EntityList, error)) error {
	list, err := read(r)
	if err != nil {
		return fmt.Errorf("read OpenPGP keys: %w", err)
	}
	for _, e := range list {
		if e.PrivateKey != nil {
			return errors.New("it holds a private key; list the public one")
		}
	}
	s.pgp = append(s.pgp, list...)
	return nil
}

// verifyPGP judges an OpenPGP signature. The library checks that the key may
// sign, is not revoked and has not ended, and the same of a subkey and its
// bindings.
func (s *Set) verifyPGP(payload []byte, text string, at, now time.Time) (string, error) {
	made, issuer, err := readPGP(text)
	if err != nil {
		return "", err
	}
	if made.After(now.Add(skew)) || at.After(now.Add(skew)) {
		return "", fmt.Errorf("%w: it names a time to come", ErrExpired)
	}
	if made.After(now) { // a clock ahead of ours by no more than skew
		now = made
	}
	if len(s.pgp.KeysById(issuer)) == 0 {
		return "", fmt.Errorf("%w: the OpenPGP key is %016X", ErrUnknown, issuer)
	}
	var signer *openpgp.Entity
	for _, t := range []time.Time{made, now} {
		signer, err = openpgp.CheckArmoredDetachedSignature(s.pgp, bytes.NewReader(payload), strings.NewReader(text),
			&packet.Config{Time: func() time.Time { return t }})
		if err != nil {
			return "", pgpCause(err, issuer)
		}
	}
	name := fmt.Sprintf("%016X", issuer)
	if id := signer.PrimaryIdentity(); id != nil {
		name = id.Name
	}
	return name, nil
}

// readPGP returns when and by which key the one signature in text was made.
func readPGP(text string) (made time.Time, issuer uint64, err error) {
	block, err := armor.Decode(strings.NewReader(text))
	if err != nil || block.Type != openpgp.SignatureType {
		return made, 0, fmt.Errorf("%w: it is no armored OpenPGP signature", ErrMalformed)
	}
	packets := packet.NewReader(block.Body)
	p, err := packets.Next()
	if err != nil {
		return made, 0, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	sig, ok := p.(*packet.Signature)
	if !ok || sig.IssuerKeyId == nil || sig.SigType != packet.SigTypeBinary {
		return made, 0, fmt.Errorf("%w: it is no signature of a document, or names no key", ErrMalformed)
	}
	if _, err := packets.Next(); !errors.Is(err, io.EOF) {
		return made, 0, fmt.Errorf("%w: it holds more than one signature", ErrMalformed)
	}
	return sig.CreationTime, *sig.IssuerKeyId, nil
}

// pgpCause turns the library's error into one of ours.
func pgpCause(err error, issuer uint64) error {
	var weak pgperrors.WeakAlgorithmError
	switch {
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		return fmt.Errorf("%w: the OpenPGP key %016X is listed, but may not sign", ErrUnknown, issuer)
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return fmt.Errorf("%w: the OpenPGP key is %016X", ErrRevoked, issuer)
	case errors.Is(err, pgperrors.ErrKeyExpired), errors.Is(err, pgperrors.ErrSignatureExpired), errors.Is(err, pgperrors.ErrSignatureOlderThanKey):
		return fmt.Errorf("%w: the OpenPGP key is %016X", ErrExpired, issuer)
	case errors.As(err, &weak):
		return fmt.Errorf("%w: %w", ErrWeak, err)
	}
	var bad pgperrors.SignatureError
	if errors.As(err, &bad) {
		return ErrMismatch
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}
