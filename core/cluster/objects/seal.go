package objects

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"time"

	"parley/core/atomicfile"
)

// Bounds of a secret.
const (
	minSecret    = 32 // bytes: 256 bits in hexadecimal are 64
	maxSecrets   = 8
	maxSecretRow = 4 << 10
)

// ReadSecrets reads a file with the secrets that heads are sealed with, one a
// line: the first seals, each of them opens. Empty lines do not count.
func ReadSecrets(path string) (secrets [][]byte, err error) {
	b, err := atomicfile.Read(path, maxSecrets*maxSecretRow)
	if err != nil {
		return nil, fmt.Errorf("read the secret of the nodes: %w", err)
	}
	for line := range bytes.Lines(b) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			secrets = append(secrets, line)
		}
	}
	if len(secrets) == 0 {
		return nil, fmt.Errorf("read the secret of the nodes: %s is empty; `openssl rand -hex 32` makes one", path)
	}
	if err := checkSecrets(secrets); err != nil {
		return nil, fmt.Errorf("read the secret of the nodes: %s: %w", path, err)
	}
	return secrets, nil
}

func checkSecrets(secrets [][]byte) error {
	if len(secrets) > maxSecrets {
		return fmt.Errorf("it has %d secrets, at most %d are taken", len(secrets), maxSecrets)
	}
	for i, s := range secrets {
		if len(s) < minSecret || len(s) > maxSecretRow {
			return fmt.Errorf("secret %d has %d bytes, want %d to %d; `openssl rand -hex 32` makes one", i+1, len(s), minSecret, maxSecretRow)
		}
	}
	return nil
}

// Errors of a head that is not to be believed. Each is an ErrBadHead as well.
var (
	// ErrUnsealed says that who wrote the head does not have the secret.
	ErrUnsealed = errors.New("it is not sealed: whoever wrote it does not have the cluster.secret_file of this node")
	// ErrSeal says that the seal is not one of this node's secrets over this head.
	ErrSeal = errors.New("its seal does not fit: it was changed, or whoever wrote it has another cluster.secret_file")
	// ErrStale says that the head was sealed before one that this node has seen.
	ErrStale = errors.New("it is older than one that this node has seen: somebody put it back, or Redis has lost the newer one")
	// ErrNoSecret says that this node cannot change a head that the others seal.
	ErrNoSecret = errors.New("the other nodes seal what they share, and this node has no cluster.secret_file")
)

// sealMark begins the last line of a sealed head. No JSON value ends in a line
// that begins so.
const sealMark = "hmac-sha256:"

// cutSeal splits the stored form of a head into what is sealed and the seal, ""
// where there is none.
func cutSeal(text string) (body, seal string) {
	if i := strings.LastIndexByte(text, '\n'); i >= 0 && strings.HasPrefix(text[i+1:], sealMark) {
		return text[:i], text[i+1+len(sealMark):]
	}
	return text, ""
}

// seal is the seal of a head's stored form. It covers the version, so that an
// older head is not taken for a newer one, and where the head belongs.
func (s *Store) seal(secret []byte, name, body string) []byte {
	m := hmac.New(sha256.New, secret)
	for _, part := range []string{"parley head 1", s.prefix, name, body} {
		fmt.Fprintf(m, "%d:", len(part))
		m.Write([]byte(part))
	}
	return m.Sum(nil)
}

func (s *Store) sealed() bool { return len(s.cfg.Secrets) > 0 }

