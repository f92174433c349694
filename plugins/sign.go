package plugins

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"parley/plugins/wasmbin"
)

// Signature is an ed25519 signature (RFC 8032) over a module and its manifest,
// with the public key it was made for.
type Signature struct {
	Key   ed25519.PublicKey // 32 bytes
	Value []byte            // 64 bytes
}

// What is wrong with a signature. Errors of Verify wrap one of them.
var (
	ErrUnsigned  = errors.New("it is not signed")
	ErrUntrusted = errors.New("its signer is not trusted")
	ErrSignature = errors.New("its signature is wrong")
)

const (
	// signatureDomain keeps a signature from meaning anything elsewhere.
	signatureDomain = "parley plugin signature 1\n"
	// manifestSection is the custom section that may hold the manifest.
	manifestSection = "parley.manifest"
)

// ModuleDigest returns the SHA-256 that a manifest's sha256 names and a
// signature covers: of the file or, if the manifest lies within it, of the
// file without that section, which could not name its own digest.
func ModuleDigest(file []byte) [sha256.Size]byte {
	_, rest, err := wasmbin.Custom(file, manifestSection)
	if err != nil { // not a module: Load says so
		return sha256.Sum256(file)
	}
	return sha256.Sum256(rest)
}

// signedBytes is what a signature covers: the domain, the digest of the module
// and the digest of the canonical manifest without its signature.
func signedBytes(m Manifest, file []byte) []byte {
	m.Signature = nil
	module, manifest := ModuleDigest(file), sha256.Sum256(m.JSON())
	return slices.Concat([]byte(signatureDomain), module[:], manifest[:])
}

// Sign returns m with the module's digest and a signature by key.
func Sign(m Manifest, file []byte, key ed25519.PrivateKey) Manifest {
	digest := ModuleDigest(file)
	m.SHA256 = hex.EncodeToString(digest[:])
	m.Signature = nil
	value := ed25519.Sign(key, signedBytes(m, file))
	m.Signature = &Signature{Key: key.Public().(ed25519.PublicKey), Value: value}
	return m
}

// Verify checks that one of trusted signed this manifest for this module. The
// error wraps ErrUnsigned, ErrSignature or ErrUntrusted, and in the last case
// names the key.
func Verify(m Manifest, file []byte, trusted []ed25519.PublicKey) error {
	switch s := m.Signature; {
	case s == nil:
		return ErrUnsigned
	case !ed25519.Verify(s.Key, signedBytes(m, file), s.Value):
		return fmt.Errorf("%w: module or manifest changed after it was signed", ErrSignature)
	case !slices.ContainsFunc(trusted, func(k ed25519.PublicKey) bool { return bytes.Equal(k, s.Key) }):
		return fmt.Errorf("%w: key %s is not in plugins.trusted_keys", ErrUntrusted, base64.StdEncoding.EncodeToString(s.Key))
	}
	return nil
}

// ParseKey decodes a public key as plugins.trusted_keys holds it: 32 bytes in
// base64.
func ParseKey(s string) (ed25519.PublicKey, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%q is not a public key: want %d bytes in base64", s, ed25519.PublicKeySize)
	}
	return b, nil
}

// verify applies the configuration: a wrong signature always refuses, a
// missing or unknown one where signatures are required.
func (c *Config) verify(m Manifest, file []byte) error {
	err := Verify(m, file, c.TrustedKeys)
	if err == nil || !c.RequireSignature && !errors.Is(err, ErrSignature) {
		return nil
	}
	if errors.Is(err, ErrUnsigned) {
		return fmt.Errorf("%w, and plugins.require_signature is on: sign it with `platform plugin sign`", err)
	}
	return err
}

// signatureState says in a word how a manifest is signed, and by whom.
func signatureState(m Manifest, file []byte, trusted []ed25519.PublicKey) (state, signer string) {
	if m.Signature == nil {
		return "none", ""
	}
	signer = base64.StdEncoding.EncodeToString(m.Signature.Key)
	switch err := Verify(m, file, trusted); {
	case err == nil:
		return "trusted", signer
	case errors.Is(err, ErrUntrusted):
		return "untrusted", signer
	}
	return "wrong", signer
}
