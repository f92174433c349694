package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
)

// AdminToken is the secret that opens the admin API.
type AdminToken struct{ text string }

// LoadOrCreateAdminToken reads the token at path, or makes one there as
// LoadOrCreateKey does.
func LoadOrCreateAdminToken(path string) (AdminToken, error) {
	key, err := LoadOrCreateKey(path)
	if err != nil {
		return AdminToken{}, fmt.Errorf("admin token: %w", err)
	}
	return AdminToken{string(key)}, nil
}

// LoadAdminToken reads the token of a running server, for its clients.
func LoadAdminToken(path string) (AdminToken, error) {
	key, err := LoadKey(path)
	if err != nil {
		return AdminToken{}, fmt.Errorf("admin token: %w", err)
	}
	return AdminToken{string(key)}, nil
}

// Valid compares in a time that tells neither content nor length. The zero
// AdminToken accepts nothing.
func (t AdminToken) Valid(presented string) bool {
	want, got := sha256.Sum256([]byte(t.text)), sha256.Sum256([]byte(presented))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1 && t.text != ""
}

// Reveal returns the token itself, for an Authorization header.
func (t AdminToken) Reveal() string { return t.text }

// String keeps the token out of logs.
func (t AdminToken) String() string { return "[admin token]" }

// GoString keeps the token out of %#v.
func (t AdminToken) GoString() string { return t.String() }