// judge reads a head's stored form, and says why it is not to be believed.
func (s *Store) judge(name, text string) (Head, error) {
	h, err := decodeHead(name, text)
	h.bad = err
	if text == "" || !s.sealed() {
		return h, err
	}
	why := s.opens(name, text)
	if why == nil && err != nil {
		return h, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := s.newest[name]
	if why == nil && h.Version < newest.Version {
		why = ErrStale
	}
	if why == nil {
		if h.Version > newest.Version {
			s.newest[name], s.texts[name], s.unsaved = h, text, true
		}
		delete(s.refused, name)
		return h, nil
	}
	if s.refused[name] != text { // each once, however often it is read
		s.refused[name] = text
		switch why {
		case ErrUnsealed:
			s.unsealed.Add(1)
		case ErrSeal:
			s.wrong.Add(1)
		case ErrStale:
			s.stale.Add(1)
		}
	}
	h = Head{Name: name, Version: h.Version, bad: fmt.Errorf("%w: %s: %w", ErrBadHead, name, why)}
	return h, h.bad
}

// opens checks the seal of a head's stored form.
func (s *Store) opens(name, text string) error {
	body, said := cutSeal(text)
	if said == "" {
		return ErrUnsealed
	}
	mac, err := hex.DecodeString(said)
	if err != nil {
		return ErrSeal
	}
	for _, secret := range s.cfg.Secrets {
		if hmac.Equal(mac, s.seal(secret, name, body)) {
			return nil
		}
	}
	return ErrSeal
}

// next is the version that a head is sealed with: above each that this node has
// seen, and so above each that was there, whoever has written what is there now.
func (s *Store) next(name string) Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.newest[name].Version+1, Version(time.Now().UnixMicro()))
}

// Last returns the newest head of that name that this node has seen sealed, for
// who can write anew what it names.
func (s *Store) Last(name string) (Head, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.newest[name]
	return h, ok
}

// untrusted reports whether the error says that a head can be read, and is not to
// be believed.
func untrusted(err error) bool {
	return errors.Is(err, ErrUnsealed) || errors.Is(err, ErrSeal) || errors.Is(err, ErrStale)
}

// rememberedMost bounds the file of what this node has seen.
const rememberedMost = maxHeads*maxHeadBytes + 1<<20

// remembered is what the file holds: stored forms of heads, which prove
// themselves by their seals.
type remembered struct {
	Format int               `json:"format"` // 1
	Heads  map[string]string `json:"heads"`
}

// recall reads what this node had seen before its start.
func (s *Store) recall() {
	if !s.sealed() || s.cfg.StateFile == "" {
		return
	}
	b, err := atomicfile.Read(s.cfg.StateFile, rememberedMost)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var r remembered
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && (r.Format != 1 || len(r.Heads) > maxHeads) {
		err = fmt.Errorf("it has format %d and %d heads, want 1 and at most %d", r.Format, len(r.Heads), maxHeads)
	}
	if err != nil {
		s.log.Error("what this node remembers of what the nodes share cannot be read; what it sees first counts", "file", s.cfg.StateFile, "error", err)
		return
	}
	for name, text := range r.Heads {
		h, err := decodeHead(name, text)
		if err == nil {
			err = s.opens(name, text)
		}
		if err != nil { // another secret now, or another installation
			s.log.Warn("what this node remembers of what the nodes share does not count any more", "head", name, "why", err)
			continue
		}
		s.newest[name], s.texts[name] = h, text
	}
}

// remember writes what this node has seen, where that is news. What could not be
// written is written with the next look.
func (s *Store) remember() {
	s.mu.Lock()
	news := s.unsaved && s.cfg.StateFile != ""
	var texts map[string]string
	if news {
		texts = maps.Clone(s.texts)
	}
	s.unsaved = false
	s.mu.Unlock()
	if !news {
		return
	}
	b, err := json.Marshal(remembered{Format: 1, Heads: texts})
	if err == nil {
		err = atomicfile.Write(s.cfg.StateFile, append(b, '\n'), 0o600)
	}
	if err != nil && !s.unwritten {
		s.log.Error("what the nodes share cannot be remembered; after a restart this node may take an older state for the present one", "error", err)
	}
	if s.unwritten = err != nil; s.unwritten {
		s.mu.Lock()
		s.unsaved = true
		s.mu.Unlock()
	}
}
