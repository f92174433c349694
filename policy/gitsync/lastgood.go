package gitsync

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"parley/core/atomicfile"
	"parley/policy"
)

// lastGoodName is the file in StateDir that holds the last good policy.
const lastGoodName = "policy-last-good.json"

// maxLastGoodBytes bounds that file: policy.MaxBytes and a parcel in base64,
// with room.
const maxLastGoodBytes = 2*policy.MaxBytes + 2*MaxParcelBytes + 1<<20

// lastGood is the file's content. One file, so that it is there wholly or not
// at all.
type lastGood struct {
	Format   int    `json:"format"` // 1
	Identity string `json:"identity"`
	Commit   string `json:"commit"`
	// Since what follows came later, files without it are read too.
	CommittedAt time.Time `json:"committed_at,omitzero"`
	SignedBy    string    `json:"signed_by,omitempty"`
	Followed    string    `json:"followed,omitempty"` // commit last taken from the ref; differs under a pin
	Pin         *Pin      `json:"pin,omitempty"`
	Parcel      *Parcel   `json:"parcel,omitempty"` // where nodes share revisions
	Untold      bool      `json:"untold,omitempty"` // the pin, or its end, is an operator's word that no other node has heard

	SavedAt time.Time    `json:"saved_at"`
	Files   policy.Files `json:"files"`  // contents in base64
	Digest  string       `json:"digest"` // SHA-256 of this document with an empty digest
}

func (g lastGood) digest() (string, error) {
	g.Digest = ""
	b, err := json.Marshal(g)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// save writes the last good policy so that a crash at any moment leaves the
// old file or the new one.
func save(dir string, g lastGood) (err error) {
	if g.Digest, err = g.digest(); err != nil {
		return fmt.Errorf("encode last good policy: %w", err)
	}
	b, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("encode last good policy: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save last good policy: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, lastGoodName), b, 0o600); err != nil {
		return fmt.Errorf("save last good policy: %w", err)
	}
	return nil
}

// load returns the last good policy of what c follows; fs.ErrNotExist when
// there is none.
func (c Config) load() (*lastGood, error) {
	name := filepath.Join(c.StateDir, lastGoodName)
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("load last good policy: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxLastGoodBytes+1))
	if err != nil {
		return nil, fmt.Errorf("load last good policy: %w", err)
	}
	g, err := decodeLastGood(b)
	if err != nil {
		return nil, fmt.Errorf("load last good policy %s: %w", name, err)
	}
	if g.Identity != c.identity() {
		return nil, fmt.Errorf("load last good policy %s: it belongs to another repository, ref or path: %w", name, fs.ErrNotExist)
	}
	return g, nil
}

func decodeLastGood(b []byte) (*lastGood, error) {
	if len(b) > maxLastGoodBytes {
		return nil, fmt.Errorf("it has more than %d bytes", maxLastGoodBytes)
	}
	var g lastGood
	if err := json.Unmarshal(b, &g); err != nil {
		return nil, err
	}
	if g.Format != 1 {
		return nil, fmt.Errorf("it has format %d, this version reads 1", g.Format)
	}
	if g.Pin != nil && !plumbing.IsHash(g.Pin.Revision) {
		return nil, errors.New("it is pinned to what is no commit")
	}
	want, err := g.digest()
	if err != nil {
		return nil, err
	}
	if g.Digest != want {
		return nil, errors.New("its digest does not match: the file is damaged")
	}
	return &g, g.Files.Check()
}
