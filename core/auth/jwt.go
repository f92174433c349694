package auth

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"parley/core/chat"
)

// The signature algorithms (RFC 7518 section 3.1, RFC 8037 section 3.1).
const (
	HS256 = "HS256"
	EdDSA = "EdDSA"
)

const (
	// MaxTokenBytes bounds a token before anything looks into it; one with
	// every role used has about 1 KiB.
	MaxTokenBytes = 8 << 10
	// Leeway is the clock difference to the issuer that is forgiven.
	Leeway = 30 * time.Second
)

// Config says which tokens are good.
type Config struct {
	Algorithm string // HS256, EdDSA, or "": every token is refused
	KeyFile   string // the secret for HS256, a PEM public key for EdDSA
	CreateKey bool   // HS256: make KeyFile when it does not exist
	Audience  string // demanded in aud; "" = not checked
	Issuer    string // demanded in iss; "" = not checked
}

// Verifier checks tokens. It is immutable.
type Verifier struct {
	parser *jwt.Parser
	key    any // []byte or ed25519.PublicKey; nil: tokens are off
}

// NewVerifier reads the key and returns a Verifier.
func NewVerifier(cfg Config) (*Verifier, error) {
	v := &Verifier{}
	var err error
	switch {
	case cfg.Algorithm == "":
		return v, nil
	case cfg.Algorithm == HS256 && cfg.CreateKey:
		v.key, err = LoadOrCreateKey(cfg.KeyFile)
	case cfg.Algorithm == HS256:
		v.key, err = LoadKey(cfg.KeyFile)
	case cfg.Algorithm == EdDSA:
		v.key, err = LoadPublicKey(cfg.KeyFile)
	default:
		return nil, fmt.Errorf("token algorithm %q is not one of HS256, EdDSA", cfg.Algorithm)
	}
	if err != nil {
		return nil, err
	}
	opts := []jwt.ParserOption{
		jwt.WithValidMethods([]string{cfg.Algorithm}), // never what the token asks for: RFC 8725 section 3.1
		jwt.WithExpirationRequired(),
		jwt.WithLeeway(Leeway),
		jwt.WithStrictDecoding(),
	}
	if cfg.Audience != "" {
		opts = append(opts, jwt.WithAudience(cfg.Audience))
	}
	if cfg.Issuer != "" {
		opts = append(opts, jwt.WithIssuer(cfg.Issuer))
	}
	v.parser = jwt.NewParser(opts...)
	return v, nil
}

// claims are the parts of a token that Parley reads.
type claims struct {
	jwt.RegisteredClaims
	Roles []string `json:"roles,omitempty"`
}

// maxExpiry bounds exp to what time.Time and JSON carry without surprises.
var maxExpiry = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// Verify returns whom the token speaks for. Any error is a *chat.Error with
// code unauthorized; what exactly is wrong is told only to bearers of a token
// with a good signature.
func (v *Verifier) Verify(token string) (chat.Identity, error) {
	if v.key == nil {
		return refuse(nil, "this server takes no tokens; connect as a guest")
	}
	if len(token) > MaxTokenBytes {
		return refuse(nil, "the token is longer than %d bytes", MaxTokenBytes)
	}
	var c claims
	parsed, err := v.parser.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return v.key, nil })
	if err != nil {
		return refuse(err, "%s", sentence(err))
	}
	if _, critical := parsed.Header["crit"]; critical {
		// RFC 7515 section 4.1.11: what is critical and unknown is refused
		return refuse(nil, "the token uses an extension that this server does not know")
	}
	return identity(c)
}

// identity checks the claims of a token whose signature is good.
func identity(c claims) (chat.Identity, error) {
	user := chat.UserID(c.Subject)
	if !chat.ValidUser(user) {
		return refuse(nil, "the token's subject is not a valid user name")
	}
	if c.ExpiresAt.After(maxExpiry) {
		return refuse(nil, "the token's end is too far away")
	}
	if len(c.Roles) > chat.MaxRoles {
		return refuse(nil, "the token names %d roles, at most %d are allowed", len(c.Roles), chat.MaxRoles)
	}
	for _, role := range c.Roles {
		if !chat.ValidRole(role) {
			return refuse(nil, "the token names a malformed role")
		}
	}
	roles := slices.Clone(c.Roles)
	slices.Sort(roles)
	return chat.Identity{
		User:    user,
		Class:   chat.ClassUser,
		Roles:   slices.Compact(roles),
		Expires: c.ExpiresAt.Time,
	}, nil
}

// sentence turns the library's error into one for the bearer.
func sentence(err error) string {
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return "the token has expired; get a new one and connect again"
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return "the token is not valid yet; check the clocks"
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return "the token is meant for another service (aud)"
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return "the token comes from an issuer that is not accepted (iss)"
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return "the token lacks a claim it must have (exp, and aud and iss where they are checked)"
	}
	return "the token is not valid here"
}

// refuse builds the error of Verify. The cause goes to the log; golang-jwt's
// errors name claims and algorithms, never the token itself.
func refuse(cause error, format string, args ...any) (chat.Identity, error) {
	e := chat.Errorf(chat.CodeUnauthorized, format, args...)
	e.Cause = cause
	return chat.Identity{}, e
}

// Claims are what Sign puts into a token.
type Claims struct {
	User     chat.UserID
	Roles    []string
	Audience string        // "" = none
	Issuer   string        // "" = none
	TTL      time.Duration // from now to exp
}

// Sign makes a HS256 token with key, as LoadKey returns it. It is meant for
// development and tests; production tokens come from an identity provider.
func Sign(key []byte, c Claims) (string, error) {
	if len(key) < MinKeyBytes {
		return "", fmt.Errorf("sign token: the key has %d bytes, at least %d are needed", len(key), MinKeyBytes)
	}
	if c.TTL <= 0 {
		return "", fmt.Errorf("sign token: a lifetime of %v has already ended", c.TTL)
	}
	now := time.Now()
	t := claims{Roles: c.Roles, RegisteredClaims: jwt.RegisteredClaims{
		Subject:   string(c.User),
		Issuer:    c.Issuer,
		IssuedAt:  jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(c.TTL)),
	}}
	if c.Audience != "" {
		t.Audience = jwt.ClaimStrings{c.Audience}
	}
	if _, err := identity(t); err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, t).SignedString(key)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return text, nil
}
