package plugins

import (
	"crypto/sha256"
	"encoding/hex"
)

// Version returns the version the manifest gives, for people.
func (p *Plugin) Version() string { return p.manifest.Version }

// ConfigDigest returns the SHA-256 of the configuration the guest was given, in
// hex, or "" where it was given none.
func (p *Plugin) ConfigDigest() string { return p.configDigest }

// digestOf is the SHA-256 of a module's file, in hex.
func digestOf(file []byte) string {
	sum := sha256.Sum256(file)
	return hex.EncodeToString(sum[:])
}

func digestConfig(config []byte) string {
	if config == nil {
		return ""
	}
	sum := sha256.Sum256(config)
	return hex.EncodeToString(sum[:])
}
