// Package webhook hears from a Git server that something was pushed. It
// understands GitHub (X-Hub-Signature-256), Gitea and Forgejo
// (X-Gitea-Signature) and GitLab (X-Gitlab-Token).
//
// A call can do one thing: ask for a fetch. What it says is not even parsed, so
// a stolen secret or a replayed call gains nobody anything but that the
// repository is looked at. Each call costs bounded memory, bytes and time, and
// their rate is bounded.
package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Path is where calls are taken.
const Path = "/v1/hooks/policy"

// MinSecretBytes is the least a secret may have.
const MinSecretBytes = 16

// Config bounds what calls may cost.
type Config struct {
	Secret    []byte // shared with the Git server, MinSecretBytes at least
	BodyBytes int64  // of one call
	PerSecond int    // calls taken, on average
	Burst     int    // calls taken at once
	AtOnce    int    // calls whose body is being read
}

// Defaults returns a Config with everything but Secret set.
func Defaults() Config {
	return Config{
		BodyBytes: 26 << 20, // GitHub sends up to 25 MB; a body is hashed as it comes and never held
		PerSecond: 5,
		Burst:     20, // an organisation that moves a repository calls for each branch
		AtOnce:    4,
	}
}

// Result is how a call ended.
type Result string

// The results.
const (
	Accepted     Result = "accepted"
	Unauthorized Result = "unauthorized" // no signature, or a wrong one
	TooLarge     Result = "too_large"
	TooMany      Result = "rate_limited"
	Broken       Result = "broken" // not a call at all: another method, a body that does not end
)

// Results lists them all.
var Results = []Result{Accepted, Unauthorized, TooLarge, TooMany, Broken}

// Handler takes the calls. Make one with New.
type Handler struct {
	cfg     Config
	trigger func()
	counts  map[Result]*atomic.Uint64
	reading chan struct{} // has room for AtOnce

	mu     sync.Mutex
	tokens float64   // guarded by mu
	filled time.Time // guarded by mu
}

// New returns a Handler that calls trigger for each call that is what it says.
// trigger must not block.
func New(cfg Config, trigger func()) (*Handler, error) {
	switch {
	case len(cfg.Secret) < MinSecretBytes:
		return nil, fmt.Errorf("the secret of the webhook has %d bytes, at least %d are needed", len(cfg.Secret), MinSecretBytes)
	case cfg.BodyBytes <= 0 || cfg.PerSecond <= 0 || cfg.Burst <= 0 || cfg.AtOnce <= 0:
		return nil, errors.New("a bound of the webhook is not above zero")
	}
	h := &Handler{cfg: cfg, trigger: trigger, counts: make(map[Result]*atomic.Uint64), reading: make(chan struct{}, cfg.AtOnce), tokens: float64(cfg.Burst)}
	for _, r := range Results {
		h.counts[r] = new(atomic.Uint64)
	}
	return h, nil
}

// Count returns how many calls ended so.
func (h *Handler) Count(r Result) uint64 { return h.counts[r].Load() }

// statuses say what the caller is told: no detail that would help to guess.
var statuses = map[Result]int{
	Accepted: http.StatusAccepted, Unauthorized: http.StatusUnauthorized, TooLarge: http.StatusRequestEntityTooLarge,
	TooMany: http.StatusTooManyRequests, Broken: http.StatusBadRequest,
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodPost {
		h.counts[Broken].Add(1)
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	result := h.take(w, r)
	h.counts[result].Add(1)
	if result == Accepted {
		h.trigger()
	}
	if result == TooMany {
		w.Header().Set("Retry-After", "1")
	}
	http.Error(w, http.StatusText(statuses[result]), statuses[result])
}

func (h *Handler) take(w http.ResponseWriter, r *http.Request) Result {
	if !h.admit(time.Now()) {
		return TooMany
	}
	if r.ContentLength > h.cfg.BodyBytes {
		return TooLarge
	}
	if got, ok := one(r.Header, "X-Gitlab-Token"); ok { // covers no body
		want, given := sha256.Sum256(h.cfg.Secret), sha256.Sum256([]byte(got))
		if subtle.ConstantTimeCompare(want[:], given[:]) == 1 {
			return Accepted
		}
		return Unauthorized
	}
	want, ok := signature(r.Header)
	if !ok {
		return Unauthorized
	}
	select {
	case h.reading <- struct{}{}:
		defer func() { <-h.reading }()
	default:
		return TooMany
	}
	mac := hmac.New(sha256.New, h.cfg.Secret)
	_, err := io.Copy(mac, http.MaxBytesReader(w, r.Body, h.cfg.BodyBytes))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return TooLarge
	case err != nil:
		return Broken
	case !hmac.Equal(mac.Sum(nil), want):
		return Unauthorized
	}
	return Accepted
}

// signature returns the HMAC that the call claims. GitHub's goes before
// Gitea's, which sends both.
func signature(header http.Header) (mac []byte, ok bool) {
	text, ok := one(header, "X-Hub-Signature-256")
	if ok {
		text, ok = strings.CutPrefix(text, "sha256=")
	} else {
		text, ok = one(header, "X-Gitea-Signature")
	}
	if !ok || len(text) != hex.EncodedLen(sha256.Size) {
		return nil, false
	}
	mac, err := hex.DecodeString(text)
	return mac, err == nil
}

// one returns a header that is there exactly once.
func one(header http.Header, name string) (string, bool) {
	v := header.Values(name)
	return strings.Join(v, ""), len(v) == 1
}

// admit takes a call off the rate.
func (h *Handler) admit(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.filled.IsZero() {
		h.tokens = min(float64(h.cfg.Burst), h.tokens+now.Sub(h.filled).Seconds()*float64(h.cfg.PerSecond))
	}
	h.filled = now
	if h.tokens < 1 {
		return false
	}
	h.tokens--
	return true
}
