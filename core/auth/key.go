package auth

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"parley/core/atomicfile"
)

const (
	// MinKeyBytes is the least a secret has (RFC 7518 section 3.2: as long as the hash).
	MinKeyBytes = 32
	maxKeyFile  = 4 << 10 // an Ed25519 PEM has 113 bytes
)

// LoadOrCreateKey reads the secret at path, or makes one there: 32 random
// bytes in base64url on one line, readable by the owner only, written and
// synced under another name first, so that a crash leaves no half key and two
// processes starting together agree on one. The folder is created when
// missing. The key is the file's content without trailing line breaks and has
// at least 32 bytes.
func LoadOrCreateKey(path string) ([]byte, error) {
	key, err := LoadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	secret := make([]byte, 32)
	rand.Read(secret) // never fails, see crypto/rand
	text := base64.RawURLEncoding.EncodeToString(secret) + "\n"
	err = os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = atomicfile.Create(path, []byte(text), 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create key %s: %w", path, err)
	}
	return LoadKey(path)
}

// LoadKey reads a secret as LoadOrCreateKey does, but never makes one.
func LoadKey(path string) ([]byte, error) {
	data, err := atomicfile.Read(path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key := bytes.TrimRight(data, "\r\n")
	if len(key) < MinKeyBytes {
		return nil, fmt.Errorf("key %s has %d bytes, at least %d are needed", path, len(key), MinKeyBytes)
	}
	return key, nil
}

// LoadPublicKey reads an Ed25519 public key in PEM ("PUBLIC KEY", RFC 8410).
func LoadPublicKey(path string) (ed25519.PublicKey, error) {
	data, err := atomicfile.Read(path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("key %s holds no PEM block", path)
	}
	if block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("key %s holds a %q, want a \"PUBLIC KEY\"", path, block.Type)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse key %s: %w", path, err)
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("key %s is of type %T, want Ed25519", path, parsed)
	}
	return key, nil
}
