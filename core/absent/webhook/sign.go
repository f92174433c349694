package webhook

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"parley/core/absent"
)

// The headers of the Standard Webhooks specification, version 1.0.0.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

// Secret is a key that deliveries are signed with.
type Secret []byte

// Bounds of a secret in bytes, and of a file of secrets.
const (
	minSecret      = 24
	maxSecret      = 64
	maxSecrets     = 4
	maxSecretsFile = 4096
	secretPrefix   = "whsec_"
)

// ReadSecrets reads a file with a secret on each line, "whsec_" and the base64
// of 24 to 64 bytes. Deliveries are signed with each of them, so a receiver may
// change from one to the next.
func ReadSecrets(file string) ([]Secret, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the secrets of the webhook: %w", err)
	}
	secrets, err := ParseSecrets(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return secrets, nil
}

// ParseSecrets reads the content of such a file. Its errors hold no part of it.
func ParseSecrets(b []byte) ([]Secret, error) {
	if len(b) > maxSecretsFile {
		return nil, fmt.Errorf("the file has more than %d bytes; it should hold a secret on each line", maxSecretsFile)
	}
	var secrets []Secret
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		text, ok := strings.CutPrefix(line, secretPrefix)
		if !ok {
			return nil, fmt.Errorf("line %d does not begin with %s", i+1, secretPrefix)
		}
		key, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: what follows %s is not base64", i+1, secretPrefix)
		}
		if len(key) < minSecret || len(key) > maxSecret {
			return nil, fmt.Errorf("line %d has a key of %d bytes, want %d to %d", i+1, len(key), minSecret, maxSecret)
		}
		if secrets = append(secrets, key); len(secrets) > maxSecrets {
			return nil, fmt.Errorf("there are more than %d secrets", maxSecrets)
		}
	}
	if len(secrets) == 0 {
		return nil, errors.New("there is no secret; `echo whsec_$(openssl rand -base64 32)` makes one")
	}
	return secrets, nil
}

// Sign returns the value of HeaderSignature: a signature by each secret, over
// the id, the Unix time in seconds and the body.
func Sign(secrets []Secret, id string, at time.Time, body []byte) string {
	signed := fmt.Appendf(nil, "%s.%d.", id, at.Unix())
	signed = append(signed, body...)
	var all []string
	for _, s := range secrets {
		mac := hmac.New(sha256.New, s)
		mac.Write(signed)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(all, " ")
}

// Tolerance is how far a delivery's time may be from the receiver's for Verify.
const Tolerance = 5 * time.Minute

// Verify checks a delivery as a receiver should: the headers and the body as they
// came. It is what the tests and `platform worker` documentation rely on.
func Verify(secret Secret, id, timestamp, signature string, body []byte, now time.Time) error {
	sec, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return errors.New("the timestamp is no number")
	}
	at := time.Unix(sec, 0)
	if d := now.Sub(at); d > Tolerance || d < -Tolerance {
		return fmt.Errorf("the timestamp is off by %s", d)
	}
	want := Sign([]Secret{secret}, id, at, body)
	for _, s := range strings.Fields(signature) {
		if hmac.Equal([]byte(s), []byte(want)) {
			return nil
		}
	}
	return errors.New("no signature matches")
}

// payload is the body of a delivery.
type payload struct {
	Type      string       `json:"type"`      // "message.mention" or "message.direct"
	Timestamp string       `json:"timestamp"` // when the message was said, RFC 3339
	Data      absent.Entry `json:"data"`
}

// body makes the body of a delivery. It is the same each time.
func body(e *absent.Entry) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(payload{Type: "message." + string(e.Kind), Timestamp: time.UnixMilli(e.Time).UTC().Format(time.RFC3339Nano), Data: *e})
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
